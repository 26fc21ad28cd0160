"""Decodes and coerces the first rows of a source as in a run: what the model gets of them, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from inference.columns.binding import bind
from inference.columns.bound import Binding, InputBinding
from inference.columns.coercion import is_list, is_text, list_lengths
from inference.columns.inputs import prepare
from inference.errors import BindingError
from inference.marks import numbered
from pipelines.connectors.registry import bounded_source
from pipelines.plan import Plan
from pipelines.rows.origin import Block, Origin, Positions, RejectedRow, text_of

SAMPLED_ROWS = 1000
_SAMPLED_BYTES = 64 << 20
_FIRST_VALUES = 3
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Sample:
    """Describes the first rows of a source.

    Attributes:
      batch: the rows that could be decoded, with the columns and types that a run reads; None if there are none.
      arrays: what the model gets of them, one array for each input of `binding`; of rows that do not fit, any value.
      binding: which column of the batch feeds which input.
      read: number of rows that were read.
      rejected: (row, reason) of those that would become dead letters, in the order of the source.
      good: the rows of the batch that would reach the model.
      parts: where the rows of the batch come from: origins, each with how many of its first rows are in the batch.
    """

    batch: pa.RecordBatch | None = None
    arrays: tuple[pa.Array, ...] = ()
    binding: Binding | None = None
    read: int = 0
    rejected: tuple[tuple[str, str], ...] = ()
    good: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    parts: tuple[tuple[Origin, int], ...] = ()

    def to_predict(self) -> Iterator[tuple[Origin, pa.RecordBatch]]:
        """Gives the rows that would reach the model as a run's source gives them, numbered as those of their origin."""
        first = 0
        for origin, rows in self.parts:
            good = self.good[(self.good >= first) & (self.good < first + rows)]
            if self.batch is not None and len(good):
                yield origin, numbered(self.batch.take(pa.array(good)), good - first)
            first += rows


def sampled_batch(plan: Plan, rows: int = SAMPLED_ROWS) -> pa.RecordBatch | None:
    """Returns those of the first rows of a source that would reach the model, as a handler gets them.

    None where there are none: in an empty source, in messages, and where each of the first rows would become a dead
    letter.

    Args:
      plan: of the run.
      rows: how many are read at most.
    """
    sample = take_sample(plan, rows)
    if sample.batch is None or not len(sample.good):
        return None
    return sample.batch.take(pa.array(sample.good))


def take_sample(plan: Plan, rows: int = SAMPLED_ROWS) -> Sample:
    """Reads the first rows of a source and coerces them to the model's inputs, without the model.

    Args:
      plan: of the run.
      rows: how many are read at most.
    """
    batches: list[pa.RecordBatch] = []
    blocks: list[Block] = []
    rejected: list[tuple[str, str]] = []
    read = 0
    source = plan.config.source
    pieces = bounded_source(source).sample(plan, rows) if plan.config.is_batch else iter(())
    for file, piece in pieces:
        if isinstance(piece, RejectedRow):
            read += 1
            rejected.append((f"{text_of(piece.file or file)}:{piece.position}", piece.message))
        elif not batches or piece.batch.schema.equals(batches[0].schema):
            blocks.append(piece)
            batches.append(piece.batch.slice(0, rows - read))
            read += batches[-1].num_rows
        if read >= rows or sum(part.nbytes for part in batches) > _SAMPLED_BYTES:
            break
    if not batches:
        return Sample(read=read, rejected=tuple(rejected))
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    batch = table.to_batches()[0]
    config = plan.config.source
    try:
        binding = bind(plan.signature, batch.schema, config.columns, config.defaults)
    except BindingError as error:
        # The first file is not like all of them together.
        for block, part in zip(blocks, batches, strict=True):
            names = block.origin.names(np.arange(part.num_rows, dtype=np.int64)).to_pylist()
            rejected += [(name, str(error)) for name in names]
        return Sample(read=read, rejected=tuple(rejected))
    arrays, failures = prepare(batch, binding)
    first = 0
    for block, part in zip(blocks, batches, strict=True):
        failed = [row for row in sorted(failures) if first <= row < first + part.num_rows]
        names = block.origin.names(np.array(failed, np.int64) - first).to_pylist() if failed else []
        rejected += [(name, failures[row].message) for name, row in zip(names, failed, strict=True)]
        first += part.num_rows
    good = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), np.fromiter(failures, np.int64, len(failures)))
    parts = tuple((block.origin, part.num_rows) for block, part in zip(blocks, batches, strict=True))
    return Sample(batch, tuple(arrays), binding, read, tuple(rejected), good, parts)


def tensors(sample: Sample) -> list[dict[str, Any]]:
    """Describes what the model gets of a sample: name, dtype, shape and first values of each input."""
    if sample.binding is None or not len(sample.good):
        return []
    rows = pa.array(sample.good)
    return [_tensor(bound, array.take(rows)) for bound, array in zip(sample.binding.inputs, sample.arrays, strict=True)]


def _tensor(bound: InputBinding, array: pa.Array) -> dict[str, Any]:
    kind = "" if bound.spec.kind == "dense" else f"{bound.spec.kind} "
    sizes = [str(len(array)), *_sizes(array)]
    if bound.spec.kind == "dense" and bound.spec.shape is not None:
        sizes += ["1"] * (len(bound.spec.shape) - len(sizes))
    values = [_shown(array.slice(row, 1), bound) for row in range(min(_FIRST_VALUES, len(array)))]
    return {
        "input": bound.spec.name,
        "dtype": f"{kind}{bound.spec.dtype}",
        "shape": f"[{', '.join(sizes)}]",
        "first values": ", ".join(values),
    }


def _sizes(array: pa.Array) -> list[str]:
    """The sizes of lists; the shortest and the longest where they differ."""
    sizes = []
    while is_list(array.type):
        lengths = list_lengths(array)
        low, high = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
        sizes.append(str(low) if low == high else f"{low} to {high}")
        array = array.flatten()
    return sizes


def _shown(value: pa.Array, bound: InputBinding) -> str:
    """One row's value as it is shown; only the beginning of a long list becomes Python values."""
    if value.null_count:
        return "none"
    lists = 0
    while is_list(value.type):
        lists += 1
        value = value.flatten().slice(0, 8)
    texts = [_text(each, bound) for each in value.to_pylist()]
    text = "[" * lists + ", ".join(texts) + ("]" * lists)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _text(value: Any, bound: InputBinding) -> str:
    if isinstance(value, bytes):
        return repr(value[:_SHOWN_CHARACTERS])
    if isinstance(value, float):
        return f"{value:.7g}"
    return repr(value) if is_text(bound.type) else str(value)
