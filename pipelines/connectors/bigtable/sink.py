"""Writes rows of a stream to a table of Bigtable: a row written again has the same key, cells and times.

At least once, strictly: a redelivered message overwrites itself, as its cells have the time of its event, in
milliseconds. That holds where the source gives it the same event time again, as Pub/Sub and Kafka do. The same message
published twice, at two times, leaves two versions of its cells where the family keeps more than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.nulls import kept_where
from pipelines.config.bigtable import BigtableOutput
from pipelines.connectors.bigtable.tables import make_transport, parts_of
from pipelines.connectors.retry import wait_for_service
from pipelines.connectors.writing.row_writer import OutputRows, RowWriter
from pipelines.formats.output_values import to_output
from pipelines.plan import KEY, OutputColumn, Plan
from pipelines.rows.messages import MessageOrigin
from pipelines.rows.origin import Positions

_MOST_MUTATIONS = 100_000
"""Of a request: Bigtable's limit."""
_MOST_BYTES = 4 << 20
_MOST_KEY_BYTES = 4096
_ANSWER_WITHIN_S = 60.0

_CODE = grpc.StatusCode
_PASSES = (_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED, _CODE.ABORTED, _CODE.RESOURCE_EXHAUSTED, _CODE.CANCELLED)
"""Of a row's status: it can be tried again."""
_REFUSED = (_CODE.INVALID_ARGUMENT, _CODE.OUT_OF_RANGE)
"""Of a whole request: some row in it is at fault."""
_FATAL = (_CODE.PERMISSION_DENIED, _CODE.UNAUTHENTICATED, _CODE.UNIMPLEMENTED)


