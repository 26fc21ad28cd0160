"""What TensorFlow Serving's REST guide and its gRPC services document, asked of the local server, with several models.

See https://www.tensorflow.org/tfx/serving/api_rest and .../serving_config.
"""

from __future__ import annotations

import gzip
import json
import math
import shutil

import httpx
import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import json_format

from inference.endpoint.client import Client, Endpoint
from inference.endpoint.protocols.base import Target
from model import serve
from model.errors import ModelError, SignatureNotFoundError
from model.serving.model_config import read_model_config
from model.serving.models import Models
from model.serving.options import Options, ServedModel
from model.serving.tensors import broadcast_size, pairs_to_json, row_count
from model.specs import Signature, TensorSpec
from tests.support.half_plus_two import make_half_plus_two
from tests.support.serving_process import serving

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from model.serving.app import ConfigFile  # noqa: E402
from model.serving.servable import first_signature  # noqa: E402

HALF = "/v1/models/half_plus_two"
HALVES = [{"x": 1.0}, {"x": 2.0}]

CONFIG = """
# As in TensorFlow Serving's guide.
model_config_list {
  config {
    name: 'labelled'
    base_path: '%(folder)s/versions'
    model_platform: 'tensorflow'
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: 'stable' value: 1 }
    version_labels { key: 'canary' value: 2 }
  }
  config { name: 'newest' base_path: '%(folder)s/versions' }
  config { name: 'every' base_path: '%(folder)s/versions' model_version_policy { all {} } }
  config { name: 'modern' base_path: '%(folder)s/modern' }
}
"""


def export_modern(folder: str) -> None:
    """A model of TensorFlow 2, which has no default signature, and whose methods are all predict."""

    def parsed(examples):
        return tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]

    def spec(name, shape=(None,), dtype=tf.string):
        return tf.TensorSpec(shape, dtype, name)

    def vector(name):
        return spec(name, dtype=tf.float32)

    signatures = {
        "classify": tf.function(lambda x: {"scores": tf.stack([x, 1 / x], 1), "classes": names(x)}),
        "regress": tf.function(lambda x: {"outputs": x * 2}),
        "wide": tf.function(lambda x: {"outputs": tf.cast(x, tf.float64)}),
        "flat": tf.function(lambda x: {"classes": tf.strings.as_string(x)}),
        "one_less": tf.function(lambda x: {"outputs": x[1:]}),
    }

    def names(x):
        return tf.tile([["a", "é"]], [tf.size(x), 1])

    def on_examples(function):
        return tf.function(lambda inputs: function(parsed(inputs))).get_concrete_function(spec("inputs"))

    exported = {name: on_examples(function) for name, function in signatures.items()}
    exported["add"] = tf.function(
        lambda keys, values: {"sum": tf.reduce_sum(keys) + values, "keys": keys}
    ).get_concrete_function(keys=vector("keys"), values=vector("values"))
    exported["multiply"] = tf.function(lambda a, b: {"c": a * b}).get_concrete_function(a=vector("a"), b=vector("b"))
    exported["raw"] = tf.function(lambda x: {"image_bytes": x, "n": tf.strings.length(x)}).get_concrete_function(
        spec("x")
    )
    exported["logs"] = tf.function(lambda x: {"y": tf.math.log(x)}).get_concrete_function(vector("x"))
    tf.saved_model.save(tf.Module(), folder, signatures=exported)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_half_plus_two(folder / "half_plus_two" / "123")
    for version in (1, 2, 3):
        shutil.copytree(folder / "half_plus_two" / "123", folder / "versions" / str(version))
    export_modern(str(folder / "modern" / "1"))
    config = folder / "models.config"
    config.write_text(CONFIG % {"folder": folder})
    arguments = ["--model_name", "half_plus_two", "--model_config_file", str(config), "--max-body-mb", "1"]
    with serving(folder / "half_plus_two", *arguments) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.rest, timeout=30) as found:
        yield found


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def posted(client, path, body, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, **options)


