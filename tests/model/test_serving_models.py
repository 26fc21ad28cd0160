"""The server with a model of many types: values, limits, and requests that share a call."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests.support.serving_process import serving

tf = pytest.importorskip("tensorflow")

PATH = "/v1/models/kinds:predict"
LIMIT_MB = 0.25


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model of several inputs and outputs that fails if a count is negative; its calls wait for others."""
    path = str(tmp_path_factory.mktemp("kinds"))

    def several(count, flag, text, vector):
        with tf.control_dependencies([tf.debugging.assert_non_negative(count, "a negative count")]):
            count = tf.identity(count)
        return {
            "double": count * 2,
            "not": ~flag,
            "upper": tf.strings.upper(text, encoding="utf-8"),
            "raw_bytes": text,
            "sum": tf.reduce_sum(vector, 1) / tf.cast(count, tf.float32),
            "vector": vector,
        }

    spec = tf.TensorSpec
    signatures = {
        "serving_default": tf.function(several, autograph=False).get_concrete_function(
            count=spec([None], tf.int64),
            flag=spec([None], tf.bool),
            text=spec([None], tf.string),
            vector=spec([None, 3], tf.float32),
        ),
        "echo": tf.function(lambda x: {"y": x}).get_concrete_function(spec([None], tf.string, "x")),
        "small": tf.function(lambda x: {"y": x}).get_concrete_function(spec([None], tf.int8, "x")),
        "mean": tf.function(lambda x: {"y": tf.reduce_mean(x)}).get_concrete_function(spec([None], tf.float64, "x")),
        "scalar": tf.function(lambda x: {"y": x + 1}).get_concrete_function(spec([], tf.float64, "x")),
        "ragged": tf.function(lambda x: {"y": x.flat_values}).get_concrete_function(
            tf.RaggedTensorSpec([None, None], tf.float32)
        ),
    }
    tf.saved_model.save(tf.Module(), path, signatures=signatures)
    limits = ["--max-body-mb", str(LIMIT_MB), "--max-queue-rows", "1000"]
    with serving(path, "--name", "kinds", "--threads", "1", "--max-batch-wait-ms", "40", *limits) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.rest, timeout=30) as found:
        yield found


def post(client, body, path=PATH, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, **options)


ROWS = [
    {"count": 2, "flag": True, "text": "é", "vector": [0.1, 0.2, 0.3]},
    {"count": 0, "flag": False, "text": "", "vector": [1, 0, 0]},
    {"count": 0, "flag": False, "text": "null", "vector": [0, 0, 0]},
    {"count": 2**62, "flag": True, "text": {"b64": "Yg=="}, "vector": [1e-45, 3.4028235e38, -0.0]},
]


def check_rows(predictions):
    total = np.float32(0.1) + np.float32(0.2) + np.float32(0.3)
    assert [row["double"] for row in predictions] == [4, 0, 0, -(2**63)]
    assert [row["not"] for row in predictions] == [False, True, True, False]
    assert [row["upper"] for row in predictions] == ["É", "", "NULL", "B"]
    assert [base64.b64decode(row["raw_bytes"]["b64"]).decode() for row in predictions] == ["é", "", "null", "b"]
    assert np.float32(predictions[0]["sum"]) == total / 2
    assert predictions[1]["sum"] == float("inf")
    assert predictions[2]["sum"] != predictions[2]["sum"]
    expected = np.array([row["vector"] for row in ROWS], np.float32)
    assert np.array([row["vector"] for row in predictions], np.float32).tobytes() == expected.tobytes()


def test_rows_and_columns_of_several_outputs(client):
    response = post(client, {"instances": ROWS})
    assert b'"sum":Infinity' in response.content
    check_rows(response.json()["predictions"])
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    outputs = post(client, {"inputs": columns}).json()["outputs"]
    check_rows([dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)])


