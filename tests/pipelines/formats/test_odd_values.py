"""Values of other types than their column's: each comes out right, or its row is a dead letter, alone.

What is right is told by Python's json and Decimal.
"""

from __future__ import annotations

import itertools
import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats import ReadSpec, reader_class
from pipelines.formats.csv.reader import CsvReader
from pipelines.formats.json import JsonReader
from pipelines.formats.text import TextReader
from pipelines.rows.origin import Block, RejectedRow

REFUSED = "refused"
TYPES = {"int64": pa.int64(), "uint64": pa.uint64(), "float64": pa.float64(), "text": pa.string(), "bool": pa.bool_()}
GOOD = {"int64": "1", "uint64": "1", "float64": "1.5", "text": '"w"', "bool": "true"}
POSITIONS = ("input", "written")
JSON_VALUES = [
    *("1", "-7", "0", "25.0", "1e3", "2.5", "9007199254740993", "9007199254740993.0", "18446744073709551615"),
    *("18446744073709551616", "1180591620717411303424", "1e400", "1e999999999", "-0.0", "1" * 5000, "null"),
    *('"7"', '"007"', '"+7"', '"25.0"', '"1.5"', '"1e3"', '"many"', '""', '" 7 "', '"true"', '"1"', '"\\u00e9"'),
    *(
        "NaN",
        "[NaN]",
        "Infinity",
        "true",
        "false",
        "[20.0]",
        "[true]",
        '["a", 1]',
        "[1, 2]",
        "[[3]]",
        "[]",
        '{"id": 3}',
        '"\\ud800"',
    ),
]
INTEGERS = {"int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1)}


def json_becomes(text: str, type: str, position: str) -> Any:
    """What a JSON value has to become in a column."""
    try:
        value = json.loads(text, parse_int=Written, parse_float=Written, parse_constant=constant)
        text.encode("utf-8", "surrogatepass")
    except ValueError:
        return REFUSED
    while isinstance(value, list) and position == "input" and len(value) < 2:
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, (list, dict)) or (isinstance(value, str) and "\ud800" in value):
        return REFUSED
    if type == "text":
        return (
            value.text
            if isinstance(value, Written)
            else json.dumps(value)
            if value in (True, False) and position == "written" and isinstance(value, bool)
            else str(value)
        )
    if isinstance(value, bool):
        return value if type == "bool" else REFUSED
    if isinstance(value, Written):
        if type == "bool":
            return {"0": False, "1": True}.get(value.text, REFUSED) if position == "input" else REFUSED
        return number(value.text, type, position, value.text)
    if type == "bool":
        found = {"true": True, "false": False, "1": True, "0": False}.get(value.lower(), REFUSED)
        return found if position == "input" or value in ("true", "false") else REFUSED
    if position == "written":
        return number(value, type, position, None) if value in ("7", "1", "1.5") else REFUSED
    return number(value, type, position, None)


def constant(name: str) -> Any:
    if name != "NaN":
        raise ValueError(name)
    return Written(name)