# A path, a body, and the whole answer.
ANSWERS = [
    # Predict: rows, columns, one input with and without its name, shapes that the signature does not declare.
    (f"{HALF}:predict", {"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
    (f"{HALF}:predict", {"instances": [[1.0], [2.0]]}, {"predictions": [[2.5], [3.0]]}),
    (f"{HALF}:predict", {"instances": [{"x": 1.0}, {"x": 2}]}, {"predictions": [2.5, 3.0]}),
    (f"{HALF}:predict", {"instances": [{"x": [1.0]}]}, {"predictions": [[2.5]]}),
    (f"{HALF}:predict", {"instances": [[[1.0, 2.0]]]}, {"predictions": [[[2.5, 3.0]]]}),
    (f"{HALF}:predict", {"inputs": [[1.0], [5.0]]}, {"outputs": [[2.5], [4.5]]}),
    (f"{HALF}:predict", {"inputs": {"x": [1.0, 5.0]}}, {"outputs": [2.5, 4.5]}),
    (f"{HALF}:predict", {"inputs": 1.0}, {"outputs": 2.5}),
    (f"{HALF}/versions/123:predict", {"instances": [0.0]}, {"predictions": [2.0]}),
    (f"{HALF}:predict", {"signature_name": "", "instances": [0.0]}, {"predictions": [2.0]}),
    (f"{HALF}:predict", {"signature_name": "any_shape", "instances": [[1.0], [2.0]]}, {"predictions": [[2.5], [3.0]]}),
    (f"{HALF}:predict", {"signature_name": "any_shape", "inputs": 1}, {"outputs": 2.5}),
    # A signature of another method can be asked for with predict, too.
    (f"{HALF}:predict", {"signature_name": "regress_x2_to_y3", "instances": [[2.0]]}, {"predictions": [[4.0]]}),
    # Several inputs, which need not have the same number of rows in columns; several outputs are objects.
    (
        "/v1/models/modern:predict",
        {"signature_name": "add", "inputs": {"keys": [1.0, 2.0, 3.0], "values": [10.0]}},
        {"outputs": {"keys": [1.0, 2.0, 3.0], "sum": [16.0]}},
    ),
    (
        "/v1/models/modern:predict",
        {"signature_name": "add", "instances": [{"keys": 1, "values": 2}, {"keys": 3, "values": 4}]},
        {"predictions": [{"keys": 1.0, "sum": 6.0}, {"keys": 3.0, "sum": 8.0}]},
    ),
    # Bytes both ways.
    (
        "/v1/models/modern:predict",
        {"signature_name": "raw", "instances": [{"b64": "/w=="}, "ab"]},
        {"predictions": [{"image_bytes": {"b64": "/w=="}, "n": 1}, {"image_bytes": {"b64": "YWI="}, "n": 2}]},
    ),
    # Regress and classify, with a common context.
    (f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": HALVES}, {"results": [2.5, 3.0]}),
    (f"{HALF}:regress", {"signature_name": "regress_x_to_y2", "examples": [{"x": [1.0]}]}, {"results": [3.5]}),
    (
        f"{HALF}/versions/123:regress",
        {"signature_name": "regress_x_to_y", "context": {"x": 4.0}, "examples": [{"x2": 1.0}, {}]},
        {"results": [4.0, 4.0]},
    ),
    (
        f"{HALF}:classify",
        {"signature_name": "classify_x_to_y", "examples": HALVES},
        {"results": [[["", 2.5]], [["", 3.0]]]},
    ),
    (
        f"{HALF}:classify",
        {"signature_name": "classify_named", "context": {"x2": 1.0}, "examples": HALVES},
        {"results": [[["half", 0.5], ["rest", 1.5]], [["half", 1.0], ["rest", 2.0]]]},
    ),
    (
        f"{HALF}:classify",
        {"signature_name": "classify_labels", "examples": [{"x": 1.0}]},
        {"results": [[["half", 0.0], ["rest", 0.0]]]},
    ),
    (
        "/v1/models/modern:classify",
        {"signature_name": "classify", "examples": [{"x": 4.0}]},
        {"results": [[["a", 4.0], ["é", 0.25]]]},
    ),
    ("/v1/models/modern:regress", {"signature_name": "regress", "examples": HALVES}, {"results": [2.0, 4.0]}),
    # Versions and labels of several models.
    ("/v1/models/labelled/labels/stable:predict", {"instances": [0]}, {"predictions": [2.0]}),
    ("/v1/models/newest/versions/3:predict", {"instances": [0]}, {"predictions": [2.0]}),
    ("/v1/models/every/versions/1:predict", {"instances": [0]}, {"predictions": [2.0]}),
]


@pytest.mark.parametrize(("path", "body", "answer"), ANSWERS)
def test_rest(client, path, body, answer):
    response = posted(client, path, body)
    assert (response.status_code, response.json()) == (200, answer)
    assert response.headers["content-type"] == "application/json"


def test_tokens_for_what_json_has_no_number_for(client):
    response = posted(client, "/v1/models/modern:predict", {"signature_name": "logs", "instances": [1.0, 0.0, -1.0]})
    assert response.content == b'{"predictions":[0.0,-Infinity,NaN]}'
    given = b'{"signature_name": "regress_x_to_y", "examples": [{"x": NaN}, {"x": Infinity}]}'
    assert posted(client, f"{HALF}:regress", given).content == b'{"results":[NaN,Infinity]}'
    named = b'{"signature_name": "classify_named", "examples": [{"x": -Infinity, "x2": 1.0}]}'
    expected = b'{"results":[[["half",-Infinity],["rest",-Infinity]]]}'
    assert posted(client, f"{HALF}:classify", named).content == expected


MODERN = "/v1/models/modern"

# Method, path, body, status, and a part of the error.
REFUSALS = [
    ("POST", f"{HALF}:predict", b"", 400, "not JSON"),
    ("POST", f"{HALF}:predict", b"[]", 400, "not a JSON object"),
    ("POST", f"{HALF}:predict", {"instances": [1], "inputs": [1]}, 400, "one of 'instances' and 'inputs'"),
    ("POST", f"{HALF}:predict", {}, 400, "one of 'instances' and 'inputs'"),
    ("POST", f"{HALF}:predict", {"instances": 1}, 400, "'instances' is not a list"),
    ("POST", f"{HALF}:predict", {"instances": []}, 400, "'instances' is empty"),
    ("POST", f"{HALF}:predict", {"instances": ["a"]}, 400, "'x', row 0, is a string"),
    ("POST", f"{HALF}:predict", {"instances": [1, [2]]}, 400, "'x', row 1, is a list"),
    ("POST", f"{HALF}:predict", {"instances": [{"z": 1}]}, 400, "no input 'z'"),
    ("POST", f"{HALF}:predict", {"inputs": {"z": 1}}, 400, "input 'x' is missing"),
    ("POST", f"{HALF}:predict", {"signature_name": 1, "inputs": 1}, 400, "'signature_name' is not a string"),
    ("POST", f"{HALF}:predict", {"signature_name": "z", "inputs": 1}, 400, 'signature key "z" not found'),
    ("POST", f"{MODERN}:predict", {"inputs": 1}, 400, 'signature key "serving_default" not found'),
    # The graph refuses it, and the answer says what may be the reason.
    (
        "POST",
        f"{MODERN}:predict",
        {"signature_name": "multiply", "inputs": {"a": [1, 2, 3], "b": [1, 2]}},
        400,
        "input 'b' has 2 rows, input 'a' has 3; the model fails",
    ),
    # Two vectors of a few thousand values must not become a matrix of millions.
    (
        "POST",
        f"{MODERN}:predict",
        {"signature_name": "multiply", "inputs": {"a": [[1]] * 3000, "b": [1] * 3000}},
        400,
        "input 'a' has shape [3000, 1]; the model takes [?]",
    ),
    ("POST", "/v1/models/half:predict", {"instances": [1.0]}, 404, "Servable not found for request: Latest(half)"),
    (
        "POST",
        f"{HALF}/versions/7:predict",
        {},
        404,
        "Servable not found for request: Specific(half_plus_two, 7)",
    ),
    ("POST", f"{HALF}/labels/stable:predict", {}, 400, "Unrecognized servable version label: stable"),
    ("POST", "/v1/models/labelled/versions/3:predict", {}, 404, "Specific(labelled, 3)"),
    ("POST", "/v1/models/newest/versions/1:predict", {}, 404, "Specific(newest, 1)"),
    ("POST", f"{HALF}/versions/99999999999999999999:predict", {}, 400, "Failed to convert version"),
    ("POST", f"{HALF}/versions/x:predict", {}, 400, f"Malformed request: POST {HALF}/versions/x:predict"),
    ("POST", f"{HALF}:explain", {}, 400, f"Malformed request: POST {HALF}:explain"),
    ("POST", HALF, {}, 400, f"Malformed request: POST {HALF}"),
    ("GET", f"{HALF}:predict", None, 400, f"Malformed request: GET {HALF}:predict"),
    ("PUT", f"{HALF}:predict", {}, 400, f"Malformed request: PUT {HALF}:predict"),
    ("GET", "/v1/model", None, 400, "Malformed request: GET /v1/model"),
    ("GET", f"{HALF}/metadata/more", None, 400, "Malformed request"),
    ("GET", "/v1/models/half", None, 404, "Could not find any versions of model half"),
    ("GET", f"{HALF}/versions/7", None, 404, "Could not find version 7 of model half_plus_two"),
    ("GET", f"{HALF}/labels/stable", None, 400, "Unrecognized servable version label: stable"),
    ("GET", f"{HALF}/versions/7/metadata", None, 404, "Specific(half_plus_two, 7)"),
    ("GET", "/elsewhere", None, 404, "nothing at /elsewhere"),
    # Classify and regress.
    (
        "POST",
        f"{HALF}:classify",
        {"examples": HALVES},
        400,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    ),
    (
        "POST",
        f"{HALF}:regress",
        {"signature_name": "classify_x_to_y", "examples": HALVES},
        400,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/classify",
    ),
    ("POST", f"{HALF}:regress", {"signature_name": "z", "examples": HALVES}, 400, "No signature was found"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x2_to_y3", "examples": HALVES}, 400, "input is float32"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y"}, 400, "'examples' is expected"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": {}}, 400, "is not a list"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": []}, 400, "'examples' is empty"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": [1]}, 400, "item 0 is not an object"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": [{}]}, 400, "the model fails"),
    ("POST", f"{HALF}:regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 1}]}, 400, "the model fails"),
    *(
        (
            "POST",
            f"{HALF}:regress",
            {"signature_name": "regress_x_to_y", "context": {"y": value}, "examples": HALVES},
            400,
            f"'context': feature 'y' {telling}",
        )
        for value, telling in [
            (None, "has element with unexpected JSON type: Null"),
            ([[1]], "has element with unexpected JSON type: Array"),
            ([1, 1.5], "has elements of several types: float, int64"),
            ({"b": 1}, "has an object that is not"),
            (2**63, "has a value beyond int64"),
            (1e39, "has a value beyond float32"),
        ]
    ),
    # Python's parser, which knows NaN, takes half of a surrogate pair for a character.
    (
        "POST",
        f"{HALF}:regress",
        b'{"signature_name": "regress_x_to_y", "examples": [{"\\ud800": NaN}]}',
        400,
        "a feature's name has half of a surrogate pair",
    ),
    (
        "POST",
        f"{HALF}:regress",
        b'{"signature_name": "regress_x_to_y", "examples": [{"x": NaN, "y": "\\ud800"}]}',
        400,
        "feature 'y' has half of a surrogate pair",
    ),
    (
        "POST",
        f"{HALF}:regress",
        {"signature_name": "regress_x_to_y", "context": {"y": "x" * 10_000}, "examples": HALVES * 300},
        413,
        "bytes as arrays",
    ),
    ("POST", f"{MODERN}:regress", {"signature_name": "wide", "examples": HALVES}, 400, "Tensor of DT_FLOAT"),
    ("POST", f"{MODERN}:classify", {"signature_name": "flat", "examples": HALVES}, 400, "[batch_size num_classes]"),
    ("POST", f"{MODERN}:regress", {"signature_name": "one_less", "examples": HALVES}, 400, "batch size of 2"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "telling"), REFUSALS)
def test_rest_refusals(client, method, path, body, status, telling):
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    response = client.request(method, path, content=content)
    assert response.json().keys() == {"error"}
    assert telling in response.json()["error"]
    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        (HALF, [123]),
        (f"{HALF}/versions/123", [123]),
        ("/v1/models/labelled", [2, 1]),
        ("/v1/models/labelled/labels/canary", [2]),
        ("/v1/models/newest", [3]),
        ("/v1/models/every", [3, 2, 1]),
    ],
)
def test_status_as_a_strict_client_reads_it(client, path, versions):
    response = client.get(path)
    status = json_format.Parse(response.text, get_model_status_pb2.GetModelStatusResponse())
    found = [(state.version, state.state, state.status.error_code) for state in status.model_version_status]
    assert found == [(version, status.model_version_status[0].AVAILABLE, 0) for version in versions]
    assert response.json()["model_version_status"][0]["status"] == {"error_code": "OK", "error_message": ""}


