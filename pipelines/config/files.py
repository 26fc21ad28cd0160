"""Defines files in a config: source, output, dead letters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from pipelines.config.base import MAX_FRACTION, Columns, Fraction, Name, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings
from pipelines.config.paths import AnyPath
from pipelines.encodings import is_within, problem_of


class FileSource(Strict):
    """Reads files of records, local or on any Beam file system."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "avro", "parquet", "orc", "tfrecord", "text", "bytes"] = Field(
        description="json is newline-delimited JSON. text: each line is a row, its column is `line`. bytes: each file "
        "is a row, such as an image, with columns `path` and `bytes`. The one text input of a model takes the line, "
        "the bytes or the raw record without a word in `columns`."
    )
    path: AnyPath | Annotated[list[AnyPath], Field(min_length=1)] = Field(
        description=(
            "Path of the files to read: a path, a glob, a folder, or a list of them; local, gs:// or s3://. Files "
            "ending in .gz, .bz2 and .zst are decompressed where the format is csv, json or text."
        )
    )
    key: Name | None = Field(
        None,
        description=(
            "Column that identifies a row; without one, rows are named <file>:<offset>, and for the format bytes "
            "by the column path."
        ),
    )
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {},
        description='Columns of text that stands for bytes, for inputs of bytes: {"image": "base64"}. Objects '
        '{"b64": "..."} of JSON are bytes without a word here.',
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description='Character between the fields of CSV files; a comma by default, "\\t" is a tab.'
    )
    quote: Annotated[str, Field(max_length=1)] | None = Field(
        None, description='Character around fields of CSV files; " by default. "" means none: then every line is a row.'
    )
    encoding: str | None = Field(
        None,
        description=(
            "Encoding of CSV, JSON and text files: utf-8 by default, with or without a BOM; utf-16, latin-1, "
            "cp1252, or any other that Python knows and that has ASCII's characters at their places."
        ),
    )
    trim: bool | None = Field(
        None, description="Whether spaces and tabs around the fields and column names of CSV files are dropped."
    )
    decimal: Literal[".", ","] | None = Field(
        None,
        description=(
            "Decimal mark of numbers in CSV files, in the columns that the model reads; a point by default. With "
            "a comma, such a column is written to the output as numbers."
        ),
    )
    null_values: list[str] | None = Field(
        None,
        description='Texts that mean a missing value in CSV files, in quotes or not; [""] by default. With [] none '
        "is missing: an empty field is an empty text.",
    )
    column_names: list[Name] | None = Field(
        None, description="Names of the columns of CSV files without a header line."
    )
    record: Literal["example", "raw"] | None = Field(
        None,
        description=(
            "What TFRecord files hold. example, the default: tf.Examples, whose features are columns. raw: each "
            "record is a row with the one column `record`, for models that take whole records, such as "
            "tf.SequenceExamples."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _names_its_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("format") == "bytes":
            return {"key": "path", **values}
        return values

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_one_byte(cls, value: str | None) -> str | None:
        if value is not None and (not value.isascii() or value in "\r\n\0") and value:
            raise ValueError(f"{value!r} is no character that can stand between fields; give one of ASCII")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and (problem := problem_of(value)):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _has_what_its_format_has(self) -> Self:
        of_formats = {
            "quote": ("csv",),
            "trim": ("csv",),
            "decimal": ("csv",),
            "encoding": ("csv", "json", "text"),
            "record": ("tfrecord",),
        }
        for name, formats in of_formats.items():
            if getattr(self, name) is not None and self.format not in formats:
                raise ValueError(f"{name}: {self.format} files have none, only {', '.join(formats)}")
        if self.quote and self.quote == (self.delimiter or ","):
            raise ValueError("quote: it is the delimiter too")
        for name in ("delimiter", "quote"):
            char = getattr(self, name)
            if char and self.encoding and is_within(char, self.encoding):
                raise ValueError(f"{name}: {char!r} is a part of other characters in {self.encoding}; use UTF-8")
        return self

    @property
    def reads(self) -> str:
        """Returns the file format whose reader decodes it."""
        return "tfrecord_raw" if self.record == "raw" else self.format


class FileOutput(Strict):
    """Writes files of predictions, published whole at the end of the run."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "parquet", "avro", "tfrecord"]
    path: AnyPath = Field(description="Prefix of the shards (<path>-00000-of-00002.csv); a folder if it ends in /.")
    columns: Columns | None = Field(
        None,
        description="Input columns and model outputs to write, in order; * stands for all. By default the key, then "
        "all outputs.",
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="Character between the fields of CSV files; a comma by default."
    )
    record: Literal["example", "prediction_log"] | None = Field(
        None, description="What a TFRecord holds: tf.Examples, or PredictionLogs as TFX's BulkInferrer writes."
    )
    window_s: Annotated[float, Field(gt=0)] = Field(
        60, description="Of a stream: seconds after which a file is published."
    )
    show: Annotated[int, Field(ge=0)] = Field(
        0, description="Of a stream: rows a second to show on the console too; 0 shows none."
    )

    @property
    def row_format(self) -> str:
        """Returns the format whose types a row's values have."""
        return self.format

    @property
    def shard_format(self) -> str:
        """Returns the format of the files that a batch run writes."""
        return self.format

    @property
    def passes_attributes(self) -> bool:
        """Tells whether what came with a message beside its payload is wanted."""
        return False

    def describe(self) -> str:
        """Returns the output in words."""
        return f"{self.path}-*.{'jsonl' if self.format == 'json' else self.format}"


class DeadLetters(Strict):
    """Writes rows that could not be processed to files, and says how many of them are too many."""

    type: Literal["file"] = "file"
    path: AnyPath | None = Field(
        None,
        description="Prefix of the dead letters' files; a folder if it ends in /; <output.path>-dead_letters by "
        "default.",
    )
    max_fraction: Fraction = MAX_FRACTION
    permissions: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = Field(
        "0600",
        description="Access rights of the files on local file systems, octal; they hold original rows. Folders of "
        "temporary files have the same rights, and may be entered by those who may read.",
    )

    @property
    def file_mode(self) -> int:
        """Returns the access rights as a number, without those to execute."""
        return int(self.permissions, 8) & 0o666 | 0o600

    @property
    def folder_mode(self) -> int:
        """Returns the access rights of a folder for such files: who may read them may enter it."""
        return self.file_mode | (self.file_mode & 0o444) >> 2
