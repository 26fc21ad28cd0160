"""Reads ORC, in processes of its own."""