class Written:
    """A number as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text


def number(text: str, type: str, position: str, written: str | None) -> Any:
    """What the text of a number has to become."""
    try:
        exact = Decimal(text.strip())
    except ArithmeticError:
        return REFUSED
    if type in INTEGERS:
        low, high = INTEGERS[type]
        whole = exact.is_finite() and exact.adjusted() < 30 and exact == exact.to_integral_value()
        return int(exact) if whole and low <= exact <= high else REFUSED
    nearest = float(exact)
    if math.isinf(nearest) and exact.is_finite():
        return REFUSED
    integer = written is not None and not set(written) & set(".eEN")
    return REFUSED if position == "written" and integer and Decimal(nearest) != exact else nearest


def outcomes(reader: TextReader, lines: list[bytes], context: Any = None) -> dict[str, Any]:
    """Key -> value, or REFUSED; fails unless each row becomes one thing, with its own bytes."""
    found: dict[str, Any] = {}
    for piece in reader.decode("file", 0, b"\n".join(lines) + b"\n", context):
        if isinstance(piece, RejectedRow):
            assert piece.payload in lines
            assert piece.key is not None
            assert piece.key not in found
            found[piece.key] = REFUSED
            continue
        assert isinstance(piece, Block)
        assert [field.name for field in piece.batch.schema] == reader.spec.columns.names
        for row, (key, value) in enumerate(zip(*(c.to_pylist() for c in piece.batch.columns), strict=True)):
            assert key not in found
            assert key.encode() in piece.origin.payload(row)
            # An object without base64: `coerce` refuses it, as test_base64 shows.
            found[key] = REFUSED if value == {"b64": None} else value
    assert len(found) == len(lines)
    return found


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


def json_reader(type: str, position: str) -> JsonReader:
    columns = pa.schema([("id", pa.string()), ("x", TYPES[type])])
    return JsonReader(ReadSpec(columns, {}, "id", frozenset({"id", "x"} if position == "written" else {"id"})))


def json_line(key: str, value: str) -> bytes:
    return f'{{"id": "{key}", "x": {value}}}'.encode()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("type", list(TYPES))
@pytest.mark.parametrize("place", ["alone", "among others"])
def test_values_of_json(type: str, position: str, place: str) -> None:
    for value in JSON_VALUES:
        lines = [json_line("odd", value)]
        if place == "among others":
            good = [json_line(f"g{n}", GOOD[type]) for n in range(10)]
            lines = [*good[:5], *lines, *good[5:]]
        found = outcomes(json_reader(type, position), lines)
        expected = json_becomes(value, type, position)
        assert same(found.pop("odd"), expected), (value[:40], expected)
        assert set(map(repr, found.values())) <= {repr(json_becomes(GOOD[type], type, position))}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_values_of_json_together(data: st.DataObject) -> None:
    type, position = data.draw(st.sampled_from(list(TYPES))), data.draw(st.sampled_from(POSITIONS))
    values = data.draw(st.lists(st.one_of(st.sampled_from(JSON_VALUES), st.just(GOOD[type])), min_size=1, max_size=30))
    found = outcomes(json_reader(type, position), [json_line(f"k{n}", value) for n, value in enumerate(values)])
    for n, value in enumerate(values):
        assert same(found[f"k{n}"], json_becomes(value, type, position)), value[:40]


CSV_VALUES = [
    *("1", "-7", "25.0", "1e3", "+7", "2.5", "9007199254740993", "9007199254740993.0", "18446744073709551615"),
    *("007", "1e40", "1e400", "NaN", "inf", "-Infinity", "many", "", " 7 ", "1.5e1", "25.", "1" * 60),
]


def csv_becomes(text: str, type: str) -> Any:
    """What a field of CSV has to become as a model's input."""
    if text == "":
        return None
    found = number(text, "int64" if type == "int64" else "float64", "input", None)
    if type == "float32" and isinstance(found, float):
        with np.errstate(over="ignore"):
            nearest = float(np.float32(found))
        return REFUSED if math.isinf(nearest) and not math.isinf(found) else nearest
    return found


@pytest.mark.parametrize("type", ["int64", "float32", "float64"])
@pytest.mark.parametrize("place", ["alone", "among others", "everywhere"])
def test_values_of_csv(type: str, place: str) -> None:
    columns = pa.schema([("id", pa.string()), ("x", pa.type_for_alias(type))])
    for value in CSV_VALUES:
        odd = [f"odd{n},{value}".encode() for n in range(20 if place == "everywhere" else 1)]
        good = [f"g{n},1".encode() for n in range(10 if place == "among others" else 0)]
        found = outcomes(CsvReader(ReadSpec(columns, {}, "id")), [*good[:5], *odd, *good[5:]], ("id", "x"))
        for n in range(len(odd)):
            assert same(found.pop(f"odd{n}"), csv_becomes(value, type)), value
        assert set(found.values()) <= {1}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_values_of_csv_together(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from(["int64", "float32", "float64"]), min_size=1, max_size=3))
    names = [f"x{n}" for n in range(len(types))]
    fields = [("id", pa.string()), *((name, pa.type_for_alias(type)) for name, type in zip(names, types, strict=True))]
    rows = data.draw(st.lists(st.tuples(*[st.sampled_from([*CSV_VALUES, "1", "1"])] * len(types)), min_size=1))
    lines = [",".join([f"k{n}", *row]).encode() for n, row in enumerate(rows)]
    reader = CsvReader(ReadSpec(pa.schema(fields), {}, "id"))
    found: dict[str, Any] = {}
    for piece in reader.decode("file", 0, b"\n".join(lines) + b"\n", ("id", *names)):
        if isinstance(piece, RejectedRow):
            found[str(piece.key)] = REFUSED
        else:
            found |= {row["id"]: list(row.values())[1:] for row in piece.batch.to_pylist()}
    for n, row in enumerate(rows):
        expected = [csv_becomes(value, type) for value, type in zip(row, types, strict=True)]
        if REFUSED in expected:
            assert found[f"k{n}"] == REFUSED
        else:
            assert all(itertools.starmap(same, zip(found[f"k{n}"], expected, strict=True))), row


