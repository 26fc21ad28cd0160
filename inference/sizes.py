"""Measures record batches as they are once their dictionaries are written out, and slices those that are too large."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

_SMALL_BYTES = 1 << 20


def decoded_bytes(array: pa.Array) -> int:
    """Returns the bytes of an array whose dictionary, if it has one, is written out; small ones are rounded up.

    >>> decoded_bytes(pa.array(["a" * 100] * 1000).dictionary_encode())
    100000
    """
    if not pa.types.is_dictionary(array.type) or not len(array):
        return int(array.nbytes)
    dictionary = array.dictionary
    if not _has_lengths(dictionary.type):
        return int(dictionary.nbytes) * len(array) // max(len(dictionary), 1)
    lengths = pc.binary_length(dictionary)
    most = (pc.max(lengths).as_py() or 0) * len(array)
    return most if most <= _SMALL_BYTES else int(pc.sum(lengths.take(array.indices)).as_py() or 0)


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Returns the decoded bytes of a batch."""
    total = int(batch.nbytes)
    for index, type in enumerate(batch.schema.types):
        if pa.types.is_dictionary(type):
            column = batch.column(index)
            total += decoded_bytes(column) - int(column.nbytes)
    return total


def bounded(batch: pa.RecordBatch, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into slices of at most `most_bytes` decoded bytes, or of one row; mostly the batch as it is."""
    pending = [batch]
    while pending:
        part = pending.pop()
        if part.num_rows > 1 and batch_bytes(part) > most_bytes:
            half = part.num_rows // 2
            pending += [part.slice(half), part.slice(0, half)]
        else:
            yield part


def _has_lengths(type: pa.DataType) -> bool:
    found: bool = (
        pa.types.is_string(type)
        or pa.types.is_binary(type)
        or pa.types.is_large_string(type)
        or pa.types.is_large_binary(type)
    )
    return found
