"""Messages become rows: as the rows of a file do, and each by itself however bad the others are."""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.flows import decode as our_decode
from pipelines.flows.decode import READERS, MessageDecoder
from pipelines.formats import FormatError, Reader, ReadSpec, reader_class
from pipelines.formats import text as our_text
from pipelines.formats.tfrecord.frames import frame
from pipelines.formats.tfrecord.writer import examples
from pipelines.rows.messages import MessageOrigin, Messages
from pipelines.rows.origin import Block, RejectedRow
from tests.support.decoding import Row, assert_each_by_itself, outcomes, pull, values

FORMATS = ("json", "csv", "tfexample")
COLUMNS = pa.schema([("k", pa.string()), ("n", pa.int64()), ("x", pa.float32())])


def reader(format: str, columns: pa.Schema = COLUMNS, names: tuple[str, ...] = ("k", "n", "x")) -> Reader:
    options = {"column_names": names} if format == "csv" else {}
    return reader_class(READERS[format])(ReadSpec(columns, options, "k"))


def serialized(rows: list[Row]) -> list[bytes]:
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), COLUMNS, strict=True)]
    found: list[bytes] = examples(pa.RecordBatch.from_arrays(columns, schema=COLUMNS)).to_pylist()
    return found


def encoded(format: str, rows: list[Row]) -> list[bytes]:
    """Rows as messages, one each."""
    if format == "tfexample":
        return serialized(rows)
    if format == "json":
        return [json.dumps(dict(zip(COLUMNS.names, row, strict=True))).encode() for row in rows]
    return [",".join("" if value is None else str(value) for value in row).encode() for row in rows]


def split(found: list[Block | RejectedRow]) -> tuple[list[Block], list[RejectedRow]]:
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


ROWS: list[Row] = [(f"key-{i}", i if i % 5 else None, i / 4 if i % 7 else None) for i in range(500)]


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_those_of_a_file(format: str, tmp_path: Path) -> None:
    payloads = encoded(format, ROWS)
    path = tmp_path / "rows"
    framed = (
        bytes(frame(pa.array(payloads, pa.large_binary()))) if format == "tfexample" else b"\n".join([*payloads, b""])
    )
    path.write_bytes(framed)
    file_reader = reader(format)
    blocks = [b for s in file_reader.splits(str(path), len(framed), 1 << 30) for b in file_reader.read(s)]
    (expected,) = (block.batch for block in blocks if isinstance(block, Block))

    (found,) = MessageDecoder(reader(format), format).decode(pull(list(payloads)))
    assert isinstance(found, Block)
    assert found.batch.equals(expected)
    assert found.batch.schema.equals(expected.schema)
    assert values(found.batch) == ROWS


@pytest.mark.parametrize("format", FORMATS)
def test_good_messages_are_decoded_together(format: str) -> None:
    decoder = MessageDecoder(reader(format), format)
    messages = pull(list(encoded(format, ROWS)))
    with mock.patch.object(decoder._reader, "replay") as replay:
        (found,) = decoder.decode(messages)
    assert isinstance(found, Block)
    assert isinstance(found.origin, MessageOrigin)
    assert found.origin.rows is None
    replay.assert_not_called()


def good(i: int) -> dict[str, bytes]:
    (row,) = serialized([(f"key-{i}", i, 0.5)])
    return {"json": b'{"k": "key-%d", "n": %d, "x": 0.5}' % (i, i), "csv": b"key-%d,%d,0.5" % (i, i), "tfexample": row}


