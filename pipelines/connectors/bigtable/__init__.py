"""Writes rows of a stream to Bigtable."""