def test_metadata_as_a_strict_client_reads_it(client):
    for path in (f"{HALF}/metadata", f"{HALF}/versions/123/metadata"):
        found = client.get(path).json()
        assert found.keys() == {"model_spec", "metadata"}
        assert found["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
        described = json.dumps(found["metadata"]["signature_def"])
        signatures = json_format.Parse(described, get_model_metadata_pb2.SignatureDefMap()).signature_def
        assert signatures["regress_x_to_y"].method_name == "tensorflow/serving/regress"
        assert signatures["any_shape"].inputs["x"].tensor_shape.unknown_rank
        assert [dim.size for dim in signatures["serving_default"].inputs["x"].tensor_shape.dim] == [-1, 1]


def test_compressed_requests(client):
    body = json.dumps({"instances": [1.0, 2.0, 5.0]}).encode()
    packed = {"content-encoding": "gzip"}
    for content in (gzip.compress(body), iter([gzip.compress(body)[:20], gzip.compress(body)[20:]])):
        response = client.post(f"{HALF}:predict", content=content, headers=packed)
        assert response.json() == {"predictions": [2.5, 3.0, 4.5]}
    for content, headers, status, telling in [
        (body, packed, 400, "the body is not gzip"),
        (b"", packed, 400, "gzip that breaks off"),
        (gzip.compress(body)[:-9], packed, 400, "gzip that breaks off"),
        (gzip.compress(body) * 2, packed, 400, "something behind its end"),
        # A few kilobytes that become more than --max-body-mb.
        (gzip.compress(b" " * (2**20 + 1)), packed, 413, "exceeds the limit: 1048576 bytes"),
        (gzip.compress(b" " * 2**20), packed, 400, "not JSON"),
        (body, {"content-encoding": "br"}, 415, "in gzip"),
    ]:
        response = client.post(f"{HALF}:predict", content=content, headers=headers)
        assert (response.status_code, telling in response.json()["error"]) == (status, True), response.text


def test_what_monitors_ask_for(client):
    assert client.get("/monitoring/prometheus/metrics").text.count("model_server_requests_total") > 1
    assert client.get("/v1/models").json()["models"] == ["half_plus_two", "labelled", "newest", "every", "modern"]
    described = client.get("/").json()
    assert (described["model"], described["versions"]) == ("half_plus_two", [123])
    assert described["models"][1]["labels"] == {"stable": 1, "canary": 2}
    v2 = client.get("/v2/models/every").json()
    assert (v2["name"], v2["versions"]) == ("every", ["3", "2", "1"])


def example(**features):
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()
            }
        )
    )


