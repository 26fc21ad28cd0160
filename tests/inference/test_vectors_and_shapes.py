"""Vectors gathered of columns, and lists that become the shapes of inputs, held against values computed with numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import SavedModelHandler
from inference.columns.binding import bind
from inference.columns.inputs import prepare
from inference.columns.json_lists import parse_lists
from inference.errors import BindingError
from inference.marks import failures_of
from model.specs import ExampleFeature, Signature, TensorSpec


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that gives back what it got, one signature for each kind of input."""
    import tensorflow as tf

    def echo(*spec: Any) -> Any:
        return tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[tf.TensorSpec(*spec, name="x")])

    features = {
        "tags": tf.io.VarLenFeature(tf.string),
        "fare": tf.io.VarLenFeature(tf.float32),
        "box": tf.io.FixedLenFeature([2, 2], tf.float32),
        "many": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def parse(examples: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(examples, features)
        dense = {name: tf.sparse.to_dense(parsed[name]) for name in ("tags", "fare")}
        return {**dense, "box": parsed["box"], "many": parsed["many"]}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.float32)])
    def ragged(x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(x, axis=1), "n": x.row_lengths()}

    functions = {
        "floats": echo([None, 4], tf.float32),
        "integers": echo([None, 3], tf.int16),
        "bools": echo([None, 2], tf.bool),
        "words": echo([None, 2], tf.string),
        "open": echo([None, None], tf.float64),
        "image": echo([None, 2, 3, 2], tf.float32),
        "frames": echo([None, None, 3], tf.float32),
        "single": echo([None, 1], tf.float32),
        "ragged": ragged,
        "parse": parse,
    }
    module = tf.Module()
    module.functions = functions
    folder = tmp_path_factory.mktemp("shapes")
    tf.saved_model.save(module, str(folder), {name: f.get_concrete_function() for name, f in functions.items()})
    return str(folder)


def predicted(model: str, signature: str, batch: pa.RecordBatch, **options: Any) -> Any:
    """The outputs of a batch, and why rows have none."""
    handler = SavedModelHandler(model, signature, **options)
    [result] = handler.run_inference([batch], handler.load_model())
    return result, {row: failure.message for row, failure in failures_of(result).items()}


