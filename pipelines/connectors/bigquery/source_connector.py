"""Connects a batch run to BigQuery as its source: looked at before it, and read in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from inference.columns.bound import did_you_mean
from pipelines.config.bigquery import BigQuerySource
from pipelines.config.errors import ConfigError
from pipelines.connectors.base import BoundedSourceConnector, SourceContents
from pipelines.connectors.bigquery import queries, read_api
from pipelines.connectors.bigquery.tables import (
    GRPC_EMULATOR,
    REST_EMULATOR,
    Table,
    missing_of,
    require_both_emulators,
    source_client,
)
from pipelines.connectors.bigquery.transport import told
from pipelines.connectors.preflight import ANSWER_WITHIN_S, answer_of
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.formats.bigquery_rows import BigQueryOrigin, flattened, leaves
from pipelines.plan import Extent
from pipelines.rows.origin import Block, RejectedRow

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.plan import Plan

_T = TypeVar("_T")
_SHOWN = 10


class BigQuerySourceConnector(BoundedSourceConnector):
    """Reads a table, a view or the result of a query."""

    def __init__(self, source: BigQuerySource) -> None:
        self._source = source

    def look_at(self) -> SourceContents:
        require_both_emulators("source")
        notes: list[str] = []
        table = self._rest("source.table", self._table) if self._source.table else None
        if table is not None and table.table_type in queries.READABLE_TABLES:
            found = self._storage(1, [])
            state = str(self._source.snapshot_time or table.modified or "")
            extent = Extent(table.num_rows or 0, found.nbytes or table.num_bytes or 0, state)
            schema = found.schema
        else:
            extent, schema, cost = self._query()
            notes.append(cost)
        columns, left_out = leaves(schema)
        if left_out:
            more = f" and {len(left_out) - _SHOWN:,} more" if len(left_out) > _SHOWN else ""
            notes.append(f"columns of types that cannot be read are left out: {', '.join(left_out[:_SHOWN])}{more}")
        return SourceContents(self._selected(columns, left_out), extent, notes)

    def read(self, plan: Plan, dead_letters: DeadLetterPlace, limit: DeadLetterLimit) -> beam.PTransform:
        from pipelines.connectors.bigquery.source import ReadBigQuery

        job = f"{plan.config.name}-{plan.run_id}"
        return ReadBigQuery(self._source, plan.read.columns.names, job, plan.extent or Extent(0, 0))

    def sample(self, plan: Plan, rows: int) -> Iterator[tuple[str, Block | RejectedRow]]:
        for block in self.first_rows(plan.read.columns.names, rows):
            yield str(self._source.table), block

    def first_rows(self, columns: list[str], rows: int) -> Iterator[Block]:
        """Yields the first rows of a table; none of a view or query, whose rows cost what the query costs.

        Args:
          columns: the columns to read, fields of structs by their dotted names.
          rows: how many, about.
        """
        source = self._source
        table = self._rest("source.table", self._table) if source.table else None
        if table is None or table.table_type not in queries.READABLE_TABLES:
            return
        session = self._storage(1, columns)
        with read_api.connected() as transport:
            for stream in session.streams:
                for answer in read_api.read(transport, stream):
                    batch = flattened(answer.batch.slice(0, rows), columns)
                    rows -= batch.num_rows
                    yield Block(BigQueryOrigin(f"{source.table}/0", answer.offset, batch), batch)
                    if rows <= 0:
                        return

    def _table(self) -> Any:
        """Returns the table or view as REST describes it."""
        from google.api_core.exceptions import NotFound

        source = self._source
        table = Table.parse(str(source.table))
        once: dict[str, Any] = {"retry": None, "timeout": ANSWER_WITHIN_S}
        with source_client(source) as client:
            try:
                found = client.get_table(str(table), **once)
            except NotFound:
                missing = missing_of(client, table, once)
                what = "table" if missing == table else "dataset"
                raise ConfigError([f"source.table: there is no {what} {missing}; check the name"]) from None
        where = found.location
        if source.location and where and where.lower() != source.location.lower():
            raise ConfigError(
                [f"source.location: {table} is in {where}, not in {source.location}; leave source.location out"]
            )
        if source.snapshot_time and found.table_type not in queries.READABLE_TABLES:
            raise ConfigError(
                [f"source.snapshot_time: {table} is a {found.table_type.lower()}; only tables can be read as they were"]
            )
        return found

    def _query(self) -> tuple[Extent, pa.Schema, str]:
        source = self._source
        where = "source.query" if source.query else "source.table"

        def dry_run() -> queries.DryRun:
            with source_client(source) as client:
                sql = queries.sql_of(source, [name.split(".")[0] for name in source.select or ()])
                return queries.dry_run(client, source, sql, ANSWER_WITHIN_S)

        found = self._rest(where, dry_run)
        bounded = f", of {source.max_bytes_billed:,} that may be billed" if source.max_bytes_billed else ""
        what = "the query" if source.query else "the query of the view"
        return (
            Extent(0, 0, found.state),
            found.schema,
            f"{what} reads at most {found.nbytes:,} bytes, by a dry run{bounded}",
        )

    def _rest(self, where: str, call: Callable[[], _T]) -> _T:
        return answer_of(where, "BigQuery", REST_EMULATOR, call)

    def _storage(self, most_streams: int, columns: list[str]) -> read_api.ReadSession:
        return answer_of(
            "source.table", "BigQuery storage", GRPC_EMULATOR, lambda: self._session(most_streams, columns)
        )

    def _session(self, most_streams: int, columns: list[str]) -> read_api.ReadSession:
        import grpc

        source = self._source
        table = Table.parse(str(source.table))
        with source_client(source) as client:
            project = client.project
        with read_api.connected() as transport:
            try:
                return read_api.open_session(
                    transport,
                    table.path,
                    project,
                    columns,
                    source.filter,
                    source.snapshot_time,
                    most_streams,
                    ANSWER_WITHIN_S - 1,
                )
            except grpc.RpcError as error:
                said, code = told(error), error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise ConnectionError(said)
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            raise ConfigError(
                [
                    f"source.table: BigQuery refuses these credentials: {said}; the account needs the roles "
                    f"roles/bigquery.readSessionUser in project {project} and roles/bigquery.dataViewer on the table"
                ]
            )
        if code == grpc.StatusCode.INVALID_ARGUMENT and source.filter:
            raise ConfigError([f"source.filter: {said}; give a condition of GoogleSQL, without WHERE"])
        raise ConfigError([f"source.table: {table} cannot be read: {said}"])

    def _selected(self, columns: pa.Schema, left_out: list[str]) -> pa.Schema:
        if self._source.select is None:
            return columns
        # The name of a struct stands for all of its fields.
        chosen = [
            [column for column in columns if column.name == name or column.name.startswith(f"{name}.")]
            for name in self._source.select
        ]
        problems = []
        for name, found in zip(self._source.select, chosen, strict=True):
            unread = next((each for each in left_out if each.startswith((f"{name} (", f"{name}."))), None)
            if not found and unread:
                problems.append(
                    f"source.select: column {unread} has a type that cannot be read; take out what you need in a query"
                )
            elif not found:
                problems.append(f"source.select: no column '{name}' in the source{did_you_mean(name, columns.names)}")
        if problems:
            raise ConfigError(problems)
        return pa.schema({column.name: column for found in chosen for column in found}.values())
