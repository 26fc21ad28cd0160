"""Gives transforms for pipelines of one's own: files to Arrow record batches, and record batches to files."""

from __future__ import annotations

from pipelines.io.read import ReadRecordBatches
from pipelines.io.write import WriteRecordBatches
from pipelines.rows.origin import DeadLetter

__all__ = ["DeadLetter", "ReadRecordBatches", "WriteRecordBatches"]