def batch_of(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


KINDS: dict[str, tuple[list[pa.Array], np.dtype[Any]]] = {
    "floats": (
        [pa.array([1.5, 2.5]), pa.array([3, 4]), pa.array(["5", "6.25"]), pa.array([True, False])],
        np.dtype("f4"),
    ),
    "integers": ([pa.array([1, 2]), pa.array([3.0, 4.0]), pa.array(["5", "-6"])], np.dtype("i2")),
    "bools": ([pa.array([True, False]), pa.array([0, 1])], np.dtype("?")),
    "words": (
        [pa.array(["a", "b"]).dictionary_encode(), pa.array([b"\xff", b""])],
        np.dtype("O"),
    ),
    "open": ([pa.array([1.0, 2.0]), pa.array([3.0, 4.0]), pa.array([5.0, 6.0])], np.dtype("f8")),
}


@pytest.mark.parametrize("signature", KINDS)
def test_a_vector_has_the_values_of_its_columns_in_their_order(model: str, signature: str) -> None:
    columns, dtype = KINDS[signature]
    names = [f"c{number}" for number in range(len(columns))]
    batch = pa.RecordBatch.from_arrays(columns, names)
    if signature == "words":
        # The output is text, so only text is predicted; the bytes show in the input's array.
        bound = bind(_signature("words", model), batch.schema, {"x": names})
        arrays, failures = prepare(batch, bound)
        assert (arrays[0].to_pylist(), failures) == ([[b"a", b"\xff"], [b"b", b""]], {})
        batch = batch.set_column(1, "c1", pa.array(["c", "d"]))
        result, failures = predicted(model, signature, batch, columns={"x": names})
        assert (result["y"].to_pylist(), failures) == ([["a", "c"], ["b", "d"]], {})
        return
    result, failures = predicted(model, signature, batch, columns={"x": names})
    values = [column.cast(pa.float64()) if signature != "bools" else column.cast(pa.uint8()) for column in columns]
    expected = np.stack([value.to_numpy() for value in values], axis=1).astype(dtype)
    assert failures == {}
    assert np.array_equal(np.array(result["y"].to_pylist(), dtype), expected)


def _signature(name: str, model: str) -> Signature:
    return SavedModelHandler(model, name).signature


@given(st.integers(1, 5), st.integers(0, 40), st.randoms(use_true_random=False))
def test_vectors_of_any_size_with_missing_values(width: int, rows: int, random: Any) -> None:
    table = [[random.choice([None, random.randint(-9, 9) / 4]) for _ in range(width)] for _ in range(rows)]
    names = [f"c{place}" for place in range(width)]
    arrays = [pa.array([row[place] for row in table], pa.float32()) for place in range(width)]
    batch = pa.RecordBatch.from_arrays(arrays, names)
    signature = Signature("s", (TensorSpec("x", "float32", (None, None)),), (), "")
    [made], failures = prepare(batch, bind(signature, batch.schema, {"x": names}, {"c0": -1}))
    expected = [[-1.0 if place == 0 and v is None else v for place, v in enumerate(row)] for row in table]
    assert set(failures) == {number for number, row in enumerate(expected) if None in row}
    for number, row in enumerate(expected):
        if number not in failures:
            assert made[number].as_py() == row
        else:
            assert f"'c{row.index(None)}'" in failures[number].message


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ({}, [None, None, None]),
        ({"b": 7}, [[1, 7], None, None]),
        ({"x": 0}, [[1, 0], [0, 2], [0, 0]]),
        ({"x": 0, "b": 7}, [[1, 7], [0, 2], [0, 7]]),
        ({"x": [8, 9]}, [[1, 9], [8, 2], [8, 9]]),
    ],
    ids=str,
)
def test_defaults_of_a_vector(defaults: dict[str, Any], expected: list[Any]) -> None:
    batch = batch_of(a=pa.array([1, None, None], pa.int64()), b=pa.array([None, 2, None], pa.int64()))
    signature = Signature("s", (TensorSpec("x", "float32", (None, 2)),), (), "")
    [made], failures = prepare(batch, bind(signature, batch.schema, {"x": ["a", "b"]}, defaults))
    assert [None if row in failures else made[row].as_py() for row in range(3)] == expected
    assert all("'a'" in f.message if row else "'b'" in f.message for row, f in failures.items())


