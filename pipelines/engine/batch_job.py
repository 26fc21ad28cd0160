"""Runs the steps of a batch prediction job that need an engine: prepare and join.

What is done is told by the job's folder, see `pipelines.connectors.batch_job.folder`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from inference.job.result_lines import ResultForm
from inference.job.service import JobState, JobStatus
from pipelines import storage
from pipelines.connectors.batch_job import results
from pipelines.connectors.batch_job.folder import JobFolder, Prepared
from pipelines.connectors.batch_job.request import RequestMaker
from pipelines.connectors.batch_job.steps import JobEndedError, address_of, path_of
from pipelines.engine import runners
from pipelines.engine.common import make_pipeline
from pipelines.engine.failures import failed, said_once
from pipelines.flows import batch as batch_flow
from pipelines.flows.batch_job import join as join_flow
from pipelines.flows.batch_job import prepare as prepare_flow
from pipelines.plan import Extent, Plan
from pipelines.telemetry.tally import LiveProgress

_OR_RESUBMIT = "or run the same command with --resubmit, which submits a new job over the same instances"


def prepare(plan: Plan, options: PipelineOptions, folder: JobFolder, request: RequestMaker, console: Any) -> Prepared:
    """Writes the instances of a plan's rows, and the rows beside them.

    Args:
      plan: what to do.
      options: see `options.options_from`.
      folder: of the job; it is there.
      request: makes what the folder says of the job.
      console: for progress.

    Raises:
      RunFailedError: the pipeline failed; nothing was submitted.
    """
    folder.clear_prepared()
    folder.make_parts(plan.run_id)
    limit = batch_flow.limit_of(plan)
    with said_once(), runners.started(options) as ready:
        pipeline = make_pipeline(ready)
        prepare_flow.build(pipeline, plan, folder, limit, request)
        try:
            with LiveProgress(console, plan.nbytes):
                pipeline.run().wait_until_finish()
        except Exception as error:
            raise failed(error, "nothing was submitted") from error
        finally:
            folder.remove_unfinished(plan.run_id)
    done = folder.prepared()
    if done is None:
        raise RuntimeError(f"{folder.path}prepared.json was written, and is not there")
    return done


def make_join(
    plan: Plan, folder: JobFolder, prepared: Prepared, status: JobStatus | None, form: ResultForm
) -> join_flow.Join:
    """Finds the results of a job.

    Args:
      plan: what to do.
      folder: of the job.
      prepared: what was prepared.
      status: of the job; None if there was none to submit, as there were no instances.
      form: of the result lines.

    Raises:
      JobEndedError: the job says that its results are elsewhere, or they or prepared rows are gone.
    """
    _require_rows(folder, prepared)
    if status is None:
        return join_flow.Join(folder, prepared, (), form, "there was no job", None)
    submitted = folder.submitted()
    told = folder.results(submitted.attempt if submitted else 1)
    where = path_of(status.output) or told
    if not path_of(where).startswith(path_of(address_of(told)).rstrip("/")):
        raise JobEndedError(f"the job {status.resource} says that its results are in {where}, and was told {told}")
    found = results.find(where)
    if not found.results and status.succeeded != 0:
        raise JobEndedError(
            f"the job {status.resource} is {status.said}, and there are no files of results in {where}; put them back, "
            f"{_OR_RESUBMIT}"
        )
    gone = results.gone(found.results) if status.state is JobState.SUCCEEDED else []
    if gone:
        more = f" and {len(gone) - 1:,} more files of results are" if gone[1:] else " is"
        raise JobEndedError(
            f"{gone[0]}{more} gone, of the job {status.resource}; put back what is gone, {_OR_RESUBMIT}"
        )
    return join_flow.Join(
        folder,
        prepared,
        results.pieces(found.results),
        form,
        _missing(found, where, prepared, status),
        status.model_version,
    )


def _missing(found: results.ResultFiles, where: str, prepared: Prepared, status: JobStatus) -> str:
    """Says of a row that it has no result, and what the job tells of that."""
    said = results.what_went_wrong(found.errors) or list(status.partial_failures[:3])
    missing = "the job gave no result for this row"
    if said:
        missing += f"; it says of rows that failed: {'; '.join(said)}"
    elif (status.succeeded or 0) >= prepared.instances:
        missing += (
            f", and says that it predicted all {prepared.instances:,}: look whether the files of results in {where} "
            "are whole, put back what is lost, and run the same command again"
        )
    return missing[:500]


def _require_rows(folder: JobFolder, prepared: Prepared) -> None:
    """Raises JobEndedError if the files of prepared rows are not as they were written."""
    wanted: dict[str, int] = {}
    for group in prepared.groups:
        path = folder.shard_of(group.name)
        wanted[path] = max(wanted.get(path, 0), group.offset + group.length)
    wanted |= {folder.dead_letters + file.name: file.size for file in prepared.dead_letters}
    present = {
        place + entry.name: entry.size
        for place in (folder.rows, folder.dead_letters)
        for entry in storage.entries(place, "")
    }
    for path, size in wanted.items():
        if present.get(path) != size:
            became = "is gone" if path not in present else "is not as it was written"
            raise JobEndedError(folder.lost(path, became))


def joined_plan(plan: Plan, prepared: Prepared) -> Plan:
    """Returns the plan of the join, as a run of its own."""
    return replace(plan, files=(), extent=Extent(max(prepared.instances, 1), prepared.instance_bytes))
