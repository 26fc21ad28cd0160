"""Columns as JSON and JSON as columns: exact for every type and shape, and what is not an answer is refused."""

import base64
import json
import math

import ml_dtypes
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.endpoint.protocols.json_read import read, read_rows
from inference.endpoint.protocols.json_write import TEXTS, columns_json, rows_json
from inference.errors import RequestRefusedError, ResponseError, RowError
from model.specs import TensorSpec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]


def spec(name="x", dtype="float32", shape=(None,)):
    return TensorSpec(name, dtype, shape)


def both_forms(array, input_spec, **options):
    """What any JSON parser makes of the two forms; they must say the same."""
    other = pa.array(range(len(array)), pa.int64())
    arrays, specs = [other, array], [spec("n", "int64"), input_spec]
    rows = json.loads(rows_json(arrays, specs, **options))
    columns = json.loads(columns_json(arrays, specs, **options))
    assert [row["n"] for row in rows] == columns["n"] == list(range(len(array)))
    for one, other in zip([row[input_spec.name] for row in rows], columns[input_spec.name], strict=True):
        assert one == other or math.isnan(one)
    assert all(list(row) == ["n", input_spec.name] for row in rows)
    return columns[input_spec.name]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact_up_to_their_limits(dtype):
    info = np.iinfo(dtype)
    values = [info.min, info.max, 0, info.max - 1]
    assert both_forms(pa.array(values, pa.from_numpy_dtype(dtype)), spec(dtype=dtype)) == values


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_come_back_bit_by_bit_and_are_written_as_floats(dtype):
    info = np.finfo(dtype)
    values = np.array([0.0, -0.0, 1, 0.1, -1 / 3, info.max, info.min, info.tiny, info.smallest_subnormal], dtype)
    got = both_forms(pa.array(values), spec(dtype=dtype))
    assert np.array(got, dtype).tobytes() == values.tobytes()
    assert all(type(value) is float for value in got)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32), min_size=1, max_size=30))
def test_any_float32_comes_back(values):
    array = np.array(values, np.float32)
    got = np.array(both_forms(pa.array(array), spec()), np.float32)
    assert np.array_equal(got, array, equal_nan=True)
    assert (np.signbit(got) == np.signbit(array))[~np.isnan(array)].all()


def test_float32_of_every_exponent_comes_back():
    bits = np.random.default_rng(7).integers(0, 2**32, 200_000, dtype=np.uint32)
    array = bits.view(np.float32)
    array = array[np.isfinite(array)]
    got = np.array([row["x"] for row in orjson.loads(rows_json([pa.array(array)], [spec()]))], np.float64)
    assert got.astype(np.float32).tobytes() == array.tobytes()


@settings(deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=30))
def test_any_float64_comes_back(values):
    got = both_forms(pa.array(values, pa.float64()), spec(dtype="float64"))
    assert np.array_equal(got, values, equal_nan=True)


def test_what_is_not_finite_is_a_token_or_text_as_the_protocol_says():
    array = pa.array([1.0, np.nan, np.inf, -np.inf], pa.float32())
    assert columns_json([array], [spec()]) == b'{"x":[1.0,NaN,Infinity,-Infinity]}'
    assert rows_json([array], [spec()]) == b'[{"x":1.0},{"x":NaN},{"x":Infinity},{"x":-Infinity}]'
    assert orjson.loads(columns_json([array], [spec()], TEXTS)) == {"x": [1.0, "NaN", "Infinity", "-Infinity"]}
    nested = pa.array([[1.0, np.nan], [np.inf, 2.0]], pa.list_(pa.float16()))
    assert columns_json([nested], [spec(dtype="float16", shape=(None, 2))]) == b'{"x":[[1.0,NaN],[Infinity,2.0]]}'


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    '"\\\n\r\t\b\f\0\x1f\x7f/é', max_size=6
)


@settings(deadline=None, max_examples=200)
@given(st.lists(texts, min_size=1, max_size=20))
def test_any_text_comes_back_from_every_arrow_type(values):
    plain = pa.array(values, pa.string())
    arrays = [
        plain,
        plain.cast(pa.large_string()),
        plain.cast(pa.string_view()),
        plain.dictionary_encode(),
        pa.concat_arrays([pa.array(['"other"\n']), plain]).slice(1),
        pa.concat_arrays([pa.array(['"other"\n', "more"]), plain]).dictionary_encode().slice(2),
    ]
    for array in arrays:
        assert both_forms(array, spec(dtype="string")) == values


