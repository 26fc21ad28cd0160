"""Connects a batch run to files as its source. The planner looks at them: their columns are put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.config.files import FileSource
from pipelines.connectors.base import BoundedSourceConnector
from pipelines.connectors.files.partitions import PartitionedReader
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.formats import reader_class
from pipelines.rows.origin import Block, RejectedRow

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.plan import Plan


class FilesSourceConnector(BoundedSourceConnector):
    """Reads files."""

    def __init__(self, source: FileSource) -> None:
        self._source = source

    def read(self, plan: Plan, dead_letters: DeadLetterPlace, limit: DeadLetterLimit) -> beam.PTransform:
        from pipelines.connectors.files.source import ReadFiles

        reader = reader_class(self._source.reads)(plan.read)
        return ReadFiles(plan.files, reader, dead_letters, plan.model.id, limit)

    def sample(self, plan: Plan, rows: int) -> Iterator[tuple[str, Block | RejectedRow]]:
        """Yields what a run would read, file by file; a file that cannot be read is left out, as the plan tells of
        it.
        """
        reader = reader_class(self._source.reads)(plan.read)
        partitioned = PartitionedReader(reader)
        for file in plan.files:
            if not file.size:
                continue
            try:
                for split in reader.splits(file.path, file.size, file.size + 1):
                    for piece in partitioned.read(replace(split, partition=file.partition)):
                        yield file.path, piece
            except (OSError, ValueError):
                continue
