"""The Open Inference Protocol: tensors as JSON and as bytes, both ways, exactly."""

import json
import struct

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.endpoint.protocols import Response, Target, protocol_class
from inference.errors import EndpointConfigError, RequestRefusedError, ResponseError, RowError
from model.specs import Signature, TensorSpec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMPY = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?"} | {
    name.upper(): np.dtype(name).newbyteorder("<") for name in INTEGERS
}


def protocol(**target):
    return protocol_class("kserve_v2")(Target(url="http://127.0.0.1:8080", **target))


def decoded(request):
    """What a server of the protocol makes of a request: datatype, shape and values of each input."""
    size = int(request.headers.get("Inference-Header-Content-Length", len(request.body)))
    head, tail = json.loads(request.body[:size]), request.body[size:]
    tensors, place = {}, 0
    for tensor in head["inputs"]:
        datatype, data = tensor["datatype"], tensor.get("data")
        if data is None:
            end = place + tensor["parameters"]["binary_data_size"]
            raw, place = tail[place:end], end
            if datatype == "BYTES":
                data, at = [], 0
                while at < len(raw):
                    (length,) = struct.unpack_from("<I", raw, at)
                    data.append(raw[at + 4 : at + 4 + length])
                    at += 4 + length
            else:
                data = np.frombuffer(raw, ml_dtypes.bfloat16 if datatype == "BF16" else NUMPY[datatype])
        tensors[tensor["name"]] = (datatype, tensor["shape"], data)
    assert place == len(tail)
    return tensors


def sent(array, dtype, shape=(None,), **target):
    return decoded(protocol(**target).predict([array], [TensorSpec("x", dtype, shape)]))["x"]


def numbers(dtype):
    if dtype == "bool":
        return np.array([True, False, True])
    if dtype.startswith("float"):
        info = np.finfo(dtype)
        return np.array([0.1, -0.0, info.max, info.min, info.smallest_subnormal], dtype)
    info = np.iinfo(dtype)
    return np.array([info.min, info.max, 1], dtype)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "float64", *INTEGERS])
def test_numbers_arrive_bit_by_bit(dtype, binary):
    values = numbers(dtype)
    datatype, shape, data = sent(pa.array(values), dtype, binary=binary)
    wanted = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}.get(dtype, dtype.upper())
    assert (datatype, shape) == (wanted, [len(values)])
    assert np.array(data, dtype).tobytes() == values.tobytes()


def test_what_is_not_finite():
    array = pa.array([1, np.nan, np.inf, -np.inf], pa.float32())
    assert sent(array, "float32")[2] == [1, "NaN", "Infinity", "-Infinity"]
    assert np.array_equal(sent(array, "float32", binary=True)[2], [1, np.nan, np.inf, -np.inf], equal_nan=True)


def test_bfloat16():
    array = pa.array([1.0, 3.14159, np.nan], pa.float32())
    datatype, _, data = sent(array, "bfloat16", binary=True)
    assert datatype == "BF16"
    assert data.tobytes() == array.to_numpy().astype(ml_dtypes.bfloat16).tobytes()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9) | st.text(max_size=5).map(lambda text: text.encode()), min_size=1, max_size=9))
def test_any_bytes_arrive_or_the_row_is_refused(values):
    plain = pa.array(values, pa.binary())
    for array in (plain, plain.dictionary_encode(), pa.concat_arrays([pa.array([b"\xff"]), plain]).slice(1)):
        assert sent(array, "string", binary=True)[2] == values
        try:
            texts = [value.decode() for value in values]
        except UnicodeDecodeError:
            with pytest.raises(RowError, match="input 'x': bytes that are not UTF-8 text"):
                sent(array, "string")
        else:
            assert sent(array, "string") == ("BYTES", [len(values)], texts)


