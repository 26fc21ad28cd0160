"""Columns of one name in an output: said before a run, as one of them would take the other's place."""

from __future__ import annotations

import pyarrow as pa

from inference.columnar import VERSION_COLUMN
from pipelines.config import RunConfig


def same_names(
    config: RunConfig, schema: pa.Schema, outputs: list[str], names: list[str], row_name: str, *, tells_version: bool
) -> list[str]:
    """Returns what is wrong where two columns that may be written have one name, one line each.

    Args:
      config: the config.
      schema: the columns of the source.
      outputs: names of the model's outputs.
      names: of the columns to write.
      row_name: name of the column that identifies rows of a source without a key column.
      tells_version: whether the model's version is written by default.
    """
    key, rename = config.source.key, "rename the column in the source"
    if getattr(config.source, "column_names", None):
        rename += " (source.column_names)"
    problems = []
    if key in outputs:
        problems.append(
            f"source.key: the key column '{key}' has the name of the model's output '{key}', which would take its "
            f"place; {rename}, or name another key"
        )
    if key is None and row_name in outputs and row_name in names:
        problems.append(
            f"output.columns: the model's output '{row_name}' has the name of the column '{row_name}' that names rows "
            "of a source without a key column; set source.key, or list the columns to write without it"
        )
    if (
        key is None
        and row_name not in outputs
        and row_name in schema.names
        and row_name in (config.output.columns or [])
    ):
        problems.append(
            f"output.columns: the source's column '{row_name}' has the name of the column '{row_name}' that names rows "
            f'of a source without a key column; set source.key to "{row_name}", or {rename}'
        )
    if key == VERSION_COLUMN and tells_version:
        problems.append(
            f"source.key: the key column '{key}' has the name of the column '{key}' that says which version of the "
            f"model predicted a row; {rename}, or name another key"
        )
    for name in dict.fromkeys(names):
        if name not in schema.names or name == key:
            continue
        if name in outputs and config.output.columns:
            problems.append(
                f"output.columns: '{name}' is a column of the source '{name}' and an output of the model '{name}'; "
                f"{rename}, or leave output.columns out to get the key and all outputs"
            )
        elif name == VERSION_COLUMN and name not in outputs:
            problems.append(
                f"output.columns: '{name}' is a column of the source '{name}', and the name of the version that "
                f"predicted a row; {rename}, or leave it out"
            )
    return problems
