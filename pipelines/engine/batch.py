"""Runs a pipeline on a Beam runner and collects the account of it.

The in-process default is Beam's FnApiRunner with one thread a core: one TensorFlow, one model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from inference.errors import ENDPOINT_METRICS
from pipelines.connectors.base import BatchSinkConnector
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.files.publishing.reservation import Reservation
from pipelines.cost.prices import Prices
from pipelines.engine import dataflow, runners
from pipelines.engine.common import counters, make_pipeline, runtime_used
from pipelines.engine.failures import failed, said_once
from pipelines.engine.options import is_here, is_remote_runner, runner_name
from pipelines.formats import writer_class
from pipelines.plan import Plan
from pipelines.planning import model as models
from pipelines.telemetry.latency import LATENCIES, stages_of
from pipelines.telemetry.summary import Summary
from pipelines.telemetry.tally import LiveProgress


def run(
    plan: Plan,
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], None],
    output: str,
    reserved: Reservation,
    console: Any,
    started: float,
    prices: Prices | None,
    sink: BatchSinkConnector | None,
) -> Summary:
    """Builds and runs a pipeline.

    Args:
      plan: what is run.
      options: see `options.options_from`.
      build: adds the flow to a pipeline.
      output: prefix of the output's shards.
      reserved: the places that it publishes to; the temporary files there are removed if the run fails.
      console: for progress.
      started: time.monotonic() at the start of the command.
      prices: what a job of Dataflow costs; None on other runners.
      sink: takes over the output; None if that is files.

    Raises:
      RunFailedError: the pipeline failed; nothing was published.
      ConfigError: it failed because a model server refuses the caller, does not know the model, or never predicts.
    """
    with said_once(), runners.started(options) as ready:
        pipeline = make_pipeline(ready)
        build(pipeline)
        begun = time.monotonic()
        try:
            with (
                LiveProgress(console, plan.nbytes),
                models.loaded_ahead(plan.model, is_here(options)),
            ):
                result = pipeline.run()
                result.wait_until_finish()
        except Exception as error:
            raise failed(error, reserved.abandon()) from error
        seconds = time.monotonic() - begun
        summary = _summary(plan, options, output, reserved, sink, result, seconds, begun - started)
        return _with_cost(summary, result, prices) if is_remote_runner(options) else summary


def _with_cost(summary: Summary, result: Any, prices: Prices | None) -> Summary:
    """Returns the summary of a job of Dataflow with its id and cost."""
    cost = None if prices is None else dataflow.job_cost(result, prices)
    return replace(summary, job=str(result.job_id()), cost=cost)


def _summary(
    plan: Plan,
    options: PipelineOptions,
    output: str,
    reserved: Reservation,
    sink: BatchSinkConnector | None,
    result: Any,
    seconds: float,
    startup_seconds: float,
) -> Summary:
    """The account as it was published, once everything that was published has been seen to be there."""
    calls = counters(result, ENDPOINT_METRICS)
    outcome = reserved.outcome()
    account = outcome.manifest
    read = account.rows_read if account else 0
    dead = account.rows_dead_lettered if account else 0
    written = account.rows_written if account else 0
    config = plan.config
    dead_letters = outcome.dead_letter_shards
    extension = writer_class(config.output.shard_format).extension
    shard_count = outcome.output_shards
    pattern = shards.pattern(output, shard_count, extension) if shard_count else "none: no row was written"
    fraction = dead / read if read else 0.0
    stages = stages_of(LATENCIES)
    return Summary(
        name=config.name,
        runner=runner_name(options),
        runtime=runtime_used(plan),
        rows_read=read,
        rows_written=written,
        rows_dead_lettered=dead,
        seconds=seconds,
        startup_seconds=startup_seconds,
        rows_per_second=read / seconds if seconds else 0.0,
        output=pattern if sink is None else config.output.describe(),
        dead_letters=shards.pattern(config.dead_letters_path, dead_letters, "jsonl") if dead_letters else "",
        dead_letter_fraction=fraction,
        max_fraction=config.dead_letters.max_fraction,
        requests=calls.get("requests"),
        requests_repeated=calls.get("requests_repeated"),
        bytes_sent=calls.get("bytes_sent"),
        lost=outcome.problems or None,
        notes=account.notes if account else (),
        stage_latency_ms=stages if "model" in stages else None,
        ok=not outcome.problems and read == written + dead and fraction <= config.dead_letters.max_fraction,
    )
