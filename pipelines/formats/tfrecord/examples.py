"""Decodes tf.Examples into record batches by tfx-bsl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list
from model.errors import ExampleFormatError
from model.example_proto import parse_example
from pipelines.formats.base import FormatError, ReadSpec
from pipelines.formats.table import invalid_rows
from pipelines.rows.origin import Block, Origin, Positions, RejectedRow

SAMPLED_RECORDS = 200
"""Records from which the columns of a file, and the kinds of its features, are inferred."""


@dataclass
class RecordOrigin(Origin):
    """Records of a file; positions are byte offsets of their frames (in the unpacked file)."""

    file: str
    format: dict[str, Any]
    offsets: Positions
    records: list[bytes]

    def positions(self) -> Positions:
        return self.offsets

    def payload(self, row: int) -> bytes:
        return self.records[row]


class ExampleDecoder:
    """Decodes tf.Examples into the columns wanted."""

    def __init__(self, spec: ReadSpec, record_column: str | None, first: list[bytes]) -> None:
        columns = spec.columns
        self.columns, self.record_column, self.key = columns, record_column, spec.key
        features = [field for field in columns if field.name != record_column]
        self.schema = _feature_schema(features, first) if features else None
        self.decoder = _tfx_decoder(self.schema)

    def read(self, name: str, records: list[bytes], offsets: Positions) -> Iterator[Block | RejectedRow]:
        """Decodes records, and those that cannot be decoded one by one."""
        if not records:
            return
        try:
            raw = self.decoder.DecodeBatch(records) if self.decoder else None
            if raw is not None and raw.num_rows != len(records):
                raise RuntimeError(f"{raw.num_rows} rows of {len(records)} records")
            batch, bad = self._columns(records, raw)
            bad = bad or _bad_text(batch)
        except Exception as error:  # of any class: it is the record's fault that it cannot be decoded
            # After a failure the old one would put the rows before the bad one into its next batch.
            self.decoder = _tfx_decoder(self.schema)
            if len(records) == 1:
                message = f"not the tf.Example that is expected: {error}"
                yield RejectedRow(records[0], int(offsets[0]), message, key=self._key(records[0]))
                return
            half = len(records) // 2
            yield from self.read(name, records[:half], offsets[:half])
            yield from self.read(name, records[half:], offsets[half:])
            return
        if not bad:
            yield Block(RecordOrigin(name, {"type": "tfrecord"}, offsets, records), batch)
            return
        for index, message in sorted(bad.items()):
            yield RejectedRow(records[index], int(offsets[index]), message, key=self._key(records[index]))
        kept = np.setdiff1d(np.arange(len(records)), np.fromiter(bad, np.int64))
        yield from self.read(name, [records[i] for i in kept], offsets[kept])

    def _key(self, record: bytes) -> str | None:
        """The key of a record that cannot be decoded as it should, if it is a tf.Example at all."""
        try:
            values = parse_example(record).get(self.key, []) if self.key else []
        except ExampleFormatError:
            return None
        value = values[0] if len(values) == 1 else None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else None if value is None else str(value)

    def _columns(self, records: list[bytes], raw: Any) -> tuple[pa.RecordBatch, dict[int, str]]:
        arrays: list[pa.Array] = []
        bad: dict[int, str] = {}
        for field in self.columns:
            if field.name == self.record_column:
                arrays.append(pa.array(records, pa.binary()))
                continue
            lists = raw.column(raw.schema.get_field_index(field.name))
            if pa.types.is_null(lists.type):
                arrays.append(pa.nulls(len(records), field.type))
            elif is_list(field.type):
                arrays.append(_list(lists, field.type.value_type))
            else:
                lengths = np.diff(lists.offsets.to_numpy())
                for index in np.flatnonzero(lengths > 1).tolist():
                    bad.setdefault(index, f'"{field.name}" has {lengths[index]} values, and one is expected')
                arrays.append(pa.nulls(len(records), field.type) if bad else _scalar(lists, lengths, field.type))
        if not arrays:
            return pa.record_batch({"": pa.nulls(len(records))}).select([]), bad
        return pa.RecordBatch.from_arrays(arrays, self.columns.names), bad


def infer(records: list[bytes], file: str) -> dict[str, pa.DataType]:
    """Returns the columns of records, by name. Raises FormatError if no record is a tf.Example."""
    parsed = _parsed(records)
    if records and not parsed:
        raise FormatError(f"{file}: none of its first {len(records)} records is a tf.Example")
    several = {name for example in parsed for name, values in example.items() if len(values) > 1}
    types = _majority(parsed)
    return {name: pa.list_(type) if name in several else type for name, type in sorted(types.items())}


def _parsed(records: list[bytes]) -> list[dict[str, Any]]:
    """Those of the records that are tf.Examples, as Python values."""
    found: list[dict[str, Any]] = []
    for record in records:
        try:
            found.append(dict(parse_example(record)))
        except ExampleFormatError:
            continue
    return found


def _majority(examples: list[dict[str, Any]]) -> dict[str, pa.DataType]:
    """The type of each feature: the kind that most examples have; of bytes, text only if all of them are."""
    counts: dict[str, Counter[pa.DataType]] = {}
    for example in examples:
        for name, values in example.items():
            if values:
                counts.setdefault(name, Counter())[_type_of(values)] += 1
    types = {}
    for name, found in counts.items():
        words = found[pa.string()] + found[pa.binary()]
        numbers = {type: count for type, count in found.items() if pa.types.is_primitive(type)}
        most = max(numbers, key=lambda type: numbers[type], default=None)
        if most is None or words >= numbers[most]:
            types[name] = pa.binary() if found[pa.binary()] else pa.string()
        else:
            types[name] = most
    return types


def _type_of(values: list[bytes] | list[float] | list[int]) -> pa.DataType:
    if isinstance(values[0], float):
        return pa.float32()
    if isinstance(values[0], int):
        return pa.int64()
    try:
        for value in values:
            value.decode()
    except UnicodeDecodeError:
        return pa.binary()
    return pa.string()


def _tfx_decoder(schema: bytes | None) -> Any:
    if schema is None:
        return None
    from tfx_bsl.cc.tfx_bsl_extension import coders

    return coders.ExamplesToRecordBatchDecoder(schema)


def _feature_schema(features: list[pa.Field], first: list[bytes]) -> bytes:
    """The features wanted, of the kinds that most of the first records have, or else those of the schema."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    known = _majority(_parsed(first[:SAMPLED_RECORDS]))
    schema = schema_pb2.Schema()
    for field in features:
        schema.feature.add(name=field.name, type=_kind(known.get(field.name, field.type)))
    serialized: bytes = schema.SerializeToString()
    return serialized


