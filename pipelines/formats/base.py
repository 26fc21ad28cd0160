"""Defines what a file format has to offer: bytes to record batches, and back.

A `Reader` is made once per run from a `ReadSpec` and travels to the workers (it must pickle). It never sees
a file system, only `pipelines.storage`, so every format works on every path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar

import pyarrow as pa

from pipelines.rows.origin import Block, RejectedRow

BLOCK_BYTES = 8 << 20
"""Bytes that a reader decodes at a time (before decompression or expansion into columns)."""

MAX_ROW_BYTES = 16 << 20
"""A longer row is not decoded, it becomes a dead letter."""

MAX_PAYLOAD_BYTES = 64 << 20
"""Bytes that a dead letter keeps of such a row, or of a file that cannot be read."""

MAX_BLOCK_ROWS = 262_144
"""Rows of the largest record batch that a reader of text emits."""


_MIXED = b"mixed"


def mixed(field: pa.Field) -> pa.Field:
    """Marks a column of a schema some of whose values are text and some are not, or are too large for its type."""
    return field.with_metadata({_MIXED: b""})


def is_mixed(field: pa.Field) -> bool:
    """Tells whether a column of a schema has values that would change by becoming values of its type."""
    return _MIXED in (field.metadata or {})


class FormatError(ValueError):
    """Raised when a file is not what its format says. The message names the file and what to do."""


@contextmanager
def encoding(format: str) -> Iterator[None]:
    """Raises FormatError for whatever polars raises in this block for values that it cannot write.

    Its panics are no Exceptions, and would end the process.
    """
    try:
        yield
    except (OSError, MemoryError, FormatError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith("polars"):
            raise
        raise FormatError(f"{format}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(f"{format} cannot hold a value: {error}") from error


@dataclass(frozen=True)
class ReadSpec:
    """Describes what to read of the rows of a source.

    Attributes:
      columns: the columns wanted, with the types to decode them to where the format leaves a choice (CSV,
        JSON). Self-describing formats keep their own types, but may use dictionary types asked for here.
        A column that a file does not have comes out as nulls of the type given.
      options: the format's own settings from the config, such as `delimiter`.
      key: the column that identifies a row, if there is one: rejected rows are named by it where possible.
      written: columns that are written as they were read, the key among them: a value of another type than the
        column's may be converted only if nothing of it changes. All others are only for the model.
    """

    columns: pa.Schema
    options: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    written: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Split:
    """Describes a piece of a file that one worker reads on its own.

    Attributes:
      file: the file's path.
      start: where the piece begins, in the format's own unit: a byte offset, a row group, a stripe.
      end: where it ends (exclusive).
      nbytes: bytes of the file that the piece covers, for progress.
      context: what the reader must know of the file to decode the piece (such as a CSV header).
      partition: see FileInfo.
    """

    file: str
    start: int
    end: int
    nbytes: int
    context: Any = None
    partition: tuple[tuple[str, str | None], ...] = ()


class RowReader(ABC):
    """Decodes rows of one format that come one by one: as messages, or out of dead letters.

    Attributes:
      libraries: modules that are imported only when rows are decoded; a run imports them before its clock starts.
      has_own_types: the format carries the types of its columns, which are then decoded as they are.
    """

    libraries: tuple[str, ...] = ()
    has_own_types: ClassVar[bool] = False

    def __init__(self, spec: ReadSpec) -> None:
        self.spec = spec

    @abstractmethod
    def format_of(self, context: Any) -> dict[str, Any]:
        """Returns the `format` of dead letters read with the context of a split."""

    @abstractmethod
    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        """Decodes the payload of a dead letter whose `format` was `context` (see `Origin.payload`)."""


class Reader(RowReader):
    """Decodes files of one format.

    Attributes:
      unit: what `Split.start` and `Split.end` count.
    """

    unit = "bytes"

    def may_grow(self, file: str, size: int) -> bool:
        """Tells whether the first `size` bytes of a local file, to which more were added since, are whole rows.

        False where the end of a file says what is in it.
        """
        return False

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": type(self).__name__.removesuffix("Reader").lower()}

    @classmethod
    @abstractmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the columns of `file`, from as little of it as possible, without TensorFlow or Beam.

        Formats without types (CSV) give string columns. Raises FormatError.
        """

    @classmethod
    @abstractmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        """Returns the first rows of `file` (at most `rows`), as the schema types them, for people to look at."""

    def expected_rows(self, file: str, size: int) -> float | None:
        """Returns about how many rows a file of `size` bytes has, from little of it; None if all must be read for that.

        Raises FormatError, OSError, pa.ArrowException.
        """
        return None

    @abstractmethod
    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        """Cuts a file of `size` bytes into pieces of about `split_bytes`, which together cover it once.

        A file whose framing cannot be read at all is still one split, so that `read` can report it.
        """

    @abstractmethod
    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        """Decodes one piece. Never raises for bad content: what cannot be decoded is a RejectedRow.

        Every batch has exactly the columns of `spec.columns`, in that order. I/O errors propagate.
        """


class Writer(ABC):
    """Encodes record batches into one file.

    `encode` must not leave anything in the file when it raises: callers then try again with fewer rows.
    """

    extension: str
    libraries: tuple[str, ...] = ()
    """As of a Reader."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self.file = file
        self.schema = schema
        self.options = options

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of `batch`, which has the writer's schema."""

    def close(self) -> None:  # noqa: B027 - most formats have no trailer
        """Writes what the format puts at the end of a file. Does not close `file`."""

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        """Returns the type a column of `type` is converted to before it is written. Raises FormatError if none can."""
        return type
