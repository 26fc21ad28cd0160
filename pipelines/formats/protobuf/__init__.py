"""Reads messages of protobuf, in columns."""
