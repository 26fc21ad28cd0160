"""Speaks AI Platform's `projects.jobs`, version 1, as systems of its time do. Google ended it on 31 January 2025."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from inference.job.result_lines import AiPlatformForm, ResultForm
from inference.job.service import LABEL, BatchJobService, JobOrder, JobState, JobStatus, hours_in, number_in
from model.cloud.api import Api, Json
from model.specs import TensorSpec

_RESOURCE = re.compile(r"(projects/[\w.:-]+)/models/\w+(/versions/\w+)?", re.ASCII)
_STATES = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "RUNNING": JobState.RUNNING,
    "CANCELLING": JobState.RUNNING,
}


@dataclass(frozen=True)
class AiPlatformJobSettings:
    """Describes the model and the machines of a job on AI Platform.

    Attributes:
      model: projects/P/models/M[/versions/V].
      region: where the job runs.
      key_output: output of the model that gives the key back.
      max_workers: number of nodes at most.
      batch_size: instances in a call of the model.
      signature: the one to call.
      runtime_version: of the service's TensorFlow; None for the model version's own.
      instances_format: jsonl, or tf_record, tf_record_gzip for TFRecords of tf.Examples.
    """

    model: str
    region: str
    key_output: str
    max_workers: int
    batch_size: int = 64
    signature: str = "serving_default"
    runtime_version: str | None = None
    instances_format: str = "jsonl"


def project_of(model: str) -> str:
    """Returns the project of a model. Raises ValueError: the name is not a model's.

    >>> project_of("projects/p/models/births/versions/v1")
    'projects/p'
    """
    found = _RESOURCE.fullmatch(model)
    if not found:
        raise ValueError(f"resource: '{model}' is not projects/P/models/M or projects/P/models/M/versions/V")
    return found[1]


class AiPlatformJobs(BatchJobService):
    """Runs jobs on AI Platform. A job's id is the caller's, so the service itself refuses a second one.

    Args:
      api: the service.
      settings: the model and the machines.
    """

    def __init__(self, api: Api, settings: AiPlatformJobSettings) -> None:
        super().__init__(api, f"{project_of(settings.model)}/jobs")
        self._settings = settings

    def form(self, outputs: tuple[TensorSpec, ...]) -> ResultForm:
        return AiPlatformForm(self._settings.key_output, outputs)

    def look(self) -> None:
        self.api.list_all(self.jobs, "jobs", {"pageSize": "1", "filter": f"jobId:{LABEL}"})
        self.require(self._settings.model)

    def find(self, order: JobOrder) -> JobStatus | None:
        found = self.api.get(f"{self.jobs}/{order.name}")
        return None if found is None else self.status_of(found)

    def body(self, order: JobOrder) -> Json:
        made = self._settings
        wanted: Json = {
            "dataFormat": "JSON" if made.instances_format == "jsonl" else made.instances_format.upper(),
            "inputPaths": [order.instances],
            "outputPath": order.output,
            "region": made.region,
            "maxWorkerCount": str(made.max_workers),
            "batchSize": str(made.batch_size),
            "signatureName": made.signature,
            ("versionName" if "/versions/" in made.model else "modelName"): made.model,
        }
        if made.runtime_version:
            wanted["runtimeVersion"] = made.runtime_version
        return {"jobId": order.name, "labels": {**order.labels, LABEL: order.identity}, "predictionInput": wanted}

    def status_of(self, told: Json) -> JobStatus:
        said = str(told.get("state") or "QUEUED")
        output: Any = told.get("predictionOutput") or {}
        name = str(told.get("jobId") or "")
        return JobStatus(
            resource=f"{self.jobs}/{name}",
            name=name,
            state=_STATES.get(said, JobState.WAITING),
            said=said,
            message=str(told.get("errorMessage") or ""),
            output=str(output.get("outputPath") or ""),
            succeeded=number_in(output, "predictionCount"),
            failed=number_in(output, "errorCount"),
            node_hours=hours_in(output, "nodeHours"),
        )