def test_the_text_is_json_that_strict_parsers_take():
    text = "".join(map(chr, range(0x300))) + "\u2028\ud7ff\U0001f600"
    array = pa.array([text], pa.string())
    assert orjson.loads(rows_json([array], [spec("x", "string")])) == [{"x": text}]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20))
def test_any_bytes_travel_as_base64(values):
    plain = pa.array(values, pa.binary())
    for array in (plain, plain.cast(pa.large_binary()), plain.dictionary_encode()):
        got = both_forms(array, spec(dtype="string"))
        assert [base64.b64decode(value["b64"], validate=True) for value in got] == values
        assert all(list(value) == ["b64"] for value in got)


def test_a_dictionary_larger_than_the_rows_is_not_escaped_as_a_whole(monkeypatch):
    words = pa.array([f"word {number}" for number in range(1000)])
    column = pa.DictionaryArray.from_arrays(pa.array([5, 7], pa.int32()), words)
    from inference.endpoint.protocols import json_write

    seen = []
    escaped = json_write._escaped
    monkeypatch.setattr(json_write, "_escaped", lambda texts: seen.append(len(texts)) or escaped(texts))
    assert json.loads(rows_json([column], [spec("x", "string")])) == [{"x": "word 5"}, {"x": "word 7"}]
    assert seen == [2]


@pytest.mark.parametrize(
    ("array", "dtype", "shape", "wanted"),
    [
        (pa.array([True, False]), "bool", (None,), [True, False]),
        (pa.array([True, False]), "bool", (None, 1), [[True], [False]]),
        (pa.array([1.5, 2.0], pa.float32()), "float32", (None, 1), [[1.5], [2.0]]),
        (pa.array([1.5, np.nan], pa.float32()), "float32", (None, 1, 1), [[[1.5]], [["NaN"]]]),
        (pa.array(["a", "b"]), "string", (None, 1), [["a"], ["b"]]),
        (pa.array(["a", "a"]).dictionary_encode(), "string", (None, 1, 1), [[["a"]], [["a"]]]),
        (pa.array([[1, 2], [3, 4]]), "int64", (None, 2), [[1, 2], [3, 4]]),
        (pa.array([[1, 2], [3, 4]]), "int64", (None, 2, 1), [[[1], [2]], [[3], [4]]]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), "int64", None, [[1, 2], [3, 4]]),
        (pa.array([[9], [1, 2], [3, 4]]).slice(1), "int64", (None, None), [[1, 2], [3, 4]]),
        (pa.array([["a", '"'], ["", "ü"]]), "string", (None, 2), [["a", '"'], ["", "ü"]]),
        (pa.array([[[1], [2]], [[3], [4]]]), "int64", (None, None, None), [[[1], [2]], [[3], [4]]]),
        (pa.array([[], []], pa.list_(pa.string())), "string", (None, None), [[], []]),
        (pa.array([[], []], pa.list_(pa.float32())), "float32", (None, None), [[], []]),
        (pa.array([[[], []], [[], []]], pa.list_(pa.list_(pa.bool_()))), "bool", (None, 2, 0), [[[], []], [[], []]]),
        (pa.array([[[b"\xff"]]], pa.list_(pa.list_(pa.binary()))), "string", (None, 1, 1), [[[{"b64": "/w=="}]]]),
        (pa.array([0.5], pa.float32()), "bfloat16", (None,), [0.5]),
    ],
)  # fmt: skip
def test_shapes(array, dtype, shape, wanted):
    assert both_forms(array, spec(dtype=dtype, shape=shape), non_finite=TEXTS) == wanted


def test_no_rows():
    assert rows_json([pa.array([], pa.float32())], [spec()]) == b"[]"
    for array, dtype in [(pa.array([], pa.float32()), "float32"), (pa.array([], pa.string()), "string")]:
        assert columns_json([array], [spec(dtype=dtype)]) == b'{"x":[]}'


def test_names_are_escaped():
    assert json.loads(rows_json([pa.array([1])], [spec('a"\n', "int64")])) == [{'a"\n': 1}]


