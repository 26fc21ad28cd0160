"""Keeps the folder of a batch prediction job: what is prepared, what was submitted, where results are.

    <model.folder>/<identity>/
      instances/<shard>.jsonl       what the service reads; or .tfrecord, .tfrecord.gz
      rows/<shard>.rows             the rows, kept until their results come
      dead_letters/<name>.jsonl     rows that were refused while they were prepared
      unfinished/                   instances of a preparation that goes on: the service must not read them
      request.json                  what is sent to submit the job, for a scheduler that does so by itself
      prepared.json                 all of that is complete
      job.json                      the job that was submitted
      results-<attempt>/            what the service writes

A run with the same source, the same files and the same model has the same identity, and so the same folder: whoever
comes later goes on where an earlier run was stopped. Each step is complete once its record is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines import storage
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import shards
from pipelines.plan import Plan

_MOST_BYTES = 1 << 30
_FORMAT = 3
_SORTED = "sorted-"
_OF_THE_MODEL = (
    "service", "resource", "signature", "signature_from", "inputs", "outputs", "instances_format", "key_field",
    "key_input", "key_output", "max_instance_bytes",
)  # fmt: skip
"""Keys of the model that decide what is in the instances, and what the results mean."""


EXTENSIONS = {"jsonl": "jsonl", "tf_record": "tfrecord", "tf_record_gzip": "tfrecord.gz"}
"""Of files of instances, by their format."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


RecordT = TypeVar("RecordT", bound=_Record)


class Group(_Record):
    """Describes a group of prepared rows.

    Attributes:
      name: as keys have it.
      offset: where it begins in its shard.
      length: bytes.
      checksum: CRC-32C of these bytes.
      rows: how many of them are instances.
    """

    name: str
    offset: int
    length: int
    checksum: int
    rows: int


class DeadLetterFile(_Record):
    """Describes a file of dead letters of the preparation.

    Attributes:
      name: in the folder of dead letters.
      size: bytes.
      checksum: CRC-32C of these bytes.
      rows: how many rows they stand for.
    """

    name: str
    size: int
    checksum: int
    rows: int


class Prepared(_Record):
    """Says what was prepared, completely.

    Attributes:
      run: id of the run that did it.
      rows_read: rows found in the source.
      instances: rows that became instances.
      instance_bytes: bytes of their files.
      groups: the groups of prepared rows.
      dead_letters: rows that were refused.
    """

    run: str
    rows_read: int
    instances: int
    instance_bytes: int
    groups: tuple[Group, ...]
    dead_letters: tuple[DeadLetterFile, ...] = ()

    @property
    def rows_dead_lettered(self) -> int:
        """Returns how many rows were refused."""
        return sum(each.rows for each in self.dead_letters)

    @property
    def amount(self) -> str:
        """Returns how many instances there are, in words."""
        return f"{self.instances:,} instance{'s' * (self.instances != 1)}"


class Submitted(_Record):
    """Says which job was submitted last.

    Attributes:
      attempt: the first is 1.
      resource: the job's name; empty while it is not known whether it was submitted.
    """

    attempt: int
    resource: str = ""


class JobRequest(_Record):
    """Says how the first job over prepared rows is submitted.

    Attributes:
      jobs: path of the jobs in the service's API, behind its version.
      body: what is posted there.
      instances: rows that became instances; if there are none, no job is needed.
      refused: why no job may be submitted; empty if one may.
      poll_s: seconds between two looks at the job, at most.
      deadline_s: seconds to wait for it.
    """

    jobs: str
    body: dict[str, Any]
    instances: int
    refused: str
    poll_s: float
    deadline_s: float


