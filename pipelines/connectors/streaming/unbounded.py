"""Does what the sources of streams have in common: how far they got as a few bytes, and reading them.

A reader forms the micro-batches itself: time-based batching behind a source costs a shuffle and state.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedSource

from inference.coders import typed
from pipelines.rows.messages import Messages

LINGER_S = 0.05
IDLE_LINGER_S = 1.0
IDLE_LINGER_MOST_S = 5.0


def linger_s(has_others: bool, idle_s: float) -> float:
    """Returns how long a reader waits for a first message.

    Args:
      has_others: its bundle has messages. They are acknowledged when it ends, so that is to be soon.
      idle_s: how long nothing has come. Each return costs a bundle, and that a tenth of a second of Prism's time.
    """
    return LINGER_S if has_others else min(max(IDLE_LINGER_S, idle_s), IDLE_LINGER_MOST_S)


class Mark(CheckpointMark):  # type: ignore[misc]  # Beam's classes are untyped
    """Describes how far a reader has got: a dataclass whose fields are packed in their order.

    Attributes:
      FORMAT: of `struct`, one item for each field.
    """

    FORMAT: ClassVar[struct.Struct]


class MarkCoder(Coder):  # type: ignore[misc]
    """Marks as bytes of a fixed length.

    Attributes:
      mark: their class.
    """

    mark: ClassVar[type[Any]]

    def encode(self, value: Any) -> bytes:
        found: bytes = self.mark.FORMAT.pack(*dataclasses.astuple(value))
        return found

    def decode(self, encoded: bytes) -> Any:
        return self.mark(*self.mark.FORMAT.unpack(encoded))

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> Any:
        return self.mark


class ReadUnbounded(beam.PTransform):  # type: ignore[misc]
    """Reads a source of a stream; gives `Messages`.

    Args:
      source: what is read.
      bundle_s: how long a bundle lasts, at whose end messages are acknowledged.
      bundle_batches: micro-batches after which it ends too.
    """

    def __init__(self, source: UnboundedSource, bundle_s: float = 0.5, bundle_batches: int = 10_000) -> None:
        super().__init__()
        self._source = source
        self._bundle_s = bundle_s
        self._bundle_batches = bundle_batches

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        read = pbegin | "Read" >> ReadFromUnboundedSource(
            self._source,
            poll_interval=0.005,
            max_records_per_bundle=self._bundle_batches,
            max_read_time_seconds=self._bundle_s,
        )
        return typed(read, Messages)
