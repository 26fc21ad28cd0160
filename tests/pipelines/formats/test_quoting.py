"""Rows among quotes that do not add up: the same rows as by a walk over every byte, in time that is proportional."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.dialect import Dialect

CSV = Dialect(quote=b'"')
MIB = 1 << 20


def slow_row_ends(data: bytes) -> list[int]:
    """Row by row, byte by byte: a row that is no proper row ends with its line."""
    ends, at = [], 0
    while at < len(data):
        end = _proper_row(data, at)
        at = _behind_line_end(data, at if end is None else end)
        ends.append(at)
    return ends


def _behind_line_end(data: bytes, at: int) -> int:
    while at < len(data) and data[at] not in b"\r\n":
        at += 1
    return min(len(data), at + (2 if data[at : at + 2] == b"\r\n" else 1))


def _proper_row(data: bytes, at: int) -> int | None:
    """Where the fields of a row end, at a line end or the end of the data; None if a quote stands wrong."""
    while True:
        if data[at : at + 1] == b'"':
            at += 1
            while data[at : at + 2] == b'""' or (at < len(data) and data[at] != ord('"')):
                at += 2 if data[at] == ord('"') else 1
            if at >= len(data):
                return None
            at += 1
            if at < len(data) and data[at] not in b",\r\n":
                return None
        else:
            while at < len(data) and data[at] not in b",\r\n":
                at += 1
        if data[at : at + 1] != b",":
            return at
        at += 1


@settings(max_examples=400)
@given(st.text(alphabet='"",a\n\r', max_size=300).map(str.encode))
def test_rows_are_those_of_a_walk_over_every_byte(data: bytes) -> None:
    expected = slow_row_ends(data)
    if b"\r" in data and not any(
        data[i : i + 1] == b"\r" and data[i + 1 : i + 2] != b"\n" for i in range(len(data) - 1)
    ):
        # A carriage return at the very end belongs to what may follow.
        data = data.rstrip(b"\r")
        expected = slow_row_ends(data)
    assert CSV.row_ends(data, final=True).tolist() == expected


@settings(max_examples=200)
@given(st.text(alphabet='"",a\n', max_size=200).map(str.encode), st.integers(0, 200))
def test_rows_that_are_complete_stay_so_whatever_follows(data: bytes, cut: int) -> None:
    complete = CSV.row_ends(data[:cut], final=False).tolist()
    assert CSV.row_ends(data, final=False).tolist()[: len(complete)] == complete


# Each took hours, or gigabytes, when every line was tried against all that follows.
HOPELESS = {
    "every line goes on to the end": (b'a","b\n' * (MIB // 6) + b'"x', MIB // 6 + 1),
    "one long run of doubled quotes": (b'"",' + b'"' * (2 * MIB) + b',"x\n', 1),
    "bad lines": (b'"a"b\n' * (MIB // 5), MIB // 5),
    "no line end in a quote": (b'"' * (4 * MIB), 1),
    "many fields": (b"," * (4 * MIB) + b'a"\n', 1),
    "empty lines": (b"\n" * (4 * MIB) + b'a"b\n', 4 * MIB + 1),
    "carriage returns": (b"\r" * (4 * MIB) + b'a"b\r', 4 * MIB + 1),
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_hopeless_text_ends(kind: str) -> None:
    data, rows = HOPELESS[kind]
    assert len(CSV.row_ends(data, final=True)) == rows
    assert len(CSV.row_ends(data, final=False)) <= rows
    CSV.spans(data)


def test_a_quote_that_a_lenient_parser_would_close_in_the_middle_of_a_pair_is_unclosed() -> None:
    assert CSV.spans(b'"a""b,c\n1,2\n').unclosed == {0}
    assert CSV.spans(b'"a""b",c\n"x"y,2\n').unclosed == frozenset()
