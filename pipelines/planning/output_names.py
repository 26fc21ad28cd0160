"""Checks names of an output's columns before a run, and expands `*`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from inference.handler_base import VERSION_COLUMN
from model.rows import is_by_row, shape_text
from model.specs import Signature
from pipelines.config.run import RunConfig

ALL_COLUMNS = "*"
"""In output.columns: all columns of the source and all outputs of the model."""


def with_all_columns(names: Sequence[str], schema: pa.Schema, outputs: Sequence[str]) -> list[str]:
    """Returns the names of an output's columns with `*` replaced by what it stands for, except what is named beside it.

    Args:
      names: as a config lists them.
      schema: the columns of the source; if one is named `*`, it is no more than that.
      outputs: names of the model's outputs that have a value for each row.
    """
    if ALL_COLUMNS not in names or ALL_COLUMNS in schema.names:
        return list(names)
    named = {*names}
    every = [name for name in dict.fromkeys([*schema.names, *outputs]) if name not in named]
    place = list(names).index(ALL_COLUMNS)
    rest = [name for name in names[place + 1 :] if name != ALL_COLUMNS]
    return [*names[:place], *every, *rest]


def without_rows(config: RunConfig, signature: Signature, names: Sequence[str], by_default: Sequence[str]) -> list[str]:
    """Returns what is wrong where an output that has no value for each row would be written, one line each.

    Args:
      config: the config.
      signature: signature of the model.
      names: of the columns to write.
      by_default: of the columns that are written where the config lists none.
    """
    wanted = {*names}
    wrong = [spec for spec in signature.outputs if spec.name in wanted and not is_by_row(spec, signature)]
    left = [name for name in (names if config.output.columns else by_default) if name not in {s.name for s in wrong}]
    fix = f"leave it out: output.columns {json.dumps(list(dict.fromkeys(left)))}"
    return [
        f"output.columns: the model's output '{spec.name}' has no value for each row (its shape is "
        f"{shape_text(spec.shape)}, and the inputs' first dimension is the rows); {fix}"
        for spec in wrong
    ]


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
