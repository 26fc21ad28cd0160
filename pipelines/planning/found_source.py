"""Looks at a source that no config names yet: what a config would say of it, and its first rows, for `init`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import ValidationError

from model.specs import Signature
from pipelines.config import home
from pipelines.config.bigquery import BigQuerySource
from pipelines.config.errors import ConfigError
from pipelines.connectors.files import source_files
from pipelines.formats import FormatError, detection
from pipelines.formats.detection import SAMPLE_ROWS, Detected
from pipelines.planning import fed_inputs, stores
from pipelines.planning.first_rows import first_rows
from pipelines.planning.source_columns import Columns
from pipelines.storage import FileInfo

if TYPE_CHECKING:
    from pipelines.connectors.bigquery.source_connector import BigQuerySourceConnector

TABLE = "bigquery:"
"""Begins the --source that names a table."""
_SAMPLE_BYTES = 64 << 20


@dataclass(frozen=True)
class FoundSource:
    """Describes a source, for a config to be proposed.

    Attributes:
      config: what `source` of a config says of it, without key and columns.
      name: what it is called, for names of what is written.
      detected: its format, and what was found of it.
      sample: its first rows; none of a table that has none, and of a view.
      files: its files; a table has none.
      columns: those of its files; None of a table.
      default_keys: what rows are called where no column identifies them.
    """

    config: dict[str, Any]
    name: str
    detected: Detected
    sample: pa.RecordBatch
    files: Sequence[FileInfo]
    columns: Columns | None
    default_keys: str


def of_files(path: str, format: str | None, signature: Signature) -> FoundSource:
    """Looks at files.

    Args:
      path: a file, a glob or a folder.
      format: of the files; None if it is to be found.
      signature: of the model.

    Raises:
      ConfigError: they are not there, or cannot be read.
    """
    source = source_files.find([home.expanded(path)])
    found = source.files
    if not found:
        raise ConfigError([problem.replace("source.path:", "--source:") for problem in source.problems])
    refusals = stores.unreadable(found, "--source")
    if refusals:
        raise ConfigError(refusals)
    try:
        detected = detection.look_at(found[0].path, format)
        sample, columns = first_rows(found, lambda path: detection.sample(path, detected, signature), detected.format)
    except (FormatError, OSError) as error:
        said = fed_inputs.hints(format or detection.format_of(found[0].path) or "", found[:1])
        raise ConfigError(
            [f"--source: {line.removeprefix('source.path: ')}" for line in said or [str(error)]]
        ) from None
    sample = detection.with_points(sample, detected)
    config = {"type": "file", "format": detected.format, "path": path}
    name = os.path.basename(path.rstrip("/")).split(".")[0]
    return FoundSource(config, name, detected, sample, found, columns, "<file>:<offset>")


def of_table(named: str) -> FoundSource:
    """Looks at a table or view of BigQuery.

    Args:
      named: bigquery:<project>.<dataset>.<table>

    Raises:
      ConfigError: it is not there, or cannot be read.
    """
    from pipelines.connectors.bigquery.read_api import ReadFailedError
    from pipelines.connectors.bigquery.source_connector import BigQuerySourceConnector

    table = named.removeprefix(TABLE)
    try:
        connector = BigQuerySourceConnector(BigQuerySource.model_validate({"type": "bigquery", "table": table}))
    except ValidationError:
        raise ConfigError([f"--source: {named!r} names no table; write {TABLE}<project>.<dataset>.<table>"]) from None
    try:
        contents = connector.look_at()
        sample = _sample(connector, contents.schema)
    except ConfigError as error:
        raise ConfigError([f"--source: {line.partition(': ')[2]}" for line in error.problems]) from None
    except ReadFailedError as error:
        raise ConfigError([f"--source: {error}"]) from None
    notes = list(contents.notes)
    if not sample.num_rows:
        notes.append(
            "no row was looked at (the table has none, or a view's rows would cost what its query costs): the key and "
            "the columns are assumed by names and types alone"
        )
    config = {"type": "bigquery", "table": table}
    return FoundSource(
        config,
        "-".join(table.rsplit(".", 2)[1:]),
        Detected("bigquery", notes=notes),
        sample,
        (),
        None,
        "<table>/<piece>:<row>, which another run numbers otherwise",
    )


def _sample(connector: BigQuerySourceConnector, schema: pa.Schema) -> pa.RecordBatch:
    batches: list[pa.RecordBatch] = []
    if len(schema):
        for block in connector.first_rows(schema.names, SAMPLE_ROWS):
            batches.append(block.batch)
            if sum(batch.nbytes for batch in batches) > _SAMPLE_BYTES:
                break
    if not batches:
        return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    return pa.concat_batches(batches)