class JobFolder:
    """Finds its way in the folder of a run's job.

    Args:
      path: of the folder; ends in a slash.
      extension: of the files of instances.
    """

    def __init__(self, path: str, extension: str = "jsonl") -> None:
        self.path = path
        self._extension = extension
        self.instances = f"{path}instances/"
        self.rows = f"{path}rows/"
        self.dead_letters = f"{path}dead_letters/"
        self.unfinished = f"{path}unfinished/"

    @property
    def is_packed(self) -> bool:
        """Tells whether files of instances are packed with gzip."""
        return self._extension.endswith(".gz")

    @property
    def identity(self) -> str:
        """Returns the identity of the run."""
        return self.path.rstrip("/").rpartition("/")[2]

    def results(self, attempt: int) -> str:
        """Returns the folder that a job is told to write its results to."""
        return f"{self.path}results-{attempt}/"

    def sorted_results(self, run: str) -> str:
        """Returns the folder for sorted results, which only the join of a run needs, while it goes on."""
        return f"{self.path}{_SORTED}{run}/"

    def instances_of(self, shard: str) -> str:
        """Returns the file that holds the instances of a shard."""
        return f"{self.instances}{shard}.{self._extension}"

    def unfinished_of(self, shard: str) -> str:
        """Returns the file that holds them until the preparation is complete."""
        return f"{self.unfinished}{shard}.{self._extension}"

    def rows_of(self, shard: str) -> str:
        """Returns the file that holds the prepared rows of a shard."""
        return f"{self.rows}{shard}.rows"

    def shard_of(self, group: str) -> str:
        """Returns the file that holds a group of prepared rows."""
        return self.rows_of(group.partition("-")[0])

    def lost(self, path: str, became: str) -> str:
        """Says that a file of prepared rows is not there as it was, and what to do."""
        return (
            f"{path} {became}, and its rows cannot be joined without it; put it back, or remove {self.path} and run "
            "the same command, which prepares the rows again and submits a new job"
        )

    def prepared(self) -> Prepared | None:
        """Returns what was prepared; None if that is not complete. Raises ConfigError."""
        # Without it, rows would be prepared again, and have other keys than the results of a job that was submitted.
        anew = f"remove {self.path} to begin anew, with a job of its own"
        return self._read("prepared.json", Prepared, anew)

    def submitted(self) -> Submitted | None:
        """Returns the job that was submitted; None if none was. Raises ConfigError."""
        return self._read("job.json", Submitted, "remove it: the same command finds the job by its name")

    def write_prepared(self, prepared: Prepared) -> None:
        """Notes that all is prepared."""
        self._write("prepared.json", prepared)

    def write_request(self, request: JobRequest) -> None:
        """Notes how the job is submitted."""
        self._write("request.json", request)

    def write_submitted(self, submitted: Submitted) -> None:
        """Notes which job is submitted."""
        self._write("job.json", submitted)

    def make(self) -> None:
        """Makes the folder."""
        make_private(self.path)

    def make_parts(self, run: str) -> None:
        """Makes the folders that a preparation writes to."""
        for folder in (self.rows, self.unfinished, shards.temporary_folder(self.dead_letters, run)):
            make_private(folder)

    def remove_unfinished(self, run: str) -> None:
        """Removes what a preparation needed only while it went on."""
        for folder in (self.unfinished, shards.temporary_folder(self.dead_letters, run)):
            _remove(folder)

    def remove_sorted_results(self) -> None:
        """Removes sorted results, also what stopped joins have left."""
        for name in storage.folder_names(self.path, _SORTED):
            _remove(f"{self.path}{name}/")

    def clear_prepared(self) -> None:
        """Removes what a stopped preparation has left."""
        for folder in (self.instances, self.rows, self.dead_letters, self.unfinished):
            _clear(folder)

    def _read(self, name: str, kind: type[RecordT], mend: str) -> RecordT | None:
        path = self.path + name
        try:
            content = storage.read_small(path, _MOST_BYTES)
            return None if content is None else kind.model_validate_json(content)
        except (OSError, ValueError, ValidationError) as error:
            reason = "it is not a record of this project" if isinstance(error, ValidationError) else str(error)
            raise ConfigError([f"model.folder: {path} cannot be used: {reason}; {mend}"]) from None

    def _write(self, name: str, record: _Record) -> None:
        storage.write_whole(self.path + name, record.model_dump_json().encode())


def _clear(folder: str) -> None:
    """Deletes the files in a folder."""
    storage.delete([folder + entry.name for entry in storage.entries(folder, "") if entry.size is not None])


def _remove(folder: str) -> None:
    """Deletes the files in a folder, and the folder where there is one."""
    _clear(folder)
    if not storage.is_remote(folder) and os.path.isdir(folder):
        os.rmdir(folder)


def make_private(path: str) -> None:
    """Makes a local folder for its owner alone, as it holds original rows; elsewhere there are no folders."""
    if not storage.is_remote(path):
        os.makedirs(path, 0o700, exist_ok=True)


def folder_of(plan: Plan) -> JobFolder:
    """Returns the folder of a plan's job."""
    config = plan.config.model
    assert isinstance(config, BatchJobConfig)
    return JobFolder(f"{config.folder.rstrip('/')}/{identity_of(plan)}/", EXTENSIONS[config.instances_format])


def identity_of(plan: Plan) -> str:
    """Returns what two runs have in common if the instances of one are those of the other: 12 hexadecimal digits.

    Raises:
      ConfigError: the source does not tell whether its rows are still the same.
    """
    if plan.extent is not None and not plan.extent.state:
        raise ConfigError(
            [
                "source: it does not tell when its rows have changed, so a later step of a batch prediction job could "
                "join results to other rows; write them to a table first, and read that"
            ]
        )
    model = plan.config.model.model_dump(mode="json", include=set(_OF_THE_MODEL))
    told = {
        "format": _FORMAT,
        "source": plan.config.source.model_dump(mode="json"),
        "files": [(os.fsencode(file.path).hex(), file.size, file.modified) for file in plan.files],
        "extent": None if plan.extent is None else plan.extent.state,
        "columns": plan.read.columns.to_string(),
        "inputs": [repr(bound.spec) for bound in plan.binding.inputs],
        "model": model,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]
