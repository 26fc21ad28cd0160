"""Instances of rows: which rows have none and why, as lines and as records."""

from __future__ import annotations

import json

import pyarrow as pa
from tensorflow.core.example.example_pb2 import Example

from inference.job.keys import keys_of
from inference.job.making import InstanceMaker
from model.specs import ExampleFeature, Signature, TensorSpec

GROUP = "00c0ffee0123-00007"
PLAIN = Signature("s", (TensorSpec("n", "int64", (None,)), TensorSpec("t", "string", (None,))), (), "predict")
PARSING = Signature(
    "s",
    (TensorSpec("examples", "string", (None,)),),
    (),
    "predict",
    "examples",
    (ExampleFeature("n", "int64", "dense", (), False), ExampleFeature("t", "string", "dense", (), False)),
)
ROWS = pa.RecordBatch.from_pydict(
    {"n": pa.array(["1", str(2**60), "x", "4", "5"]), "t": pa.array(["a", "b", "c", "d" * 300, None])}
)


def maker(signature: Signature) -> InstanceMaker:
    return InstanceMaker(
        signature, {}, {"t": "-"}, {}, key_name="key", are_records=signature is PARSING, most_bytes=200
    )


def test_lines() -> None:
    instances, failures = maker(PLAIN).make(GROUP, ROWS)
    keys = keys_of(GROUP, 5).to_pylist()
    found = [json.loads(line) for part in instances for line in part.to_pylist()]
    assert found == [{"key": keys[0], "n": 1, "t": "a"}, {"key": keys[4], "n": 5, "t": "-"}]
    errors = {row: (failure.stage, failure.error) for row, failure in failures.items()}
    assert errors == {
        1: ("coerce", "CoercionError"),
        2: ("coerce", "CoercionError"),
        3: ("predict", "RequestTooLargeError"),
    }
    assert "2^53" in failures[1].message


def test_records() -> None:
    """A service does not round what is in an example."""
    instances, failures = maker(PARSING).make(GROUP, ROWS)
    keys = keys_of(GROUP, 5).to_pylist()
    found = []
    for record in (record for part in instances for record in part.to_pylist()):
        features = Example.FromString(record).features.feature
        key, text = features["key"].bytes_list.value[0].decode(), features["t"].bytes_list.value[0].decode()
        found.append((key, features["n"].int64_list.value[0], text))
    assert found == [(keys[0], 1, "a"), (keys[1], 2**60, "b"), (keys[4], 5, "-")]
    assert {row: failure.error for row, failure in failures.items()} == {2: "CoercionError", 3: "RequestTooLargeError"}


def test_columns_that_no_input_can_have() -> None:
    instances, failures = maker(PLAIN).make(GROUP, ROWS.select(["t"]))
    assert instances == []
    assert {(failure.stage, failure.error) for failure in failures.values()} == {("coerce", "BindingError")}
    assert list(failures) == list(range(5))
