"""Defines the keys of sources that say which columns feed the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipelines.config.base import Name

Encodings = dict[Name, Literal["base64"]]


def _column_or_columns(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError('name a column, or a list of columns, such as ["age", "height"]')
    return value


ColumnsConfig = dict[
    Name,
    Annotated[Name | Annotated[list[Name], Field(min_length=1)], BeforeValidator(_column_or_columns)],
]
ColumnsField: Any = Field(
    {},
    description="Model input -> source column (of messages: field), where the names differ. A list of columns, each "
    "with one value a row, is gathered to a vector, for an input of shape [batch, n]; their order is that of the "
    "model's training.",
)
DefaultsField: Any = Field(
    {},
    description='Model input (or column) -> value for rows that miss it. "NaN" is a float that is not a number. Of a '
    "vector: a column's own default, or for the input one value for all its columns, or a list with one for each. Of "
    "an input of lists: a list, or one value that fills it.",
)
