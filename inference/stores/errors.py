"""Defines the error that says on one line what a store refused, and what to do."""

from __future__ import annotations


class StoreError(OSError):
    """Raised when a store refuses a request, does not answer, or cannot be used here. Its message is one line."""
