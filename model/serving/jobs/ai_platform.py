"""Speaks AI Platform's `projects.jobs`: what is submitted, and how a job is told.

Taken are JSON lines and TFRecords; the number of workers is told again and changes nothing.
"""

from __future__ import annotations

import re

from model.serving.errors import RequestError, Status, invalid
from model.serving.jobs.job import Job, JobTask, State
from model.serving.jobs.queue import JobQueue
from model.serving.jobs.told import Json, batch_size, part, timestamp, version_number
from model.serving.service import Service

_RECORDS = ("TF_RECORD", "TF_RECORD_GZIP")
_JOB_ID = re.compile(r"[A-Za-z]\w{0,127}", re.ASCII)
_MODEL = re.compile(r"projects/[\w.:-]+/models/(\w+)(?:/versions/(v?[0-9]{1,18}))?", re.ASCII)


def task_of(service: Service, queue: JobQueue, body: Json) -> tuple[JobTask, str]:
    """Returns what a body says, and the job's id. Raises RequestError."""
    job_id = part(body, "jobId", str)
    if not _JOB_ID.fullmatch(job_id):
        raise invalid(f"Field: job.job_id Error: {job_id} is not a letter, then letters, digits and underscores.")
    version = part(body, "predictionInput.versionName", str, "")
    resource = version or part(body, "predictionInput.modelName", str)
    named = _MODEL.fullmatch(resource)
    if named is None:
        raise invalid(f"Field: prediction_input.model_name Error: {resource} is not projects/P/models/M.")
    try:
        found = service.models.find(named[1], version_number(named[2]))
    except RequestError as error:
        raise RequestError(Status.NOT_FOUND, f"Field: prediction_input Error: {resource} was not found.") from error
    format = part(body, "predictionInput.dataFormat", str)
    if format not in ("JSON", *_RECORDS):
        known = "JSON, TF_RECORD and TF_RECORD_GZIP"
        raise invalid(f"Field: prediction_input.data_format Error: this server takes {known} only.")
    paths = part(body, "predictionInput.inputPaths", list)
    if not paths or not all(isinstance(path, str) for path in paths):
        raise invalid("Field: prediction_input.input_paths Error: it is empty.")
    part(body, "predictionInput.region", str)
    output = part(body, "predictionInput.outputPath", str)
    queue.files.check_output(output)
    name = part(body, "predictionInput.signatureName", str, service.options.signature)
    servable = found.servable(name)
    rows = batch_size(body, "predictionInput.batchSize")
    task = JobTask(
        servable,
        tuple(paths),
        format in _RECORDS,
        format == "TF_RECORD_GZIP",
        rows,
        output,
        None,
        names_outputs=True,
        body=body,
    )
    return task, job_id


def told(job: Job) -> Json:
    """Returns a job as the service tells it."""
    state = "SUCCEEDED" if job.state is State.PARTIAL else job.state.name
    found: Json = {
        **{name: job.task.body[name] for name in ("jobId", "labels", "predictionInput") if name in job.task.body},
        "state": state,
        "createTime": timestamp(job.created),
        "predictionOutput": {
            "outputPath": job.task.output,
            "predictionCount": str(job.succeeded),
            "errorCount": str(job.failed),
            "nodeHours": job.hours,
        },
    }
    if job.started:
        found["startTime"] = timestamp(job.started)
    if job.state.is_final:
        found["endTime"] = timestamp(job.ended)
    if job.message:
        found["errorMessage"] = job.message
    return found
