"""Speaks Vertex AI's `batchPredictionJobs`: what is submitted, and how a job is told.

Taken are JSON lines of objects and TFRecords, from files; `machineSpec` and replica counts are told again and change
nothing.
"""

from __future__ import annotations

import re
import time

from model.serving.errors import RequestError, Status, invalid
from model.serving.jobs.job import Job, JobTask, State
from model.serving.jobs.queue import JobQueue
from model.serving.jobs.told import Json, batch_size, part, timestamp, version_number
from model.serving.service import Service

_MODEL = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/models/([\w.-]+)(?:@([\w-]+))?", re.ASCII)
_RECORDS = ("tf-record", "tf-record-gzip")
_SUBMITTED = (
    "displayName",
    "labels",
    "model",
    "inputConfig",
    "instanceConfig",
    "outputConfig",
    "dedicatedResources",
    "manualBatchTuningParameters",
    "serviceAccount",
)
_STATES = {
    State.QUEUED: "JOB_STATE_QUEUED",
    State.PREPARING: "JOB_STATE_PENDING",
    State.PARTIAL: "JOB_STATE_PARTIALLY_SUCCEEDED",
}


def task_of(service: Service, queue: JobQueue, body: Json, parent: str) -> JobTask:
    """Returns what a body says. Raises RequestError."""
    part(body, "displayName", str)
    resource = part(body, "model", str)
    named = _MODEL.fullmatch(resource)
    if named is None or not resource.startswith(f"{parent}/"):
        raise invalid(f"Field: model; Message: {resource} is not a model in {parent}")
    try:
        version = service.models.find(named[1], version_number(named[2]))
    except RequestError as error:
        raise RequestError(Status.NOT_FOUND, f"The Model {resource} does not exist.") from error
    format = part(body, "inputConfig.instancesFormat", str)
    if format not in ("jsonl", *_RECORDS):
        known = "jsonl, tf-record and tf-record-gzip"
        raise invalid(f"Field: inputConfig.instancesFormat; Message: this server takes {known} only")
    uris = part(body, "inputConfig.gcsSource.uris", list)
    if not uris or not all(isinstance(uri, str) for uri in uris):
        raise invalid("Field: inputConfig.gcsSource.uris; Message: Required field is not set.")
    prefix = part(body, "outputConfig.gcsDestination.outputUriPrefix", str)
    for field in ("includedFields", "excludedFields"):
        if part(body, f"instanceConfig.{field}", list, []):
            raise invalid(f"Field: instanceConfig.{field}; Message: this server does not know it")
    queue.files.check_output(prefix)
    output = f"{prefix.rstrip('/')}/prediction-{version.model_name}-{time.time_ns()}"
    key = part(body, "instanceConfig.keyField", str, "") or None
    if key and format in _RECORDS:
        raise invalid(f"Field: instanceConfig.keyField; Message: this server does not know it for {format}")
    servable = version.servable(service.options.signature)
    rows = batch_size(body, "manualBatchTuningParameters.batchSize")
    return JobTask(
        servable,
        tuple(uris),
        format in _RECORDS,
        format == "tf-record-gzip",
        rows,
        output,
        key,
        names_outputs=False,
        body=body,
    )


def told(job: Job) -> Json:
    """Returns a job as the service tells it."""
    found: Json = {
        **{name: job.task.body[name] for name in _SUBMITTED if name in job.task.body},
        "name": job.name,
        "state": _STATES.get(job.state, f"JOB_STATE_{job.state.name}"),
        "createTime": timestamp(job.created),
        "updateTime": timestamp(time.time()),
        "modelVersionId": str(job.task.servable.version.number),
        "completionStats": {
            "successfulCount": str(job.succeeded),
            "failedCount": str(job.failed),
            "incompleteCount": str(job.untried),
        },
        "resourcesConsumed": {"replicaHours": job.hours},
    }
    if job.started:
        found["startTime"] = timestamp(job.started)
    if job.state.is_final:
        found["endTime"] = timestamp(job.ended)
    if job.message:
        found["error"] = {"code": 3, "message": job.message}
    if job.state in (State.SUCCEEDED, State.PARTIAL):
        found["outputInfo"] = {"gcsOutputDirectory": job.task.output}
    return found
