"""PredictRequests that TensorFlow reads as it should, and PredictResponses in every way that TensorFlow writes them."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from inference.endpoint.protocols import Response, Target
from inference.endpoint.protocols.tf_serving_grpc import TFServingGrpc
from inference.errors import EndpointConfigError, RequestRefusedError, ResponseError
from model.specs import Signature, TensorSpec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMBERS = ["bool", "float16", "float32", "float64", *INTEGERS]


def protocol(**target):
    return TFServingGrpc(Target(url="127.0.0.1:8500", **target))


def message(arrays, specs, **target):
    return predict_pb2.PredictRequest.FromString(protocol(**target).predict(arrays, specs).body)


def sent(array, dtype, shape=(None,)):
    """The tensor as TensorFlow itself reads it."""
    proto = message([array], [TensorSpec("x", dtype, shape)]).inputs["x"]
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(dtype)).numpy()


def values_of(dtype):
    if dtype == "bool":
        return np.array([True, False, True])
    if dtype.startswith("float"):
        info = np.finfo(dtype)
        return np.array([0.1, -0.0, info.max, info.smallest_subnormal, np.nan, np.inf, -np.inf], dtype)
    info = np.iinfo(dtype)
    return np.array([info.min, info.max, 1], dtype)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_arrive_bit_by_bit(dtype):
    values = values_of(dtype)
    got = sent(pa.array(values), dtype)
    assert got.dtype == values.dtype
    assert got.tobytes() == values.tobytes()


def test_half_is_float16():
    assert sent(pa.array(np.float16([0.1])), "half").dtype == np.float16


def test_bfloat16_rounds_as_tensorflow_does():
    values = np.random.default_rng(3).normal(size=10_000).astype(np.float32)
    wanted = tf.cast(values, tf.bfloat16).numpy()
    assert sent(pa.array(values), "bfloat16").tobytes() == wanted.tobytes()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9), min_size=1, max_size=20))
def test_any_bytes_arrive(values):
    plain = pa.array(values, pa.binary())
    for array in (plain, plain.dictionary_encode(), pa.concat_arrays([pa.array([b"x"]), plain]).slice(1)):
        assert sent(array, "string").tolist() == values


@pytest.mark.parametrize(
    ("array", "dtype", "shape", "wanted"),
    [
        (pa.array([1.5, 2.5], pa.float32()), "float32", (None, 1), [[1.5], [2.5]]),
        (pa.array([[1, 2], [3, 4]]), "int64", (None, 2), [[1, 2], [3, 4]]),
        (pa.array([[[1], [2]], [[3], [4]]]), "int64", None, [[[1], [2]], [[3], [4]]]),
        (pa.array([[], []], pa.list_(pa.int64())), "int64", (None, None), [[], []]),
        (pa.array([["a", "é"]]), "string", (None, 2), [[b"a", "é".encode()]]),
        (pa.array(["a", "b", "a"]).dictionary_encode().slice(1), "string", (None, 1), [[b"b"], [b"a"]]),
        (pa.array(["a", "b", "c"]).dictionary_encode().slice(2), "string", (None,), [b"c"]),
        (pa.array(["a"], pa.large_string()), "string", (None,), [b"a"]),
        (pa.array([], pa.string()), "string", (None,), []),
        (pa.array([], pa.float32()), "float32", (None,), []),
    ],
)
def test_shapes(array, dtype, shape, wanted):
    assert sent(array, dtype, shape).tolist() == wanted


def test_the_model_is_named():
    one = [pa.array([1.0])], [TensorSpec("x", "float64", (None,))]
    spec = message(*one, model="m", version="12", signature="s").model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 12, "s")
    spec = message(*one, label="stable").model_spec
    assert (spec.name, spec.version_label, spec.signature_name) == ("default", "stable", "serving_default")
    assert not message(*one).model_spec.WhichOneof("version_choice")
    assert protocol().predict(*one).url == "/tensorflow.serving.PredictionService/Predict"


def answer(tensor, spec, rows, version=None, **target):
    response = predict_pb2.PredictResponse()
    response.outputs[spec.name].CopyFrom(tensor)
    response.outputs["other"].CopyFrom(tf.make_tensor_proto([1]))
    if version is not None:
        response.model_spec.version.value = version
    return protocol(**target).read(Response(response.SerializeToString()), rows, [spec])


def y(dtype="float32", shape=(None,)):
    return TensorSpec("y", dtype, shape)


def as_content(values):
    """The values as they lie in memory, as a server writes them if told so."""
    return shaped(*values.shape, dtype=tf.as_dtype(values.dtype).as_datatype_enum, tensor_content=values.tobytes())


def as_fields(values):
    """The values one by one in the field of their type, as a server writes them unless told otherwise."""
    proto = tf.make_tensor_proto(values)
    if not proto.tensor_content:
        return proto
    fields = {"f": "float_val", "b": "bool_val", "i": "int_val", "u": "int_val"}
    name = {
        "float64": "double_val", "int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val",
    }.get(values.dtype.name, fields[values.dtype.kind])  # fmt: skip
    flat = values.reshape(-1)
    if values.dtype == np.float16:
        name, flat = "half_val", flat.view(np.uint16)
    proto.ClearField("tensor_content")
    getattr(proto, name).extend(flat.tolist())
    return proto


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("make", [as_content, as_fields])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_answers_are_exact_in_either_form(dtype, make, shape):
    values = values_of(dtype)
    values = np.resize(values, (len(values), *shape))
    proto = make(values)
    assert bool(proto.tensor_content) == (make is as_content)
    assert tf.make_ndarray(proto).tobytes() == values.tobytes()
    column = answer(proto, y(dtype, (None, *shape)), len(values)).columns["y"]
    column.validate(full=True)
    flat = column
    while pa.types.is_list(flat.type):
        flat = flat.flatten()
    assert flat.to_numpy(zero_copy_only=False).tobytes() == values.tobytes()
    assert str(column.to_pylist()) == str((values.reshape(-1) if shape == (1,) else values).tolist())


@pytest.mark.parametrize("dtype", [*NUMBERS, "bfloat16", "string"])
@pytest.mark.parametrize("given", [0, 1, 2])
def test_fewer_values_than_the_shape_has(dtype, given):
    """The last one stands for the rest, as TensorFlow's own parser says."""
    kind = tf.as_dtype(dtype)
    proto = tensor_pb2.TensorProto(dtype=kind.as_datatype_enum)
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    field = {"bool": "bool_val", "float16": "half_val", "bfloat16": "half_val", "float32": "float_val",
             "float64": "double_val", "int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val",
             "string": "string_val"}.get(dtype, "int_val")  # fmt: skip
    getattr(proto, field).extend([b"a", b"b"][:given] if dtype == "string" else [1, 0][:given])
    wanted = tf.io.parse_tensor(proto.SerializeToString(), kind)
    wanted = tf.cast(wanted, tf.float32).numpy() if dtype == "bfloat16" else wanted.numpy()
    got = answer(proto, y(dtype, (None, None)), 2).columns["y"].to_pylist()
    assert got == [[v.decode() if dtype == "string" else v for v in row] for row in wanted.tolist()]


