"""Holds what sinks share: columns to write, rows that are refused, messages."""
