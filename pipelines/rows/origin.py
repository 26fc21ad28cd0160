"""Tells where rows come from, and keeps what is needed of a row that could not be processed.

A source emits pairs `(Origin, pyarrow.RecordBatch)`. The origin can give back, for any row of its batch,
the row's position and its original bytes. Neither is computed before it is needed: a good row costs nothing.
"""

from __future__ import annotations

import base64
import json
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Positions = npt.NDArray[np.int64]

_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def text_of(name: str) -> str:
    r"""Gives a file's name as text that can be stored anywhere: a byte that is not UTF-8 becomes its escape.

    >>> print(text_of("caf\udce9.csv"))
    caf\xe9.csv
    """
    return name if name.isascii() else _NOT_UTF8.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)


class Origin(ABC):
    """Describes where the rows of one record batch come from.

    Attributes:
      file: path or name of what was read, as a person would write it.
      format: what `replay` needs to decode a payload of this origin again, JSON-able:
        `{"type": "csv", "columns": [...]}`.
    """

    file: str
    format: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Returns about how many bytes the origin keeps in memory."""
        return 0

    @abstractmethod
    def positions(self) -> Positions:
        """Returns the position in `file` of every row of the batch, int64 [rows]: a byte offset or a row number."""

    @abstractmethod
    def payload(self, row: int) -> bytes:
        """Returns the original bytes of row `row` of the batch: a document of one row in the source's own format."""

    def source(self, row: int) -> str:
        """Returns `<file>:<position>` of row `row`."""
        return f"{text_of(self.file)}:{self.positions()[row]}"

    def names(self, rows: Positions) -> pa.Array:
        """Returns what identifies rows that have no key column, string [rows]: <file>:<position>."""
        return pc.binary_join_element_wise(text_of(self.file), pa.array(self.positions()[rows]).cast(pa.string()), ":")


@dataclass(frozen=True)
class DeadLetter:
    """Describes a row that could not be decoded, coerced, predicted or encoded, with all that is needed to run it
    again.

    Attributes:
      key: the row's key, or `<file>:<position>` where it has none.
      payload: the row's original bytes.
      stage: decode, coerce, predict, encode or write.
      error: class of the error.
      message: what was wrong, in words.
      attempts: how often the row was tried.
      model: the model's path, version and signature; empty before a model was involved.
      source: `<file>:<position>`.
      format: what `replay` needs to decode the payload.
      payload_truncated: the payload is only the beginning of the original bytes (they were larger than
        the source's limit); the row cannot be replayed from the dead letter alone.
      rows: number of rows that it stands for: a range of a file that cannot be read is one dead letter.
    """

    key: str
    payload: bytes
    stage: str
    error: str
    message: str
    attempts: int
    model: str
    source: str
    format: dict[str, Any] = field(default_factory=dict)
    payload_truncated: bool = False
    rows: int = 1

    def to_json(self) -> bytes:
        """Writes the dead letter as one line of JSON, with its line end."""
        fields = asdict(self)
        fields["payload"] = base64.b64encode(self.payload).decode("ascii")
        fields["message"] = text_of(self.message)
        if not self.payload_truncated:
            del fields["payload_truncated"]
        if self.rows == 1:
            del fields["rows"]
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> DeadLetter:
        """Reads one line; raises ValueError if it is not a dead letter."""
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("a dead letter is a JSON object")
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        try:
            known["payload"] = base64.b64decode(known["payload"], validate=True)
            if not isinstance(known.get("rows", 1), int) or known.get("rows", 1) < 1:
                raise ValueError("rows is not a number of rows")
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a dead letter: {error}") from None


@dataclass(frozen=True)
class Block:
    """Holds the good rows of a piece of a source."""

    origin: Origin
    batch: pa.RecordBatch

    @property
    def rows(self) -> int:
        """Returns the number of rows."""
        return int(self.batch.num_rows)


@dataclass(frozen=True)
class RejectedRow:
    """Describes a row that a decoder could not turn into a row of a batch, or neighbouring rows that nobody can tell
    apart.

    Attributes:
      payload: original bytes; none where they cannot be read.
      position: see Origin; of the first of several rows.
      message: what is wrong, in words.
      truncated: `payload` is not all of the row.
      key: the row's key, where it can be told nevertheless.
      file: the file, where what is decoded together comes from several.
      rows: number of rows that the file says are lost here.
    """

    payload: bytes
    position: int
    message: str
    error: str = "DecodeError"
    stage: str = "decode"
    truncated: bool = False
    key: str | None = None
    file: str | None = None
    rows: int = 1
