"""Makes row keys by a template, and finds or makes tables and families of Bigtable before a run."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from inference.columns.bound import did_you_mean
from pipelines.config.errors import ConfigError
from pipelines.connectors.preflight import ANSWER_WITHIN_S, answer_of
from pipelines.plan import KEY

if TYPE_CHECKING:
    from pipelines.config.bigtable import BigtableOutput
    from pipelines.plan import Plan

EMULATOR = "BIGTABLE_EMULATOR_HOST"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 60_000),
]


def parts_of(template: str) -> list[tuple[str, str | None]]:
    """Splits a row key's template into (text, the column behind it); the last column may be None.

    Raises:
      ValueError: it is no template, or the same key for all rows.
    """
    parts = []
    for text, column, format, conversion in string.Formatter().parse(template):
        if column == "":
            raise ValueError("{} has no name; name a column, such as {source_id}, and write {{}} for braces")
        if format or conversion:
            raise ValueError(f"'{column}' is followed by a format; a column stands alone, as in {{source_id}}")
        parts.append((text, column))
    if not any(column for _, column in parts):
        raise ValueError("names no column, so all rows would have the same key; write such as {source_id}")
    return parts


def key_problems(plan: Plan, template: str) -> list[str]:
    """Returns what is wrong with a row key's template, one line each."""
    where = "output.row_key"
    try:
        parts = parts_of(template)
    except ValueError as error:
        return [f"{where}: {error}"]
    known = {KEY: pa.string()} if plan.key_column is None else {}
    known |= {field.name: field.type for field in plan.read.columns}
    known |= {column.name: column.type for column in plan.output}
    problems = []
    for name in dict.fromkeys(column for _, column in parts if column):
        if name not in known:
            problems.append(
                f"{where}: no column '{name}'{did_you_mean(name, list(known))}; it takes columns that are written or "
                "that the model reads: add it to output.columns"
            )
        elif pa.types.is_nested(known[name]):
            problems.append(f"{where}: '{name}' is a {known[name]}; a key is made of single values")
    return problems


def make_transport(kind: str = "data") -> Any:
    """Returns a transport to Bigtable's data or admin API, or to the emulator that BIGTABLE_EMULATOR_HOST names."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc

    made: Any
    if kind == "data":
        from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport as made
    else:
        from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import (
            BigtableTableAdminGrpcTransport as made,
        )
    emulator = os.environ.get(EMULATOR)
    channel = grpc.insecure_channel(emulator, _OPTIONS) if emulator else made.create_channel(options=_OPTIONS)
    return made(channel=channel)


def ready_table(output: BigtableOutput) -> None:
    """Sees to it that a table and its family are there.

    Raises:
      ConfigError: one of them is not, or Bigtable cannot be called.
    """
    answer_of("output.table", "Bigtable", EMULATOR, lambda: _look(output))


def _look(output: BigtableOutput) -> None:
    from google.api_core.exceptions import AlreadyExists, NotFound
    from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient
    from google.cloud.bigtable_admin_v2.types import ColumnFamily, GcRule, ModifyColumnFamiliesRequest, Table

    once: dict[str, Any] = {"retry": None, "timeout": ANSWER_WITHIN_S}
    name = f"{output.instance}/tables/{output.table}"
    one_version = ColumnFamily(gc_rule=GcRule(max_num_versions=1))
    with BigtableTableAdminClient(transport=make_transport("admin")) as client:
        try:
            families = client.get_table(request={"name": name, "view": Table.View.SCHEMA_VIEW}, **once).column_families
        except NotFound:
            if not output.create:
                raise ConfigError(
                    [f"output.table: there is no {name}; check the names, create it, or set output.create"]
                ) from None
            try:
                client.create_table(
                    parent=output.instance,
                    table_id=output.table,
                    table=Table(column_families={output.family: one_version}),
                    **once,
                )
            except NotFound:
                raise ConfigError([f"output.instance: there is no {output.instance}; create it first"]) from None
            except AlreadyExists:
                pass
            return
        if output.family in families:
            return
        if not output.create:
            near = did_you_mean(output.family, list(families))
            raise ConfigError(
                [f"output.family: {name} has no family '{output.family}'{near}; create it, or set output.create"]
            )
        change = ModifyColumnFamiliesRequest.Modification(id=output.family, create=one_version)
        client.modify_column_families(name=name, modifications=[change], **once)
