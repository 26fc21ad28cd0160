"""Reads and writes Parquet, by row groups."""