def test_a_word_that_is_no_text_refuses_only_the_rows_that_have_it():
    column = pa.array([b"a", b"\xff", b"a", b"b"]).dictionary_encode()
    assert sent(column.slice(2), "string")[2] == ["a", "b"]
    with pytest.raises(RowError):
        sent(column.slice(1), "string")


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("array", "dtype", "shape", "sizes", "flat"),
    [
        (pa.array([1.5, 2.5], pa.float32()), "float32", (None, 1), [2, 1], [1.5, 2.5]),
        (pa.array([[1, 2], [3, 4]]), "int64", (None, 2), [2, 2], [1, 2, 3, 4]),
        (pa.array([[[1], [2]], [[3], [4]]]), "int64", None, [2, 2, 1], [1, 2, 3, 4]),
        (pa.array([[9], [1]]).slice(1), "int64", (None, None, 1), [1, 1, 1], [1]),
        (pa.array([[], []], pa.list_(pa.int64())), "int64", (None, None), [2, 0], []),
        (pa.array([["a", "b"]]), "string", (None, 2), [1, 2], ["a", "b"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string", (None,), [3], ["a", "b", "a"]),
        (pa.array([], pa.string()), "string", (None,), [0], []),
    ],
)
def test_shapes(array, dtype, shape, sizes, flat, binary):
    _, got, data = sent(array, dtype, shape, binary=binary)
    assert got == sizes
    assert [value.decode() if isinstance(value, bytes) else value for value in data] == flat


def test_a_whole_request():
    specs = [TensorSpec("age", "float32", (None,)), TensorSpec("sex", "string", (None,))]
    arrays = [pa.array([1.5, 2], pa.float32()), pa.array(["f", "m"])]
    request = protocol().predict(arrays, specs)
    assert request.headers == {"Content-Type": "application/json"}
    assert request.body.decode() == (
        '{"inputs":[{"name":"age","shape":[2],"datatype":"FP32","data":[1.5,2.0]},'
        '{"name":"sex","shape":[2],"datatype":"BYTES","data":["f","m"]}]}'
    )
    request = protocol(binary=True).predict(arrays, specs)
    size = int(request.headers["Inference-Header-Content-Length"])
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert json.loads(request.body[:size])["parameters"] == {"binary_data_output": True}
    assert request.body[size:] == struct.pack("<ff", 1.5, 2) + b"\x01\0\0\0f\x01\0\0\0m"


def answer(outputs, specs, rows, tail=None, headers=None, **more):
    body = json.dumps({"model_name": "m", "model_version": None, "outputs": outputs, **more}).encode()
    headers = dict(headers or {})
    if tail is not None:
        headers.setdefault("inference-header-content-length", str(len(body)))
    return protocol(version=more.pop("asked", None)).read(Response(body + (tail or b""), headers), rows, specs)


def tensor(datatype, shape, data=None, size=None, name="y"):
    found = {"name": name, "shape": shape, "datatype": datatype, "parameters": None}
    return found | ({"data": data} if size is None else {"parameters": {"binary_data_size": size}})


def y(dtype="float32", shape=(None,)):
    return [TensorSpec("y", dtype, shape)]


@pytest.mark.parametrize(
    ("outputs", "specs", "wanted"),
    [
        (tensor("FP32", [2], [0.1, 2]), y(), pa.array([0.1, 2], pa.float32())),
        (tensor("FP32", [2, 1], [[0.1], [2]]), y(), pa.array([0.1, 2], pa.float32())),
        (tensor("FP32", [2, 1], [0.1, 2]), y(shape=(None, 1)), pa.array([0.1, 2], pa.float32())),
        (tensor("FP32", [2], [0.1, 2]), y(shape=(None, 1)), pa.array([0.1, 2], pa.float32())),
        (tensor("FP32", [2], [0.1, 2]), y("float64"), pa.array(np.float32([0.1, 2])).cast(pa.float64())),
        (tensor("FP64", [2], [0.5, -0.0]), y(), pa.array([0.5, -0.0], pa.float32())),
        (tensor("FP16", [1], [0.1]), y(), pa.array(np.float16([0.1])).cast(pa.float32())),
        (tensor("INT64", [2], [5, 2**24]), y(), pa.array([5, 2**24], pa.float32())),
        (tensor("FP64", [2], [5, 7]), y("int8"), pa.array([5, 7], pa.int8())),
        (tensor("UINT64", [1], [2**64 - 1]), y("uint64"), pa.array([2**64 - 1], pa.uint64())),
        (tensor("BOOL", [2], [True, False]), y("bool"), pa.array([True, False])),
        (tensor("BYTES", [2], ["é", ""]), y("string"), pa.array(["é", ""])),
        (tensor("BYTES", [1, 2], ["a", "b"]), y("string", (None, 2)), pa.array([["a", "b"]])),
        (tensor("INT32", [2, 1, 2], [1, 2, 3, 4]), y("int32", (None, 1, 2)),
         pa.array([[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.int32())))),
        (tensor("INT32", [2, 0], []), y("int32", (None, None)), pa.array([[], []], pa.list_(pa.int32()))),
    ],
)  # fmt: skip
def test_answers_in_json(outputs, specs, wanted):
    got = answer([tensor("FP32", [9], [1], name="other"), outputs], specs, len(wanted))
    got.columns["y"].validate(full=True)
    assert got.columns["y"].equals(wanted)
    assert (list(got.columns), got.version) == (["y"], None)


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "float64", *INTEGERS])
def test_binary_answers_are_exact(dtype):
    values = numbers(dtype)
    if dtype.startswith("float"):
        values = np.append(values, [np.nan, np.inf, -np.inf]).astype(dtype)
    datatype = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}.get(dtype, dtype.upper())
    raw = values.tobytes()
    outputs = [tensor("INT8", [3], size=3, name="before"), tensor(datatype, [len(values)], size=len(raw))]
    column = answer(outputs, y(dtype), len(values), b"abc" + raw).columns["y"]
    assert column.type == pa.from_numpy_dtype(dtype)
    assert column.to_numpy(zero_copy_only=False).tobytes() == raw