class BigtableError(RuntimeError):
    """Raised when Bigtable rejects a batch of mutations.

    Attributes:
      code: gRPC's.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(f"{code.name}: {' '.join(message.split())[:300]}")


class BigtableRowWriter(RowWriter):
    """Writes each column of a row as a cell; when `write` returns, Bigtable has them.

    Args:
      plan: the plan of the run.
      output: the table to write to.
    """

    _transport: Any = None

    def __init__(self, plan: Plan, output: BigtableOutput) -> None:
        self._parts = parts_of(output.row_key)
        written = {column.name for column in plan.output}
        others = dict.fromkeys(name for _, name in self._parts if name and name not in written)
        key_name = plan.key_column or KEY
        key_only = (OutputColumn(name, pa.string(), "key" if name == key_name else "source") for name in others)
        self.columns = (*plan.output, *key_only)
        self._cells = len(plan.output)
        self._output = output
        self._name = f"{output.instance}/tables/{output.table}"

    def write(self, rows: OutputRows) -> dict[int, str]:
        origin, encoded = rows.origin, rows.encoded
        assert isinstance(origin, MessageOrigin)
        keys = pc.fill_null(row_keys(encoded, self._parts).cast(pa.binary()), b"")
        refused, good = _checked(keys)
        # Bigtable keeps milliseconds.
        times = origin.event_us()[rows.rows] // 1000 * 1000
        binary = self._output.values == "binary"
        values = [cell_values(array, binary) for array in encoded.columns[: self._cells]]
        size = keys.nbytes + sum(each.nbytes for each in values)
        step = max(1, min(_MOST_MUTATIONS // self._cells, _MOST_BYTES * len(keys) // max(size, 1)))
        for first in range(0, len(good), step):
            which = good[first : first + step]
            taken = pa.array(which)
            entries = self._entries(keys.take(taken), times[which], [each.take(taken) for each in values])
            refused |= {int(which[index]): why for index, why in self._write_entries(list(entries)).items()}
        return refused

    def _entries(self, keys: pa.Array, times: Positions, values: list[pa.Array]) -> Iterator[Any]:
        """A MutateRowsRequest.Entry for each row. Of protobuf's own classes: those of proto-plus are far slower."""
        from google.cloud.bigtable_v2.types import MutateRowsRequest, Mutation

        entry, mutation = MutateRowsRequest.Entry.pb(), Mutation.pb()
        cell = Mutation.SetCell.pb()
        family = self._output.family
        names = [column.name.encode() for column in self.columns[: self._cells]]
        for key, time, *row in zip(keys.to_pylist(), times.tolist(), *(v.to_pylist() for v in values), strict=True):
            yield entry(
                row_key=key,
                mutations=[
                    mutation(
                        set_cell=cell(family_name=family, column_qualifier=name, timestamp_micros=time, value=value)
                    )
                    for name, value in zip(names, row, strict=True)
                    if value is not None
                ],
            )

    def _write_entries(self, entries: list[Any]) -> dict[int, str]:
        """Writes rows; gives why some are refused, by their index."""
        refused: dict[int, str] = {}
        pending = [list(range(len(entries)))]
        while pending:
            left, why = self._sent(entries, pending.pop(), refused)
            if len(left) == 1:
                refused[left[0]] = why
            elif left:
                middle = len(left) // 2
                pending += [left[middle:], left[:middle]]
        return refused

    def _sent(self, entries: list[Any], which: list[int], refused: dict[int, str]) -> tuple[list[int], str]:
        """Writes rows, and notes those that are refused; gives what is left of them if they are as a whole, and why."""
        left = which

        def send() -> str:
            nonlocal left
            try:
                again, error = self._try(entries, left, refused)
            except grpc.RpcError as failure:
                left = [index for index in left if index not in refused]
                if failure.code() in _REFUSED:
                    return str(BigtableError(failure.code(), failure.details() or ""))
                raise BigtableError(failure.code(), failure.details() or "") from None
            left = again
            if error is not None:
                raise error
            return ""

        def waits(error: BaseException) -> bool:
            return isinstance(error, BigtableError) and error.code not in _FATAL

        why = wait_for_service(send, waits, self._name)
        return left, why

    def _try(
        self, entries: list[Any], which: list[int], refused: dict[int, str]
    ) -> tuple[list[int], BigtableError | None]:
        """Sends rows once; gives those to send again, and why."""
        from google.cloud.bigtable_v2.types import MutateRowsRequest

        if self._transport is None:
            self._transport = make_transport()
        request = MutateRowsRequest.pb()(table_name=self._name, entries=[entries[index] for index in which])
        routing = [("x-goog-request-params", f"table_name={self._name}")]
        unanswered = set(which)
        again: list[int] = []
        error: BigtableError | None = None
        answers = self._transport.mutate_rows(request, timeout=_ANSWER_WITHIN_S, metadata=routing)
        for answer in answers:
            for each in answer.entries:
                index = which[each.index]
                unanswered.discard(index)
                if each.status.code == 0:
                    continue
                code = _code_of(each.status.code)
                if code in _PASSES:
                    again.append(index)
                    error = BigtableError(code, each.status.message)
                else:
                    refused[index] = str(BigtableError(code, each.status.message))
        if unanswered and error is None:
            error = BigtableError(_CODE.UNAVAILABLE, "rows were not answered for")
        return sorted([*again, *unanswered]), error

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def row_keys(batch: pa.RecordBatch, parts: list[tuple[str, str | None]]) -> pa.Array:
    """Returns the keys of rows, string; null where one of its columns is."""
    pieces: list[Any] = []
    for text, column in parts:
        pieces += [text] if text else []
        pieces += [to_output(batch[column], pa.string())] if column else []
    return pc.binary_join_element_wise(*pieces, "")


def cell_values(array: pa.Array, binary: bool) -> pa.Array:
    """Returns the bytes of a column's cells; null where there is no value."""
    if binary and pa.types.is_integer(array.type):
        return _big_endian(array.cast(pa.int64()), ">i8")
    if binary and pa.types.is_floating(array.type):
        return _big_endian(array.cast(pa.float64()), ">f8")
    return to_output(array, pa.string()).cast(pa.binary())


def _big_endian(array: pa.Array, type: str) -> pa.Array:
    content = array.fill_null(0).to_numpy(zero_copy_only=False).astype(type).tobytes()
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(array), [None, pa.py_buffer(content)])
    return kept_where(fixed.cast(pa.binary()), array.is_valid())


def _checked(keys: pa.Array) -> tuple[dict[int, str], Positions]:
    """Why keys are refused, by their index; the indices of the others."""
    sizes = pc.binary_length(keys).to_numpy(zero_copy_only=False)
    bad = (sizes == 0) | (sizes > _MOST_KEY_BYTES)
    refused = {
        int(index): f"its row key has {sizes[index]:,} bytes, Bigtable takes {_MOST_KEY_BYTES:,}"
        if sizes[index]
        else "its row key is empty, or a column of it is null"
        for index in np.flatnonzero(bad)
    }
    return refused, np.flatnonzero(~bad)


def _code_of(number: int) -> grpc.StatusCode:
    return next((code for code in _CODE if code.value[0] == number), _CODE.UNKNOWN)