SCHEMA = pa.schema([("a", pa.float64()), ("b", pa.string()), ("t", pa.timestamp("s")), ("l", pa.list_(pa.float64()))])
# Shape, source.columns, source.defaults, what is said.
REFUSED: dict[str, tuple[tuple[int | None, ...], Any, dict[str, Any], list[str]]] = {
    "too few": ((None, 4), ["a", "b"], {}, ["2 columns", "[batch, 4]", "4 values"]),
    "too many": ((None, 2), ["a", "b", "a"], {}, ["3 columns", "2 values"]),
    "several for one": ((None,), ["a", "b"], {}, ["2 columns", "one value"]),
    "too few for a shape": ((None, 2, 2), ["a", "b"], {}, ["2 columns", "2 x 2 = 4"]),
    "no multiple": ((None, None, 2), ["a", "b", "a"], {}, ["3 columns", "a multiple of 2"]),
    "two open sizes": ((None, None, None), ["a", "b"], {}, ["does not tell"]),
    "a column that is not there": ((None, 2), ["a", "bb"], {}, ["no column 'bb'", "did you mean 'b'"]),
    "a column of times": ((None, 2), ["a", "t"], {}, ["'t' is timestamp", "no conversion"]),
    "a column of lists": ((None, 2), ["a", "l"], {}, ["'l' is list", "one value a row"]),
    "a default for another number": ((None, 2), ["a", "b"], {"x": [1, 2, 3]}, ["3 values", "2 columns"]),
    "a default of the wrong type": ((None, 2), ["a", "b"], {"a": "many"}, ["'many'", "float32"]),
    "a list for one column": ((None, 2), ["a", "b"], {"a": [1]}, ["'a' takes one value"]),
    "one number for a vector": ((None, 4), "a", {}, ["[batch, 4]", "a list a row", '["a", ...]']),
    "nothing named like it": ((None, 4), None, {}, ["[batch, 4]", '["<column>", "<column>", ...]']),
    "a default of another length": ((None, 3), "l", {"x": [1, 2]}, ["2 values where the input takes 3"]),
    "a default of another shape": ((None, 2, 2), "l", {"x": [1, 2, 3]}, ["3 values", "2 x 2 = 4"]),
    "a default that is too deep": ((None, 3), "l", {"x": [[1, 2, 3]]}, ["does not fit", "[batch, 3]"]),
    "a list for one value": ((None,), "a", {"x": [1, 2]}, ["2 values", "one a row"]),
    "an uneven default": ((None, None, None), "l", {"x": [[1], [2, 3]]}, ["takes lists nested 2 deep"]),
    "a default alone that does not fit": ((None, 3), None, {"x": [1, 2]}, ["2 values where the input takes 3"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_said_before_the_first_row(what: str) -> None:
    shape, named, defaults, words = REFUSED[what]
    signature = Signature("s", (TensorSpec("x", "float32", shape),), (), "")
    with pytest.raises(BindingError) as refused:
        bind(signature, SCHEMA, {} if named is None else {"x": named}, defaults)
    assert len(refused.value.problems) == 1
    for word in words:
        assert word in refused.value.problems[0]


@pytest.mark.parametrize("storage", ["list", "fixed", "text", "nested", "nested text", "columns"])
def test_flat_lists_take_the_shape_of_the_input(model: str, storage: str) -> None:
    expected = np.random.default_rng(3).integers(-99, 99, (5, 2, 3, 2)).astype(np.float32) / 8
    flat = expected.reshape(5, 12)
    columns: Any = None
    if storage == "columns":
        batch = pa.RecordBatch.from_arrays([pa.array(flat[:, place]) for place in range(12)], [*"abcdefghijkl"])
        columns = {"x": [*"abcdefghijkl"]}
    else:
        made = {
            "list": lambda: pa.array(flat.tolist(), pa.list_(pa.float64())),
            "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat.reshape(-1), 12),
            "text": lambda: pa.array([json.dumps(row) for row in flat.tolist()]),
            "nested": lambda: pa.array(expected.tolist()),
            "nested text": lambda: pa.array([json.dumps(row) for row in expected.tolist()]),
        }[storage]()
        batch = pa.RecordBatch.from_arrays([made], ["x"])
    result, failures = predicted(model, "image", batch, columns=columns)
    assert failures == {}
    assert np.array_equal(np.array(result["y"].to_pylist(), np.float32), expected)


def test_lists_of_the_wrong_length_fail_alone_and_missing_ones_take_the_default(model: str) -> None:
    rows = [list(range(12)), list(range(11)), None, [*range(11), None], list(range(12, 24))]
    batch = pa.RecordBatch.from_arrays([pa.array(rows, pa.list_(pa.float64()))], ["x"])
    result, failures = predicted(model, "image", batch, defaults={"x": 0.5})
    assert sorted(failures) == [1, 3]
    assert "11 values, and the model takes 2 x 3 x 2 = 12" in failures[1]
    assert "missing inside" in failures[3]
    got = result["y"].to_pylist()
    assert [np.array(got[row]).reshape(-1).tolist() for row in (0, 2, 4)] == [rows[0], [0.5] * 12, rows[4]]


def test_a_size_that_is_open_is_what_the_list_leaves(model: str) -> None:
    rows = [list(range(6)), list(range(3)), list(range(7)), list(range(6, 12))]
    result, failures = predicted(model, "frames", batch_of(x=pa.array(rows, pa.list_(pa.int64()))))
    assert list(failures) == [2]
    assert "a multiple of 3" in failures[2]
    assert [result["y"][row].as_py() for row in (0, 1, 3)] == [
        [[0, 1, 2], [3, 4, 5]],
        [[0, 1, 2]],
        [[6, 7, 8], [9, 10, 11]],
    ]


@pytest.mark.parametrize("listed", [False, True])
def test_one_column_of_a_vector(model: str, listed: bool) -> None:
    """It is that column where it has lists, and where the input takes one value."""
    if listed:
        result, failures = predicted(model, "floats", batch_of(v=[[1.0, 2, 3, 4]]), columns={"x": ["v"]})
        assert (result["y"].to_pylist(), failures) == ([[1, 2, 3, 4]], {})
    else:
        result, failures = predicted(model, "single", batch_of(v=[1.0, 2.0]), columns={"x": ["v"]})
        assert (result["y"].to_pylist(), failures) == ([1, 2], {})


def test_ragged_inputs_take_lists_in_text_single_values_and_none(model: str) -> None:
    batch = batch_of(x=["[1, 2.5]", "3", None, "[]", "[x]", "y", " [4]"])
    result, failures = predicted(model, "ragged", batch)
    assert sorted(failures) == [4, 5]
    assert "'[x]' is not a list in JSON" in failures[4]
    assert "'y' is not a float" in failures[5]
    good = [0, 1, 2, 3, 6]
    assert [result["y"][row].as_py() for row in good] == [3.5, 3, 0, 0, 4]
    assert [result["n"][row].as_py() for row in good] == [2, 1, 0, 0, 1]
    result, failures = predicted(model, "ragged", batch_of(x=pa.array([1, None, 3])))
    assert (result["n"].to_pylist(), failures) == ([1, 0, 1], {})


def test_batches_of_large_text_with_and_without_lists_go_to_the_model_together(model: str) -> None:
    handler = SavedModelHandler(model, "ragged")
    batches = [batch_of(x=pa.array(cells, pa.large_string())) for cells in (["1", "2"], ["[3, 4]"], [None])]
    results = handler.run_inference(batches, handler.load_model())
    assert [result["y"].to_pylist() for result in results] == [[1, 2], [7], [0]]
    signature = Signature("s", (TensorSpec("x", "string", (None, None), "ragged"),), (), "")
    for cells in (["a"], ['["a"]']):
        batch = batch_of(x=pa.array(cells, pa.large_string()))
        [made], _ = prepare(batch, bind(signature, batch.schema))
        assert (made.type, made.to_pylist()) == (pa.list_(pa.string()), [["a"]])


@pytest.mark.parametrize("text", [False, True])
def test_features_of_tf_examples_are_made_of_single_values_and_of_flat_and_nested_lists(model: str, text: bool) -> None:
    columns: dict[str, Any] = {
        "tags": ["a", None, "b"],
        "fare": [1.5, 2.5, None],
        "box": [[1.0, 2, 3, 4], [5.0, 6, 7, 8], [9.0, 9, 9, 9]],
        "many": [7, None, 9],
    }
    if text:
        columns = {
            name: [v if v is None or name == "tags" else json.dumps(v) for v in c] for name, c in columns.items()
        }
    result, failures = predicted(model, "parse", batch_of(**columns))
    assert failures == {}
    assert result["box"].to_pylist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 9], [9, 9]]]
    assert result["tags"].to_pylist() == [["a"], [""], ["b"]]
    assert result["fare"].to_pylist() == [[1.5], [2.5], [0]]
    assert result["many"].to_pylist() == [[7], [0], [9]]
    nested = batch_of(**{**columns, "box": pa.array([[[1.0, 2], [3, 4]]] * 3)})
    result, failures = predicted(model, "parse", nested)
    assert (result["box"].to_pylist(), failures) == ([[[1, 2], [3, 4]]] * 3, {})