def test_binary_text_and_bfloat16():
    raw = b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    assert answer([tensor("BYTES", [2], size=len(raw))], y("string"), 2, raw).columns["y"].to_pylist() == ["é", ""]
    raw = np.array([1.5, 3.14], ml_dtypes.bfloat16).tobytes()
    assert answer([tensor("BF16", [2], size=4)], y("bfloat16"), 2, raw).columns["y"].to_pylist() == [1.5, 3.140625]
    with pytest.raises(RequestRefusedError, match="not UTF-8"):
        answer([tensor("BYTES", [1], size=5)], y("string"), 1, b"\x01\0\0\0\xff")


def test_versions():
    one = [tensor("FP32", [1], [1])]
    assert answer(one, y(), 1, model_version="v7").version == "v7"
    body = Response(json.dumps({"outputs": one}).encode())
    assert protocol(version="v3").read(body, 1, y()).version == "v3"


@pytest.mark.parametrize(
    ("outputs", "tail", "specs", "message"),
    [
        ({}, None, y(), "the outputs are an object, not a list of tensors"),
        (None, None, y(), "the outputs are null"),
        ([7], None, y(), "an output without a name"),
        ([{"shape": [2]}], None, y(), "an output without a name"),
        ([], None, y(), "lacks output 'y'; it has none"),
        ([tensor("FP32", [2], [1, 2], name="z")], None, y(), "lacks output 'y'; it has 'z'"),
        ([tensor("FP32", [3], [1, 2, 3])], None, y(), "output 'y': 3 predictions for 2 rows"),
        ([tensor("FP32", [1, 2], [1, 2])], None, y(), "output 'y': 1 predictions for 2 rows"),
        ([tensor("FP32", [2], [1])], None, y(), r"has shape \[2\] but 1 values"),
        ([tensor("FP32", [2, -1], [1])], None, y(), r"has shape \[2, -1\] but 1 values"),
        ([tensor("FP32", [2, -1, -1], [1, 2])], None, y(), r"has shape \[2, -1, -1\]"),
        ([tensor("FP32", [], [1])], None, y(), "is a single value for 2 rows"),
        ([tensor("FP32", None, [1])], None, y(), "has no shape"),
        ([tensor("FP32", ["2"], [1, 2])], None, y(), "has no shape"),
        ([tensor("FP32", [2.0], [1, 2])], None, y(), "has no shape"),
        ([tensor("FP32", [2, 2], [1, 2, 3, 4])], None, y(), r"has shape \[2, 2\], where 1 dimensions"),
        ([tensor("FP32", [2], [1, 2])], None, y(shape=(None, 2)), r"has shape \[2\], where 2 dimensions"),
        ([tensor("FP32", [2, 1], [1, 2])], None, y(shape=(None, 2)), r"has \[1\] values a row, where \[2\]"),
        ([tensor("FP32", [2], None)], None, y(), "output 'y' is null, not a list"),
        ([tensor("FP32", [2], [1, None])], None, y(), r"is null, where float was announced \(row 1\)"),
        ([tensor("FP32", [2], [1, "NaN"])], None, y(), r"is text, where float was announced \(row 1\)"),
        ([tensor("FP32", [2], [[1, [2]]])], None, y(), "is a list, where float"),
        ([tensor("FP99", [2], [1, 2])], None, y(), "datatype 'FP99', which is none"),
        ([tensor(None, [2], [1, 2])], None, y(), "datatype 'None', which is none"),
        ([tensor("FP64", [2], [0.1, 2])], None, y(), "is double, where float was announced"),
        ([tensor("FP64", [2], [1e300, 2])], None, y(), "is double, where float was announced"),
        ([tensor("FP64", [2], [0.5, 2])], None, y("int64"), "is double, where int64 was announced"),
        ([tensor("INT64", [2], [300, 2])], None, y("int8"), "is int64, where int8 was announced"),
        ([tensor("INT64", [2], [2**53 + 1, 2])], None, y("float64"), "is int64, where double was announced"),
        ([tensor("BOOL", [2], [True, False])], None, y("int64"), "is bool, where int64 was announced"),
        ([tensor("INT64", [2], [1, 0])], None, y("bool"), "is int64, where bool was announced"),
        ([tensor("BYTES", [2], ["1", "2"])], None, y(), "is string, where float was announced"),
        ([tensor("INT8", [2], [1, 300])], None, y("int8"), "has 300, which is too large for int8"),
        ([tensor("FP32", [2], size=8)], b"1234567", y(), "has 7 bytes behind its JSON, where it names 8"),
        ([tensor("FP32", [2], size=8)], None, y(), "has 0 bytes behind its JSON, where it names 8"),
        ([tensor("FP32", [2], [1, 2])], b"x", y(), "has 1 bytes behind its JSON, where it names 0"),
        ([tensor("FP32", [2], size=7)], b"1234567", y(), "has 7 bytes, which is no number of float32"),
        ([tensor("FP32", [2], size=4)], b"1234", y(), r"has shape \[2\] but 1 values"),
        ([tensor("FP32", [2], size=-8)], b"", y(), "a binary_data_size that is no size"),
        ([tensor("FP32", [2], size="8")], b"12345678", y(), "a binary_data_size that is no size"),
        ([tensor("BYTES", [2], size=3)], b"\0\0\0", y("string"), "breaks off in the length of a text"),
        ([tensor("BYTES", [2], size=5)], b"\xff\xff\xff\xffa", y("string"), "breaks off in a text"),
    ],
)
def test_answers_that_are_none(outputs, tail, specs, message):
    with pytest.raises(ResponseError, match=message):
        answer(outputs, specs, 2, tail)


