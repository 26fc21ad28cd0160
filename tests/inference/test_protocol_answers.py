"""The JSON protocols: bodies as their documentation shows them, and every answer that is not one."""

import json

import pyarrow as pa
import pytest

from inference.endpoint.protocols import Response, Target, protocol_class
from inference.errors import EndpointConfigError, RequestRefusedError, ResponseError
from model.specs import Signature, TensorSpec

LOCAL = "http://127.0.0.1:8501"
INPUTS = [TensorSpec("age", "float32", (None,)), TensorSpec("sex", "string", (None, 1))]
ARRAYS = [pa.array([20.1, float("nan")], pa.float32()), pa.array([b"f", b"\xff"], pa.binary())]
ONE = [TensorSpec("weight", "float32", (None, 1))]
TWO = [TensorSpec("probabilities", "float32", (None, 2)), TensorSpec("word", "string", (None,))]
INSTANCES = ["ai_platform", "vertex", "kserve_v1", "tf_serving_rest"]
HTTP = [*INSTANCES, "kserve_v2"]


def protocol(name, **target):
    return protocol_class(name)(Target(url=LOCAL, **target))


def answer(name, body, outputs=ONE, rows=2, headers=None, **target):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    got = protocol(name, **target).read(Response(body, headers or {}), rows, outputs)
    return {key: column.to_pylist() for key, column in got.columns.items()}, got.version


@pytest.mark.parametrize(
    ("name", "target", "body"),
    [
        ("ai_platform", {}, '{"instances":[{"age":20.1,"sex":[{"b64":"Zg=="}]},{"age":NaN,"sex":[{"b64":"/w=="}]}]}'),
        ("vertex", {}, '{"instances":[{"age":20.1,"sex":[{"b64":"Zg=="}]},{"age":NaN,"sex":[{"b64":"/w=="}]}]}'),
        ("kserve_v1", {}, '{"instances":[{"age":20.1,"sex":[{"b64":"Zg=="}]},{"age":"NaN","sex":[{"b64":"/w=="}]}]}'),
        ("vertex", {"raw": True}, '{"inputs":{"age":[20.1,NaN],"sex":[[{"b64":"Zg=="}],[{"b64":"/w=="}]]}}'),
        ("tf_serving_rest", {}, '{"inputs":{"age":[20.1,NaN],"sex":[[{"b64":"Zg=="}],[{"b64":"/w=="}]]}}'),
        (
            "tf_serving_rest",
            {"rows": True, "signature": 'o"ther'},
            '{"signature_name":"o\\"ther",'
            '"instances":[{"age":20.1,"sex":[{"b64":"Zg=="}]},{"age":NaN,"sex":[{"b64":"/w=="}]}]}',
        ),
    ],
)
def test_bodies(name, target, body):
    assert protocol(name, **target).predict(ARRAYS, INPUTS).body.decode() == body


@pytest.mark.parametrize("name", INSTANCES)
def test_a_single_input_is_named_too(name):
    body = protocol(name, rows=True).predict(ARRAYS[:1], INPUTS[:1]).body
    assert json.loads(body)["instances"][0] == {"age": 20.1}


@pytest.mark.parametrize("name", INSTANCES)
def test_predictions(name):
    assert answer(name, {"predictions": [1.5, 2]})[0] == {"weight": [1.5, 2.0]}
    assert answer(name, {"predictions": [[1.5], [2]]})[0] == {"weight": [1.5, 2.0]}
    assert answer(name, {"predictions": [{"weight": [1.5]}, {"weight": [2]}]})[0] == {"weight": [1.5, 2.0]}
    rows = [{"word": "a", "probabilities": [0.5, 0.25], "x": 1}, {"word": "é", "probabilities": [1, 0]}]
    assert answer(name, {"predictions": rows}, TWO)[0] == {"probabilities": [[0.5, 0.25], [1, 0]], "word": ["a", "é"]}


@pytest.mark.parametrize(("name", "target"), [("tf_serving_rest", {}), ("vertex", {"raw": True})])
def test_outputs_column_by_column(name, target):
    assert answer(name, {"outputs": [[1.5], [2]]}, **target)[0] == {"weight": [1.5, 2.0]}
    assert answer(name, {"outputs": {"weight": [1.5, 2], "x": []}}, **target)[0] == {"weight": [1.5, 2.0]}
    columns = {"word": ["a", "b"], "probabilities": [[0.5, 0.25], [1, 0]]}
    assert answer(name, {"outputs": columns}, TWO, **target)[0] == {
        "probabilities": [[0.5, 0.25], [1, 0]],
        "word": ["a", "b"],
    }


