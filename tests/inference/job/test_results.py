"""Keys, instances and results: what goes out comes back to the row that it belongs to."""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.job.instances import instance_lines, rounded_rows
from inference.job.keys import GROUP_LENGTH, KEY_LENGTH, group_name, keys_of, new_shard, parsed
from inference.job.matching import NO_RESULT, by_group, match
from inference.job.records import keyed_records, keys_in
from inference.job.result_lines import AiPlatformForm, VertexForm, VertexRecordForm, output_column
from model.specs import TensorSpec

WEIGHT = TensorSpec("weight", "float32", (None, 1))
NAME = TensorSpec("name", "string", (None,))
PAIR = TensorSpec("pair", "float32", (None, 2))


@given(st.integers(0, 99_999), st.integers(1, 500))
def test_keys_say_where_a_row_is(number: int, rows: int) -> None:
    group = group_name(new_shard(), number)
    keys = keys_of(group, rows)
    assert len(group) == GROUP_LENGTH
    assert set(map(len, keys.to_pylist())) == {KEY_LENGTH}
    is_key, groups, found = parsed(keys)
    assert is_key.all()
    assert groups.to_pylist() == [group.encode()] * rows
    assert found.tolist() == list(range(rows))


@pytest.mark.parametrize("key", ["", "x", "é" * 13, None, "00c0ffee0123-00007+0000001", "00c0ffee0123-00007-000000x"])
def test_what_is_no_key(key: str | None) -> None:
    is_key, groups, rows = parsed(pa.array([key, "00c0ffee0123-00007-0000001"]))
    assert is_key.tolist() == [False, True]
    assert (len(groups), rows.tolist()) == (1, [1])


def line(key: str, prediction: object) -> bytes:
    return json.dumps({"key": key, "prediction": prediction}).encode() + b"\n"


def test_a_bad_line_costs_its_row_alone() -> None:
    keys = keys_of("00c0ffee0123-00000", 8).to_pylist()
    lines = [line(key, [number + 0.5]) for number, key in enumerate(keys[:6])]
    lines[1] = json.dumps({"key": keys[1], "error": {"status": "INVALID_ARGUMENT", "message": "no"}}).encode() + b"\n"
    lines[2] = line(keys[2], ["text"])
    lines[3] = line(keys[3], [float("nan")])
    lines.append(b"{broken\n")
    results = VertexForm("key", (WEIGHT,)).read(b"".join(lines))
    groups, unmatched = by_group(results)
    assert unmatched == []
    [group] = groups
    found = match(group.group, 8, [group.results], VertexForm("key", (WEIGHT,)).schema, "nothing", without=[7])
    assert found.unmatched == ()
    assert {row: failure.error for row, failure in found.failures.items()} == {
        1: "INVALID_ARGUMENT",
        2: "ResponseError",
        6: NO_RESULT,
    }
    weights = found.outputs["weight"].to_pylist()
    assert [weights[row] for row in (0, 4, 5)] == [0.5, 4.5, 5.5]
    assert np.isnan(weights[3])


@pytest.mark.parametrize("spoiled", [False, True], ids=["by Arrow", "line by line"])
@pytest.mark.parametrize("form", [VertexForm("key", (WEIGHT, NAME)), AiPlatformForm("key", (WEIGHT, NAME))])
def test_any_order_in_any_number_of_parts(form: VertexForm | AiPlatformForm, spoiled: bool) -> None:
    rng = random.Random(3)
    groups = [group_name(new_shard(), number) for number in range(5)]
    rows = [(group, row) for group in groups for row in range(40)]
    rng.shuffle(rows)
    lines = []
    for group, row in rows:
        values = {"weight": row / 7, "name": f"{group}/{row} é"}
        told = {"prediction": values} if isinstance(form, VertexForm) else values
        lines.append(json.dumps({"key": f"{group}-{row:07d}", **told}).encode() + b"\n")
    lines += [b'{"error": "lost"}\n'] if spoiled else []
    parts: dict[str, list[pa.Table]] = {}
    for cut in range(0, len(lines), 33):
        found, unmatched = by_group(form.read(b"".join(lines[cut : cut + 33])))
        assert unmatched == []
        for each in found:
            parts.setdefault(each.group, []).append(each.results)
    assert sorted(parts) == sorted(groups)
    for group in groups:
        matched = match(group, 40, parts[group], form.schema, "nothing")
        assert (matched.failures, matched.unmatched) == ({}, ())
        assert matched.outputs["name"].to_pylist() == [f"{group}/{row} é" for row in range(40)]
        assert matched.outputs["weight"].to_pylist() == [np.float32(row / 7) for row in range(40)]


