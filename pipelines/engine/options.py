"""Makes Beam's options of the command line and defaults; says what a runner needs, and where its workers are."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    S3Options,
    SetupOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from inference.columns.bound import did_you_mean
from model import packaged
from model.hosts import is_loopback
from pipelines import storage
from pipelines.beam_fixes import option_parsers
from pipelines.beam_fixes.prism_outlet import is_prism
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.config.model import EndpointConfig
from pipelines.engine import worker_packages
from pipelines.plan import Plan

FLINK_JOB_ENDPOINT = "localhost:8099"
"""Where a Flink job server listens by default."""

_IN_PROCESS = "FnApiRunner"
_WORDS_FOR_IN_PROCESS = ("", "directrunner", "fnapirunner")
_PORTABLE = ("prismrunner", "flinkrunner", "portablerunner")
_OF_FLINK = (
    "checkpointing_interval", "checkpointing_mode", "checkpoint_timeout_millis", "min_pause_between_checkpoints",
    "number_of_concurrent_checkpoints", "tolerable_checkpoint_failure_number", "fail_on_checkpointing_errors",
    "finish_bundle_before_checkpointing", "number_of_execution_retries", "execution_retry_delay", "object_reuse",
    "state_backend", "state_backend_storage_path", "externalized_checkpoints_enabled",
    "retain_externalized_checkpoints_on_cancellation", "max_bundle_size", "max_bundle_time_mills",
    "shutdown_sources_after_idle_ms", "latency_tracking_interval", "auto_watermark_interval",
    "execution_mode_for_batch", "savepoint_path", "allow_non_restored_state", "disable_metrics",
)  # fmt: skip
"""Options that only Flink's job server knows."""
_FLINK_DEFAULTS = {
    # Without one, nothing is ever acknowledged.
    "checkpointing_interval": "2000",
    # What a bundle has put off is then part of the checkpoint.
    "finish_bundle_before_checkpointing": "",
    # A bundle ends soon after the source said so, not when a second is over.
    "max_bundle_size": "1",
    "max_bundle_time_mills": "10",
    # A source of a stream is one.
    "parallelism": "1",
}
"""Of streams."""
_KEPT_WORKER_MS = 20_000
"""How long Flink keeps a worker that no stage of its job needs: else it starts a new one for each stage."""


