"""Runs a stream's pipeline with workers in this process, shows how it goes, and collects the account of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult

from inference.errors import ENDPOINT_METRICS
from pipelines.beam_fixes import fn_runner, shared_readers
from pipelines.beam_fixes.flink_end import ENDED, StreamEndedError
from pipelines.connectors.files import rolling
from pipelines.connectors.run import StreamRun
from pipelines.connectors.streaming.batch_sizing import PACE
from pipelines.dead_letters import limit
from pipelines.engine import common, failures, runners
from pipelines.engine.live_stream import LiveStream
from pipelines.engine.options import is_here, runner_name
from pipelines.planning import model as models
from pipelines.telemetry.constant_outputs import CONSTANTS, notes_on
from pipelines.telemetry.latency import LATENCIES, stages_of
from pipelines.telemetry.summary import Summary
from pipelines.telemetry.tally import TALLY


def run(
    stream: StreamRun,
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], None],
    console: Any,
    started: float,
) -> Summary:
    """Builds and runs a pipeline until its source ends.

    Args:
      stream: what is run.
      options: see `options.options_from`.
      build: adds the flow to a pipeline.
      console: for progress.
      started: time.monotonic() at the start of the command.

    Raises:
      RunFailedError: the pipeline failed; what was published stays.
      ConfigError: it failed because a model server refuses the caller, does not know the model, or never predicts.
    """
    plan = stream.plan
    fn_runner.mend()
    shared_readers.share()
    with failures.said_once(), runners.started(options) as ready:
        pipeline = common.make_pipeline(ready)
        build(pipeline)
        CONSTANTS.begin(plan.model_outputs)
        PACE.begin(plan.config.batching.latency_budget_ms, plan.config.batching.max_rows)
        begun = time.monotonic()
        try:
            most_dead = limit.STREAM_IN_A_ROW if plan.config.dead_letters.max_fraction < 1 else None
            with (
                models.loaded_ahead(plan.model, is_here(options)),
                LiveStream(console, stream.source.backlog, most_dead=most_dead) as live,
            ):
                result = pipeline.run()
                _wait(result)
        except Exception as error:
            raise failures.failed(error, "what was written stays") from error
        finally:
            rolling.close_all()
    seconds = time.monotonic() - begun
    # Others are gone once their job has ended.
    requests = common.counters(result, ENDPOINT_METRICS) if isinstance(result, RunnerResult) else {}
    return _summary(stream, options, seconds, begun - started, live.ended_because, requests)


def _wait(result: Any) -> None:
    """Until the job has ended: by itself, or because all that its source will ever give has been processed."""
    over = threading.Event()

    def give_up() -> None:
        while not over.wait(0.2):
            if runners.RESTARTED.is_set():
                result.cancel()
                return

    threading.Thread(target=give_up, name="restarts", daemon=True).start()
    root = logging.getLogger()
    root.addFilter(_tells_no_end)
    try:
        result.wait_until_finish()
    except RuntimeError as error:
        if runners.RESTARTED.is_set():
            raise RuntimeError("a bundle failed, and the runner would start the job again: run it again") from error
        if not ENDED.is_set():
            raise
    finally:
        over.set()
        root.removeFilter(_tells_no_end)


def _tells_no_end(record: logging.LogRecord) -> bool:
    """Not that a stream's work is done, which is how Flink is told."""
    return StreamEndedError.__name__ not in record.getMessage()


def _summary(
    stream: StreamRun,
    options: PipelineOptions,
    seconds: float,
    startup_seconds: float,
    ended_because: str,
    requests: dict[str, int],
) -> Summary:
    plan = stream.plan
    config = plan.config
    read, written, dead = TALLY.rows_read, TALLY.rows_written, TALLY.rows_dead_lettered
    fraction = dead / read if read else 0.0
    return Summary(
        name=config.name,
        runner=runner_name(options),
        runtime=common.runtime_used(plan),
        rows_read=read,
        rows_written=written,
        rows_dead_lettered=dead,
        seconds=seconds,
        startup_seconds=startup_seconds,
        rows_per_second=read / seconds if seconds else 0.0,
        output=stream.sink.describe(),
        dead_letters=stream.dead_letters.describe() if dead else "",
        dead_letter_fraction=fraction,
        max_fraction=config.dead_letters.max_fraction,
        batching=None if PACE.choice is None else asdict(PACE.choice),
        rows_repeated=TALLY.rows_repeated if config.dedupe else None,
        notes=notes_on(CONSTANTS.found(), written),
        requests=requests.get("requests"),
        requests_repeated=requests.get("requests_repeated"),
        bytes_sent=requests.get("bytes_sent"),
        ended_because=ended_because or None,
        ok=read == written + dead + TALLY.rows_repeated
        and fraction <= config.dead_letters.max_fraction
        and not ended_because,
        latency_ms={} if not read else LATENCIES.percentiles("total"),
        stage_latency_ms=stages_of(LATENCIES),
    )
