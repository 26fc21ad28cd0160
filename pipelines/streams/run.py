"""Runs a stream's pipeline on the in-process runner, shows how it goes, and collects the account of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import engine
from pipelines.plan import Plan
from pipelines.progress import TALLY
from pipelines.report import Summary
from pipelines.streams import in_process, rolling
from pipelines.streams.destinations import destination
from pipelines.streams.latency import LATENCIES, STAGES
from pipelines.streams.stop import STOPPING


def run(
    plan: Plan, options: PipelineOptions, build: Callable[[beam.Pipeline], None], console: Any, started: float
) -> Summary:
    """Builds and runs a pipeline until its source ends.

    Args:
      plan: what is run.
      options: see `engine.options_from`.
      build: adds the flow to a pipeline.
      console: for progress.
      started: time.monotonic() at the start of the command.

    Raises:
      RunFailedError: the pipeline failed; what was published stays.
      ConfigError: it failed because a model server refuses the caller, or does not know the model.
    """
    in_process.mend()
    pipeline = engine.make_pipeline(options)
    build(pipeline)
    LATENCIES.clear()
    begun = time.monotonic()
    try:
        with _LiveStream(console):
            pipeline.run().wait_until_finish()
    except Exception as error:
        raise engine.failed(error, "what was written stays") from error
    finally:
        rolling.close_all()
    return _summary(plan, options, time.monotonic() - begun, begun - started)


def _summary(plan: Plan, options: PipelineOptions, seconds: float, startup_seconds: float) -> Summary:
    config = plan.config
    read, written, dead = TALLY.rows_read, TALLY.rows_written, TALLY.rows_dead_lettered
    fraction = dead / read if read else 0.0
    return Summary(
        name=config.name,
        runner=engine.runner_name(options),
        rows_read=read,
        rows_written=written,
        rows_dead_lettered=dead,
        seconds=seconds,
        startup_seconds=startup_seconds,
        rows_per_second=read / seconds if seconds else 0.0,
        output=destination(plan).place(),
        dead_letters=rolling.pattern(config.dead_letters_path, "jsonl") if dead else "",
        dead_letter_fraction=fraction,
        max_fraction=config.dead_letters.max_fraction,
        ok=read == written + dead and fraction <= config.dead_letters.max_fraction,
        latency_ms={} if not read else LATENCIES.percentiles("total"),
        stage_latency_ms={stage: found for stage in STAGES if (found := LATENCIES.percentiles(stage))},
    )


class _LiveStream:
    """A moving line on a terminal, a plain line now and then in a pipe."""

    def __init__(self, console: Any, every_s: float = 10.0) -> None:
        self._console = console
        self._every = every_s if not console.is_terminal else 0.5
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._last = (0.0, 0)
        self._said = False

    def __enter__(self) -> _LiveStream:
        TALLY.clear()
        self._last = (time.monotonic(), 0)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """The present state in words."""
        now, rows = time.monotonic(), TALLY.rows_read
        rate = (rows - self._last[1]) / max(now - self._last[0], 1e-6)
        self._last = now, rows
        dead = f", {TALLY.rows_dead_lettered:,} dead-lettered" if TALLY.rows_dead_lettered else ""
        total = LATENCIES.percentiles("total")
        late = ", ".join(f"{name} {value:,.1f} ms" for name, value in total.items())
        return f"{rows:,} messages read{dead}, {rate:,.0f} messages/s" + (f", {late}" if late else "")

    def _watch(self) -> None:
        if not self._console.is_terminal:
            while self._goes_on():
                self._console.print(self.line(), highlight=False)
            return
        with self._console.status("starting") as status:
            while self._goes_on():
                status.update(self.line())

    def _goes_on(self) -> bool:
        """Waits for the time of the next line; False at the end."""
        until = time.monotonic() + self._every
        while time.monotonic() < until:
            if self._stop.wait(0.1):
                return False
            if STOPPING.is_set() and not self._said:
                self._said = True
                self._console.print("ending: finishing what was taken; once more stops at once", highlight=False)
        return True
