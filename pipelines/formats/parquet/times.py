"""Reads INT96 timestamps of Parquet, as Spark, Hive, Impala and older pandas write them: any year, in nanoseconds.

Arrow has no type for all of them. They are read as microseconds; where that would cut something off, as nanoseconds.
A time that neither can hold cannot be read. Those inside of lists and structs are read as microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.base import FormatError


def int96_columns(metadata: pq.FileMetaData, names: Iterable[str]) -> list[str]:
    """Returns those of the columns named that are INT96, and not inside of lists or structs."""
    columns = (metadata.schema.column(index) for index in range(metadata.num_columns))
    int96 = {c.name for c in columns if c.physical_type == "INT96" and c.path == c.name and not c.max_repetition_level}
    return [name for name in names if name in int96]


class FineTimes:
    """Reads the INT96 columns of the same rows as nanoseconds, which are right but for a multiple of 2**64.

    Args:
      batches: the rows, in order, in batches of any size.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._pending: pa.Table | None = None

    def beside(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Returns the next rows, with their times in units that hold them; in one batch, if one unit holds them all.

        Raises FormatError for a time that no unit holds.
        """
        fine = self._take(batch.num_rows)
        names = fine.schema.names
        pending = [(0, batch.num_rows)]
        while pending:
            low, high = pending.pop()
            part = batch.slice(low, high - low)
            units = {name: _unit(part[name], fine[name].slice(low, high - low)) for name in names}
            if "" in units.values() and high - low > 1:
                middle = (low + high) // 2
                pending += [(middle, high), (low, middle)]
                continue
            for name, unit in units.items():
                if not unit:
                    raise FormatError(f"column '{name}': a time has nanoseconds, and a year in which there are none")
                if unit == "ns":
                    place = part.schema.get_field_index(name)
                    part = part.set_column(place, name, fine[name].slice(low, high - low))
            yield part

    def _take(self, rows: int) -> pa.RecordBatch:
        while self._pending is None or self._pending.num_rows < rows:
            more = pa.Table.from_batches([next(self._batches)])
            self._pending = more if self._pending is None else pa.concat_tables([self._pending, more])
        taken, self._pending = self._pending.slice(0, rows), self._pending.slice(rows)
        return taken.combine_chunks().to_batches()[0] if rows else pa.RecordBatch.from_pylist([], schema=taken.schema)


def _counts(array: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(array.cast(pa.int64()).fill_null(0).to_numpy(), np.int64)


def _unit(micro: pa.Array, nano: pa.Array) -> str:
    """The unit that holds all of some times; none if there is no such unit."""
    whole, fine = _counts(micro), _counts(nano)
    with np.errstate(over="ignore"):
        if not (fine - whole * 1000).any():
            return "us"
    return "ns" if (np.abs(fine // 1000 - whole) <= 1).all() else ""