def examples_request(kind, signature, examples, context=None, model="half_plus_two", **version):
    request = kind()
    if model is not None:
        request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "label" in version:
        request.model_spec.version_label = version["label"]
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.examples.extend(examples)
        request.input.example_list_with_context.context.CopyFrom(context)
    return request


def predict_request(values, signature="", model="half_plus_two", **choice):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "label" in choice:
        request.model_spec.version_label = choice["label"]
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(values, np.float32)))
    return request


@pytest.mark.parametrize("values", [[1.0, 2.0, 5.0], [[1.0], [2.0]], 1.0, [[1.0, 2.0]]])
def test_predict_over_grpc(stub, values):
    for signature in ("", "any_shape"):
        answer = stub.Predict(predict_request(values, signature), timeout=30)
        assert tf.make_ndarray(answer.outputs["y"]).tolist() == (np.array(values) / 2 + 2).tolist()
        spec = answer.model_spec
        assert (spec.name, spec.version.value) == ("half_plus_two", 123)
        assert spec.signature_name == (signature or "serving_default")


def test_models_and_labels_over_grpc(stub):
    answers = [
        stub.Predict(predict_request([0.0], model=model, **choice), timeout=30).model_spec
        for model, choice in [("labelled", {"label": "stable"}), ("labelled", {}), ("newest", {}), ("every", {})]
    ]
    found = [(spec.name, spec.version.value) for spec in answers]
    assert found == [("labelled", 1), ("labelled", 2), ("newest", 3), ("every", 3)]


