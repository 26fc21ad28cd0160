"""Writes the files of one bundle while rows are prepared: instances for the service, and the rows beside them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import google_crc32c
import pyarrow as pa

from inference.job.keys import MOST_GROUPS, group_name, new_shard
from pipelines import storage
from pipelines.connectors.batch_job.folder import Group, JobFolder
from pipelines.connectors.batch_job.stored_rows import stored
from pipelines.formats.tfrecord.frames import frame
from pipelines.rows.origin import Origin

_LEVEL = 1


@dataclass(frozen=True)
class PreparedShard:
    """Tells that a pair of files was written: instances under a temporary name, and their rows.

    Attributes:
      name: of both, without folder and extension.
      instances: bytes of the file of instances.
      groups: of rows.
    """

    name: str
    instances: int
    groups: tuple[Group, ...]


class PreparedShardWriter:
    """Writes pairs of files.

    Args:
      folder: of the job.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._done: list[PreparedShard] = []
        self._open: tuple[IO[bytes], IO[bytes]] | None = None
        self._packing: gzip.GzipFile | None = None
        self._shard = ""
        self._groups: list[Group] = []

    def next_group(self) -> str:
        """Returns the name of the group that is written next."""
        if self._open is None or len(self._groups) == MOST_GROUPS:
            self._end_shard()
            self._shard = new_shard()
            self._groups = []
            paths = self._folder.unfinished_of(self._shard), self._folder.rows_of(self._shard)
            instances, rows = (storage.open_output(path, 0o600) for path in paths)
            self._open = instances, rows
            if self._folder.is_packed:
                # Without a name or a time, so that the same rows make the same bytes; packing more takes too long.
                self._packing = gzip.GzipFile("", "wb", _LEVEL, instances, mtime=0)
        return group_name(self._shard, len(self._groups))

    def write(self, instances: Sequence[pa.Array], origin: Origin, batch: pa.RecordBatch, first: int) -> None:
        """Writes the group whose name was given last.

        Args:
          instances: lines, which are texts, or records, which are large binary.
          origin: where the rows come from.
          batch: the rows, marked with those that have no instance.
          first: number of the first row in the origin.
        """
        assert self._open is not None
        file, rows = self._open
        packed = self._packing or file
        for part in instances:
            packed.write(_text_of(part) if pa.types.is_string(part.type) else frame(part))
        group = stored(origin, batch, first)
        offset = self._groups[-1].offset + self._groups[-1].length if self._groups else 0
        name = group_name(self._shard, len(self._groups))
        rows.write(group)
        checksum = google_crc32c.value(group)
        count = sum(map(len, instances))
        self._groups.append(Group(name=name, offset=offset, length=len(group), checksum=checksum, rows=count))

    def end(self) -> list[PreparedShard]:
        """Makes durable what was written since the last time, and returns it."""
        self._end_shard()
        done, self._done = self._done, []
        return done

    def _end_shard(self) -> None:
        if self._open is not None:
            instances, rows = self._open
            self._open = None
            if self._packing is not None:
                self._packing.close()
                self._packing = None
            size = storage.close_durably(instances)
            storage.close_durably(rows)
            self._done.append(PreparedShard(self._shard, size, tuple(self._groups)))


def _text_of(lines: pa.StringArray) -> memoryview:
    """The bytes of texts that stand one after the other."""
    offsets = memoryview(lines.buffers()[1]).cast("i")
    start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return memoryview(lines.buffers()[2])[start:end]
