"""Reads TFRecord files as records that nobody looks into: each is a row with one column, `record`.

For models that take serialized messages, of whatever type: tf.Examples, tf.SequenceExamples, others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipelines.formats.base import ReadSpec
from pipelines.formats.content import CONTENT
from pipelines.formats.tfrecord.reader import TFRecordReader

_COLUMN = CONTENT["tfrecord_raw"]


class RawRecordReader(TFRecordReader):
    """Reads the records of TFRecord files, plain or gzip, as bytes."""

    libraries = ()

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self.record_column = _COLUMN

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the one column; none if the file is empty. Raises FormatError."""
        return pa.schema([(_COLUMN, pa.binary())] if cls._head(file) else [])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        return pa.record_batch({_COLUMN: pa.array(cls._head(file)[:rows], pa.binary())})