def test_open_inference_types(client):
    inputs = [
        {"name": "count", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "flag", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
        {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        {"name": "vector", "datatype": "FP32", "shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]},
    ]
    asked = [{"name": "vector"}, {"name": "not"}, {"name": "raw_bytes", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": inputs, "outputs": asked}).encode()
    body = header + b"\1\0" + b"\2\0\0\0\xff\xfe" + b"\1\0\0\0x"
    length = {"Inference-Header-Content-Length": str(len(header))}
    response = post(client, body, "/v2/models/kinds/infer", headers=length)
    end = int(response.headers["Inference-Header-Content-Length"])
    vector, opposite, raw = json.loads(response.content[:end])["outputs"]
    assert (vector["shape"], vector["data"]) == ([2, 3], [1, 2, 3, 4, 5, 6])
    assert (opposite["datatype"], opposite["data"]) == ("BOOL", [False, True])
    assert raw["datatype"] == "BYTES"
    assert response.content[end:] == b"\2\0\0\0\xff\xfe\1\0\0\0x"
    flat = [{**tensor, "data": [1, 2, 3, 4, 5, 6]} if tensor["name"] == "vector" else tensor for tensor in inputs]
    header = json.dumps({"inputs": flat, "outputs": asked[:1]}).encode()
    body = header + body[-13:]
    response = post(
        client, body, "/v2/models/kinds/infer", headers={"Inference-Header-Content-Length": str(len(header))}
    )
    assert response.json()["outputs"] == [vector]


def test_other_signatures(client):
    def ask(signature, **body):
        return post(client, {"signature_name": signature, **body}).json()

    assert ask("echo", instances=["a", {"b64": "Yg=="}]) == {"predictions": ["a", "b"]}
    assert ask("echo", instances=[{"b64": "/w=="}, "a"]) == {"predictions": [{"b64": "/w=="}, {"b64": "YQ=="}]}
    assert ask("scalar", inputs=1.5) == {"outputs": 2.5}
    assert ask("scalar", inputs={"x": 1.5}) == {"outputs": 2.5}
    assert ask("mean", inputs=[1, 2]) == {"outputs": 1.5}
    assert "no common number of rows" in ask("mean", instances=[1, 2])["error"]
    assert "ragged" in ask("ragged", instances=[[1, 2]])["error"]
    assert "beyond int8" in ask("small", instances=[1, 128])["error"]
    assert "'signature_name' is not a string" in post(client, {"signature_name": 1, "instances": [1]}).text


@pytest.mark.parametrize(
    ("body", "telling"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"instances": [NaN}', "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 20_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        ({}, "one of 'instances' and 'inputs'"),
        ({"instances": [], "inputs": []}, "one of"),
        ({"instances": {}}, "'instances' is not a list"),
        ({"instances": []}, "'instances' is empty"),
        ({"instances": [1]}, "model with one input; this one has count, flag, text, vector"),
        ({"instances": [ROWS[0], 1]}, "row 1, is not an object"),
        ({"instances": [ROWS[0], {"flag": True}]}, "row 1: input 'count', 'text', 'vector' is missing"),
        ({"instances": [{**ROWS[0], "x": 1}]}, "the model has no input 'x'"),
        ({"instances": [{"flag": 1, "text": 1, "vector": 1, "cuont": 1}]}, "input 'count' is missing"),
        ({"instances": [ROWS[0], {**ROWS[0], "count": 1.5}]}, "input 'count', row 1, is a number with a fraction"),
        ({"instances": [{**ROWS[0], "count": True}]}, "input 'count', row 0, is true or false"),
        ({"instances": [{**ROWS[0], "count": 2**63}]}, "input 'count' has a value beyond int64"),
        ({"instances": [{**ROWS[0], "flag": 1}]}, "input 'flag', row 0, is a whole number"),
        ({"instances": [{**ROWS[0], "text": None}]}, "input 'text', row 0, is null"),
        ({"instances": [{**ROWS[0], "text": {"b64": "?"}}]}, "input 'text' has a value that is not base64"),
        ({"instances": [{**ROWS[0], "text": {"b": "?"}}]}, "input 'text' has an object that is not"),
        ({"instances": [ROWS[0], {**ROWS[0], "vector": [1, 2]}]}, "input 'vector' has lists of different lengths"),
        ({"instances": [{**ROWS[0], "vector": 1}]}, r"'vector' has shape [1]; the model takes [?, 3]; the model fails"),
        ({"instances": [ROWS[0], {**ROWS[0], "vector": [1, 2, "1.5"]}]}, "input 'vector', row 1, is a string"),
        ({"instances": [{**ROWS[0], "vector": [1, 2, 1e39]}]}, "input 'vector' has a value beyond float32"),
        ({"instances": [{**ROWS[0], "count": -1}]}, "a negative count"),
        ({"inputs": {"count": [1]}}, "input 'flag', 'text', 'vector' is missing"),
        (
            {"inputs": {"count": [1, 2, 3], "flag": [True], "text": ["a"], "vector": [[1, 2, 3]] * 2}},
            "input 'flag' has 1 rows, input 'count' has 3; the model fails",
        ),
    ],
)
def test_wrong_content(client, body, telling):
    response = post(client, body)
    assert response.status_code == 400
    assert telling in response.json()["error"]


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        ({"datatype": "FP64"}, "input 'vector' has datatype 'FP64'; the model takes FP32"),
        ({"shape": [1, 2]}, "'vector' has shape [1, 2]"),
        ({"shape": [-1, 3]}, "has no shape"),
        ({"shape": [2, 3]}, "values of shape [1, 3], and shape [2, 3]"),
        ({"shape": [2**30, 3]}, "and shape [1073741824, 3]"),
        ({"data": [1, 2]}, "values of shape [2], and shape [1, 3]"),
        ({"data": "x"}, "has no data"),
        ({"name": "x"}, "the model has no input 'x'"),
        ({"parameters": {"binary_data_size": 12}}, "binary_data_size is not the size"),
        ({"parameters": 1}, "'parameters' is not an object"),
    ],
)
def test_wrong_tensors(client, change, telling):
    tensor = {"name": "vector", "datatype": "FP32", "shape": [1, 3], "data": [[1, 2, 3]], **change}
    response = post(client, {"inputs": [tensor]}, "/v2/models/kinds/infer")
    assert response.status_code == 400
    assert telling in response.json()["error"]


def test_wrong_binary(client):
    for behind, size, telling in [
        (b"123", 3, "has 3 bytes; its shape [1, 3] takes another number"),
        (b"1" * 13, 12, "1 bytes behind the JSON belong to no input"),
        (b"1" * 12, 13, "binary_data_size is not the size"),
    ]:
        tensor = {"name": "vector", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": size}}
        header = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        response = post(client, header + behind, "/v2/models/kinds/infer", headers=headers)
        assert response.status_code == 400
        assert telling in response.json()["error"]
    response = post(client, b"{}", "/v2/models/kinds/infer", headers={"Inference-Header-Content-Length": "-1"})
    assert "not a length" in response.json()["error"]


def test_bodies_over_the_limit(client):
    limit = int(LIMIT_MB * 2**20)
    large = b" " * (limit + 1)
    for content in (large, (large[at : at + 50_000] for at in range(0, len(large), 50_000)), large * 30):
        with httpx.Client(base_url=client.base_url, timeout=30) as apart:
            response = apart.post(PATH, content=content)
        assert response.status_code == 413
        assert f"exceeds the limit: {limit} bytes" in response.json()["error"]
    assert post(client, b" " * limit).status_code == 400
    refused = post(client, b"", headers={"Content-Encoding": "br"})
    assert refused.status_code == 415


def counter(client, name):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0] == f"model_server_{name}")


def test_waiting_requests_share_a_call_and_a_bad_one_fails_alone(client):
    def ask(number):
        rows = [{**ROWS[0], "count": number}, {**ROWS[0], "count": 7}]
        response = post(client, {"instances": rows})
        return response.status_code, [row["double"] for row in response.json().get("predictions", [])]

    calls = counter(client, "model_calls_total")
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(48))) == [(200, [2 * number, 14]) for number in range(48)]
        assert counter(client, "model_calls_total") - calls < 24
        numbers = [*range(1, 12), -5, *range(12, 16)]
        expected = [(200, [2 * number, 14]) if number >= 0 else (400, []) for number in numbers]
        assert list(pool.map(ask, numbers)) == expected


def test_outputs_without_rows_are_not_joined(client):
    def ask(number):
        body = {"signature_name": "mean", "inputs": [number, number + 1]}
        return post(client, body).json()["outputs"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == [number + 0.5 for number in range(16)]


def test_a_full_queue(client):
    body = json.dumps({"signature_name": "small", "inputs": [1] * 700})

    def ask(_):
        return client.post(PATH, content=body)

    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(ask, range(24)))
    assert {response.status_code for response in responses} == {200, 503}
    refused = next(response for response in responses if response.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert "rows wait for the model already" in refused.json()["error"]
    assert counter(client, "waiting_rows") == 0