def options_from(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options from the command line, with our defaults. Raises ConfigError for an unknown one."""
    option_parsers.keep_texts()
    _refuse_unknown(flags)
    options = _parsed(flags)
    runner = _runner(options)
    if runner in _WORDS_FOR_IN_PROCESS:
        options.view_as(StandardOptions).runner = _IN_PROCESS
        direct = options.view_as(DirectOptions)
        given = " ".join(flags)
        if "direct_num_workers" not in given:
            direct.direct_num_workers = os.cpu_count() or 1
        if "direct_running_mode" not in given:
            direct.direct_running_mode = "multi_threading"
    elif runner in _PORTABLE:
        options = _portable(options, flags)
    setup = options.view_as(SetupOptions)
    if not is_here(options) and not _is_installed_there(options) and not setup.setup_file:
        worker_packages.add_to(setup)
    return options


def _is_installed_there(options: PipelineOptions) -> bool:
    """Tells whether workers run in an environment that has this project: of a worker pool, a program or an image."""
    if is_remote_runner(options):
        return options.view_as(WorkerOptions).sdk_container_image is not None
    return options.view_as(PortableOptions).environment_type in ("EXTERNAL", "PROCESS")


def _parsed(flags: Sequence[str]) -> PipelineOptions:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(list(flags))
            options.get_all_options()
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2] or " ".join(
            flag.partition("=")[0] for flag in flags if flag.startswith("-")
        )
        raise ConfigError([f"Beam options: {reason}"]) from None
    return options


def _portable(options: PipelineOptions, flags: Sequence[str]) -> PipelineOptions:
    """Options of a runner behind a job server, with our defaults: workers are threads of this process."""
    portable = options.view_as(PortableOptions)
    if not is_prism(options) and options.view_as(StandardOptions).streaming:
        given = {flag.split("=", 1)[0].lstrip("-") for flag in flags}
        missing = {name: value for name, value in _FLINK_DEFAULTS.items() if name not in given}
        options = _parsed([*flags, *(f"--{name}={value}" if value else f"--{name}" for name, value in missing.items())])
        portable = options.view_as(PortableOptions)
    if not is_prism(options) and portable.environment_type not in (None, "LOOPBACK"):
        portable.environment_cache_millis = portable.environment_cache_millis or _KEPT_WORKER_MS
    flink = options.view_as(FlinkRunnerOptions)
    if _runner(options) == "flinkrunner" and flink.flink_master == "[auto]" and not flink.flink_job_server_jar:
        portable.job_endpoint = portable.job_endpoint or FLINK_JOB_ENDPOINT
    endpoint = portable.job_endpoint
    if portable.environment_type is None and (is_prism(options) or (endpoint and is_this_machine(endpoint))):
        portable.environment_type = "LOOPBACK"
    if portable.environment_type == "LOOPBACK":
        # They are what this process has: nobody needs a list.
        options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    return options


def _refuse_unknown(flags: Sequence[str]) -> None:
    known = {"--help", *(f"--{name}" for name in _OF_FLINK)}
    for cls in PipelineOptions.__subclasses__():
        parser = _Flags()
        try:
            cls._add_argparse_args(parser)
        except (TypeError, AttributeError, ValueError):
            continue
        known |= parser.names
    problems = []
    for flag in flags:
        name = flag.split("=", 1)[0]
        if name.startswith("--") and name not in known and name.replace("-", "_").replace("__", "--", 1) not in known:
            problems.append(f"{name}: unknown option{did_you_mean(name, sorted(known))}")
    if problems:
        raise ConfigError(problems)


class _Flags:
    """Stands in for an argument parser and only collects the names of the options."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_argument(self, *names: str, **_: Any) -> None:
        self.names.update(name for name in names if name.startswith("--"))

    add_value_provider_argument = add_argument

    def add_argument_group(self, *_: Any, **__: Any) -> _Flags:
        return self

    add_mutually_exclusive_group = add_argument_group


def _runner(options: PipelineOptions) -> str:
    """The runner as one word."""
    return (options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()


def is_this_machine(endpoint: str) -> bool:
    """Tells whether a host and port are of this machine."""
    from inference.endpoint.transports import address

    host = address(endpoint).hostname
    return host is not None and is_loopback(host)


def is_remote_runner(options: PipelineOptions) -> bool:
    """Tells whether the runner is Dataflow, whose workers are on other machines."""
    return "dataflow" in _runner(options)


def is_loopback_job(options: PipelineOptions) -> bool:
    """Tells whether a job server runs the job, and its workers are threads of this process."""
    return _runner(options) in _PORTABLE and options.view_as(PortableOptions).environment_type == "LOOPBACK"


def keeps_jobs(options: PipelineOptions) -> bool:
    """Tells whether the runner may keep a job though its sources have ended: Flink does, for its checkpoints."""
    return is_loopback_job(options) and not is_prism(options)


def is_here(options: PipelineOptions) -> bool:
    """Tells whether the workers are on this machine, for all that can be known."""
    return options.view_as(StandardOptions).runner == _IN_PROCESS or is_loopback_job(options)


def is_on_other_machines(options: PipelineOptions) -> bool:
    """Tells whether the workers are on other machines, for all that can be known."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    return is_remote_runner(options) or (_runner(options) in _PORTABLE and not is_this_machine(endpoint or "localhost"))


def check_options(options: PipelineOptions) -> list[str]:
    """Returns what the runner needs and does not get, one line each."""
    if is_prism(options):
        given = options.view_as(PrismRunnerOptions).prism_location
        missing = given and "://" not in given and shutil.which(given) is None
        return [f"--prism_location {given}: there is no such program"] if missing else []
    if _runner(options) in _PORTABLE:
        return _check_portable(options.view_as(PortableOptions), options)
    if not is_remote_runner(options):
        return _lost_on_the_way(options)
    cloud = options.view_as(GoogleCloudOptions)
    problems = [
        f"--{name}: missing; DataflowRunner needs it" for name in ("project", "region") if not getattr(cloud, name)
    ]
    # Beam would otherwise look for (and create) a default bucket in place of a location that it cannot use.
    validator = PipelineOptionsValidator(options, None)
    for name in ("temp_location", "staging_location"):
        value = getattr(cloud, name)
        if value and validator.validate_gcs_path(cloud, name):
            problems.append(f"--{name}={value}: not a gs:// path in a bucket with a valid name")
    if not cloud.temp_location:
        problems.append("--temp_location: missing; DataflowRunner needs a gs:// path for temporary files")
    template = cloud.template_location
    if template and not _can_be_written(template):
        problems.append(f"--template_location={template}: give a gs:// path, or a file in a local folder that exists")
    return problems


def _can_be_written(template: str) -> bool:
    """Tells whether Beam can write a template to a path; where it cannot, it tries for minutes."""
    return template.startswith("gs://") if storage.is_remote(template) else Path(template).parent.is_dir()


def _lost_on_the_way(options: PipelineOptions) -> list[str]:
    """Lists options about S3 that workers would not get: Beam gives none to processes that it starts here."""
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        return []
    given = options.view_as(S3Options).get_all_options(drop_default=True)
    return [
        f"--{name}: does not reach workers that are processes; set boto3's variable for it, such as AWS_ENDPOINT_URL, "
        "or leave --direct_running_mode out"
        for name in sorted(given)
        if name.startswith("s3_")
    ]


def _check_portable(portable: PortableOptions, options: PipelineOptions) -> list[str]:
    endpoint = portable.job_endpoint
    if _runner(options) == "portablerunner" and not endpoint:
        return ["--job_endpoint: missing; PortableRunner needs the host:port of a job server"]
    if endpoint and ":" not in endpoint:
        return [f"--job_endpoint={endpoint}: not host:port"]
    if endpoint and not is_this_machine(endpoint):
        if portable.environment_type is None:
            return ["--environment_type: missing; workers on other machines need DOCKER or PROCESS"]
        if portable.environment_type == "LOOPBACK":
            return [f"--environment_type=LOOPBACK: workers are threads here, out of reach of {endpoint}"]
    return []


def named_paths(plan: Plan) -> list[tuple[str, str]]:
    """Lists the paths that a plan's source, output and dead letters name, each with its place in the config."""
    config = plan.config
    path = getattr(config.source, "path", None) or []
    named = [("source.path", each) for each in ([path] if isinstance(path, str) else path)]
    named += [(config.output_path_key, config.output_path), ("dead_letters.path", config.dead_letters_path)]
    return [(where, path) for where, path in named if path]


def unreachable_paths(plan: Plan) -> list[str]:
    """Returns paths of the config that only this machine can read or write, one line each."""
    named = named_paths(plan)
    problems = []
    model = plan.model.config
    if isinstance(model, EndpointConfig):
        from inference.endpoint.transports import address

        host = address(model.url or "").hostname
        if host and is_loopback(host):
            problems.append(f"model.url: {host} is this machine, and the workers are not; give an address they reach")
    elif isinstance(model, BatchJobConfig):
        named.append(("model.folder", model.folder))
    elif packaged.name_of(str(Path(plan.model.path).resolve())) is None:
        named.append(("model.path", plan.model.path))
    return problems + [
        f"{where}: {path} is on this machine, and the workers are not; put it on gs://"
        for where, path in named
        if path and not storage.is_remote(path)
    ]


def runner_name(options: PipelineOptions) -> str:
    """Returns the runner, as the summary names it."""
    name = str(options.view_as(StandardOptions).runner)
    if is_loopback_job(options):
        return f"{name}, 1 worker in this process"
    if name != _IN_PROCESS:
        return name
    direct = options.view_as(DirectOptions)
    count = direct.direct_num_workers
    one, several = {
        "multi_threading": ("thread in this process", "threads in this process"),
        "multi_processing": ("process", "processes"),
    }.get(direct.direct_running_mode, ("worker", "workers"))
    words = one if count == 1 else several
    return f"{name}, {count} {words}"


def is_dry_run(options: PipelineOptions) -> bool:
    """Tells whether the job is only to be built."""
    return bool(options.view_as(TestOptions).dry_run)