def test_text_and_bfloat16_answers():
    proto = tf.make_tensor_proto(["é", "", "c", "d"], shape=[2, 2])
    assert answer(proto, y("string", (None, 2)), 2).columns["y"].to_pylist() == [["é", ""], ["c", "d"]]
    values = tf.cast([[1.5], [3.14]], tf.bfloat16)
    for proto in (tf.make_tensor_proto(values), tf.make_tensor_proto(values.numpy())):
        assert answer(proto, y("bfloat16", (None, 1)), 2).columns["y"].to_pylist() == [1.5, 3.140625]
    with pytest.raises(RequestRefusedError, match="output 'y': the model's bytes are not UTF-8"):
        answer(tf.make_tensor_proto([b"\xff"]), y("string"), 1)


def test_text_packed_as_tensor_contents():
    words = [b"a" * 300, b"", b"bc"]
    proto = tensor_pb2.TensorProto(dtype="DT_STRING", tensor_content=b"\xac\x02\x00\x02" + b"".join(words))
    proto.tensor_shape.dim.add(size=3)
    assert tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy().tolist() == words
    assert answer(proto, y("string"), 3).columns["y"].to_pylist() == [word.decode() for word in words]
    for content in (b"\xac", b"\xff\xff", b"\x01\x01\x01ab", b"\x01\x01\x01abcd", b"\xff" * 10_000):
        proto.tensor_content = content
        with pytest.raises(ResponseError, match="output 'y' "):
            answer(proto, y("string"), 3)


def test_versions():
    proto = tf.make_tensor_proto([1.5])
    assert answer(proto, y(), 1, version=7, label="a").version == "7"
    assert answer(proto, y(), 1).version is None
    assert answer(proto, y(), 1, version=None).version is None
    assert answer(proto, y(), 1).columns["y"].to_pylist() == [1.5]