def test_classify_and_regress_over_grpc(stub):
    examples = [example(x=1), example(x=2)]
    regress = examples_request(regression_pb2.RegressionRequest, "regress_x_to_y", examples)
    answer = stub.Regress(regress, timeout=30)
    assert [found.value for found in answer.result.regressions] == [2.5, 3.0]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "regress_x_to_y")
    context = examples_request(classification_pb2.ClassificationRequest, "classify_named", examples, example(x2=1))
    answer = stub.Classify(context, timeout=30)
    found = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert found == [[("half", 0.5), ("rest", 1.5)], [("half", 1.0), ("rest", 2.0)]]
    for signature, expected in [("classify_x_to_y", ("", 2.5)), ("classify_labels", ("half", 0.0))]:
        request = examples_request(classification_pb2.ClassificationRequest, signature, examples[:1])
        one = stub.Classify(request, timeout=30).result.classifications[0].classes[0]
        assert (one.label, one.score) == expected


def tasks(*found, model="half_plus_two", examples=None):
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in found:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    request.input.example_list.examples.extend([example(x=1), example(x=2)] if examples is None else examples)
    return request


def test_multi_inference(stub):
    answer = stub.MultiInference(tasks(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify")), timeout=30)
    first, second = answer.results
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == ("regress_x_to_y", "classify_x_to_y")
    assert first.model_spec.version.value == 123
    assert [found.value for found in first.regression_result.regressions] == [2.5, 3.0]
    assert [row.classes[0].score for row in second.classification_result.classifications] == [2.5, 3.0]


def without(request, field):
    request.ClearField(field)
    return request


def other_model(request):
    request.tasks[1].model_spec.name = "newest"
    return request


REGRESS, CLASSIFY = regression_pb2.RegressionRequest, classification_pb2.ClassificationRequest


@pytest.mark.parametrize(
    ("method", "request_", "code", "telling"),
    [
        ("Predict", lambda: predict_request([1], "z"), "FAILED_PRECONDITION", 'key "z" not found'),
        ("Predict", lambda: predict_request([1], model="z"), "NOT_FOUND", "Latest(z)"),
        ("Predict", lambda: predict_request([1], model=""), "INVALID_ARGUMENT", "has no name"),
        ("Predict", lambda: predict_request([1], label="z"), "INVALID_ARGUMENT", "version label: z"),
        ("Predict", lambda: without(predict_request([1]), "model_spec"), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            "Classify",
            lambda: examples_request(CLASSIFY, "", [example(x=1)]),
            "INVALID_ARGUMENT",
            "Expected classification signature method_name to be tensorflow/serving/classify. Was: ",
        ),
        (
            "Regress",
            lambda: examples_request(REGRESS, "classify_x_to_y", [example(x=1)]),
            "INVALID_ARGUMENT",
            "Expected regression signature method_name to be tensorflow/serving/regress. Was: ",
        ),
        ("Regress", lambda: examples_request(REGRESS, "z", [example(x=1)]), "INVALID_ARGUMENT", "No signature"),
        ("Regress", lambda: examples_request(REGRESS, "regress_x_to_y", []), "INVALID_ARGUMENT", "Input is empty"),
        ("Regress", lambda: examples_request(REGRESS, "regress_x_to_y", [example()]), "INVALID_ARGUMENT", "fails"),
        ("Regress", lambda: examples_request(REGRESS, "regress", HALVES[:0], model=None), "INVALID_ARGUMENT", "name"),
        ("MultiInference", tasks, "INVALID_ARGUMENT", "no tasks"),
        (
            "MultiInference",
            lambda: tasks(*[("regress_x_to_y", "regress")] * 2),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            "MultiInference",
            lambda: other_model(tasks(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))),
            "INVALID_ARGUMENT",
            "same model name",
        ),
        ("MultiInference", lambda: tasks(("z", "predict")), "UNIMPLEMENTED", "tensorflow/serving/predict"),
        ("MultiInference", lambda: tasks(("z", "regress")), "INVALID_ARGUMENT", "No signature was found"),
        ("MultiInference", lambda: tasks(("z", "regress"), model="z"), "NOT_FOUND", "Latest(z)"),
    ],
)
def test_grpc_refusals(stub, method, request_, code, telling):
    with pytest.raises(grpc.RpcError) as error:
        getattr(stub, method)(request_(), timeout=30)
    assert (error.value.code().name, telling in error.value.details()) == (code, True), error.value.details()


def test_what_grpc_tells_of_models(stub, models):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "every"
    answer = models.GetModelStatus(request, timeout=30)
    assert [state.version for state in answer.model_version_status] == [3, 2, 1]
    described = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    described.model_spec.name = "labelled"
    described.model_spec.version_label = "stable"
    answer = stub.GetModelMetadata(described, timeout=30)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("labelled", 1)
    for change, call, code, telling in [
        ({"name": "z"}, models.GetModelStatus, "NOT_FOUND", "any versions of model z"),
        ({"name": ""}, models.GetModelStatus, "INVALID_ARGUMENT", "no name"),
    ]:
        wrong = get_model_status_pb2.GetModelStatusRequest(model_spec=change)
        with pytest.raises(grpc.RpcError, match=telling) as error:
            call(wrong, timeout=30)
        assert error.value.code().name == code
    for fields, telling in [([], "at least one metadata_field"), (["x"], "Metadata field x is not supported")]:
        wrong = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=described.model_spec, metadata_field=fields)
        with pytest.raises(grpc.RpcError, match=telling):
            stub.GetModelMetadata(wrong, timeout=30)


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("model_config_list {", "not a ModelServerConfig in protobuf's text format"),
        ("model_config_list { config { nam: 'a' } }", "1:30"),
        ("", "lists no models"),
        ("custom_model_config {}", "custom_model_config is not supported"),
        ("model_config_list { config { base_path: '/m' } }", "a model has no name"),
        ("model_config_list { config { name: 'a' } }", "model a has no base_path"),
        ("model_config_list { config { name: 'a' base_path: 'gs://b/m' } }", "not on this machine"),
        ("model_config_list { config { name: 'a' base_path: '/m' model_platform: 'torch' } }", '"torch"'),
        (
            "model_config_list { config { name: 'a' base_path: '/m' model_version_policy { specific {} } } }",
            "names no versions",
        ),
        (
            "model_config_list { config { name: 'a' base_path: '/m' model_version_policy { specific { versions: 1 } } "
            "version_labels { key: 'x' value: 2 } } }",
            "label x is for version 2",
        ),
        ("#" * 2**21, "1,048,576 bytes"),
    ],
)
def test_mistakes_in_the_list_of_models(tmp_path, text, telling):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(ModelError) as error:
        read_model_config(str(file))
    assert telling in str(error.value)
    assert str(file) in str(error.value)


