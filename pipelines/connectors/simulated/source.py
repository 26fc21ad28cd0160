"""Emits simulated messages at an exact rate, each once, also over checkpoints if the runner keeps them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders import Coder, registry
from apache_beam.io.unbounded_source import UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from inference.coders import typed
from pipelines.clock import now_us
from pipelines.connectors.simulated.natality import births_at, prepare
from pipelines.connectors.simulated.schedule import Schedule, messages_within
from pipelines.connectors.streaming.batch_sizing import PACE
from pipelines.connectors.streaming.stop import STOPPING
from pipelines.connectors.streaming.unbounded import Mark, MarkCoder, ReadUnbounded, linger_s
from pipelines.rows.messages import Messages

_NO_LIMIT = 1 << 62
_NAME = "simulated"


@dataclass(frozen=True)
class SimulatedMark(Mark):
    """Describes a position in a simulated stream.

    Attributes:
      start_us: when the stream began, microseconds since the epoch.
      index: of the next message, among those of its puller.
    """

    FORMAT = struct.Struct("<qq")

    start_us: int
    index: int


class SimulatedMarkCoder(MarkCoder):
    """Encodes a position in a simulated stream."""

    mark = SimulatedMark


registry.register_coder(SimulatedMark, SimulatedMarkCoder)


@dataclass(frozen=True, kw_only=True)
class SimulatedStream(UnboundedSource):  # type: ignore[misc]
    """Makes a stream of births; its elements are `Messages`, one micro-batch each.

    Message n is due n / rate seconds after the stream's beginning, which is when it is first read. What could not be
    read when it was due is read later, with its own event time. Sources are compared and hashed by value: Beam encodes
    them with every bundle, and remembers the encoding of what is equal.

    Attributes:
      rate: messages a second, of all pullers together; 0: as fast as they are taken.
      messages: how many there are; None: no limit.
      duration_s: the stream has the messages that are due before this; None: no limit.
      max_rows: of a micro-batch.
      max_wait_ms: how long a micro-batch waits, after its first message is due, to fill.
      seed: of the births; None: payloads are null, for `ReadSimulated` to fill in.
      pullers: into how many sources that can be read at the same time this one is split.
      part: which of `parts` this is: it has the messages part, part + parts, ...
      parts: how many sources share the messages.
    """

    rate: float = 500.0
    messages: int | None = None
    duration_s: float | None = None
    max_rows: int = 16_384
    max_wait_ms: float = 50.0
    seed: int | None = 0
    pullers: int = 1
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("rate", "messages", "duration_s", "max_wait_ms"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, not a number from 0 up")
        for name in ("max_rows", "pullers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, less than 1")

    @property
    def limit(self) -> int:
        """Returns how many messages this part has; without a rate, the duration does not count."""
        all_parts = _NO_LIMIT if self.messages is None else self.messages
        if self.duration_s is not None and self.rate:
            all_parts = min(all_parts, messages_within(self.rate, self.duration_s))
        return max(0, -(-(all_parts - self.part) // self.parts))

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[SimulatedStream]:
        parts = min(self.pullers, desired_num_splits)
        if self.parts > 1 or parts <= 1:
            return [self]
        return [replace(self, part=part, parts=parts) for part in range(parts)]

    def create_reader(self, options: Any, checkpoint_mark: SimulatedMark | None) -> SimulatedReader:
        return SimulatedReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> Coder:
        return SimulatedMarkCoder()

    def default_output_coder(self) -> Coder:
        return registry.get_coder(Messages)


class SimulatedReader(UnboundedReader):  # type: ignore[misc]
    """Reads a source from a mark.

    Args:
      source: what is read.
      mark: after which; None: from the beginning, which is now.
      now: the time, microseconds since the epoch.
      wait: waits for seconds, or until the stream is to stop; whether it is.
    """

    def __init__(
        self,
        source: SimulatedStream,
        mark: SimulatedMark | None = None,
        now: Callable[[], int] = now_us,
        wait: Callable[[float], bool] = STOPPING.wait,
    ) -> None:
        self._source = source
        self._now = now
        self._wait = wait
        self._mark = mark
        self._current: Messages | None = None
        self._finished = False
        self._marked = 0
        self._came_us = 0

    def start(self) -> bool:
        prepare()
        if self._mark is None:
            self._mark = SimulatedMark(self._now(), 0)
        return self.advance()

    def advance(self) -> bool:
        """Forms the next micro-batch, waiting for its messages; False after a short while without any, and at the end.

        Beam would have it return at once instead of waiting. But an idle reader that does so makes the in-process
        runner spin through bundles, and the runner does nothing else meanwhile.
        """
        mark = self._position
        self._current = None
        self._pace = PACE.or_else(self._source.max_rows, self._source.max_wait_ms)
        rows = min(self._pace.max_rows, self._source.limit - mark.index)
        self._finished = self._wait(0) or rows <= 0 or self._is_over()
        if self._finished:
            return False
        if self._source.rate:
            return self._take_due(rows)
        now = self._now()
        self._take(np.full(rows, now), now)
        return True

    def _take_due(self, rows: int) -> bool:
        schedule, index = self._schedule, self._position.index
        first_due = schedule.due_us(index)
        now = self._now()
        if first_due > now:
            linger = linger_s(index != self._marked, (now - (self._came_us or now)) / 1e6)
            self._finished = self._wait_until(min(first_due, now + int(linger * 1e6)))
            now = self._now()
            if self._finished or first_due > now:
                return False
        received = now
        self._finished = self._wait_until(
            min(schedule.due_us(index + rows - 1), first_due + int(self._pace.max_wait_ms * 1000))
        )
        if self._finished:
            return False
        count = min(rows, schedule.due_by(self._now()) - index)
        self._take(schedule.due_times(index, count), received)
        return True

    def _take(self, event_us: Any, received_us: int) -> None:
        source, mark, count = self._source, self._position, len(event_us)
        self._came_us = received_us
        numbers = source.part + np.arange(mark.index, mark.index + count) * source.parts
        payloads = pa.nulls(count, pa.binary()) if source.seed is None else births_at(numbers, source.seed, event_us)
        self._current = Messages(_NAME, payloads, numbers, event_us, received_us, self._now())
        self._mark = SimulatedMark(mark.start_us, mark.index + count)

    def _wait_until(self, us: int) -> bool:
        """Whether the stream is to stop before that time."""
        while (left := us - self._now()) > 0:
            if self._wait(left / 1e6):
                return True
        return False

    def _is_over(self) -> bool:
        """Whether a stream that has no rate has lasted long enough."""
        source = self._source
        if source.rate or source.duration_s is None:
            return False
        return self._now() >= self._position.start_us + source.duration_s * 1e6

    @property
    def _position(self) -> SimulatedMark:
        if self._mark is None:
            raise RuntimeError("the reader was not started")
        return self._mark

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self._position.start_us, self._source.rate, self._source.part, self._source.parts)

    def get_current(self) -> Messages:
        if self._current is None:
            raise RuntimeError("the reader is at no message")
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=int(self.get_current().event_us[0]))

    def get_watermark(self) -> Timestamp:
        if self._finished:
            return MAX_TIMESTAMP
        if not self._source.rate:
            return Timestamp(micros=self._now())
        return Timestamp(micros=self._schedule.due_us(self._position.index))

    def get_checkpoint_mark(self) -> SimulatedMark:
        self._marked = self._position.index
        return self._position


class ReadSimulated(beam.PTransform):  # type: ignore[misc]
    """Reads a simulated stream; gives `Messages`.

    Args:
      source: what is read.
      payloads: binary; sent again and again in place of births, each with its number as its key.
      limits: of a bundle, see `ReadUnbounded`.
    """

    def __init__(self, source: SimulatedStream, payloads: pa.Array | None = None, **limits: Any) -> None:
        super().__init__()
        if payloads is not None and not len(payloads):
            raise ValueError("there are no payloads to send")
        self._read = ReadUnbounded(source if payloads is None else replace(source, seed=None), **limits)
        self._payloads = payloads

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        read = pbegin | self._read
        if self._payloads is None:
            return read
        # Not in the source: that travels with every bundle, this once.
        return typed(read | "FillIn" >> beam.ParDo(FillIn(self._payloads)), Messages)


class FillIn(beam.DoFn):  # type: ignore[misc]
    """Gives messages their payloads: message n has the one at n modulo their number."""

    def __init__(self, payloads: pa.Array) -> None:
        self._payloads = payloads

    def process(self, messages: Messages) -> Iterable[Messages]:
        payloads = self._payloads.take(pa.array(messages.positions % len(self._payloads)))
        yield replace(messages, payloads=payloads, keys=pa.array(messages.positions).cast(pa.string()))
