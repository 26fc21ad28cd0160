"""Answers of ReadRows are decoded as protobuf does, whatever else they hold; what is no answer is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pipelines.connectors.bigquery.answers import decoded

SHARES = st.floats(0, 1)


def message(rows: bytes | None, begin: float, end: float, **others: Any) -> bytes:
    answer = types.ReadRowsResponse(**others)
    pb = types.ReadRowsResponse.pb(answer)
    if rows is not None:
        pb.arrow_record_batch.serialized_record_batch = rows
    pb.stats.progress.at_response_start = begin
    pb.stats.progress.at_response_end = end
    return bytes(pb.SerializeToString())


@given(st.none() | st.binary(max_size=300), SHARES, SHARES, st.integers(0, 2**40), st.binary(max_size=200))
def test_as_protobuf_does(rows: bytes | None, begin: float, end: float, count: int, schema: bytes) -> None:
    found = decoded(message(rows, begin, end, row_count=count, arrow_schema={"serialized_schema": schema}))
    assert (found.begin, found.end) == (begin, end)
    if rows:
        assert found.rows is not None
        assert found.rows.to_pybytes() == rows
    else:
        assert not found.rows


def test_large_rows_and_fields_that_are_not_known() -> None:
    rows = bytes(range(256)) * 8_192
    # Of each wire type: a varint, 64 bits, bytes, 32 bits.
    unknown = b"\xa0\x06\x96\x01" + b"\xa1\x06" + bytes(8) + b"\xa2\x06\x03abc" + b"\xa5\x06" + bytes(4)
    found = decoded(unknown + message(rows, 0.25, 0.5) + unknown)
    assert found.rows is not None
    assert found.rows.to_pybytes() == rows
    assert (found.begin, found.end) == (0.25, 0.5)


def test_rows_in_two_places_are_refused_and_not_lost() -> None:
    with pytest.raises(ValueError, match="rows in two places"):
        decoded(message(b"one", 0, 0) + message(b"two", 0, 0))
    with pytest.raises(ValueError, match="rows in two places"):
        decoded(b"\x22\x0a" + b"\x0a\x03one" + b"\x0a\x03two")


@given(st.integers(0, 40))
def test_a_part_of_an_answer_is_refused_or_has_no_rows(length: int) -> None:
    whole = message(b"rows of some length", 0.25, 0.5, row_count=3)
    try:
        found = decoded(whole[:length])
    except (ValueError, DecodeError):
        return
    assert not found.rows or found.rows.to_pybytes() == b"rows of some length"


@given(st.binary(max_size=60))
def test_other_bytes_end_with_an_error_of_these_two(content: bytes) -> None:
    try:
        decoded(content)
    except (ValueError, DecodeError):
        pass