def test_a_feature_that_takes_one_value_takes_no_list() -> None:
    feature = ExampleFeature("n", "float32", "dense", (), False)
    signature = Signature("s", (TensorSpec("e", "string", (None,)),), (), "", "e", (feature,))
    batch = batch_of(n=["1", "[2]"])
    _, failures = prepare(batch, bind(signature, batch.schema))
    assert list(failures) == [1]


# Cells, the type, how deep, the lists, the rows that are refused.
CELLS: list[tuple[list[str | None], pa.DataType, int, list[Any]]] = [
    (["[1, 2.5]", "[]", None, " [3]\n", "[\n1,\n2]"], pa.float32(), 1, [[1, 2.5], [], None, [3], [1, 2]]),
    (["[1],[2]", "[1", "2]", "[[1]", "[1]]", "1", "{}", ""], pa.float32(), 1, [None] * 8),
    (['[1]}{"v":[2]', '[1],"w":[2]', '[{"v":1}]', "[1]#", "[1]\x00"], pa.float32(), 1, [None] * 5),
    (["[1e40]", "[1e400]", '["7"]', "[x]", "[null]"], pa.float32(), 1, [None, None, [7], None, [None]]),
    (["[1.0, 2e1]", "[2.5]", "[9007199254740993]"], pa.int64(), 1, [[1, 20], None, [9007199254740993]]),
    (["[9007199254740993, 1.0]", "[1e30]"], pa.int64(), 1, [None, None]),
    (["[18446744073709551615]", "[-1]"], pa.uint64(), 1, [[2**64 - 1], None]),
    (["[300]", "[-1]", "[255]"], pa.uint8(), 1, [None, None, [255]]),
    (["[true, false]", "[0, 1]", "[2]", "[1.0]"], pa.bool_(), 1, [[True, False], [False, True], None, None]),
    (['["a", "b,]{}"]', '["\\u00e9\\""]', "[7]", "[1.5]"], pa.string(), 1, [["a", "b,]{}"], ['é"'], ["7"], None]),
    (['["a" "b"]', '["a]', '["a\n"]', '["a"]["b"]'], pa.string(), 1, [None, None, None, None]),
    (["[[1, 2], [3]]", "[1]", "[[[1]]]", "[[]]"], pa.float64(), 2, [[[1, 2], [3]], None, None, [[]]]),
]


