"""Reads and writes Avro: files by blocks, and single messages."""