def test_policies(tmp_path):
    file = tmp_path / "models.config"
    two = "config { name: 'two' base_path: 'relative' model_version_policy { latest { num_versions: 2 } } }"
    file.write_text(CONFIG.strip()[:-1] % {"folder": "/m"} + two + "}")
    assert read_model_config(str(file)) == (
        ServedModel("labelled", "/m/versions", 1, frozenset({1, 2}), {"stable": 1, "canary": 2}),
        ServedModel("newest", "/m/versions", 1),
        ServedModel("every", "/m/versions", None),
        ServedModel("modern", "/m/modern", 1),
        ServedModel("two", "relative", 2),
    )


def test_the_list_of_models_changes(server, tmp_path, capfd):
    """Read again, its models are served in place of those before; a wrong one changes nothing."""
    folder = tmp_path / "models"
    make_half_plus_two(folder / "1")
    shutil.copytree(folder / "1", folder / "2")
    file = tmp_path / "models.config"

    def write(*models):
        text = "".join(
            f"config {{ name: '{name}' base_path: '{path}' {policy} }}" for name, path, policy in models
        )  # fmt: skip
        file.write_text(f"model_config_list {{ {text} }}")

    def served():
        return {name: (store.versions, store.labels) for name, store in models.stores.items()}

    write(("a", folder, ""), ("b", folder, "model_version_policy { all {} }"))
    options = Options(str(folder), "always", model_config_file=str(file), more=read_model_config(str(file)))
    models = Models.of(options)
    models.load()
    look = ConfigFile(options, models)
    look()
    assert served() == {"always": ([2, 1], {}), "a": ([2], {}), "b": ([2, 1], {})}
    before = {version: models.find("b", version) for version in (1, 2)}
    always = models.stores["always"]
    policy = "model_version_policy { specific { versions: 1 } } version_labels { key: 'old' value: 1 }"
    write(("b", folder, policy), ("c", folder, ""), ("d", tmp_path / "none", ""))
    look()
    assert served() == {"always": ([2, 1], {}), "b": ([1], {"old": 1}), "c": ([2], {})}
    assert models.find("b", label="old") is before[1]
    assert models.stores["always"] is always
    said = capfd.readouterr().err
    assert "model a is served no more" in said
    assert "model d cannot be served as its config says: no SavedModel" in said
    for text in ("model_config_list {", "model_config_list { config { name: 'always' base_path: '/m' } }"):
        file.write_text(text)
        look()
        look()
        assert list(models.stores) == ["always", "b", "c"]
        assert capfd.readouterr().err.count("the models stay as they are") == 1
    write(("b", tmp_path / "none", ""))
    look()
    assert served() == {"always": ([2, 1], {}), "b": ([1], {"old": 1})}


