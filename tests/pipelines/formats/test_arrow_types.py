"""Every Arrow type through every output format: what the plan says is what is written, and it is the same value."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.example_proto import parse_example
from pipelines.formats import FormatError, writer_class
from pipelines.formats.output_values import key_texts, to_output
from pipelines.formats.readable import readable_array, readable_type
from tests.support.arrow_types import all_arrays, leaves, unions

ARRAYS = all_arrays()
EPOCH = datetime.datetime(1970, 1, 1)
_DURATION = re.compile(r"(-?)PT(\d+(?:\.\d+)?)S")
_INTERVAL = re.compile(r"P(-?\d+)M(-?\d+)DT(-?)(\d+(?:\.\d+)?)S")


def canonical(value: Any, type: pa.DataType) -> Any:
    """A value as Python knows it, from what any library made of it."""
    if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
        return canonical(value, type.value_type)
    if value is None or pa.types.is_null(type):
        return None
    if pa.types.is_nested(type):
        return _nested(json.loads(value) if isinstance(value, (str, bytes)) else value, type)
    if type == pa.uuid():
        return value if isinstance(value, uuid.UUID) else uuid.UUID(_text(value))
    if type == pa.bool8() or pa.types.is_boolean(type):
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else bool(value)
    if pa.types.is_integer(type):
        return int(value)
    if pa.types.is_floating(type):
        return float(value)
    if pa.types.is_decimal(type):
        return Decimal(_text(value) if isinstance(value, bytes) else value)
    return _temporal(value, type) if pa.types.is_temporal(type) else _text(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _nested(value: Any, type: pa.DataType) -> Any:
    if pa.types.is_struct(type):
        return {field.name: canonical(value[field.name], field.type) for field in type}
    if pa.types.is_map(type):
        pairs = [(pair["key"], pair["value"]) if isinstance(pair, dict) else pair for pair in value]
        return [(canonical(k, type.key_type), canonical(v, type.item_type)) for k, v in pairs]
    return [canonical(item, type.value_type) for item in value]


def _temporal(value: Any, type: pa.DataType) -> Any:
    value = _text(value) if isinstance(value, bytes) else value
    if pa.types.is_duration(type):
        if isinstance(value, str):
            sign, seconds = _DURATION.fullmatch(value).groups()  # type: ignore[union-attr]
            return datetime.timedelta(microseconds=int(Decimal(sign + seconds) * 10**6))
        return value
    if pa.types.is_interval(type):
        if isinstance(value, str):
            months, days, sign, seconds = _INTERVAL.fullmatch(value).groups()  # type: ignore[union-attr]
            return int(months), int(days), int(Decimal(sign + seconds) * 10**9)
        return tuple(value)
    if pa.types.is_time(type):
        return datetime.time.fromisoformat(value[:15]) if isinstance(value, str) else value
    if isinstance(value, int):
        # What fastavro makes of nanoseconds.
        value = EPOCH + datetime.timedelta(microseconds=value // 1000)
    if isinstance(value, str):
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.replace("Z", "+00:00"))
        text = re.sub(r"\.(\d{3})(?=$|[+-])", r".\g<1>000", re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text))
        value = datetime.datetime.fromisoformat(text)
    if isinstance(value, datetime.datetime) and value.tzinfo:
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    if pa.types.is_date(type):
        return value.date() if isinstance(value, datetime.datetime) else value
    return value


def _csv_rows(content: bytes, name: str) -> list[Any]:
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    return [{key: value or None for key, value in row.items()} for row in rows]


def _tfrecord_rows(content: bytes, name: str) -> list[Any]:
    rows, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        rows.append(parse_example(content[at + 12 : at + 12 + size]))
        at += 16 + size
    return rows


READ: dict[str, Callable[[bytes, str], list[Any]]] = {
    "csv": _csv_rows,
    "json": lambda content, _: [json.loads(line) for line in content.splitlines()],
    "parquet": lambda content, _: list(pq.read_table(io.BytesIO(content)).to_pylist()),
    "avro": lambda content, _: list(fastavro.reader(io.BytesIO(content))),
    "tfrecord": _tfrecord_rows,
}


def planned(format: str) -> dict[str, pa.DataType]:
    """The type of each column in a file of a format, for the types that it has."""
    types = {}
    for name, array in ARRAYS.items():
        try:
            types[name] = writer_class(format).output_type(readable_type(array.type))
        except FormatError:
            continue
    return types


@pytest.mark.parametrize("format", READ)
def test_every_type_is_written_as_the_plan_says_and_comes_back_the_same(format: str) -> None:
    types = planned(format)
    if format == "tfrecord":
        # Of which a list of nulls has no value either.
        types = {name: type for name, type in types.items() if "<null>" not in name}
    if format == "parquet" and pa.__version__.startswith("23."):
        # It reads durations within maps as the numbers that Parquet has for them.
        types = {name: type for name, type in types.items() if not name.startswith("map<duration")}
    names = {name: f"c{number}" for number, name in enumerate(types)}
    rows = [0, 2] if format == "tfrecord" else [0, 1, 2]
    arrays = [to_output(readable_array(ARRAYS[name]), type).take(pa.array(rows)) for name, type in types.items()]
    assert [array.type for array in arrays] == list(types.values())
    schema = pa.schema([(names[name], type) for name, type in types.items()])
    file = io.BytesIO()
    writer = writer_class(format)(file, schema, {})
    writer.write(pa.record_batch(arrays, schema=schema))
    writer.close()
    found = READ[format](file.getvalue(), format)
    assert len(found) == len(rows)
    different = {}
    for name, column in names.items():
        type = ARRAYS[name].type
        for row, given in zip(found, (ARRAYS[name][row].as_py() for row in rows), strict=True):
            value = row.get(column)
            if format == "tfrecord" and value is not None and not pa.types.is_list(types[name]):
                (value,) = value
            got, wanted = canonical(value, type), canonical(given, type)
            if got != wanted and not (format == "csv" and wanted == ""):
                different[name] = (wanted, got, value)
    assert not different


@pytest.mark.parametrize(
    ("format", "refused"),
    [(format, {}) for format in ("csv", "json", "parquet", "avro")]
    + [("tfrecord", {name for name in ARRAYS if name.startswith(("struct<", "map<"))})],
)
def test_what_a_format_cannot_hold_is_known_to_the_plan(format: str, refused: Any) -> None:
    assert set(ARRAYS) - set(planned(format)) == set(refused)
    for array in unions().values():
        with pytest.raises(FormatError, match="cannot hold columns of type"):
            writer_class(format).output_type(array.type)


@pytest.mark.parametrize("cut", [slice(0, 3), slice(1, 3), slice(1, 2), slice(0, 0)], ids=str)
def test_what_is_read_can_be_taken_apart_and_is_the_same(cut: slice) -> None:
    for name, whole in ARRAYS.items():
        array = whole[cut]
        found = readable_array(array)
        found.validate(full=True)
        assert found.type == readable_type(whole.type), name
        given = [canonical(value, whole.type) for value in array.to_pylist()]
        assert [canonical(value, whole.type) for value in found.to_pylist()] == given, name
        assert found.take(pa.array(range(len(found)), pa.int64())).equals(found) or "float" in name, name


def test_keys_of_dead_letters_are_the_text_of_the_csv() -> None:
    for name in leaves():
        array = readable_array(ARRAYS[name])
        file = io.BytesIO()
        batch = pa.record_batch({"x": to_output(array, writer_class("csv").output_type(array.type))})
        writer_class("csv")(file, batch.schema, {}).write(batch)
        lines = list(csv.reader(io.StringIO(file.getvalue().decode(), newline="")))[1:]
        assert [text or "" for text in key_texts(ARRAYS[name])] == [line[0] if line else "" for line in lines], name
    assert key_texts(pa.array([b"\xff", b"b"])) == ["\\xff", "b"]
    assert key_texts(pa.array([["b"], None])) == ['["b"]', None]