# What a message may hold, whether it is a row (None: the other tests tell), and its stage if it is not.
KINDS: dict[str, list[tuple[bytes, bool, str]]] = {
    "json": [
        (b"", False, "decode"),
        (b" \r\n\t ", False, "decode"),
        (b"\0", False, "decode"),
        (b'{"k":"a"}{"k":"b"}', False, "decode"),
        (b'{"k":"a"}\n{"k":"b"}', False, "decode"),
        (b'{"k":"a"},{"k":"b"}', False, "decode"),
        (b'{"k":"a"}\0{"k":"b"}', False, "decode"),
        (b'{"k":"a"}{"k":"b"}\0{"k":"c"}', False, "decode"),
        (b'{"k":"a"}\0', False, "decode"),
        (b'{"k":"a\nb"}', False, "decode"),
        (b'{"k":"a\tb"}', False, "decode"),
        (b'{"k":"a\\\n"}', False, "decode"),
        (b'{"k":', False, "decode"),
        (b'"a"}', False, "coerce"),
        (b'{"k":"a', False, "decode"),
        (b'b"}', False, "decode"),
        (b'{"u":[{}', False, "decode"),
        (b"{}]}", False, "decode"),
        (b'{"u":{}', False, "decode"),
        (b"{}}", False, "decode"),
        (b"}{", False, "decode"),
        (b"{", False, "decode"),
        (b"[1]", False, "coerce"),
        (b'[{"k":"a"}]', False, "coerce"),
        (b"1", False, "coerce"),
        (b'{"k":"\xff"}', False, "decode"),
        (b"not JSON", False, "decode"),
        (b"null", False, "decode"),
        (b" null", False, "decode"),
        (b'{"k":"a"} null', False, "decode"),
        (b'{"k":"a"}null{"k":"b"}', False, "decode"),
        (b'{"k":"a"}\r\n\tnull\n{"k":"b"}', False, "decode"),
        (b"\xef\xbb\xbfnull", False, "decode"),
        (b'{"k":"a"}\n\xef\xbb\xbfnull {}', False, "decode"),
        (b'{"k":null,"u":{"v":[null]}}', True, ""),
        (b'{"k":"} null"}', True, ""),
        (b'\xef\xbb\xbf{"k":"a"}', True, ""),
        (b'{"k":"a","n":"many"}', False, "coerce"),
        (b'{"k":"a","x":1e300}', False, "coerce"),
        (b'{"k":"a","n":"26"}', True, ""),
        (b'{"k":7}', True, ""),
        (b'\r\n {\r\n  "k": "a",\n\n  "u": [{"z": 1}]\r}\n', True, ""),
        (b'{"k":"a"}\n', True, ""),
        (b"{}", True, ""),
        (b'{"k":"}\\n{ \\u0000"}', True, ""),
    ],
    "csv": [
        (b"", False, "decode"),
        (b"\r\n", False, "decode"),
        (b"a,1,2\nb,1,2", False, "decode"),
        (b"a,1,2\r\n\r\nb,1,2\r\n", False, "decode"),
        (b"a,1,2\rb,1,2", False, "decode"),
        (b'"a', False, "decode"),
        (b'b",1,2', True, ""),
        (b'a,1,"2', False, "decode"),
        (b'"a,1,2\nb,1,2', False, "decode"),
        (b'"', False, "decode"),
        (b"a,1", False, "decode"),
        (b"a,1,2,3", False, "decode"),
        (b"a", False, "decode"),
        (b"  ", False, "decode"),
        (b"\xff,1,2", False, "decode"),
        (b"a,many,2", False, "coerce"),
        (b"a,1,1e300", False, "coerce"),
        (b'"a\nb",1,2', True, ""),
        (b'"a\r\n\r\n""b"", c",1,2', True, ""),
        (b'5" pipe,1,2', True, ""),
        (b'"a"b,1,2', True, ""),
        (b"a,1,2\r\n", True, ""),
        (b"\na,1,2", True, ""),
        (b",,", True, ""),
        (b'"","1","2"', True, ""),
    ],
    "tfexample": [
        (b"\0", False, "decode"),
        (b"not a tf.Example", False, "decode"),
        (serialized([("a", 1, 2.0)])[0][:-3], False, "decode"),
        (serialized([("\xff" * 3, 1, 2.0)])[0].replace("\xff".encode(), b"\xff\xff"), False, "decode"),
        (b"", True, ""),
        (serialized([(None, None, None)])[0], True, ""),
    ],
}
CASES = [(format, kind) for format, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("format", "kind"), CASES, ids=lambda value: repr(value)[:50])
def test_every_kind_of_message(format: str, kind: tuple[bytes, bool, str]) -> None:
    payload, is_row, stage = kind
    decoder = MessageDecoder(reader(format), format)
    payloads = [good(i)[format] for i in range(20)]
    payloads[7] = payload
    found = assert_each_by_itself(decoder, payloads)
    for i, outcome in enumerate(found):
        if i != 7:
            assert outcome == (f"key-{i}", i, 0.5)
    odd = found[7]
    assert isinstance(odd, RejectedRow) is not is_row, odd
    if isinstance(odd, RejectedRow):
        assert (odd.stage, odd.position, odd.truncated) == (stage, 75, False)
        assert odd.message


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bad_messages_leave_their_neighbours_alone(format: str, data: st.DataObject) -> None:
    kinds = KINDS[format]
    chosen = data.draw(st.lists(st.none() | st.sampled_from(kinds), min_size=1, max_size=40))
    payloads = [good(i)[format] if kind is None else kind[0] for i, kind in enumerate(chosen)]
    found = assert_each_by_itself(MessageDecoder(reader(format), format), payloads)
    for i, (kind, outcome) in enumerate(zip(chosen, found, strict=True)):
        if kind is None:
            assert outcome == (f"key-{i}", i, 0.5)
        else:
            assert isinstance(outcome, RejectedRow) is not kind[1], (kind, outcome)