def test_versions():
    body = {"predictions": [1, 2], "deployedModelId": "9", "modelVersionId": "3"}
    assert answer("vertex", body)[1] == "3"
    assert answer("vertex", {"predictions": [1, 2]})[1] is None
    assert answer("ai_platform", body)[1] is None
    assert answer("ai_platform", body, version="v2")[1] == "v2"
    assert answer("ai_platform", body, headers={"x-model-version": "5"})[1] == "5"
    assert answer("tf_serving_rest", body)[1] is None
    assert answer("tf_serving_rest", body, version="4")[1] == "4"
    assert answer("tf_serving_rest", body, headers={"x-model-version": "5"}, version="4")[1] == "5"
    assert answer("kserve_v1", body, headers={"x-model-version": "5"})[1] == "5"
    assert answer("kserve_v1", body)[1] is None
    whole = protocol_class("tf_serving_rest")(Target(url=f"{LOCAL}/v1/models/m/versions/7:predict"))
    assert whole.read(Response(b'{"outputs": [1, 2]}'), 2, ONE).version == "7"


def v2(*values, **changes):
    tensor = {"name": "weight", "shape": [len(values)], "datatype": "FP32", "data": list(values)}
    return {"outputs": [{**tensor, **changes}]}


def good(name):
    return v2(1.5, 2.5) if name == "kserve_v2" else {"predictions": [1.5, 2.5]}


@pytest.mark.parametrize("name", HTTP)
def test_every_cut_of_a_good_answer_is_refused(name):
    body = json.dumps(good(name)).encode()
    assert answer(name, body)[0] == {"weight": [1.5, 2.5]}
    for end in range(len(body)):
        with pytest.raises(ResponseError, match="the answer is not JSON"):
            answer(name, body[:end])


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_tokens_that_json_does_not_have(name, number):
    body = json.dumps(good(name)).replace("1.5", number).encode()
    if name == "tf_serving_rest":
        assert str(answer(name, body)[0]["weight"]) == str([float(number), 2.5])
    else:
        with pytest.raises(ResponseError, match=f"the answer has {number}, which JSON does not have"):
            answer(name, body)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"<html>\n<title>Sign in</title>", "text/html", "an HTML page, perhaps a sign-in page: 'Sign in'"),
        (b"<!DOCTYPE html><p>Hello", None, "an HTML page, perhaps a sign-in page: 'Hello'"),
        (b"upstream error\x1b[0m\x00", "text/plain", r"text/plain, \d+ bytes: 'upstream error \[0m'"),
        (b"", None, r"no content type, 0 bytes: ''"),
        (b"\xff" * 500, "application/json", "application/json, 500 bytes"),
        (b"[" * 100_000, "application/json", "100000 bytes"),
        (b'{"a":' * 100_000, "application/json", "500000 bytes"),
        (b"[1, 2]", "application/json", "the answer is a list, not an object: 6 bytes: '\\[1, 2\\]'"),
        (b"1e999", "application/json", "not JSON"),
        (b'{"predictions": [1e999, 2]}', "application/json", "not JSON"),
        (b'{"predictions": [1.5, 2.5]} tail', "application/json", "not JSON"),
        (b"{'predictions': [1.5, 2.5]}", "application/json", "not JSON"),
        (b"\x1f\x8b\x08\x00", "a\r\nb: c" * 30, "not JSON"),
        (b"x" * 1_000_000, "text/plain", "1000000 bytes: 'x{80}'"),
    ],
)
def test_what_came_in_place_of_json(name, body, content_type, message):
    with pytest.raises(ResponseError, match=message) as caught:
        answer(name, body, headers={"content-type": content_type} if content_type else {})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("name", HTTP)
def test_an_error_that_says_success(name):
    for error in ("negative age", {"message": "negative age"}):
        with pytest.raises(RequestRefusedError, match="^negative age$"):
            answer(name, {"error": error})


@pytest.mark.parametrize("name", HTTP)
def test_rows_are_never_misaligned(name):
    for count in (0, 3, 5):
        body = v2(*[1.0] * count) if name == "kserve_v2" else {"predictions": [1.0] * count}
        with pytest.raises(ResponseError, match=f"{count} predictions for 4 rows"):
            answer(name, body, rows=4)
    body = {"outputs": {"weight": [1.0, 2.0, 3.0]}}
    if name != "kserve_v2":
        with pytest.raises(ResponseError, match="output 'weight': 3 predictions for 4 rows"):
            answer(name, body, rows=4)


