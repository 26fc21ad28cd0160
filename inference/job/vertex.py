"""Speaks Vertex AI's `batchPredictionJobs`.

Reference: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from inference.job.result_lines import ResultForm, VertexForm, VertexRecordForm
from inference.job.service import LABEL, BatchJobService, JobOrder, JobState, JobStatus, hours_in, number_in
from model.cloud.api import Api, Json
from model.specs import TensorSpec

_RESOURCE = re.compile(r"(projects/[\w.:-]+/locations/([\w-]+))/models/[\w.@-]+", re.ASCII)
_STATES = {
    "JOB_STATE_SUCCEEDED": JobState.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": JobState.PARTIAL,
    "JOB_STATE_FAILED": JobState.FAILED,
    "JOB_STATE_EXPIRED": JobState.FAILED,
    "JOB_STATE_CANCELLED": JobState.CANCELLED,
    "JOB_STATE_RUNNING": JobState.RUNNING,
    "JOB_STATE_CANCELLING": JobState.RUNNING,
    "JOB_STATE_UPDATING": JobState.RUNNING,
}


@dataclass(frozen=True)
class VertexJobSettings:
    """Describes the model and the machines of a job on Vertex AI.

    Attributes:
      model: projects/P/locations/L/models/M[@version].
      key_field: member of an instance that holds its key; of TFRecords, a feature.
      machine_type: of the nodes.
      starting_replicas: number of nodes at the beginning.
      max_replicas: number of nodes at most.
      accelerator_type: of the nodes, if they have any.
      accelerator_count: accelerators of a node.
      batch_size: instances in a call of the model.
      service_account: that the job runs as; None for the project's own.
      instances_format: jsonl, or tf_record, tf_record_gzip for TFRecords of tf.Examples.
    """

    model: str
    key_field: str
    machine_type: str
    starting_replicas: int
    max_replicas: int
    accelerator_type: str | None = None
    accelerator_count: int = 0
    batch_size: int = 64
    service_account: str | None = None
    instances_format: str = "jsonl"

    @property
    def is_records(self) -> bool:
        """Tells whether instances are TFRecords, and not JSON lines."""
        return self.instances_format != "jsonl"


def parent_of(model: str) -> str:
    """Returns the project and location of a model. Raises ValueError: the name is not a model's.

    >>> parent_of("projects/p/locations/us-central1/models/7@2")
    'projects/p/locations/us-central1'
    """
    found = _RESOURCE.fullmatch(model)
    if not found:
        raise ValueError(f"resource: '{model}' is not projects/P/locations/L/models/M")
    return found[1]


def region_of(model: str) -> str:
    """Returns the location of a model. Raises ValueError: the name is not a model's."""
    return parent_of(model).rpartition("/")[2]


class VertexJobs(BatchJobService):
    """Runs jobs on Vertex AI. A job's id is the service's own, so a job is found by its name and label.

    Args:
      api: the service.
      settings: the model and the machines.
    """

    def __init__(self, api: Api, settings: VertexJobSettings) -> None:
        super().__init__(api, f"{parent_of(settings.model)}/batchPredictionJobs")
        self._settings = settings

    def form(self, outputs: tuple[TensorSpec, ...]) -> ResultForm:
        if self._settings.is_records:
            return VertexRecordForm("instance", outputs, self._settings.key_field)
        # Whatever the key is called in an instance, results call it so.
        return VertexForm("key", outputs)

    def look(self) -> None:
        self.api.list_all(self.jobs, "batchPredictionJobs", {"pageSize": "1", "filter": f'displayName="{LABEL}"'})
        self.require(self._settings.model)

    def find(self, order: JobOrder) -> JobStatus | None:
        query = {"filter": f'labels.{LABEL}="{order.identity}"', "pageSize": "100"}
        for found in self.api.list_all(self.jobs, "batchPredictionJobs", query):
            if found.get("displayName") == order.name:
                return self.status_of(found)
        return None

    def body(self, order: JobOrder) -> Json:
        made = self._settings
        machine: Json = {"machineType": made.machine_type}
        if made.accelerator_type:
            machine |= {"acceleratorType": made.accelerator_type, "acceleratorCount": made.accelerator_count or 1}
        body: Json = {
            "displayName": order.name,
            "labels": {**order.labels, LABEL: order.identity},
            "model": made.model,
            "inputConfig": {
                "instancesFormat": made.instances_format.replace("_", "-"),
                "gcsSource": {"uris": [order.instances]},
            },
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": order.output.rstrip("/")},
            },
            "dedicatedResources": {
                "machineSpec": machine,
                "startingReplicaCount": made.starting_replicas,
                "maxReplicaCount": made.max_replicas,
            },
            "manualBatchTuningParameters": {"batchSize": made.batch_size},
        }
        if not made.is_records:
            # A record is opaque to the service: it has no member to take the key out of.
            body["instanceConfig"] = {"instanceType": "object", "keyField": made.key_field}
        return body | ({"serviceAccount": made.service_account} if made.service_account else {})

    def status_of(self, told: Json) -> JobStatus:
        said = str(told.get("state") or "JOB_STATE_PENDING")
        error: Any = told.get("error") or {}
        output: Any = told.get("outputInfo") or {}
        stats: Any = told.get("completionStats") or {}
        partial: Any = told.get("partialFailures") or []
        version = told.get("modelVersionId")
        return JobStatus(
            resource=str(told.get("name") or ""),
            name=str(told.get("displayName") or ""),
            state=_STATES.get(said, JobState.WAITING),
            said=said,
            message=str(error.get("message") or ""),
            output=str(output.get("gcsOutputDirectory") or ""),
            succeeded=number_in(stats, "successfulCount"),
            failed=number_in(stats, "failedCount"),
            node_hours=hours_in(told.get("resourcesConsumed") or {}, "replicaHours"),
            partial_failures=tuple(str(each.get("message") or "") for each in partial if isinstance(each, dict)),
            model_version=str(version) if version else None,
        )
