"""Sets what jobs of Dataflow should have where the command line says nothing, and reads what a job has cost."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)

from pipelines.config.errors import ConfigError
from pipelines.config.model import EndpointConfig
from pipelines.connectors.bigquery import locations
from pipelines.cost.dataflow import JobCost, cost_of
from pipelines.cost.prices import Prices
from pipelines.engine.options import named_paths

if TYPE_CHECKING:
    from pipelines.plan import Plan

_LOG = logging.getLogger(__name__)
_ONE_PROCESS = "no_use_multiple_sdk_containers"
_THREADS = "number_of_worker_harness_threads"
_MOST_NAME = 63


def set_defaults(options: PipelineOptions, flags: Sequence[str], plan: Plan) -> None:
    """Sets what a job should have and the command line does not give.

    One process a machine, so that there is one copy of the model; as many threads as an endpoint may have requests
    under way; a job name and labels that tell of the run.

    Args:
      options: the options of the job, changed in place.
      flags: the command line, for Beam.
      plan: the plan of the run.
    """
    given = {flag.partition("=")[0].lstrip("-") for flag in flags}
    debug, cloud = options.view_as(DebugOptions), options.view_as(GoogleCloudOptions)
    experiments = {each.partition("=")[0] for each in debug.experiments or ()}
    if not experiments & {_ONE_PROCESS, "use_multiple_sdk_containers", "sdk_worker_parallelism"}:
        debug.add_experiment(_ONE_PROCESS)
    model = plan.model.config
    if isinstance(model, EndpointConfig) and _THREADS not in given and "experiments" not in given:
        options.view_as(DebugOptions).number_of_worker_harness_threads = max(model.max_in_flight, 12)
    if "job_name" not in given:
        # A stream keeps its name, so that --update finds it; two jobs of one name cannot run at the same time.
        run = "" if options.view_as(StandardOptions).streaming else f"-{plan.run_id}"
        name = plan.config.name.lower().replace("_", "-")
        cloud.job_name = f"{name[: _MOST_NAME - len(run)]}{run}"
    if not any(_is_app(label) for label in cloud.labels or ()):
        add_label(options, "app", "beam-tf-predict")


def add_label(options: PipelineOptions, name: str, value: str) -> None:
    """Gives a job one more label."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.labels = [*(cloud.labels or ()), f"{name}={value}"]


def _is_app(label: str) -> bool:
    """Tells whether a value of --labels gives the label app: key=value, or an object as templates' launchers write."""
    if not label.lstrip().startswith("{"):
        return label.partition("=")[0] == "app"
    try:
        return "app" in json.loads(label)
    except ValueError:
        return False


def check_update(options: PipelineOptions) -> None:
    """Makes sure that there is a job for --update to replace: Beam would look for it without end.

    Raises:
      ConfigError: there is none, or Dataflow does not say.
    """
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient
    from google.api_core.exceptions import GoogleAPIError
    from google.cloud import dataflow_v1beta3

    cloud = options.view_as(GoogleCloudOptions)
    if not cloud.update:
        return
    if not options.view_as(StandardOptions).streaming:
        raise ConfigError(["--update: only a stream's job can be replaced while it runs; leave it out"])
    try:
        jobs = DataflowApplicationClient(options)._jobs_client.list_jobs(
            dataflow_v1beta3.ListJobsRequest(
                project_id=cloud.project,
                location=cloud.region,
                filter=dataflow_v1beta3.ListJobsRequest.Filter.ACTIVE,
                name=cloud.job_name,
            )
        )
        states = dataflow_v1beta3.JobState
        replaceable = (states.JOB_STATE_RUNNING, states.JOB_STATE_DRAINING)
        found = any(job.name == cloud.job_name and job.current_state in replaceable for job in jobs)
    except GoogleAPIError as error:
        raise ConfigError([f"--update: Dataflow does not list its jobs: {error}"]) from None
    if not found:
        raise ConfigError(
            [
                f"--update: no job of the name {cloud.job_name} runs in {cloud.region}; give the running job's "
                "--job_name, or leave --update out to start a new one"
            ]
        )


def require_places(options: PipelineOptions) -> None:
    """Makes sure that Beam finds the buckets to which it writes a job; where it does not, it tries for many minutes.

    Raises:
      ConfigError: a bucket is not there, or may not be looked at.
    """
    cloud = options.view_as(GoogleCloudOptions)
    for name in ("temp_location", "staging_location", "template_location"):
        path = str(getattr(cloud, name))
        if path.startswith("gs://"):
            locations.of_bucket(path.removeprefix("gs://").partition("/")[0], f"--{name}", strict=True)


def region_notes(options: PipelineOptions, plan: Plan) -> list[str]:
    """Lists the buckets of a job that are not in its region, one line each: traffic between regions is slow and costs.

    Raises:
      ConfigError: a bucket is not there, or Cloud Storage does not answer.
    """
    cloud = options.view_as(GoogleCloudOptions)
    region = str(cloud.region)
    named = [*named_paths(plan), ("model.path", plan.model.path), ("--temp_location", str(cloud.temp_location))]
    seen: set[str] = set()
    notes = []
    for where, path in named:
        bucket = path.removeprefix("gs://").partition("/")[0]
        if not path.startswith("gs://") or bucket in seen:
            continue
        seen.add(bucket)
        place, parts = locations.of_bucket(bucket, where)
        if not locations.serves(place, parts, region):
            notes.append(
                f"warning: {where}: the bucket {bucket} is in {place}, and the workers are in {region}: what they read "
                "and write there travels, which is slow and is billed; choose --region, or a bucket near it"
            )
    return notes


def job_cost(result: Any, prices: Prices) -> JobCost | None:
    """Asks Dataflow what a job has used; returns what that costs, or None if it does not tell."""
    try:
        metrics = result._runner.dataflow_client.get_job_metrics(result.job_id()).metrics
    except Exception as error:  # the job has ended well: it does not fail for this
        _LOG.warning("Dataflow does not tell what the job has used: %s", error)
        return None
    return cost_of(metrics, prices)
