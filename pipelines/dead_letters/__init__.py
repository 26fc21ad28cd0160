"""Writes rows that could not be processed to a place from which they can be run again, and limits their number."""
