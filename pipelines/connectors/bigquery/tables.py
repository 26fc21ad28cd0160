"""Finds or makes tables of BigQuery before a run, with columns for Arrow's types; explains mistakes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from inference.columns.bound import did_you_mean
from inference.columns.coercion import is_list
from pipelines.config.errors import ConfigError
from pipelines.connectors.preflight import ANSWER_WITHIN_S, answer_of
from pipelines.formats.bigquery_types import standard_name, type_name

if TYPE_CHECKING:
    from pipelines.config.bigquery import BigQuerySource
    from pipelines.plan import OutputColumn, Plan

REST_EMULATOR = "BIGQUERY_EMULATOR_HOST"
GRPC_EMULATOR = "BIGQUERY_STORAGE_EMULATOR_HOST"
_MOST_DIGITS, _MOST_DECIMALS = 38, 9
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Table:
    """Describes the name of a table: <project>.<dataset>.<table>."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, name: str) -> Table:
        """Parses a name whose form has been checked. A project may have dots, in its domain."""
        project, dataset, table = name.rsplit(".", 2)
        return cls(project, dataset, table)

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def path(self) -> str:
        """Returns the table's name as gRPC requests have it."""
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{self.table}"


@dataclass(frozen=True)
class Column:
    """Describes a column of a table: its name, BigQuery's name of its type, and whether it is NULLABLE,
    REQUIRED or REPEATED.
    """

    name: str
    type: str
    mode: str

    def __str__(self) -> str:
        return f"{'REPEATED ' if self.mode == 'REPEATED' else ''}{self.type}"


def table_type(type: pa.DataType) -> pa.DataType:
    """Returns the Arrow type in which values of a type are sent: the nearest that BigQuery has, JSON text if it has
    none.
    """
    if pa.types.is_dictionary(type):
        type = type.value_type
    if is_list(type):
        inner = table_type(type.value_type)
        return pa.string() if is_list(type.value_type) or pa.types.is_nested(type.value_type) else pa.list_(inner)
    if pa.types.is_integer(type):
        return pa.int64()
    if pa.types.is_floating(type):
        return pa.float64()
    if pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type):
        return pa.binary()
    if pa.types.is_timestamp(type):
        return pa.timestamp("us", None if type.tz is None else "UTC")
    if pa.types.is_time(type):
        return pa.time64("us")
    if pa.types.is_decimal(type) and _is_numeric(type):
        return pa.decimal128(_MOST_DIGITS, _MOST_DECIMALS)
    return type if pa.types.is_boolean(type) or pa.types.is_date32(type) else pa.string()


def _is_numeric(type: pa.DataType) -> bool:
    return bool(0 <= type.scale <= _MOST_DECIMALS and type.precision - type.scale <= _MOST_DIGITS - _MOST_DECIMALS)


def table_columns(plan: Plan) -> tuple[OutputColumn, ...]:
    """Returns the columns that a plan writes, with the types in which they are sent."""
    read = plan.read.columns
    columns = []
    for column in plan.output:
        # A file's format may have made text of bytes.
        natural = (
            read.field(column.name).type if column.origin in ("source", "key") and column.name in read.names else None
        )
        columns.append(dataclasses.replace(column, type=table_type(column.type if natural is None else natural)))
    return tuple(columns)


def table_schema(columns: tuple[OutputColumn, ...], event_time: str | None) -> pa.Schema:
    """Returns the schema of the rows that are sent: the columns, and the event time if the table has one."""
    fields = [(column.name, column.type) for column in columns]
    return pa.schema([*fields, *([(event_time, pa.timestamp("us", "UTC"))] if event_time else [])])


def column_of(field: pa.Field) -> Column:
    """Returns the column that takes a field whose type is one of `table_type`'s."""
    is_repeated = is_list(field.type)
    name = type_name(field.type.value_type if is_repeated else field.type)
    assert name is not None, field.type
    return Column(field.name, name, "REPEATED" if is_repeated else "NULLABLE")


def make_client(project: str | None) -> Any:
    """Returns a REST client of BigQuery, or of the emulator that BIGQUERY_EMULATOR_HOST names."""
    from google.cloud import bigquery

    emulator = os.environ.get(REST_EMULATOR)
    if not emulator:
        return bigquery.Client(project=project)
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    host = ClientOptions(api_endpoint=emulator if "://" in emulator else f"http://{emulator}")
    return bigquery.Client(project=project, credentials=AnonymousCredentials(), client_options=host)


def source_client(source: BigQuerySource) -> Any:
    """Makes a REST client that reads and pays as a source's config says.

    Raises:
      ConfigError: nothing tells which project pays.
    """
    project = source.project
    if not project and os.environ.get(REST_EMULATOR):
        named = source.table or source.temporary_dataset or ""
        project = named.split(".")[0] or os.environ.get("GOOGLE_CLOUD_PROJECT", "emulator")
    try:
        return make_client(project)
    except OSError as error:
        if "Project was not passed" not in str(error):
            raise
        raise ConfigError(
            [
                "source.project: the credentials name no project that reads and pays; name one in a config with "
                "source.project, or in the environment variable GOOGLE_CLOUD_PROJECT"
            ]
        ) from None


