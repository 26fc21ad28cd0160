"""Values that become null, in arrays that are parts of others: some versions of pyarrow make other text of these."""

from __future__ import annotations

import pyarrow as pa
import pytest

from inference.columns.base64_values import OBJECT, from_objects
from inference.columns.json_lists import parse_lists
from inference.columns.nulls import kept_where


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_text_of_a_part_of_an_array(type: pa.DataType, skip: int) -> None:
    values = pa.array(["aa", "", None, "dddd", "ee", "f"]).cast(type)[skip:]
    for bits in range(1 << len(values)):
        mask = [bool(bits >> row & 1) for row in range(len(values))]
        found = kept_where(values, pa.array(mask))
        found.validate(full=True)
        assert found.to_pylist() == [
            value if kept else None for value, kept in zip(values.to_pylist(), mask, strict=True)
        ]


def test_lists_in_json() -> None:
    values = pa.array(["[9, 9]", "[8]", "[1, 2]", "none", None, "[3]"])[2:]
    found, failures = parse_lists(values, pa.int64(), 1)
    assert found.to_pylist() == [[1, 2], None, None, [3]]
    assert list(failures) == [1]


def test_objects_with_base64() -> None:
    values = pa.array([{"b64": "AAAA"}, {"b64": "YQ=="}, None, {"b64": "Yg=="}], OBJECT)[1:]
    found, failures = from_objects(values)
    assert found.to_pylist() == [b"a", None, b"b"]
    assert failures == {}
