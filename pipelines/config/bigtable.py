"""Defines Bigtable in a config: output."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.base import Name, StreamOutput


class BigtableOutput(StreamOutput):
    """Writes a stream's predictions as rows of a Bigtable table, one cell a column, whose time is that of the event."""

    type: Literal["bigtable"]
    instance: Annotated[str, Field(pattern=r"^projects/[^/]+/instances/[^/]+$")] = Field(
        description="projects/<project>/instances/<name>"
    )
    table: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")] = Field(
        description="Name of the table in the instance."
    )
    row_key: Name = Field(
        description='Text with columns in braces, such as "births#{mother_race}#{source_id}": columns that are '
        "written, and those that the model takes. Rows of the same key overwrite each other."
    )
    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        "p", description="Column family of the cells."
    )
    create: bool = Field(
        False,
        description="Whether to create the table, or the family, if it does not exist; it then keeps one version of a "
        "cell.",
    )
    values: Literal["text", "binary"] = Field(
        "text",
        description="text: as in JSON, texts without quotes. binary: integers and floats as 8 bytes, big-endian, all "
        "else as text.",
    )

    def describe(self) -> str:
        """Returns the output in words."""
        return f"table {self.table} of {self.instance}"