def require_both_emulators(where: str) -> None:
    """Raises ConfigError if one of BigQuery's APIs would be an emulator's, and the other the cloud's.

    Args:
      where: the config's path of what needs both.
    """
    if bool(os.environ.get(REST_EMULATOR)) != bool(os.environ.get(GRPC_EMULATOR)):
        raise ConfigError([f"{where}: {REST_EMULATOR} and {GRPC_EMULATOR} belong together: set both, or neither"])


def ready_table(table: Table, schema: pa.Schema, where: str, create: bool) -> None:
    """Sees to it that a table is there and takes rows of a schema, and that rows can be sent.

    Args:
      table: its name.
      schema: types are those of `table_type`.
      where: the config's path of the object that names the table.
      create: make the table if it is not there.

    Raises:
      ConfigError: with every mistake found.
    """
    require_both_emulators(f"{where}.table")
    there = _answer_of(where, lambda: _columns(table, schema if create else None, where))
    problems = mismatches(table, there, schema, where)
    if problems:
        raise ConfigError(problems)
    answer_of(f"{where}.table", "BigQuery storage", GRPC_EMULATOR, lambda: _knock(table))


def _answer_of(where: str, call: Callable[[], _Answer]) -> _Answer:
    return answer_of(f"{where}.table", "BigQuery", REST_EMULATOR, call)


def _columns(table: Table, wanted: pa.Schema | None, where: str) -> list[Column]:
    """The columns of a table; it is made with those wanted, if any are."""
    from google.api_core.exceptions import Conflict, NotFound

    once: dict[str, Any] = {"retry": None, "timeout": ANSWER_WITHIN_S}
    with make_client(table.project) as client:
        try:
            found = client.get_table(str(table), **once)
        except NotFound:
            missing = missing_of(client, table, once)
            if missing != table:
                raise ConfigError(
                    [f"{where}.table: there is no dataset {missing}; check the name, or create it"]
                ) from None
            if wanted is None:
                raise ConfigError(
                    [f"{where}.table: there is no table {table}; check the name, create it, or set {where}.create"]
                ) from None
            try:
                found = _create(client, table, wanted, once)
            except Conflict:
                found = client.get_table(str(table), **once)
    return columns_of(found)


def columns_of(table: Any) -> list[Column]:
    """Returns the columns of a table that the client has found."""
    return [Column(each.name, standard_name(each.field_type), each.mode) for each in table.schema]


def _create(client: Any, table: Table, schema: pa.Schema, once: dict[str, Any]) -> Any:
    from google.cloud.bigquery import SchemaField
    from google.cloud.bigquery import Table as Definition

    columns = [column_of(field) for field in schema]
    return client.create_table(
        Definition(str(table), [SchemaField(each.name, each.type, each.mode) for each in columns]), **once
    )


def missing_of(client: Any, table: Table, once: dict[str, Any]) -> Table | str:
    """Returns what is not there: the table, or its dataset already."""
    from google.api_core.exceptions import NotFound

    dataset = f"{table.project}.{table.dataset}"
    try:
        client.get_dataset(dataset, **once)
    except NotFound:
        return dataset
    return table


def mismatches(table: Table, there: list[Column], schema: pa.Schema, where: str) -> list[str]:
    """Returns what keeps rows of a schema from being written to a table with some columns, one line each."""
    known = {column.name.lower(): column for column in there}
    problems = []
    for field in schema:
        wanted, found = column_of(field), known.pop(field.name.lower(), None)
        if found is None:
            near = did_you_mean(field.name, [column.name for column in there])
            problems.append(
                f"{where}.columns: {table} has no column '{field.name}'{near}; add a {wanted} of that name to the "
                f"table, or leave it out of {where}.columns"
            )
        elif (found.type, found.mode == "REPEATED") != (wanted.type, wanted.mode == "REPEATED"):
            problems.append(
                f"{where}.columns: '{field.name}' is {wanted}, but in {table} it is {found}; change the table, or "
                f"leave it out of {where}.columns"
            )
    for column in known.values():
        if column.mode == "REQUIRED":
            problems.append(
                f"{where}.table: column '{column.name}' of {table} is REQUIRED, and nothing is written to it; make it "
                f"NULLABLE, or add it to {where}.columns"
            )
    return problems


def _knock(table: Table) -> None:
    """Whether rows can be sent. What else the service may object to, an append will tell."""
    import grpc

    from pipelines.connectors.bigquery import write_api
    from pipelines.connectors.bigquery.transport import told

    transport = write_api.make_transport()
    try:
        write_api.look_at(transport, table.path, ANSWER_WITHIN_S - 1)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise ConnectionError(told(error)) from None
    finally:
        transport.close()