def test_lists_of_different_lengths_have_no_tensor():
    with pytest.raises(RowError, match="input 'x': lists of 2 and of other lengths"):
        columns_json([pa.array([[1, 2], [3]])], [spec(dtype="int64", shape=(None, None))])


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "wanted"),
    [
        ([1.5, 2, -0.0], "float32", (None,), pa.array([1.5, 2, -0.0], pa.float32())),
        ([[1.5], [2]], "float32", (None,), pa.array([1.5, 2], pa.float32())),
        ([[1.5], [2]], "float32", (None, 1), pa.array([1.5, 2], pa.float32())),
        ([1.5, 2], "float32", (None, 1), pa.array([1.5, 2], pa.float32())),
        ([1.5, 2], "float32", None, pa.array([1.5, 2], pa.float32())),
        ([0.1], "bfloat16", (None,), pa.array([0.1], pa.float32())),
        ([0.1], "float16", (None,), pa.array(np.array([0.1], np.float16))),
        ([2**64 - 1], "float64", (None,), pa.array([2.0**64])),
        ([2**64 - 1, 0], "uint64", (None,), pa.array([2**64 - 1, 0], pa.uint64())),
        ([-(2**63), 2**63 - 1], "int64", (None,), pa.array([-(2**63), 2**63 - 1])),
        ([3.0, 4, -0.0], "int32", (None,), pa.array([3, 4, 0], pa.int32())),
        ([2**62, 1.0], "int64", (None,), pa.array([2**62, 1])),
        ([True, False], "bool", (None,), pa.array([True, False])),
        (["a", ""], "string", (None,), pa.array(["a", ""])),
        ([{"b64": "w6k="}, {"b64": ""}], "string", (None,), pa.array(["é", ""])),
        ([[{"b64": "YQ=="}], [{"b64": "Yg=="}]], "string", (None, 1), pa.array(["a", "b"])),
        ([["a", "b"], ["c", "d"]], "string", (None, 2), pa.array([["a", "b"], ["c", "d"]])),
        ([[1], []], "int64", (None, None), pa.array([[1], []])),
        ([[[1, 2]], [[3, 4]]], "int8", (None, 1, 2), pa.array([[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.int8())))),
        ([[], []], "float32", (None, 0), pa.array([[], []], pa.list_(pa.float32()))),
        ([], "string", (None,), pa.array([], pa.string())),
        ([], "int8", (None, 2), pa.array([], pa.list_(pa.int8()))),
    ],
)
def test_values_become_columns_of_the_announced_type(values, dtype, shape, wanted):
    got = read(values, spec("y", dtype, shape), len(values))
    got.validate(full=True)
    assert got.equals(wanted), (got, wanted)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=30))
def test_float32_is_read_as_the_nearest(values):
    array = np.array(values, np.float32)
    assert read(array.astype(np.float64).tolist(), spec(), len(values)).to_numpy().tobytes() == array.tobytes()


def test_bfloat16_inputs_are_written_exactly():
    array = np.array([1.0, 3.140625, 1e-30], ml_dtypes.bfloat16).astype(np.float32)
    got = both_forms(pa.array(array), spec(dtype="bfloat16"))
    assert np.array(got, np.float32).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "message"),
    [
        (None, "float32", (None,), "output 'y' is null, not a list of a value a row"),
        (3.5, "float32", (None,), "output 'y' is a number, not a list of a value a row"),
        ([1.0, None, 2.0], "float32", (None,), r"output 'y' is null, where float was announced \(row 1\)"),
        ([[1.0], [None]], "float32", (None, 1), r"is null, where float was announced \(row 1\)"),
        ([[1, 2], [3, None]], "int64", (None, 2), r"is null, where int64 was announced \(row 1\)"),
        ([[1, 2], None], "int64", (None, 2), r"is null, where a list was announced \(row 1\)"),
        ([[1, 2], [3]], "int64", (None, 2), r"has 1 values in a list, where 2 were announced \(row 1\)"),
        ([[[1], [2]], [[3], [4, 5]]], "int64", (None, None, 1), r"has 2 values in a list, .* \(row 1\)"),
        ([[1.0], [1.0, 2.0]], "float32", (None,), r"has 2 values in a list, where 1 were announced \(row 1\)"),
        ([1.0, [2.0]], "float32", (None,), r"is a list, where float was announced \(row 1\)"),
        ([[1.0], 2.0], "float32", (None,), r"is a number, where a list was announced \(row 1\)"),
        ([True], "float32", (None,), "is true or false, where float was announced"),
        (["1.5"], "float32", (None,), "is text, where float was announced"),
        (["NaN"], "float64", (None,), "is text, where double was announced"),
        ([{"b64": "YQ=="}], "float32", (None,), "is an object, where float was announced"),
        ([1e39], "float32", (None,), r"has 1e\+39, which is too large for float"),
        ([70000], "float16", (None,), "too large for halffloat"),
        ([10**400], "float64", (None,), "has a number that is too large for double"),
        ([1, 2.5], "int64", (None,), r"has 2.5, where int64 was announced \(row 1\)"),
        ([float("nan")], "int64", (None,), "has nan, where int64 was announced"),
        ([1.8446744073709552e19], "uint64", (None,), "has 1.8446744073709552e"),
        ([1, 300], "uint8", (None,), r"has 300, which is too large for uint8 \(row 1\)"),
        ([-1], "uint64", (None,), "has -1, which is too large for uint64"),
        ([2**63], "int64", (None,), "has 9223372036854775808, which is too large for int64"),
        ([10**40], "int64", (None,), "too large for int64"),
        ([True], "int64", (None,), "is true or false, where int64 was announced"),
        ([1, 0], "bool", (None,), "is a number, where bool was announced"),
        ([1], "string", (None,), "is a number, where string was announced"),
        (["a", {"b64": "YQ=="}], "string", (None,), r"is an object, where string was announced \(row 1\)"),
        ([{"b64": "YQ=="}, {"b65": "YQ=="}], "string", (None,), r"not \{\"b64\": ...\} \(row 1\)"),
        ([{"b64": "!"}], "string", (None,), "text that is not base64"),
        ([{"b64": 1}], "string", (None,), "is a number, where string was announced"),
        (["\ud800"], "string", (None,), "half of a surrogate pair"),
    ],
)
def test_values_that_are_not_as_announced_are_named(values, dtype, shape, message):
    with pytest.raises(ResponseError, match=message):
        read(values, spec("y", dtype, shape), len(values) if isinstance(values, list) else 1)