def shaped(*sizes, dtype="DT_FLOAT", **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


UNKNOWN = tensor_pb2.TensorProto(dtype="DT_FLOAT", float_val=[1, 2])
UNKNOWN.tensor_shape.unknown_rank = True


@pytest.mark.parametrize(
    ("tensor", "spec", "message"),
    [
        (tf.make_tensor_proto([1.0, 2, 3]), y(), "output 'y': 3 predictions for 2 rows"),
        (tf.make_tensor_proto([[1.0, 2]]), y(), "output 'y': 1 predictions for 2 rows"),
        (tf.make_tensor_proto(1.0), y(), "output 'y' is a single value for 2 rows"),
        (tf.make_tensor_proto([[1.0, 2], [3, 4]]), y(), r"has shape \[2, 2\], where 1 dimensions"),
        (tf.make_tensor_proto([[1.0, 2], [3, 4]]), y(shape=(None, 3)), r"has \[2\] values a row, where \[3\]"),
        (tf.make_tensor_proto([1.0, 2]), y("string"), "is float, where string was announced"),
        (tf.make_tensor_proto(["1", "2"]), y(), "is binary, where float was announced"),
        (tf.make_tensor_proto([1.5, 2]), y("int64"), "is float, where int64 was announced"),
        (tf.make_tensor_proto(np.array([0.1, 2])), y(), "is double, where float was announced"),
        (tf.make_tensor_proto([1j, 2]), y(), "is complex128, where float32 was announced"),
        (UNKNOWN, y(), "output 'y' has no shape"),
        (shaped(2, dtype=0), y(), "output 'y' is invalid"),
        (shaped(2, dtype=12345), y(), "output 'y' is 12345"),
        (shaped(2, tensor_content=b"1234567"), y(), "has 7 bytes for 2 values of float32"),
        (shaped(2, float_val=[1, 2, 3]), y(), "has 3 values for a tensor of 2"),
        (shaped(2, -1, float_val=[1]), y(shape=(None, None)), r"has shape \[2, -1\]"),
        (shaped(2, 1 << 40, float_val=[1]), y(shape=(None, None)), "has 1 values for a tensor of 2199023255552"),
        (shaped(2, 1 << 40, dtype="DT_STRING"), y("string", (None, None)), "has 0 values for a tensor of"),
        (shaped(2, dtype="DT_UINT8", int_val=[300]), y("uint8"), "has values that are no uint8"),
        (shaped(2, dtype="DT_HALF", half_val=[1 << 20]), y("float16"), "has values that are no float16"),
    ],
)
def test_answers_that_are_none(tensor, spec, message):
    with pytest.raises(ResponseError, match=message):
        answer(tensor, spec, 2)


def test_what_is_no_message():
    whole = predict_pb2.PredictResponse()
    whole.outputs["y"].CopyFrom(tf.make_tensor_proto([1.0, 2]))
    body = whole.SerializeToString()
    assert protocol().read(Response(body), 2, [y()]).columns["y"].to_pylist() == [1, 2]
    for end in range(len(body)):
        with pytest.raises(ResponseError, match="not a PredictResponse|lacks output"):
            protocol().read(Response(body[:end]), 2, [y()])
    with pytest.raises(ResponseError, match="lacks output 'z'; it has 'y'"):
        protocol().read(Response(body), 2, [TensorSpec("z", "float32", (None,))])


def test_lossless_differences_of_type_are_overlooked():
    assert answer(tf.make_tensor_proto([1.5, 2]), y("float64"), 2).columns["y"].type == pa.float64()
    assert answer(tf.make_tensor_proto([1, 2]), y("int64"), 2).columns["y"].to_pylist() == [1, 2]


def metadata():
    signatures = get_model_metadata_pb2.SignatureDefMap()
    definition = signatures.signature_def["serving_default"]
    definition.method_name = "tensorflow/serving/predict"
    for side, name, dtype, shape in [
        (definition.inputs, "sex", tf.string, [None, 1]),
        (definition.inputs, "age", tf.bfloat16, [None]),
        (definition.inputs, "any", tf.float16, None),
        (definition.outputs, "weight", tf.float32, []),
    ]:
        side[name].dtype = dtype.as_datatype_enum
        side[name].tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    return response


def test_metadata_becomes_a_signature():
    asked = protocol(model="m", version="3").describe()
    assert asked.url == "/tensorflow.serving.PredictionService/GetModelMetadata"
    request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(asked.body)
    assert (request.model_spec.name, request.model_spec.version.value) == ("m", 3)
    assert list(request.metadata_field) == ["signature_def"]
    assert protocol().signature(Response(metadata().SerializeToString())) == Signature(
        "serving_default",
        (
            TensorSpec("age", "bfloat16", (None,)),
            TensorSpec("any", "float16", None),
            TensorSpec("sex", "string", (None, 1)),
        ),
        (TensorSpec("weight", "float32", ()),),
        "tensorflow/serving/predict",
    )


def test_metadata_that_is_none():
    with pytest.raises(EndpointConfigError, match="no signature 'default'.*signatures: 'serving_default'"):
        protocol(signature="default").signature(Response(metadata().SerializeToString()))
    empty, wrong, broken = metadata(), metadata(), metadata()
    del empty.metadata["signature_def"]
    wrong.metadata["signature_def"].Pack(predict_pb2.PredictResponse())
    broken.metadata["signature_def"].value = b"\xff"
    for body in (empty, wrong, broken):
        with pytest.raises(ResponseError, match="signature"):
            protocol().signature(Response(body.SerializeToString()))
    with pytest.raises(ResponseError, match="not a GetModelMetadataResponse"):
        protocol().signature(Response(b"\xff"))


def test_an_error_in_one_line():
    said = protocol().error_message(Response("input size\n does not é match\x00".encode()))
    assert said == "input size does not é match"
    assert len(protocol().error_message(Response(b"x" * 100_000))) == 500