@pytest.mark.parametrize("case", CELLS, ids=lambda case: str(case[0][0]))
def test_cells_are_lists_in_json_or_refused_alone(case: tuple[list[str | None], pa.DataType, int, list[Any]]) -> None:
    cells, type, depth, expected = case
    parsed, failures = parse_lists(pa.array(cells, pa.string()), type, depth)
    parsed.validate(full=True)
    assert parsed.to_pylist() == expected
    assert set(failures) == {row for row, cell in enumerate(cells) if cell is not None and expected[row] is None}


FRAGMENTS = st.sampled_from(["[", "]", "1", "2.5", ",", '"', "{", "}", '"v":', "\n", " ", "null", "\\", "a"])


@given(st.lists(st.lists(FRAGMENTS, max_size=8).map("".join) | st.just("[1, 2]"), max_size=12))
def test_no_cell_changes_another(cells: list[str]) -> None:
    """Whatever stands in a cell, all others are what they are alone."""
    together, failures = parse_lists(pa.array(cells, pa.string()), pa.float64(), 1)
    for row, cell in enumerate(cells):
        alone, failed = parse_lists(pa.array([cell], pa.string()), pa.float64(), 1)
        assert (together[row], row in failures) == (alone[0], bool(failed))
        if cell == "[1, 2]":
            assert together[row].as_py() == [1, 2]


@given(
    st.lists(st.none() | st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5), max_size=9)
)
def test_lists_come_back_from_their_text(rows: list[Any]) -> None:
    cells = pa.array([None if row is None else json.dumps(row) for row in rows], pa.string())
    parsed, failures = parse_lists(cells, pa.float32(), 1)
    assert failures == {}
    assert parsed.to_pylist() == rows


def test_the_handler_of_a_server_gathers_too(tmp_path: Path) -> None:
    from inference import Endpoint, EndpointHandler, Target

    signature = Signature("s", (TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None,)),), "")
    endpoint = Endpoint("tf_serving_rest", Target(url="http://127.0.0.1:1"))
    bound = EndpointHandler(endpoint, signature, columns={"x": ["a", "b"]}).bind(SCHEMA)
    assert [element.column for element in bound.inputs[0].elements] == ["a", "b"]