@pytest.mark.parametrize("length", ["-1", "x", "", "999999", "9" * 30, "²"])
def test_a_length_of_the_json_that_cannot_be(length):
    with pytest.raises(ResponseError, match="its JSON alone should have"):
        answer([], y(), 1, b"", {"inference-header-content-length": length})


METADATA = {
    "name": "births",
    "versions": None,
    "platform": "",
    "inputs": [
        {"name": "sex", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "age", "datatype": "FP32", "shape": [-1]},
    ],
    "outputs": [{"name": "weight", "datatype": "FP16", "shape": [-1, -1]}],
}


def described(metadata):
    return protocol(signature="s").signature(Response(json.dumps(metadata).encode()))


def test_metadata_becomes_a_signature():
    inputs = (TensorSpec("age", "float32", (None,)), TensorSpec("sex", "string", (None, 1)))
    assert described(METADATA) == Signature("s", inputs, (TensorSpec("weight", "float16", (None, None)),), "")


@pytest.mark.parametrize("change", [{"inputs": []}, {"inputs": None}, {"outputs": []}])
def test_a_server_that_does_not_tell(change):
    with pytest.raises(EndpointConfigError, match="does not tell what the model takes"):
        described(METADATA | change)


@pytest.mark.parametrize(
    "inputs", [7, [7], [{"name": "x"}], [{"name": "x", "datatype": "?", "shape": []}],
               [{"name": "x", "datatype": "FP32", "shape": ["a"]}], [{"name": "x", "datatype": "FP32", "shape": None}]]
)  # fmt: skip
def test_metadata_that_is_none(inputs):
    with pytest.raises(ResponseError):
        described(METADATA | {"inputs": inputs})