@pytest.mark.parametrize("protocol", ["tf_serving_rest", "tf_serving_grpc"])
def test_an_endpoint_of_a_classify_or_regress_signature(server, protocol):
    """It is asked with predict: the outputs are columns. What it takes is known to be tf.Examples."""
    url = server.rest if protocol == "tf_serving_rest" else server.grpc
    examples = pa.array([example(x=1, x2=2).SerializeToString(), example(x=2).SerializeToString()], pa.binary())
    for name, expected in [
        ("regress_x_to_y", {"outputs": [2.5, 3.0]}),
        ("classify_named", {"classes": [["half", "rest"]] * 2, "scores": [[0.5, 2.5], [1.0, 1.0]]}),
    ]:
        client = Client(Endpoint(protocol, Target(url=url, model="half_plus_two", signature=name)))
        try:
            signature = client.signature()
            assert signature.examples_input == "inputs"
            answer = client.predict([examples], signature.inputs, signature.outputs, client.retries.deadline())
        finally:
            client.close()
        found = {key: column.to_pylist() for key, column in answer.columns.items()}
        assert {key: np.reshape(values, np.shape(expected[key])).tolist() for key, values in found.items()} == expected


def test_mistakes_of_the_command_line(tmp_path, capsys):
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { name: 'a' base_path: '/none' } }")
    listed = ["--model-config-file", str(file)]
    for arguments, telling in [
        ([], "give --model PATH, or --model-config-file FILE"),
        (["--model-config-file", str(tmp_path / "none")], "No such file"),
        (["--model", "/none", "--name", "a", *listed], "two models of the name a"),
        ([*listed, "--port", "0"], "no SavedModel at /none: there is no such folder"),
        ([*listed, "--rest_api_port", "0", "--port", "0", "--grpc-port", "0"], "leave one out"),
    ]:
        try:
            code = serve.main(arguments)
        except SystemExit as error:
            code = error.code
        (line,) = capsys.readouterr().err.splitlines()
        assert (code, telling in line) == (2, True), line