def test_unknown_and_repeated_keys_are_told() -> None:
    form = VertexForm("key", (WEIGHT,))
    keys = keys_of("00c0ffee0123-00000", 3).to_pylist()
    block = b"".join(line(key, 1) for key in [keys[0], keys[0], keys[2], "mine", "00c0ffee0123-00000-0000009"])
    groups, unmatched = by_group(form.read(block))
    assert [(each.what, each.count, each.example) for each in unmatched] == [("unknown", 1, "mine")]
    found = match(groups[0].group, 3, [groups[0].results], form.schema, "nothing", without=[2])
    assert [(each.what, each.count, each.example) for each in found.unmatched] == [
        ("unknown", 2, keys[2]),
        ("repeated", 1, keys[0]),
    ]


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (WEIGHT, [1.5, 2.25]),
        (PAIR, [[1.0, 2.0], [3.0, 4.0]]),
        (NAME, ["a", 'b"\\\n\u2603']),
        (TensorSpec("n", "int64", (None,)), [2**53, -1]),
        (TensorSpec("b", "bool", (None,)), [True, False]),
        (TensorSpec("h", "float16", (None,)), [0.5, 1.0]),
        (TensorSpec("open", "int32", (None, None)), [[1, 2, 3], [4]]),
    ],
    ids=lambda value: value.name if isinstance(value, TensorSpec) else "",
)
def test_outputs_of_every_kind(spec: TensorSpec, values: list[object]) -> None:
    form = VertexForm("key", (spec,))
    wrapped = [[value] for value in values] if spec is WEIGHT else values
    keys = keys_of("00c0ffee0123-00000", 2).to_pylist()
    found = form.read(b"".join(line(key, value) for key, value in zip(keys, wrapped, strict=True)))
    assert found[output_column(spec.name)].to_pylist() == values
    assert found["error"].null_count == 2


def test_a_list_of_another_size_is_no_prediction() -> None:
    keys = keys_of("00c0ffee0123-00000", 2).to_pylist()
    found = VertexForm("key", (PAIR,)).read(line(keys[0], [1, 2]) + line(keys[1], [1, 2, 3]))
    assert found["error"].to_pylist() == [None, "ResponseError"]


def test_integers_beyond_the_service() -> None:
    n = TensorSpec("n", "int64", (None,))
    several = TensorSpec("several", "uint64", (None, 2))
    arrays = [
        pa.array([1, 2**53, 2**53 + 1, -(2**53) - 1], pa.int64()),
        pa.array([[0, 1], [2**60, 1], [0, 0], [0, 0]], pa.list_(pa.uint64())),
    ]
    assert sorted(rounded_rows(arrays, [n, several])) == [1, 2, 3]


def test_instances_hold_key_and_inputs() -> None:
    arrays = [pa.array([1.5, float("nan")], pa.float32()), pa.array(["x", 'y"']).dictionary_encode()]
    specs = [TensorSpec("a", "float32", (None,)), TensorSpec("b", "string", (None,))]
    found = instance_lines(pa.array(["k1", "k2"]), "id", arrays, specs).to_pylist()
    assert [json.loads(text)["id"] for text in found] == ["k1", "k2"]
    assert json.loads(found[0]) == {"id": "k1", "a": 1.5, "b": "x"}
    assert found[1] == '{"id":"k2","a":NaN,"b":"y\\""}\n'


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20), st.text(min_size=1, max_size=15))
def test_keys_in_records(examples: list[bytes], name: str) -> None:
    """Whatever stands before them; a record whose key is cut or under another name has none."""
    keys = keys_of("00c0ffee0123-00007", len(examples))
    records = keyed_records(pa.array(examples, pa.binary()), keys, name).to_pylist()
    assert [record[: len(example)] for record, example in zip(records, examples, strict=True)] == examples
    texts = [base64.b64encode(record).decode() for record in records]
    assert keys_in(texts, name) == keys.to_pylist()
    assert keys_in(texts, name + "x") == [None] * len(examples)
    assert keys_in([base64.b64encode(record[:-1]).decode() for record in records], name) == [None] * len(examples)


def test_a_record_with_a_key_is_a_tf_example() -> None:
    from tensorflow.core.example.example_pb2 import Example

    example = Example()
    example.features.feature["age"].float_list.value.append(30.5)
    key = keys_of("00c0ffee0123-00007", 1)
    for name in ("key", "k" * 60):
        [record] = keyed_records(pa.array([example.SerializeToString()]), key, name).to_pylist()
        found = Example.FromString(record).features.feature
        assert set(found) == {"age", name}
        assert found["age"].float_list.value[0] == 30.5
        assert found[name].bytes_list.value[0].decode() == key[0].as_py()
    with pytest.raises(ValueError, match="60 bytes"):
        keyed_records(pa.array([b""]), key, "k" * 61)


@pytest.mark.parametrize("by_arrow", [True, False])
def test_results_that_carry_records_back(by_arrow: bool) -> None:
    keys = keys_of("00c0ffee0123-00000", 3)
    records = keyed_records(pa.array([b"", b"a", b"ab"]), keys, "id").to_pylist()
    instances = [{"b64": base64.b64encode(record).decode()} for record in records]
    lines = [{"instance": instance, "prediction": [0.5]} for instance in instances]
    if not by_arrow:
        lines[1] = {"instance": instances[1], "error": {"status": "INVALID_ARGUMENT", "message": "no"}}
        lines += [{"instance": "x", "prediction": [1.0]}, {"instance": {"b64": "!"}, "prediction": [1.0]}]
    found = VertexRecordForm("instance", (WEIGHT,), "id").read(
        b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    )
    assert found["key"].to_pylist() == keys.to_pylist() + [None] * (len(lines) - 3)
    assert found["error"].to_pylist() == ([None] * 3 if by_arrow else [None, "INVALID_ARGUMENT", None, None, None])
