"""The longest entry of a dictionary page is found without decoding it, or it is said that it is not."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.parquet.dictionary import longest_entry


def page_of(values: list[bytes], compression: str = "snappy") -> tuple[bytes, str]:
    """A column chunk from its dictionary page on, and its codec."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(values, pa.binary())}), sink, compression=compression)
    chunk = pq.ParquetFile(io.BytesIO(sink.getvalue())).metadata.row_group(0).column(0)
    return sink.getvalue()[chunk.dictionary_page_offset : chunk.data_page_offset], chunk.compression


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "brotli", "none"])
def test_the_longest_entry(compression: str) -> None:
    values = [b"key-%d" % (number * 37 % 50_000) for number in range(50_000)] + [b"x" * 255]
    assert longest_entry(*page_of(values, compression)) == 255
    assert longest_entry(*page_of([*values, b"x" * 256], compression)) is None
    assert longest_entry(*page_of([*values, b""], compression)) is None
    assert longest_entry(*page_of(values[:1], compression)) == 5


def test_other_bytes_are_not_understood() -> None:
    raw, codec = page_of([b"abc", b"de"])
    assert longest_entry(raw, codec) == 3
    assert longest_entry(raw[:-1], codec) is None
    assert longest_entry(raw[5:], codec) is None
    assert longest_entry(raw, "LZO") is None
    assert longest_entry(b"", codec) is None


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\3\0\0\0abc", b"\0" * 300, b"y" * 70_000]), min_size=1))
def test_what_is_found_is_true(values: list[bytes]) -> None:
    found = longest_entry(*page_of(values))
    assert found in (None, max(map(len, values)))