LARGE = "18446744073709551001"


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (["1", "2"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        ([LARGE, "18446744073709551002"], pa.string()),
        (["1", '"007"'], pa.string()),
        (["1.5", "9007199254740993"], pa.string()),
    ],
)
def test_types_that_keep_what_a_sample_has(values: list[str], written: pa.DataType, tmp_path: Any) -> None:
    from pipelines.planning.decoded_types import written_type

    path = tmp_path / "rows.json"
    path.write_bytes(b"\n".join(json_line(str(n), value) for n, value in enumerate(values)))
    field = reader_class("json").schema(str(path), {}).field("x")
    assert written_type("json", field, None, is_key=False) == written
    as_key = written_type("json", field, None, is_key=True)
    assert as_key == (written if written == pa.int64() else pa.string())
    reader = JsonReader(ReadSpec(pa.schema([("x", as_key)]), {}, "x", frozenset({"x"})))
    (block,) = reader.decode("file", 0, path.read_bytes(), None)
    assert isinstance(block, Block)
    found = [str(value) for value in block.batch["x"].to_pylist()]
    assert found == [value.strip('"') for value in values]


@pytest.mark.parametrize("name", ["x", "é", 'a"b', "a\\b", "a.b", "a b", "1", "[x]"])
def test_fields_of_any_name_hold_numbers_as_text(name: str) -> None:
    reader = JsonReader(ReadSpec(pa.schema([(name, pa.string()), ("z", pa.string())])))
    rows = [{"z": f'{{"{name}": 5, "x": 6}}', name: 7.0}, {name: True, "z": f', "{name}": 7,'}, {name: "8", "z": "9"}]
    for ascii in (True, False):
        raw = b"\n".join(json.dumps(row, ensure_ascii=ascii).encode() for row in rows)
        (block,) = reader.decode("file", 0, raw, None)
        assert isinstance(block, Block)
        assert block.batch[name].to_pylist() == ["7.0", "True", "8"]
        assert block.batch["z"].to_pylist() == [row["z"] for row in rows]


def test_objects_within_objects_keep_their_numbers() -> None:
    part = pa.struct([("x", pa.int64())])
    reader = JsonReader(ReadSpec(pa.schema([("x", pa.string()), ("part", part)]), {}, None, frozenset({"part"})))
    found = reader.decode("file", 0, b'{"x": 7, "part": {"x": 8}}\n{"x": "a", "part": {"x": 9}}\n', None)
    rows = [row for piece in found if isinstance(piece, Block) for row in piece.batch.to_pylist()]
    assert sorted(rows, key=str) == [{"x": "7", "part": {"x": 8}}, {"x": "a", "part": {"x": 9}}]


@pytest.mark.parametrize(
    ("type", "value"), [(pa.list_(pa.float64()), "[%s]"), (pa.struct([("y", pa.float64())]), '{"y": %s}')]
)
def test_integers_within_values_do_not_change(type: pa.DataType, value: str) -> None:
    reader = JsonReader(ReadSpec(pa.schema([("id", pa.string()), ("x", type)]), {}, "id", frozenset({"id", "x"})))
    lines = [json_line(key, value % n) for key, n in (("a", "1"), ("b", "9007199254740993"), ("c", "1e300"))]
    found = outcomes(reader, lines)
    assert [key for key, outcome in found.items() if outcome == REFUSED] == ["b"]


@pytest.mark.parametrize("mark", ["utf-16", "utf-16-be"])
def test_utf_16_is_said(mark: str, tmp_path: Any) -> None:
    path = tmp_path / "rows.json"
    text = "" if mark == "utf-16" else "\ufeff"
    path.write_bytes((text + '{"x": 1}\n' * 100).encode(mark))
    with pytest.raises(ValueError, match="UTF-16"):
        JsonReader.schema(str(path), {})
    reader = JsonReader(ReadSpec(pa.schema([("x", pa.int64())])))
    pieces = [piece for split in reader.splits(str(path), path.stat().st_size, 100) for piece in reader.read(split)]
    assert ["UTF-16" in piece.message for piece in pieces if isinstance(piece, RejectedRow)] == [True]
    assert len(pieces) == 1


class Failing(JsonReader):
    """A reader with a mistake: it divides by a value."""

    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        if b'"x": 0}' in raw:
            raise ZeroDivisionError("division by zero")
        return super().columns(raw, context)

    def parse_alone(self, raw: bytes, context: Any) -> pa.RecordBatch:
        return self.columns(raw, context)


def test_any_exception_of_a_row_is_that_rows() -> None:
    reader = Failing(ReadSpec(pa.schema([("id", pa.string()), ("x", pa.int64())]), {}, "id"))
    found = outcomes(reader, [json_line(f"k{n}", str(n % 10)) for n in range(100)])
    assert {key for key, value in found.items() if value == REFUSED} == {f"k{n}" for n in range(0, 100, 10)}


def test_a_path_stands_once_in_a_dead_letter_about_a_header(tmp_path: Any) -> None:
    path = tmp_path / "twice.csv"
    path.write_bytes(b"id,x,x\n1,2,3\n")
    reader = CsvReader(ReadSpec(pa.schema([("id", pa.string())])))
    from pipelines.formats import Split

    (piece,) = reader.read(Split(str(path), 0, 13, 13))
    assert isinstance(piece, RejectedRow)
    assert piece.message.count(str(path)) == 1