def test_the_signature_that_a_model_is_loaded_with():
    """The default one, and of a model that cannot be asked by default, one that can be asked."""
    dense, ragged = TensorSpec("x", "float32", (None,)), TensorSpec("x", "float32", (None, None), "ragged")

    def loaded(default, **inputs):
        signatures = {name: Signature(name, (spec,), (dense,), "") for name, spec in inputs.items()}
        return first_signature(signatures, default, "m").name

    assert loaded("serving_default", a=dense, serving_default=dense) == "serving_default"
    assert loaded("serving_default", a=ragged, b=dense) == "b"
    assert loaded("serving_default", b=dense, serving_default=ragged) == "b"
    assert loaded("serving_default", serving_default=ragged) == "serving_default"
    assert loaded("chosen", b=dense, chosen=ragged) == "chosen"
    for names in ({"b": ragged}, {}):
        with pytest.raises(SignatureNotFoundError):
            loaded("serving_default", **names)
    with pytest.raises(SignatureNotFoundError, match="did you mean 'chosen'"):
        loaded("chosn", chosen=dense)


def test_pairs_of_labels_and_scores():
    names = np.array([[b"a", b"b"]], object)
    scores = np.array([[0.1, math.inf]], np.float32)
    assert pairs_to_json(names, scores, "classes") == b'[[["a",0.1],["b",Infinity]]]'
    assert pairs_to_json(np.array([[b"\xff"]], object), None, "classes") == b'[[[{"b64":"/w=="},0.0]]]'
    assert pairs_to_json(None, np.array([[0.1]], np.float32), "classes") == b'[[["",0.1]]]'


def test_what_inputs_are_broadcast_to():
    shapes = {"a": np.zeros((3, 1)), "b": np.zeros(4), "c": np.zeros(())}
    assert broadcast_size(shapes) == 12
    assert broadcast_size({"a": np.zeros(())}) == 1


def test_an_input_of_unknown_rank_has_as_many_rows_as_it_was_given() -> None:
    """As the serialized tf.Examples of models that TensorFlow 1 exported."""
    spec = TensorSpec("inputs", "string", None)
    assert row_count({"inputs": np.array([b"a", b"b", b"c"], object)}, [spec]) == 3
    assert row_count({"inputs": np.array(b"a", object)}, [spec]) == 1
