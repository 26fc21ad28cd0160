"""Ends a stream on a runner that does not end a job whose sources have ended: Flink keeps it, for its checkpoints.

The end of the source's watermark comes when all bundles have ended, and fires a timer in a worker of this process. The
timer fails, and so the job. Cancelling it would not do: Beam's job server says that a job was cancelled, and leaves it
to Flink, where it goes on. Seen with Beam 2.77 and Flink 1.19; without this, the tests of FlinkRunner in
tests/pipelines/streams/test_engines.py do not end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow

from pipelines import process_state

ENDED = threading.Event()
"""Set when all that the source will ever give has been processed."""
process_state.reset_by(ENDED.clear)


class StreamEndedError(Exception):
    """Ends a job that has done all its work."""


class ReadAndTell(beam.PTransform):  # type: ignore[misc]
    """Reads as another transform does, and sets ENDED when that has ended.

    Args:
      read: gives Messages.
    """

    def __init__(self, read: beam.PTransform) -> None:
        super().__init__()
        self._read = read

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        messages = pbegin | "Read" >> self._read
        nothing = messages | "Nothing" >> beam.ParDo(Nothing()).with_output_types(tuple[str, str])
        one = pbegin | "One" >> beam.Create([("", "")]).with_output_types(tuple[str, str])
        _ = (nothing, one) | "Until" >> beam.Flatten() | "Tell" >> beam.ParDo(TellEnd())
        return messages


class Nothing(beam.DoFn):  # type: ignore[misc]
    """Passes nothing on but the watermark."""

    def process(self, element: Any) -> Iterable[tuple[str, str]]:
        return ()


class TellEnd(beam.DoFn):  # type: ignore[misc]
    """Sets ENDED when its input has ended."""

    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(self, element: tuple[str, str], timer: Any = beam.DoFn.TimerParam(END)) -> None:  # noqa: B008  # Beam's way
        timer.set(GlobalWindow().max_timestamp())

    @on_timer(END)
    def tell(self) -> None:
        """Ends the job."""
        ENDED.set()
        raise StreamEndedError("all that the source will ever give has been processed")
