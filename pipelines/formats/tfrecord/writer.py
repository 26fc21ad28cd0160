"""Writes TFRecord files of tf.Examples or PredictionLogs, encoded in columns: no message object per row.

| column | feature | output tensor |
|---|---|---|
| integers, booleans | int64 | DT_INT64, DT_INT32, DT_BOOL |
| float16, float32; float64 **rounded to float32** | float | DT_FLOAT (float64 stays DT_DOUBLE) |
| strings, binary | bytes | DT_STRING |
| dates, times, durations, intervals, decimals | bytes, as text | DT_STRING |
| lists of these | several values | shape [1, n] |
| null | absent | absent |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_bytes
from inference.columns.nulls import kept_where
from pipelines.formats.base import FormatError, Writer
from pipelines.formats.output_values import nested_type, refusal, text_type, to_output
from pipelines.formats.protobuf.wire import by_row, concat, field, nested, raw, tag, varint, varints
from pipelines.formats.tfrecord.frames import frame

# Field numbers: tensorflow/core/example/{example,feature}.proto and core/framework/{tensor,types}.proto.
_KIND = {"bytes": 1, "float": 2, "int64": 3}
_TENSOR: dict[pa.DataType, tuple[int, int]] = {
    pa.float32(): (1, 5),
    pa.float64(): (2, 6),
    pa.int32(): (3, 7),
    pa.string(): (7, 8),
    pa.binary(): (7, 8),
    pa.int64(): (9, 10),
    pa.bool_(): (10, 11),
}
"""DataType and field of TensorProto that holds the values."""


ENCODED_ROWS = 16_384
"""Rows encoded at a time: more of them do not fit into a processor's cache, and take twice as long each."""


class TFRecordWriter(Writer):
    """Writes one record a row.

    Options:
      record: `example` (default), or `prediction_log`: what TFX's BulkInferrer writes, a PredictionLog with
        the input columns as a serialized tf.Example, and the output columns as tensors of the response.
      outputs: names of the output columns.
      model, signature: the names in the PredictionLog's model spec.
    """

    extension = "tfrecord"

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(file, schema, options)
        record = options.get("record", "example")
        if record not in ("example", "prediction_log"):
            raise FormatError(f'TFRecord: record is "example" or "prediction_log", not {record!r}')
        self._outputs = list(options.get("outputs", ())) if record == "prediction_log" else None
        if missing := set(self._outputs or ()) - set(schema.names):
            raise FormatError(f"TFRecord: there are no output columns {', '.join(sorted(missing))}")
        for column in schema:
            self.output_type(column.type)

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.schema.equals(self.schema):
            raise FormatError(f"the batch has the columns {batch.schema}, the file has {self.schema}")
        batch.validate(full=True)
        encode = examples if self._outputs is None else self._prediction_logs
        parts = [batch.slice(at, ENCODED_ROWS) for at in range(0, batch.num_rows, ENCODED_ROWS)]
        self.file.write(b"".join(frame(encode(part)) for part in parts))

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        found = nested_type(type, _feature_type, "a tf.Example")
        inner = found.value_type if _is_list(found) else found
        if pa.types.is_nested(inner):
            raise refusal(type, "a tf.Example")
        return found

    def _prediction_logs(self, batch: pa.RecordBatch) -> pa.LargeBinaryArray:
        """PredictionLog{predict_log{request{model_spec, inputs["examples"]}, response{outputs}}}."""
        outputs = self._outputs or []
        inputs = batch.select([name for name in batch.schema.names if name not in outputs])
        spec = field(1, str(self.options.get("model", "")).encode()) + field(
            3, str(self.options.get("signature", "serving_default")).encode()
        )
        # TensorProto: DT_STRING, of shape [1].
        text = tag(1, 0) + varint(7) + field(2, field(2, tag(1, 0) + varint(1)))
        tags = [
            tag(1),
            field(1, spec) + tag(2),
            field(1, b"examples") + tag(2),
            text + tag(8),
        ]
        request = nested(tags, examples(inputs))
        entries = [nested([tag(1), field(1, name.encode()) + tag(2)], _tensor(batch.column(name))) for name in outputs]
        response = nested([tag(2)], concat(entries, b"") if entries else _empty(batch.num_rows))
        return nested([tag(6)], concat([request, response]))


