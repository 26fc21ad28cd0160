"""Encodes (Origin, record batch) pairs between Beam's steps."""

from __future__ import annotations

import pickle
from typing import Any, cast

import pyarrow as pa
from apache_beam.coders import Coder, registry

import inference.coders  # noqa: F401 - registers the coder of record batches
from pipelines.rows.origin import Origin

Rows = tuple[Origin, pa.RecordBatch]
"""Element type of the flow."""


class OriginCoder(Coder):  # type: ignore[misc]  # Beam's classes are untyped
    """Origins, pickled as Beam itself would, between the workers of one run; never weighed by doing so."""

    def encode(self, value: Origin) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Origin:
        return cast(Origin, pickle.loads(encoded))

    def estimate_size(self, value: Origin) -> int:
        return value.nbytes

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> Any:
        return Origin


registry.register_coder(Origin, OriginCoder)
