"""Looks at the table that a batch run is to fill, so that what can be known before does not fail at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines import storage
from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.errors import ConfigError
from pipelines.connectors.bigquery import locations
from pipelines.connectors.bigquery.settings import partitioning
from pipelines.connectors.bigquery.tables import (
    REST_EMULATOR,
    Table,
    column_of,
    columns_of,
    make_client,
    mismatches,
    require_both_emulators,
)
from pipelines.connectors.preflight import ANSWER_WITHIN_S, answer_of

_MOST_NAME = 300
_RESERVED = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")
_TIMES = ("DATE", "TIMESTAMP", "DATETIME")
_CLUSTERED = ("INT64", "STRING", "BOOL", "DATE", "DATETIME", "TIMESTAMP", "NUMERIC")


@dataclass
class _Found:
    """Tells what was found of the output's table.

    Attributes:
      location: of its dataset.
      required: the columns that must have a value, in small letters.
      problems: what is wrong, one line each.
    """

    location: str = ""
    required: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)


def check(output: BigQueryOutput, schema: pa.Schema) -> frozenset[str]:
    """Looks at the table, its dataset, the caller's permissions and the bucket of the staging folder.

    Args:
      output: the output of the config.
      schema: of the rows to write; types are those of `table_type`.

    Returns:
      The columns that must have a value in a table that exists, in small letters.

    Raises:
      ConfigError: with every mistake found.
    """
    problems = _names(schema) + _layout(output, schema)
    if problems:
        raise ConfigError(problems)
    if output.method == "stream":
        require_both_emulators("output.table")
    target = Table.parse(output.table)
    found = answer_of("output.table", "BigQuery", REST_EMULATOR, lambda: _look(output, target, schema))
    problems = found.problems
    if not problems and output.method == "load" and storage.is_remote(output.staging_prefix):
        problems = locations.problems(output.staging_prefix, f"{target.project}.{target.dataset}", found.location)
    if problems:
        raise ConfigError(problems)
    return found.required


def _names(schema: pa.Schema) -> list[str]:
    """Lists what is wrong with the names of columns, one line each."""
    problems = []
    seen: dict[str, str] = {}
    for name in schema.names:
        low = name.lower()
        if low in seen:
            problems.append(
                f"output.columns: '{seen[low]}' and '{name}' are one name for BigQuery, which does not tell capital "
                "letters from small ones; leave one out, or rename it in the model or the source"
            )
        seen[low] = name
        if len(name) > _MOST_NAME or low.startswith(_RESERVED) or any(c in name for c in '!"$()*,./;?@[\\]^`{}~'):
            problems.append(
                f"output.columns: BigQuery takes no column named '{name[:_MOST_NAME]}'; leave it out, or rename it in "
                "the model or the source (source.column_names of CSV files)"
            )
    return problems


def _layout(output: BigQueryOutput, schema: pa.Schema) -> list[str]:
    """Lists what is wrong with partition_by and cluster_by, one line each."""
    columns = {field.name: column_of(field) for field in schema}
    problems = []
    by = output.partition_by
    if by is not None:
        found = columns.get(by.column)
        wanted = ("INT64",) if by.is_range else _TIMES
        if found is None:
            problems.append(f"output.partition_by.column: '{by.column}' is not among output.columns; add it there")
        elif found.mode == "REPEATED" or found.type not in wanted:
            fix = "give start, end and interval" if found.type == "INT64" else "choose another column"
            problems.append(
                f"output.partition_by.column: '{by.column}' is {found}, and {', '.join(wanted)} is needed; {fix}"
            )
        elif found.type == "DATE" and by.unit == "hour":
            problems.append(
                f"output.partition_by.unit: '{by.column}' is DATE, which has no hours; give day, month or year"
            )
    for name in output.cluster_by or ():
        found = columns.get(name)
        if found is None:
            problems.append(f"output.cluster_by: '{name}' is not among output.columns; add it there")
        elif found.mode == "REPEATED" or found.type not in _CLUSTERED:
            problems.append(f"output.cluster_by: '{name}' is {found}, which BigQuery does not cluster by; leave it out")
    return problems


def _look(output: BigQueryOutput, target: Table, schema: pa.Schema) -> _Found:
    from google.api_core.exceptions import Forbidden, NotFound

    once: dict[str, Any] = {"retry": None, "timeout": ANSWER_WITHIN_S}
    dataset_name = f"{target.project}.{target.dataset}"
    with make_client(target.project) as client:
        try:
            dataset = client.get_dataset(dataset_name, **once)
        except NotFound:
            return _Found(problems=[f"output.table: there is no dataset {dataset_name}; check the name, or create it"])
        location = str(dataset.location or "")
        try:
            found = client.get_table(str(target), **once)
        except NotFound:
            found = None
        problems = []
        if found is None and output.create is False:
            problems.append(
                f"output.table: there is no table {target}; check the name, create it, or remove output.create"
            )
        if found is not None:
            problems += _existing(client, output, target, found, schema, once)
        if output.method == "load" and not problems:
            try:
                _may_run_jobs(client, location, once)
            except Forbidden:
                problems.append(
                    f"output.table: these credentials may not run jobs in project {target.project}; grant them the "
                    'role BigQuery Job User, or set output.method to "stream"'
                )
    there = columns_of(found) if found is not None else []
    return _Found(location, frozenset(each.name.lower() for each in there if each.mode == "REQUIRED"), problems)


def _existing(
    client: Any, output: BigQueryOutput, target: Table, found: Any, schema: pa.Schema, once: dict[str, Any]
) -> list[str]:
    if found.table_type not in (None, "TABLE"):
        return [f"output.table: {target} is no table but a {found.table_type}; rows cannot be loaded into it"]
    if output.write == "fail_if_exists":
        return [
            f'output.table: {target} exists; choose another table, or set output.write to "append" to add rows, or to '
            '"truncate" to replace those in it'
        ]
    problems = mismatches(target, columns_of(found), schema, "output")
    problems += _other_layout(output, target, found)
    if not problems and not _may_write(client, target, once):
        problems.append(
            f"output.table: these credentials may not write to {target}; grant them the role BigQuery Data Editor on "
            "the table or its dataset"
        )
    return problems


def _other_layout(output: BigQueryOutput, target: Table, found: Any) -> list[str]:
    problems = []
    time, ranges = partitioning(output.partition_by)
    if output.partition_by is not None:
        there = found.time_partitioning and (found.time_partitioning.type_, found.time_partitioning.field)
        wanted = time and (time.type_, time.field)
        if there != wanted or _bounds(found.range_partitioning) != _bounds(ranges):
            problems.append(
                f"output.partition_by: {target} exists and is not partitioned so; remove output.partition_by, or "
                "choose another table"
            )
    if output.cluster_by is not None and list(found.clustering_fields or ()) != output.cluster_by:
        problems.append(
            f"output.cluster_by: {target} exists and is not clustered so; remove output.cluster_by, or choose another "
            "table"
        )
    return problems


def _bounds(ranges: Any) -> tuple[Any, ...] | None:
    if ranges is None:
        return None
    return ranges.field, int(ranges.range_.start), int(ranges.range_.end), int(ranges.range_.interval)


def _may_write(client: Any, target: Table, once: dict[str, Any]) -> bool:
    """Tells whether rows may be added, if the service knows."""
    from google.api_core.exceptions import GoogleAPICallError

    wanted = ["bigquery.tables.updateData"]
    try:
        answer = client.test_iam_permissions(str(target), wanted, **once)
    except GoogleAPICallError as error:
        # Who may not ask may be allowed to write; the emulator does not know the question.
        return bool(error)
    return not answer or "permissions" not in answer or set(wanted) <= set(answer["permissions"])


def _may_run_jobs(client: Any, location: str, once: dict[str, Any]) -> None:
    """Asks for a query that is not run: who may not run jobs may not ask for it either.

    Raises:
      Forbidden: the caller may not.
    """
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized
    from google.cloud.bigquery import QueryJobConfig

    try:
        client.query("SELECT 1", QueryJobConfig(dry_run=True), location=location or None, job_retry=None, **once)
    except (Forbidden, Unauthorized):
        raise
    except GoogleAPICallError:
        return
