"""Runs queries of BigQuery whose results are read: what they would cost, where their results are, mistakes in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from inference.log_throttle import first_line
from pipelines.config.bigquery import BigQuerySource
from pipelines.config.errors import ConfigError
from pipelines.connectors.bigquery.tables import Table
from pipelines.formats.bigquery_types import arrow_type

READABLE_TABLES = ("TABLE", "SNAPSHOT", "CLONE")
"""Types of tables that the Storage Read API reads as they are."""


@dataclass(frozen=True)
class DryRun:
    """Tells what a query would do.

    Attributes:
      schema: of its result; a type that Arrow batches of it would not have is null.
      nbytes: how many bytes it would read.
      state: when the tables that it reads were changed last; empty if BigQuery does not tell.
    """

    schema: pa.Schema
    nbytes: int
    state: str = ""


def sql_of(source: BigQuerySource, columns: Sequence[str] = ()) -> str:
    """Returns the query that gives the rows of a query or view, with no more columns than needed.

    Args:
      source: the config.
      columns: the columns that are needed, fields of structs by their dotted names; all if there are none.
    """
    # A struct comes whole out of a query; of its fields, the session reads those that are needed.
    tops = dict.fromkeys(name.split(".")[0] for name in columns)
    wanted = ", ".join(f"`{name}`" for name in tops) or "*"
    rows = f"(\n{source.query}\n)" if source.query else f"`{source.table}`"
    if source.query and not tops and not source.filter:
        return source.query
    return f"SELECT {wanted} FROM {rows}" + (f" WHERE ({source.filter})" if source.filter else "")


def dry_run(client: Any, source: BigQuerySource, sql: str, timeout_s: float) -> DryRun:
    """Asks BigQuery what a query would do; costs nothing.

    Raises:
      ConfigError: it would not run, or read more than may be billed.
    """
    from google.api_core.exceptions import BadRequest, NotFound
    from google.cloud.bigquery import QueryJobConfig

    where = "source.query" if source.query else "source.table"
    try:
        job = client.query(
            sql,
            job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
            location=source.location,
            retry=None,
            job_retry=None,
            timeout=timeout_s,
        )
    except BadRequest as error:
        place = where if source.query or not source.filter else "source.filter"
        raise ConfigError([f"{place}: {_said(error)}; correct the SQL"]) from None
    except NotFound as error:
        raise ConfigError([_not_found(source, where, _said(error))]) from None
    if job.statement_type not in (None, "SELECT"):
        raise ConfigError([f"{where}: a {job.statement_type} statement has no rows to read; give one SELECT statement"])
    nbytes = int(job.total_bytes_processed or 0)
    if source.max_bytes_billed is not None and nbytes > source.max_bytes_billed:
        raise ConfigError(
            [
                f"source.max_bytes_billed: {where.rpartition('.')[2]} would read {nbytes:,} bytes, and "
                f"{source.max_bytes_billed:,} may be billed; read fewer columns or rows, or raise the limit"
            ]
        )
    schema = pa.schema([(field.name, _type(field)) for field in job.schema or ()])
    return DryRun(schema, nbytes, _state(client, job.referenced_tables or (), timeout_s))


def _state(client: Any, tables: Sequence[Any], timeout_s: float) -> str:
    """When tables were changed last, in words; empty if one of them does not tell."""
    from google.api_core.exceptions import GoogleAPICallError

    try:
        changed = [client.get_table(table, retry=None, timeout=timeout_s).modified for table in tables]
    except GoogleAPICallError:
        return ""
    return "" if None in changed else ", ".join(sorted(f"{t} {c}" for t, c in zip(tables, changed, strict=True)))


def _not_found(source: BigQuerySource, where: str, said: str) -> str:
    if "location" in said:
        place = f"source.location is {source.location}" if source.location else "source.location is not set"
        return f"{where}: {said}; check the names, and set source.location to where the datasets are ({place})"
    what = "the view reads what is not there" if source.table else "it reads what is not there"
    return f"{where}: {what}: {said}; check the names"


def _type(field: Any) -> pa.DataType:
    if field.field_type in ("RECORD", "STRUCT"):
        found: pa.DataType | None = pa.struct([(each.name, _type(each)) for each in field.fields])
    else:
        found = arrow_type(field.field_type)
    found = pa.null() if found is None else found
    return pa.list_(found) if field.mode == "REPEATED" else found


def result_of(client: Any, source: BigQuerySource, sql: str, name: str) -> Table:
    """Runs a query, and returns the table with its result.

    Args:
      client: of REST.
      source: the config.
      sql: the query.
      name: of the job; when it is asked for again under this name, the first result is returned.
    """
    from google.api_core.exceptions import Conflict
    from google.cloud.bigquery import QueryJobConfig

    config = QueryJobConfig(maximum_bytes_billed=source.max_bytes_billed)
    temporary = None
    if source.temporary_dataset:
        temporary = Table.parse(f"{source.temporary_dataset}.{name.replace('-', '_')}")
        expires = "TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)"
        sql = f"CREATE OR REPLACE TABLE `{temporary}` OPTIONS(expiration_timestamp={expires}) AS\n{sql}"
    try:
        job = client.query(sql, job_config=config, job_id=name, location=source.location, job_retry=None)
    except Conflict:
        job = client.get_job(name, location=source.location)
    job.result(job_retry=None)
    if temporary is not None:
        return temporary
    return Table(job.destination.project, job.destination.dataset_id, job.destination.table_id)


def _said(error: Exception) -> str:
    """Returns what an error of the REST API says, without the address that was asked."""
    line = first_line(getattr(error, "message", None) or error)
    return line.partition("?prettyPrint=false: ")[2] or line