@pytest.mark.parametrize("name", INSTANCES)
@pytest.mark.parametrize(
    ("body", "outputs", "message"),
    [
        ({}, ONE, "the answer has no predictions; it has nothing"),
        ({"prediction": [1, 2]}, ONE, "the answer has no predictions; it has 'prediction'"),
        ({"predictions": None}, ONE, "the predictions are null, not a list"),
        ({"predictions": {"weight": [1, 2]}}, ONE, "the predictions are an object, not a list"),
        ({"predictions": [1, None]}, ONE, r"output 'weight' is null, where float was announced \(row 1\)"),
        ({"predictions": [1, "2"]}, ONE, r"output 'weight' is text, where float was announced \(row 1\)"),
        ({"predictions": [[1, 2], [3, 4]]}, ONE, "has 2 values in a list, where 1 were announced"),
        ({"predictions": [{"a": 1}, {"a": 2}]}, ONE, "row 0 lacks output 'weight'; it has 'a'"),
        ({"predictions": [1, 2]}, TWO, "row 0 is a number, not an object of the outputs"),
        ({"outputs": [1, 2]}, TWO, "the outputs are a list, not an object of 2 outputs"),
        ({"outputs": {"word": ["a", "b"]}}, TWO, "lacks output 'probabilities'; it has 'word'"),
        ({"outputs": {"w": ["a", "b"]}}, TWO, "lacks output 'probabilities', 'word'; it has 'w'"),
        ({"outputs": {}}, TWO, "it has none"),
        ({"outputs": None}, ONE, "output 'weight' is null, not a list"),
        ({"outputs": 3.5}, ONE, "output 'weight' is a number, not a list"),
    ],
)
def test_answers_that_are_none(name, body, outputs, message):
    with pytest.raises(ResponseError, match=message):
        answer(name, body, outputs)


METADATA = """{
"model_spec":{ "name": "births", "signature_name": "", "version": "3" },
"metadata": {"signature_def": { "signature_def": {
  "serving_default": {
   "inputs": {
    "sex": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": false},
            "name": "serving_default_sex:0"},
    "age": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
            "unknown_rank": false}, "name": "serving_default_age:0"},
    "any": {"dtype": "DT_HALF", "tensor_shape": {"dim": [], "unknown_rank": true}, "name": "any:0"},
    "one": {"dtype": "DT_DOUBLE_REF", "tensor_shape": {"dim": [], "unknown_rank": false}, "name": "one:0"}
   },
   "outputs": {
    "b": {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "-1", "name": ""}],
          "unknown_rank": false}, "name": "StatefulPartitionedCall:0"},
    "a": {"dtype": "DT_BFLOAT16", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": false},
          "name": "StatefulPartitionedCall:1"}
   },
   "method_name": "tensorflow/serving/predict", "defaults": {}
  },
  "__saved_model_init_op": {"inputs": {}, "outputs": {"__saved_model_init_op": {"dtype": "DT_INVALID",
     "tensor_shape": {"dim": [], "unknown_rank": true}, "name": "NoOp"}}, "method_name": "", "defaults": {}}
}}}}"""


def test_tf_servings_metadata_becomes_a_signature():
    assert protocol("tf_serving_rest").signature(Response(METADATA.encode())) == Signature(
        "serving_default",
        (
            TensorSpec("age", "float32", (None, 1)),
            TensorSpec("any", "float16", None),
            TensorSpec("one", "float64", ()),
            TensorSpec("sex", "string", (None,)),
        ),
        (TensorSpec("a", "bfloat16", (None,)), TensorSpec("b", "int64", (None, None))),
        "tensorflow/serving/predict",
    )


def test_a_signature_that_the_model_lacks():
    with pytest.raises(EndpointConfigError) as caught:
        protocol("tf_serving_rest", signature="serving_defualt").signature(Response(METADATA.encode()))
    assert str(caught.value) == (
        "the model has no signature 'serving_defualt'; did you mean 'serving_default'? (signatures: 'serving_default')"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b'{"metadata": []}',
        b'{"metadata": {"signature_def": {"signature_def": {}}}}',
        b'{"metadata": {"signature_def": {"signature_def": {"serving_default": {}}}}}',
        b'{"metadata": {"signature_def": {"signature_def": {"serving_default": null}}}}',
        METADATA.replace('"-1"', '"many"').encode(),
        METADATA.replace('"dtype"', '"type"').encode(),
        METADATA.replace('"DT_STRING"', "7").encode(),
    ],
)
def test_metadata_that_is_none(body):
    with pytest.raises(ResponseError):
        protocol("tf_serving_rest").signature(Response(body))
