"""Reads files, and writes files of batch runs and streams, with their dead letters."""