def _kind(type: pa.DataType) -> int:
    """The kind of feature (of `tensorflow.metadata.v0.FeatureType`) that holds values of a type."""
    while is_list(type) or pa.types.is_dictionary(type):
        type = type.value_type
    if pa.types.is_floating(type):
        return 3
    return 2 if pa.types.is_integer(type) or pa.types.is_boolean(type) else 1


def _list(lists: pa.Array, wanted: pa.DataType) -> pa.Array:
    mask = lists.is_null() if lists.null_count else None
    offsets = lists.offsets.cast(pa.int32())
    return pa.ListArray.from_arrays(offsets, _values(lists.values, wanted), mask=mask)


def _scalar(lists: pa.Array, lengths: Positions, wanted: pa.DataType) -> pa.Array:
    values = _values(lists.flatten(), wanted)
    if len(values) == len(lists):
        return values
    return values.take(pa.array(np.cumsum(lengths) - 1, mask=lengths == 0))


def _values(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    wanted = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
    if pa.types.is_large_binary(values.type):
        if pa.types.is_string(wanted) or pa.types.is_large_string(wanted):
            # Text that is not UTF-8 is found afterwards, row by row.
            return pc.cast(values, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
        return values.cast(pa.binary())
    return values.cast(wanted) if (values.type, wanted) == (pa.float32(), pa.float64()) else values


def _bad_text(batch: pa.RecordBatch) -> dict[int, str]:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return invalid_rows(batch)
    return {}
