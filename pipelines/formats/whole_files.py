"""Reads files that are a row each, such as images: columns `path` and `bytes`.

| a file | becomes |
|---|---|
| of any content, compressed or not | its bytes as they are |
| without a byte | a row with no bytes |
| larger than MAX_FILE_BYTES | a dead letter without them |

Many small files are one piece of work, and a record batch of up to BATCH_BYTES. `path` is what the source's path and
the file's name make, as it stands in dead letters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.formats.base import Reader, Split
from pipelines.formats.content import CONTENT, PATH
from pipelines.rows.origin import Block, Origin, Positions, RejectedRow, text_of
from pipelines.storage import FileInfo, is_remote

MAX_FILE_BYTES = 64 << 20
"""A larger file is not read."""

BATCH_BYTES = 32 << 20
"""Bytes of the files that are read together; a single file may be larger."""

MAX_FILES = 1024
"""Files that are read together."""

_BYTES = CONTENT["bytes"]
_SAMPLED_BYTES = 64
_REMOTE_THREADS = 32
_SCHEMA = pa.schema([(PATH, pa.string()), (_BYTES, pa.binary())])


class FileChangedError(OSError):
    """Raised when a file is not what it was when the run was planned. The message is for people."""


@dataclass
class WholeFileOrigin(Origin):
    """Describes files of a batch, one a row.

    Attributes:
      file: the first of them.
      format: see Origin.
      paths: of all of them.
      contents: of all of them, binary.
    """

    file: str
    format: dict[str, Any]
    paths: list[str]
    contents: pa.Array

    @property
    def nbytes(self) -> int:
        return int(self.contents.nbytes)

    def positions(self) -> Positions:
        return np.zeros(len(self.paths), np.int64)

    def payload(self, row: int) -> bytes:
        found: bytes = self.contents[row].as_py()
        return found

    def source(self, row: int) -> str:
        return f"{text_of(self.paths[row])}:0"

    def names(self, rows: Positions) -> pa.Array:
        return pa.array([self.source(row) for row in rows.tolist()], pa.string())


class WholeFileReader(Reader):
    """Reads files as rows. A split is several files, in its context, and counts them."""

    unit = "files"

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": "bytes"}

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        return _SCHEMA

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        """Returns the first bytes of the file."""
        head = storage.read_range(file, 0, _SAMPLED_BYTES)
        return pa.RecordBatch.from_arrays([[text_of(file)], pa.array([head], pa.binary())], schema=_SCHEMA)[:rows]

    def expected_rows(self, file: str, size: int) -> float | None:
        return 1.0

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        return self.groups([FileInfo(file, size)], split_bytes, 1)

    @classmethod
    def groups(cls, found: Sequence[FileInfo], split_bytes: int, pieces: int) -> list[Split]:
        """Puts files together in pieces of work, without opening them.

        Args:
          found: the files.
          split_bytes: wanted size of a piece.
          pieces: about how many there should be, so that all workers have some.
        """
        most = max(1, min(MAX_FILES, -(-len(found) // max(1, pieces))))
        made: list[Split] = []
        # Of one piece all files are in folders of the same values.
        for partition, those in groupby(found, key=lambda file: file.partition):
            for group in _together(list(those), split_bytes, most):
                nbytes = sum(file.size for file in group)
                made.append(Split(group[0].path, 0, len(group), nbytes, tuple(group), partition))
        return made

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        for group in _together(cast(Sequence[FileInfo], split.context), BATCH_BYTES, MAX_FILES):
            small = [file for file in group if file.size <= MAX_FILE_BYTES]
            for file in group:
                if file.size > MAX_FILE_BYTES:
                    message = f"a file of {file.size:,} bytes; files may have at most {MAX_FILE_BYTES:,}"
                    path = text_of(file.path)
                    yield RejectedRow(b"", 0, message, truncated=True, key=self._key(path), file=file.path)
            if small:
                yield self._block([file.path for file in small], _contents(small))

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        yield self._block([name.rpartition(":")[0] or name], [payload])

    def _key(self, path: str) -> str | None:
        return path if self.spec.key == PATH else None

    def _block(self, paths: list[str], contents: list[bytes]) -> Block:
        column = pa.array(contents, pa.binary())
        known = {PATH: pa.array([text_of(path) for path in paths], pa.string()), _BYTES: column}
        columns = {
            field.name: known[field.name] if field.name in known else pa.nulls(len(paths), field.type)
            for field in self.spec.columns
        }
        # A batch without columns would forget its number of rows.
        batch = pa.record_batch(columns or known).select(list(columns))
        return Block(WholeFileOrigin(paths[0], self.format_of(None), paths, column), batch)


def _together(found: Sequence[FileInfo], nbytes: int, count: int) -> Iterator[list[FileInfo]]:
    """Neighbouring files of at most so many bytes together, or one; at most `count` of them."""
    group: list[FileInfo] = []
    total = 0
    for file in found:
        if group and (len(group) == count or total + file.size > nbytes):
            yield group
            group, total = [], 0
        group.append(file)
        total += file.size
    if group:
        yield group


def _contents(found: Sequence[FileInfo]) -> list[bytes]:
    """The bytes of files, those of other machines read at the same time. Raises FileChangedError, OSError."""
    if len(found) > 1 and is_remote(found[0].path):
        with ThreadPoolExecutor(min(len(found), _REMOTE_THREADS)) as pool:
            return list(pool.map(_content, found))
    return [_content(file) for file in found]


def _content(file: FileInfo) -> bytes:
    try:
        with storage.open_input(file.path) as opened:
            content = storage.read_fully(opened, file.size + 1)
            changed = (
                not is_remote(file.path) and file.modified and os.fstat(opened.fileno()).st_mtime_ns != file.modified
            )
    except FileNotFoundError:
        raise FileChangedError(f"{file.path} was removed after the run was planned; run it again") from None
    if changed or len(content) != file.size:
        raise FileChangedError(
            f"{file.path} changed after the run was planned: it had {file.size:,} bytes; run again when nothing writes "
            "the file"
        )
    return content