JSON_PIECES = ["{", "}", "[", "]", ",", ":", '"', "\\", '"k"', '{"k":"v"}', '"k":"v"', '{"u":', "null", "1", " "]
CSV_PIECES = ["v", "", ",", '"', '""', "\n", "\r\n", "\r", ',"', '",', '"\n', '\n"', "1,2", '"1","2"', " "]
json_pieces = st.lists(st.sampled_from([*JSON_PIECES, "\n", "\r", "\0", "}{", "}\n{"]), max_size=6).map("".join)
csv_pieces = st.lists(st.sampled_from(CSV_PIECES), max_size=6).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(json_pieces, json_pieces, st.just('{"k":"good"}')), max_size=12))
@example(['{"k":"a"}{"k":"b"}\0{}', '{"k":"c"}'])
@example(['{"k":"a"}{"k":"b"}', '{"k":', '"c"}'])
@example(['{"k":"a"}{"k":"b"}', '{"k":"c', '"}'])
@example(['{"k":"a"}{"k":"b"}', ""])
@example(['{"k":"a"}{"k":"b"}', '{"u":[{}', "{}]}"])
def test_json_is_a_row_where_python_says_so(payloads: list[str]) -> None:
    decoder = MessageDecoder(reader("json", pa.schema([("k", pa.string())])), "json")
    found = assert_each_by_itself(decoder, [payload.encode() for payload in payloads])
    for payload, outcome in zip(payloads, found, strict=True):
        try:
            read = json.loads(payload)
        except ValueError:
            read = None
        if isinstance(read, dict) and not isinstance(read.get("k"), (dict, list)):
            value = read.get("k")
            assert outcome == (None if value is None else str(value),), payload
        else:
            assert isinstance(outcome, RejectedRow), (payload, outcome)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(csv_pieces, csv_pieces, st.just("x,y")), max_size=12))
@example(["a,b\nc,d", ""])
@example(['"a', 'b",c', "d,e\nf,g"])
@example(['a,"b', '"', "c,d\ne,f"])
def test_csv_rows_are_each_a_message(payloads: list[str]) -> None:
    columns = pa.schema([("k", pa.string()), ("n", pa.string())])
    decoder = MessageDecoder(reader("csv", columns, ("k", "n")), "csv")
    found = assert_each_by_itself(decoder, [payload.encode() for payload in payloads])
    for payload, outcome in zip(payloads, found, strict=True):
        if isinstance(outcome, RejectedRow):
            continue
        rows = [row for row in csv.reader(io.StringIO(payload, newline="")) if row]
        if all(quoted_properly(field) for field in payload.split(",")):
            assert [tuple(field or None for field in row) for row in rows] == [outcome], payload


def quoted_properly(field: str) -> bool:
    return '"' not in field or (field.count('"') == 2 and field[0] == field[-1] == '"' and len(field) > 1)


@pytest.mark.parametrize("format", FORMATS)
def test_all_bad_and_none(format: str) -> None:
    decoder = MessageDecoder(reader(format), format)
    assert list(decoder.decode(pull([]))) == []
    blocks, rejected = split(list(decoder.decode(pull([b"\0bad"] * 9))))
    assert not blocks
    assert [row.position for row in rejected] == [5, 15, 25, 35, 45, 55, 65, 75, 85]
    assert outcomes(decoder, pull([good(3)[format]])) == [("key-3", 3, 0.5)]


@pytest.mark.parametrize("format", FORMATS)
def test_message_without_payload(format: str) -> None:
    decoder = MessageDecoder(reader(format), format)
    found = outcomes(decoder, pull([good(0)[format], None, good(2)[format]]))
    assert found[::2] == [("key-0", 0, 0.5), ("key-2", 2, 0.5)]
    assert isinstance(found[1], RejectedRow)
    assert found[1].message == "the message has no payload"


