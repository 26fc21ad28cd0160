"""Describes what a run will do: the plan that commands make of a config, and that all else follows."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field

import pyarrow as pa

from inference.columns.bound import Binding
from model import rows
from model.outside import OutsideOperation, describe
from model.runtime.load import Name, takes_over
from model.specs import Signature
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.model import EndpointConfig, SavedModelConfig
from pipelines.config.run import RunConfig
from pipelines.formats import ReadSpec
from pipelines.storage import FileInfo

_ENDED = "Google ended AI Platform on 31 January 2025: such jobs run on servers of one's own only"
KEY = "key"
"""Name of the output column that identifies a row where the source has no key column."""


@dataclass(frozen=True)
class OutputColumn:
    """Describes a column to write.

    Attributes:
      name: its name.
      type: its type in the file.
      origin: "key", "source", "model", or "version" for the model's.
      planned: of a source column, the type that the run was planned with; files whose column has another type give
        only the values that are the same in this one.
      required: a row without a value in it cannot be written.
    """

    name: str
    type: pa.DataType
    origin: str
    planned: pa.DataType | None = None
    required: bool = False


@dataclass(frozen=True)
class PlannedModel:
    """Describes the model that a run calls, as it was found.

    Attributes:
      config: what the config says.
      path: a SavedModel's folder, its version settled; else the name of the endpoint, or of the job's model.
      signature: what it takes and gives.
      outside: what a SavedModel's graph does beside computing, such as reading files.
      runtime: of a SavedModel: what is to run it, native or python; None elsewhere.
      runtime_reason: why it is not native, if nobody asked for python; else empty.
    """

    config: SavedModelConfig | EndpointConfig | BatchJobConfig
    path: str
    signature: Signature
    outside: tuple[OutsideOperation, ...] = ()
    runtime: Name | None = None
    runtime_reason: str = ""

    @property
    def id(self) -> str:
        """Returns the model as dead letters name it."""
        return f"{self.path}:{self.signature.name}" if isinstance(self.config, SavedModelConfig) else self.path

    @property
    def needs_tensorflow(self) -> bool:
        """Tells whether the workers import TensorFlow to call it."""
        return self.runtime == "python"

    @property
    def notes(self) -> list[str]:
        """Returns what a person should know of it, one line each."""
        said = describe(self.outside)
        slower = takes_over(self.path, self.runtime_reason) if self.runtime_reason else ""
        missing = [p for p in getattr(self.config, "op_libraries", ()) if not os.path.isfile(p)]
        absent = [f"op_libraries: there is no file {path} on this machine" for path in missing]
        ended = _ENDED if isinstance(self.config, BatchJobConfig) and self.config.service == "ai_platform" else ""
        return [line for line in (said, slower, rows.note(self.signature), *absent, ended) if line]


@dataclass(frozen=True)
class Extent:
    """Says how much a source is that is not files; 0 where it does not tell.

    Attributes:
      rows: how many there are, before any filter.
      nbytes: of all that is read.
      state: another text once the rows have changed; empty if the source does not tell.
    """

    rows: int
    nbytes: int
    state: str = ""


@dataclass(frozen=True)
class Plan:
    """Describes what a run will do.

    Attributes:
      config: the config.
      files: what to read.
      model: the model, found.
      source_schema: the columns of the files, each with a type for all of them.
      binding: which column feeds which input.
      read: the columns to read, and how.
      output: the columns to write.
      run_id: names what belongs to this run alone.
      notes: what a person should know, one line each.
      extent: how much a source is that is not files; None for files and streams.
    """

    config: RunConfig
    files: tuple[FileInfo, ...]
    model: PlannedModel
    source_schema: pa.Schema
    binding: Binding
    read: ReadSpec
    output: tuple[OutputColumn, ...]
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    notes: tuple[str, ...] = ()
    extent: Extent | None = None

    @property
    def nbytes(self) -> int:
        """Returns how many bytes there are to read, as far as the source tells."""
        return sum(file.size for file in self.files) + (self.extent.nbytes if self.extent is not None else 0)

    @property
    def signature(self) -> Signature:
        """Returns the model's signature."""
        return self.model.signature

    @property
    def model_outputs(self) -> tuple[str, ...]:
        """Returns the model's outputs that are written."""
        return tuple(column.name for column in self.output if column.origin == "model")

    @property
    def tells_version(self) -> bool:
        """Tells whether the version that predicted a row is written beside it."""
        return any(column.origin == "version" for column in self.output)

    @property
    def key_column(self) -> str | None:
        """Returns the source column that is the key, if there is one."""
        return self.config.source.key


def output_options(plan: Plan) -> dict[str, object]:
    """Returns the output format's own settings."""
    output = plan.config.output
    options = {
        "delimiter": getattr(output, "delimiter", None),
        "record": getattr(output, "record", None),
        "outputs": [column.name for column in plan.output if column.origin == "model"],
        "model": plan.config.name,
        "signature": plan.signature.name,
    }
    return {name: value for name, value in options.items() if value is not None}