def _feature_type(type: pa.DataType) -> pa.DataType:
    """The type of a value, not nested, that is written."""
    if type in _TENSOR:
        return type
    if pa.types.is_integer(type):
        return pa.int64()
    if pa.types.is_float16(type):
        return pa.float32()
    return pa.binary() if is_bytes(type) else text_type(type, "a tf.Example")


def examples(batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """Returns the rows of a batch as serialized tf.Examples. Raises ArrowInvalid for a null within a list."""
    features = [_feature(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return nested([tag(1)], concat(features, b"") if features else _empty(batch.num_rows))


def _feature(name: str, array: pa.Array) -> pa.LargeBinaryArray:
    """An entry of the map `Features.feature`."""
    array = _plain(array)
    values = array.values if _is_list(array.type) else array
    entry = [tag(1), field(1, name.encode()) + tag(2)]
    if pa.types.is_floating(values.type):
        single = array.cast(pa.list_(pa.float32()) if _is_list(array.type) else pa.float32())
        if pa.types.is_float64(values.type):
            _refuse_overflow(values, single.values if _is_list(array.type) else single)
        return nested([*entry, tag(_KIND["float"]), tag(1)], raw(single))
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return nested([*entry, tag(_KIND["int64"]), tag(1)], _numbers(array))
    if _is_list(array.type):
        return nested([*entry, tag(_KIND["bytes"])], by_row(nested([tag(1)], _flat(array)), array))
    return nested([*entry, tag(_KIND["bytes"]), tag(1)], array.cast(pa.large_binary()))


def _refuse_overflow(values: pa.Array, single: pa.Array) -> None:
    """Raises ArrowInvalid if a float64 became infinite by being rounded to float32."""
    if pc.any(pc.and_(pc.is_inf(single), pc.is_finite(values))).as_py():
        raise pa.ArrowInvalid("a number is too large for a float32: a tf.Example has no other float")


def _tensor(array: pa.Array) -> pa.LargeBinaryArray:
    """A TensorProto a row, of shape [1], or [1, n] for lists."""
    array = _plain(array)
    is_list = _is_list(array.type)
    type = array.type.value_type if is_list else array.type
    dtype, number = _TENSOR[type]
    one = field(2, tag(1, 0) + varint(1))
    if is_list:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.uint64)
        shape = concat([one, nested([tag(2)], concat([tag(1, 0), varints(lengths)]))])
    else:
        shape = concat([one, _empty(len(array))])
    if number == 8:
        values = nested([tag(8)], _flat(array) if is_list else array.cast(pa.large_binary()))
        values = by_row(values, array) if is_list else values
    else:
        values = nested([tag(number)], raw(array) if pa.types.is_floating(type) else _numbers(array))
    return concat([tag(1, 0) + varint(dtype), nested([tag(2)], shape), values])


def _plain(array: pa.Array) -> pa.Array:
    """The array in a type that is written, without an offset, and without nulls within lists."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    type = TFRecordWriter.output_type(array.type)
    array = to_output(array, type)
    if not _is_list(type):
        return array
    if array.offset or (array.null_count and len(array.values) != len(array.flatten())):
        array = array.take(pa.array(range(len(array))))
    if array.values.null_count:
        raise pa.ArrowInvalid("a null within a list: a tf.Example has no place for it")
    return array


def _numbers(array: pa.Array) -> pa.LargeBinaryArray:
    """Integers as varints (negative ones as 64 bits, as protobuf does), one or several a row."""
    is_list = _is_list(array.type)
    values = _flat_values(array) if is_list else pc.fill_null(array, False if array.type == pa.bool_() else 0)
    encoded = varints(values.cast(pa.int64()).to_numpy().view(np.uint64))
    if is_list:
        return by_row(encoded, array)
    return kept_where(encoded, array.is_valid()) if array.null_count else encoded


def _flat_values(array: pa.Array) -> pa.Array:
    bounds = array.offsets
    first = bounds[0].as_py()
    return array.values.slice(first, bounds[len(bounds) - 1].as_py() - first)


def _flat(array: pa.Array) -> pa.LargeBinaryArray:
    return _flat_values(array).cast(pa.large_binary())


def _is_list(type: pa.DataType) -> bool:
    found: bool = pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)
    return found


def _empty(rows: int) -> pa.LargeBinaryArray:
    return pa.repeat(pa.scalar(b"", pa.large_binary()), rows)