@pytest.mark.parametrize("format", FORMATS)
def test_too_long(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_decode, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(our_text, "MAX_ROW_BYTES", 1000)
    payloads = encoded(format, [(f"key-{i}" + "x" * (2000 if i == 4 else 0), i, 0.5) for i in range(9)])
    decoder = MessageDecoder(reader(format), format)
    found = outcomes(decoder, pull(list(payloads)))
    long = found.pop(4)
    assert [row for row in found if isinstance(row, RejectedRow)] == []
    assert isinstance(long, RejectedRow)
    assert f"row of {len(payloads[4]):,} bytes in a-topic:0; rows may have at most 1,000" == long.message
    assert not long.truncated


@pytest.mark.parametrize("format", FORMATS)
def test_slices_and_large_arrays(format: str) -> None:
    payloads = [good(i)[format] for i in range(10)]
    payloads[5] = b"\0bad"
    whole = pull([b"before", *payloads, b"after"])
    for array in (whole.payloads.slice(1, 10), whole.payloads.cast(pa.large_binary()).slice(1, 10)):
        messages = Messages("a-topic:0", array, whole.positions[1:11], whole.event_us[1:11], 1, 2)
        found = outcomes(MessageDecoder(reader(format), format), messages)
        assert isinstance(found.pop(5), RejectedRow)
        assert found == [(f"key-{i}", i, 0.5) for i in range(10) if i != 5]


def test_key_of_a_rejected_message() -> None:
    bad = b'{"k":"in it","n":"many"}'
    decoder = MessageDecoder(reader("json"), "json")
    assert [row.key for row in split(list(decoder.decode(pull([bad, b"?"]))))[1]] == ["in it", None]
    messages = pull([bad, bad, b"?"], keys=["attribute", None, "another"])
    assert [row.key for row in split(list(decoder.decode(messages)))[1]] == ["attribute", "in it", "another"]


@pytest.mark.parametrize("format", ["json", "csv"])
def test_dictionary_columns(format: str) -> None:
    """As a model's string inputs ask for them."""
    columns = COLUMNS.set(0, pa.field("k", pa.dictionary(pa.int32(), pa.string())))
    payloads = [good(i % 3)[format] for i in range(9)]
    payloads[4] = b"\0bad"
    (block,), (rejected,) = split(list(MessageDecoder(reader(format, columns), format).decode(pull(list(payloads)))))
    assert block.batch["k"].to_pylist() == [f"key-{i % 3}" for i in range(9) if i != 4]
    assert rejected.position == 45


@pytest.mark.parametrize("format", FORMATS)
def test_columns_are_those_asked_for(format: str) -> None:
    columns = pa.schema([("x", pa.float32()), ("absent", pa.int64()), ("k", pa.string())])
    payloads = [good(0)[format], b"\0bad", good(2)[format]]
    (block,), _ = split(list(MessageDecoder(reader(format, columns), format).decode(pull(list(payloads)))))
    assert block.batch.schema == columns
    assert values(block.batch) == [(0.5, None, "key-0"), (0.5, None, "key-2")]


def test_csv_needs_names_and_takes_its_delimiter() -> None:
    with pytest.raises(FormatError, match=r"source\.column_names"):
        MessageDecoder(reader_class("csv")(ReadSpec(COLUMNS, {})), "csv")
    spec = ReadSpec(COLUMNS, {"column_names": ("x", "k", "n"), "delimiter": "|", "null_values": ["-"]}, "k")
    decoder = MessageDecoder(reader_class("csv")(spec), "csv")
    assert_each_by_itself(decoder, [b'1.5|"a|b"|1', b"-|c,d|2", b"1|2", b"?|key|1"])
    found = outcomes(decoder, pull([b'1.5|"a|b"|1', b"-|c,d|2", b"1|2", b"?|key|1"]))
    assert found[:2] == [("a|b", 1, 1.5), ("c,d", 2, None)]
    assert isinstance(found[3], RejectedRow)
    assert found[3].key == "key"
    assert "column 'x'" in found[3].message


def test_features_of_another_kind() -> None:
    """What most messages of a pull hold is expected of the next; those that differ are rows of their own types."""
    text = pa.record_batch({"k": ["t"], "n": ["26"], "x": pa.array([0.5], pa.float32())})
    (odd,) = examples(text).to_pylist()
    decoder = MessageDecoder(reader("tfexample"), "tfexample")
    _, rejected = split(list(decoder.decode(pull([odd]))))
    assert not rejected
    payloads = [good(i)["tfexample"] for i in range(4)]
    for messages in (pull(list(payloads)), pull([payloads[0], odd, payloads[2], payloads[3]])):
        found = outcomes(decoder, messages)
        assert [found[i] for i in (0, 2, 3)] == [(f"key-{i}", i, 0.5) for i in (0, 2, 3)]
    assert found[1] == ("t", b"26", 0.5)
    with mock.patch.object(decoder._reader, "replay") as replay:
        assert len(outcomes(decoder, pull(list(payloads)))) == 4
    replay.assert_not_called()


@pytest.mark.parametrize("format", FORMATS)
def test_travels(format: str) -> None:
    decoder = MessageDecoder(reader(format), format)
    messages = pull([good(i)[format] for i in range(3)])
    expected = outcomes(decoder, messages)
    assert outcomes(pickle.loads(pickle.dumps(decoder)), messages) == expected
    (block,) = decoder.decode(messages)
    assert isinstance(block, Block)
    assert pickle.loads(pickle.dumps(block.origin)).payload(2) == good(2)[format]


def two_values() -> bytes:
    """A tf.Example with two values where one is expected."""
    columns = {"k": pa.array(["p"]), "n": pa.array([[1, 2]], pa.list_(pa.int64())), "x": pa.array([2.0], pa.float32())}
    record: bytes = examples(pa.RecordBatch.from_pydict(columns))[0].as_py()
    return record


POISON: dict[str, list[bytes]] = {
    "json": [
        b'{"k":"p","n":["a",1],"x":2}',
        b'{"k":"p","n":1180591620717411303424,"x":2}',
        b'{"k":"p","n":' + b"1" * 5000 + b',"x":2}',
        b'{"k":"p","n":1e999999999,"x":2}',
        b'{"k":"\\ud800","n":1,"x":2}',
        b'{"k":"p","n":{"k":1},"x":2}',
        b'{"k":"p","n":1,"x":1e400}',
        b'{"k":"p","n":true,"x":2}',
        b"[" * 100_000,
        b"null",
        b"\xff\xfe{\x00}\x00",
    ],
    "csv": [b"p,many,2", b"p,1,1e400", b"p,1e99,2", b"p,1,\xff", b'p,"1', b"p,1,2\np,1,2", b"p", b"\x00"],
    "tfexample": [b"\xff", serialized([("p", 1, 2.0)])[0][:-3], two_values()],
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("others", [0, 1, 60])
def test_poison_is_a_dead_letter_and_nothing_else_is_lost(format: str, others: int) -> None:
    good = encoded(format, ROWS[: 2 * others]) if others else []
    expected = outcomes(MessageDecoder(reader(format), format), pull(list(good))) if good else []
    for poison in POISON[format]:
        found = outcomes(MessageDecoder(reader(format), format), pull([*good[:others], poison, *good[others:]]))
        assert isinstance(found[others], RejectedRow), poison[:40]
        assert [*found[:others], *found[others + 1 :]] == expected


@pytest.mark.parametrize("others", [0, 1, 60])
def test_not_a_number_is_a_number(others: int) -> None:
    decoder = MessageDecoder(reader("csv"), "csv")
    found = outcomes(decoder, pull([b"k,1,NaN"] * (others + 1)))
    assert [row[:2] for row in found if not isinstance(row, RejectedRow)] == [("k", 1)] * (others + 1)
    assert all(np.isnan(row[2]) for row in found if not isinstance(row, RejectedRow))


@pytest.mark.parametrize("format", ["json", "csv"])
def test_any_exception_of_a_message_is_that_messages(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with a mistake: it divides by what one message has."""
    decoder = MessageDecoder(reader(format), format)
    for name in ("columns", "line_columns") if format == "json" else ("columns",):
        parse = getattr(decoder._reader, name)

        def failing(raw: Any, *context: Any, parse: Any = parse) -> Any:
            if b"key-42" in bytes(raw):
                raise ZeroDivisionError("division by zero")
            return parse(raw, *context)

        monkeypatch.setattr(decoder._reader, name, failing)
    monkeypatch.setattr(decoder._reader, "parse_alone", decoder._reader.columns)  # type: ignore[attr-defined]
    found = outcomes(decoder, pull(list(encoded(format, ROWS[:100]))))
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, RejectedRow)] == [42]
