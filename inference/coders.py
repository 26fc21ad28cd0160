"""Encodes record batches between Beam's steps: as Arrow IPC, and not at all where that need not be.

Beam weighs elements by encoding some of them, the first ones of every step in particular. For a batch of many
megabytes that costs more than the step; `estimate_size` tells the size without encoding.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import Coder, registry
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type


class RecordBatchCoder(Coder):  # type: ignore[misc]  # Beam's classes are untyped
    """Encodes record batches as an Arrow IPC stream of one batch."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as stream:
            stream.write_batch(value)
        return bytes(sink.getvalue())

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        with pa.ipc.open_stream(encoded) as stream:
            return stream.read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        return int(value.nbytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> Any:
        return pa.RecordBatch


def typed(pcoll: beam.PCollection, type: Any) -> beam.PCollection:
    """Declares what a PCollection holds, where Beam cannot infer it, so that the type's coder is used."""
    pcoll.element_type = convert_to_beam_type(type)
    return pcoll


registry.register_coder(pa.RecordBatch, RecordBatchCoder)