def test_bytes_that_are_no_text_refuse_the_row_and_not_the_answer():
    with pytest.raises(RequestRefusedError, match="output 'y': the model's bytes are not UTF-8 text"):
        read([{"b64": "/w=="}], spec("y", "string"), 1)


Y, Z = spec("y"), spec("z", "string")


@pytest.mark.parametrize(
    ("predictions", "outputs", "wanted"),
    [
        ([1.0, 2.0], [Y], {"y": [1.0, 2.0]}),
        ([[1.0], [2.0]], [Y], {"y": [1.0, 2.0]}),
        ([{"y": 1.0}, {"y": 2.0, "more": None}], [Y], {"y": [1.0, 2.0]}),
        ([{"y": 1.0, "z": "a"}, {"z": {"b64": "YQ=="}, "y": 2}], [Y], {"y": [1.0, 2.0]}),
        ([{"y": 1.0, "z": "a"}, {"z": "b", "y": 2}], [Y, Z], {"y": [1.0, 2.0], "z": ["a", "b"]}),
        ([{"b64": "YQ=="}], [Z], {"z": ["a"]}),
        ([{"b64": 1.0}], [spec("b64")], {"b64": [1.0]}),
        ([{"z": {"b64": "YQ=="}}], [Z], {"z": ["a"]}),
        ([], [Y, Z], {"y": [], "z": []}),
    ],
)
def test_predictions_row_by_row(predictions, outputs, wanted):
    got = read_rows(predictions, len(predictions), outputs)
    assert {name: column.to_pylist() for name, column in got.items()} == wanted


@pytest.mark.parametrize(
    ("predictions", "outputs", "message"),
    [
        ([1.0, 2.0, 3.0], [Y], "^3 predictions for 5 rows$"),
        ({"y": [1.0]}, [Y], "the predictions are an object, not a list"),
        (None, [Y], "the predictions are null, not a list"),
        ([{"a": 1.0, "b": 2}] * 5, [Y], "row 0 lacks output 'y'; it has 'a', 'b'"),
        ([{"y": 1.0}] * 4 + [{}], [Y], "row 4 lacks output 'y'; it has none"),
        ([{"y": 1.0}] * 4 + [None], [Y], "row 4 is null, not an object"),
        ([{"y": 1.0}] * 4 + [[1.0]], [Y], "row 4 is a list, not an object"),
        ([1.0] * 5, [Y, Z], "row 0 is a number, not an object of the outputs"),
        ([1.0] * 4 + [{"y": 1.0}], [Y], "output 'y' is an object, where float was announced .row 4"),
    ],
)
def test_predictions_that_do_not_belong_to_the_rows(predictions, outputs, message):
    with pytest.raises(ResponseError, match=message):
        read_rows(predictions, 5, outputs)
