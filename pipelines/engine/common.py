"""Does what batch and stream runs share: imports, the pipeline, dry runs."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, SetupOptions

from inference.saved_model.loader import TAKEN_OVER
from model.runtime.errors import UnsupportedModelError
from model.runtime.small_graphs import check_library
from pipelines.beam_fixes import signatures
from pipelines.config.errors import ConfigError
from pipelines.config.model import SavedModelConfig
from pipelines.connectors.files import source as file_source
from pipelines.engine.failures import failed
from pipelines.engine.options import is_here, is_remote_runner, runner_name
from pipelines.formats import row_reader_class, writer_class
from pipelines.plan import Plan

_SAMPLING_PERIOD_MS = 10


def import_libraries(options: PipelineOptions, plan: Plan) -> None:
    """Imports TensorFlow and what the formats need before the clock starts, where they will run in this process."""
    if is_here(options):
        if _pieces(plan) >= 4 * options.view_as(DirectOptions).direct_num_workers:
            # The workers keep all cores busy; threads of TensorFlow's own would only get in their way.
            os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
            os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
        import_tensorflow(plan)
        reader, writer = row_reader_class(plan.config.source.reads), writer_class(plan.config.output.shard_format)
        for name in (*reader.libraries, *writer.libraries):
            importlib.import_module(name)
        _sample_states_often()
        # What the imports left behind stays for good; the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        # Nor need it look after every few hundred objects: messages come by tens of thousands, and are in no cycles.
        gc.set_threshold(100_000, 20, 20)


def import_tensorflow(plan: Plan) -> None:
    """Imports what is to run the model in this process: TensorFlow, or for the native runtime its library alone."""
    if plan.model.needs_tensorflow or not _native_is_ready(plan):
        import tensorflow  # noqa: F401


def _native_is_ready(plan: Plan) -> bool:
    """Opens TensorFlow's library for the native runtime, where that is to run the model."""
    if plan.model.runtime != "native":
        return True
    try:
        check_library()
    except UnsupportedModelError:
        # Loading the model says so, and whose turn it is then.
        return not isinstance(plan.config.model, SavedModelConfig) or plan.config.model.runtime == "native"
    return True


def runtime_used(plan: Plan) -> str | None:
    """Returns what ran a SavedModel: what was planned, unless its load in this process has found otherwise."""
    return "python" if plan.model.path in TAKEN_OVER else plan.model.runtime


def _pieces(plan: Plan) -> int:
    """About how many pieces of work the plan has."""
    sizes = [file.size for file in plan.files] + ([plan.extent.nbytes] if plan.extent is not None else [])
    return sum(1 + size // file_source.split_bytes_for(sum(sizes)) for size in sizes if size)


def _sample_states_often() -> None:
    """Shortens the period of Beam's state sampler in this process.

    A bundle ends only when the sampler's thread wakes up, which in a bundle of seconds is every 200 ms: a tenth of a
    second lost a stage, on average. Beam has no option for it. Waking up costs the sampler next to nothing.
    """
    from apache_beam.runners.worker.statesampler import StateSampler

    defaults = StateSampler.__init__.__defaults__
    if defaults and len(defaults) == 1:
        StateSampler.__init__.__defaults__ = (min(defaults[0], _SAMPLING_PERIOD_MS),)


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns a pipeline; what Beam finds wrong with its options is a ConfigError."""
    signatures.mend()
    try:
        return beam.Pipeline(options=options)
    except ValueError as error:
        raise ConfigError([f"Beam options: {error}"]) from None


def hand_over(options: PipelineOptions, build: Callable[[beam.Pipeline], None]) -> str:
    """Builds a pipeline and starts it where it runs on without this process, or writes its template; says which.

    Raises:
      RunFailedError: it could not be started.
    """
    pipeline = make_pipeline(options)
    build(pipeline)
    try:
        result = pipeline.run()
    except Exception as error:
        raise failed(error, "nothing was started") from error
    if is_remote_runner(options) and not result.has_job:
        written = options.view_as(GoogleCloudOptions).template_location
        return f"template written: {written}; nothing was started"
    job = result.job_id() if is_remote_runner(options) else result._job_id
    return f"handed over: {runner_name(options)} runs the job {job}; it goes on without this command"


def counters(result: Any, namespace: str) -> dict[str, int]:
    """Returns the counters of a job that are in a namespace, by name."""
    found = result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]
    # Flink knows only of attempts.
    counts = ((each.key.metric.name, each.attempted if each.committed is None else each.committed) for each in found)
    return {name: int(count) for name, count in counts}


def dry_run(options: PipelineOptions, build: Callable[[beam.Pipeline], None], console: Any) -> int:
    """Builds the job as the runner would get it, checks its options, and says what it is made of."""
    pipeline = make_pipeline(options)
    build(pipeline)
    # Without credentials, looking for some takes Beam half a minute.
    os.environ.setdefault("NO_GCE_CHECK", "true")
    if is_remote_runner(options):
        pipeline.run()
    steps = len(pipeline.to_runner_api().components.transforms)
    console.print(f"dry run: the job is complete, {steps} transforms, nothing was started")
    setup = options.view_as(SetupOptions)
    packages = [*filter(None, [setup.setup_file]), *(setup.extra_packages or ())]
    if packages:
        console.print(f"packages for the workers: {', '.join(packages)}")
    return 0
