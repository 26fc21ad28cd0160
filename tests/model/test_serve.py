"""`python -m model.serve` with the packaged model: every protocol gives what the model gives, bit by bit."""

from __future__ import annotations

import csv
import json
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import orjson
import pytest

from model.savedmodel import SavedModel
from model.serving.app import say_ready
from model.serving.models import Models
from model.serving.options import Options
from model.serving.ports import address, bind, choose_grpc_port
from tests.support import processes
from tests.support.serving_process import ROOT, serving

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

PACKAGED = ROOT / "model" / "trained" / "v1"
NUMBERS = ("mother_age", "plurality", "gestation_weeks")
TEXTS = ("is_male", "mother_race", "mother_married", "cigarette_use", "alcohol_use")
GOOGLE = "/v1/projects/p-1/locations/l/endpoints"


@pytest.fixture(scope="module")
def births():
    """All births as columns, missing gestations as NaN, some races as they are written elsewhere."""
    with (ROOT / "data" / "births-nc-2001.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = {name: [float(row[name] or "nan") for row in rows] for name in NUMBERS}
    columns |= {name: [row.get(name) or "Unknown" for row in rows] for name in TEXTS}
    columns["mother_race"][::7] = ['métisse, "NaN" 黒人 \\ 🙂'] * len(rows[::7])
    assert sum(value != value for value in columns["gestation_weeks"]) > 0
    return columns


@pytest.fixture(scope="module")
def expected(births):
    model = SavedModel(str(PACKAGED))
    tensors = {name: tf.constant(births[name], tf.float32) for name in NUMBERS}
    tensors |= {name: tf.constant(births[name]) for name in TEXTS}
    return model(tensors)["predictions"].numpy()


@pytest.fixture(scope="module")
def server():
    with serving(PACKAGED) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.rest, timeout=30) as found:
        yield found


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as found:
        yield found


def dump(value) -> bytes:
    """Python's own JSON, which writes the token NaN."""
    return json.dumps(value, ensure_ascii=False).encode()


def rows_of(columns, without=()):
    names = [name for name in columns if name not in without]
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]


def same(values, expected) -> bool:
    found = np.array(values, np.float32)
    return found.shape == expected.shape and bool(np.all(found.view(np.uint32) == expected.view(np.uint32)))


def post(client, path, body, **options):
    response = client.post(path, content=body, **options)
    assert response.status_code == 200, response.text[:500]
    assert response.headers["x-model-version"] == "1"
    return response


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/default:predict",
        "/v1/models/default/versions/1:predict",
        "/v1/projects/p-1/models/default:predict",
        "/v1/projects/p-1/models/default/versions/v1:predict",
        f"{GOOGLE}/default:predict",
        f"{GOOGLE}/default:rawPredict",
    ],
)
def test_rows(client, births, expected, path):
    answer = post(client, path, dump({"instances": rows_of(births)})).json()
    assert same(answer.pop("predictions"), expected)
    vertex = {
        "deployedModelId": "1",
        "model": "projects/p-1/locations/l/models/default",
        "modelDisplayName": "default",
        "modelVersionId": "1",
    }
    assert answer == (vertex if path == f"{GOOGLE}/default:predict" else {})


@pytest.mark.parametrize("path", ["/v1/models/default:predict", f"{GOOGLE}/default:rawPredict"])
def test_columns(client, births, expected, path):
    body = dump({"signature_name": "serving_default", "inputs": births})
    answer = post(client, path, body).json()
    assert answer.keys() == {"outputs"}
    assert same(answer["outputs"], expected)


def test_serialized_examples_in_base64_and_as_one_bare_input(client, births, expected):
    train = tf.train
    examples = []
    for row in rows_of(births)[:50]:
        features = {name: train.Feature(float_list=train.FloatList(value=[row[name]])) for name in NUMBERS}
        features |= {name: train.Feature(bytes_list=train.BytesList(value=[row[name].encode()])) for name in TEXTS}
        data = train.Example(features=train.Features(feature=features)).SerializeToString()
        examples.append(
            {"b64": tf.io.encode_base64(data, pad=True).numpy().decode().replace("-", "+").replace("_", "/")}
        )
    path = "/v1/models/default:predict"
    for form in ({"instances": examples}, {"instances": [{"examples": example} for example in examples]}):
        answer = post(client, path, dump({"signature_name": "serving_examples", **form})).json()
        assert same(answer["predictions"], expected[:50])
    for values in (examples, {"examples": examples}):
        answer = post(client, path, dump({"signature_name": "serving_examples", "inputs": values})).json()
        assert same(answer["outputs"], expected[:50])


def v2_tensors(births, binary=False):
    tensors, behind = [], []
    for name, values in births.items():
        tensor = {"name": name, "shape": [len(values)], "datatype": "FP32" if name in NUMBERS else "BYTES"}
        if binary:
            texts = [len(data).to_bytes(4, "little") + data for data in (str(value).encode() for value in values)]
            data = np.array(values, "<f4").tobytes() if name in NUMBERS else b"".join(texts)
            tensor["parameters"] = {"binary_data_size": len(data)}
            behind.append(data)
        else:
            tensor["data"] = values
        tensors.append(tensor)
    return tensors, b"".join(behind)


def test_open_inference_json(client, births, expected):
    tensors, _ = v2_tensors(births)
    body = dump({"id": "forty-two", "inputs": tensors, "outputs": [{"name": "predictions"}]})
    for path in ("/v2/models/default/infer", "/v2/models/default/versions/1/infer"):
        answer = post(client, path, body).json()
        (output,) = answer.pop("outputs")
        assert answer == {"model_name": "default", "model_version": "1", "id": "forty-two"}
        assert same(np.reshape(output.pop("data"), output["shape"]), expected)
        assert output == {"name": "predictions", "datatype": "FP32", "shape": list(expected.shape)}


def test_open_inference_takes_non_finite_numbers_as_text(client, births, expected):
    text = {**births, "gestation_weeks": [value if value == value else "NaN" for value in births["gestation_weeks"]]}
    answer = post(client, "/v2/models/default/infer", orjson.dumps({"inputs": v2_tensors(text)[0]})).json()
    assert same(np.reshape(answer["outputs"][0]["data"], (-1, 1)), expected)


@pytest.mark.parametrize(
    "ask",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]},
    ],
)
def test_open_inference_binary_both_ways(client, births, expected, ask):
    tensors, behind = v2_tensors(births, binary=True)
    header = dump({"inputs": tensors, **ask})
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
    response = post(client, "/v2/models/default/infer", header + behind, headers=headers)
    end = int(response.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(response.content[:end])["outputs"]
    assert output["parameters"] == {"binary_data_size": expected.nbytes}
    assert same(np.frombuffer(response.content[end:], "<f4").reshape(output["shape"]), expected)


def predict_request(births, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    if "version" in spec:
        request.model_spec.version.value = spec.pop("version")
    for key, value in spec.items():
        setattr(request.model_spec, key, value)
    for name, values in births.items():
        array = np.array(values, np.float32) if name in NUMBERS else np.array(values, object)
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def test_grpc(channel, births, expected):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for spec in ({}, {"version": 1}, {"signature_name": "serving_default"}):
        answer = stub.Predict(predict_request(births, **spec), timeout=30)
        found = tf.make_ndarray(answer.outputs["predictions"])
        assert found.dtype == np.float32
        assert same(found, expected)
        assert answer.model_spec.version.value == 1
        assert (answer.model_spec.name, answer.model_spec.signature_name) == ("default", "serving_default")


@pytest.mark.parametrize(
    ("change", "code", "telling"),
    [
        (lambda r: setattr(r.model_spec, "name", "x"), "NOT_FOUND", "Servable not found"),
        (lambda r: setattr(r.model_spec.version, "value", 7), "NOT_FOUND", r"Specific\(default, 7\)"),
        (lambda r: setattr(r.model_spec, "version_label", "x"), "INVALID_ARGUMENT", "label: x"),
        (lambda r: setattr(r.model_spec, "signature_name", "x"), "FAILED_PRECONDITION", 'key "x" not found'),
        (lambda r: r.inputs.pop("plurality"), "INVALID_ARGUMENT", "input 'plurality' is missing"),
        (lambda r: r.inputs["more"].CopyFrom(r.inputs["plurality"]), "INVALID_ARGUMENT", "no input 'more'"),
        (lambda r: r.output_filter.append("x"), "INVALID_ARGUMENT", "no output 'x'"),
        (lambda r: setattr(r.inputs["is_male"], "dtype", 1), "INVALID_ARGUMENT", "'is_male' has type DT_FLOAT"),
        (lambda r: setattr(r.inputs["plurality"], "tensor_content", b"x"), "INVALID_ARGUMENT", "input 'plurality'"),
        # One value may stand for many: not for as many as the memory holds.
        (
            lambda r: setattr(r.inputs["plurality"].tensor_shape.dim[0], "size", 2**40),
            "INVALID_ARGUMENT",
            "1,099,511,627,776 rows",
        ),
        (lambda r: r.inputs["plurality"].CopyFrom(tf.make_tensor_proto([1.0] * 2)), "INVALID_ARGUMENT", "rows, input"),
    ],
)
def test_grpc_refusals(channel, births, change, code, telling):
    request = predict_request({name: values[:3] for name, values in births.items()})
    change(request)
    with pytest.raises(grpc.RpcError, match=telling) as error:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
    assert error.value.code().name == code


def test_metadata_and_status_over_grpc(channel, client):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "default"
    response = stub.GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def.keys() == {"serving_default", "serving_examples"}
    assert signatures.signature_def["serving_default"].inputs["mother_age"].dtype == 1
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "default"
    answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=30)
    assert [(state.version, state.state) for state in answer.model_version_status] == [(1, 30)]
    status.model_spec.version.value = 3
    with pytest.raises(grpc.RpcError) as error:
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=30)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_what_is_told_over_rest(client, server):
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    whole = client.get("/v1/models/default").json()
    assert whole == {"model_version_status": [available]}
    assert client.get("/v1/models/default/versions/1").json() == {"model_version_status": [available]}
    assert client.get("/v1/models").json() == {"models": ["default"]}
    described = client.get("/v1/models/default/metadata").json()
    assert described["model_spec"] == {"name": "default", "signature_name": "", "version": "1"}
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    age = signature["inputs"]["mother_age"]
    assert age["dtype"] == "DT_FLOAT"
    assert age["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    v2 = client.get("/v2/models/default").json()
    assert (v2["versions"], v2["platform"]) == (["1"], "tensorflow_savedmodel")
    assert {"name": "mother_age", "datatype": "FP32", "shape": [-1]} in v2["inputs"]
    assert v2["outputs"] == [{"name": "predictions", "datatype": "FP32", "shape": [-1, 1]}]
    ready = ("/v2/health/live", "/v2/health/ready", "/v2/models/default/ready", "/v2", "/healthz")
    assert {client.get(path).status_code for path in ready} == {200}
    index = client.get("/").json()
    assert (index["versions"], index["grpc"]) == ([1], server.grpc)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/x", 404),
        ("/v1/models/default/versions/2", 404),
        ("/v1/models/default/versions/x/metadata", 400),
        ("/v1/models/default/labels/x", 400),
        ("/v2/models/x", 404),
        ("/v2/models/default/versions/9/ready", 404),
        ("/v2/models/default/versions/x/ready", 404),
        ("/nothing", 404),
        ("/v2/models/default/infer", 405),
    ],
)
def test_what_is_not_there(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert isinstance(response.json()["error"], str)


def test_unknown_models_in_googles_words(client):
    for path in ("/v1/projects/p/models/x:predict", "/v1/projects/p/models/default/versions/v9:predict"):
        response = client.post(path, content=b'{"instances": [1]}')
        assert response.status_code == 404
        assert response.json()["error"]["status"] == "NOT_FOUND"
    response = client.post(f"{GOOGLE}/123:predict", content=b"{}")
    assert response.json() == {"error": {"code": 404, "message": "Endpoint `123` not found.", "status": "NOT_FOUND"}}


def test_only_the_loopback_address(server):
    """127.0.0.2 is this machine as well: a server that binds all addresses would answer there."""
    for port in (int(url.rsplit(":", 1)[1]) for url in (server.rest, server.grpc)):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with socket.socket() as other:
            other.settimeout(5)
            assert other.connect_ex(("127.0.0.2", port)) != 0


def test_metrics(client, births):
    def value(name):
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0] == name)

    def counts():
        names = ('requests_total{code="200",protocol="kserve_v2"}', "rows_total", "model_calls_total")
        return [value(f"model_server_{name}") for name in (*names, "batch_rows_sum")]

    before = counts()
    body = dump({"inputs": v2_tensors({name: values[:9] for name, values in births.items()})[0]})
    post(client, "/v2/models/default/infer", body)
    assert [now - then for then, now in zip(before, counts(), strict=True)] == [1, 9, 1, 9]
    assert value('model_server_request_seconds_count{protocol="kserve_v2"}') > 0
    assert value("model_server_requests_in_flight") == 0


def test_concurrent_requests_get_their_own_rows(client, births, expected):
    def ask(at):
        rows = slice(at, at + 29)
        body = dump({"inputs": {name: values[rows] for name, values in births.items()}})
        return rows, post(client, "/v1/models/default:predict", body).json()["outputs"]

    with ThreadPoolExecutor(16) as pool:
        for rows, outputs in pool.map(ask, range(0, len(expected), 29)):
            assert same(outputs, expected[rows])


def run(*arguments):
    command = [sys.executable, "-m", "model.serve", *arguments]
    return processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_mistakes_of_the_command_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        model = ["--model", str(PACKAGED), "--port", "0"]
        for arguments, telling in [
            (["--model", str(tmp_path / "none"), "--port", "0"], "no such folder"),
            ([*model, "--signature", "serving_defalt"], "did you mean 'serving_default'?"),
            ([*model, "--port", port], f"cannot listen on 127.0.0.1 port {port}"),
            ([*model, "--grpc-port", port], f"gRPC cannot listen on 127.0.0.1 port {port}"),
            ([*model, "--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
            ([*model, "--error-kinds", "503,404"], "'404' is none of 429, 500"),
            ([*model, "--error-rate", "1.5"], "not between 0 and 1"),
            ([*model, "--label", "stable"], "NAME=VERSION"),
            ([*model, "--nonsense"], "--nonsense"),
        ]:
            result = run(*arguments)
            assert result.returncode == 2, arguments
            assert result.stdout == ""
            (line,) = result.stderr.splitlines()
            assert line.startswith("error: ")
            assert telling in line


def test_grpc_is_one_port_below():
    with bind("127.0.0.1", 0) as taken, bind("127.0.0.1", 0) as other:
        taken.listen()
        other.listen()
        port = taken.getsockname()[1]
        assert choose_grpc_port("127.0.0.1", None, port + 1, True) == 0
        assert choose_grpc_port("127.0.0.1", None, port, False) == 0
        assert choose_grpc_port("127.0.0.1", 0, port, True) == 0
        with pytest.raises(OSError, match="in use"):
            choose_grpc_port("127.0.0.1", port, 8501, True)
    assert choose_grpc_port("127.0.0.1", None, port + 1, True) == port
    assert choose_grpc_port("127.0.0.1", port, 8501, True) == port
    assert [address("::1", 1), address("127.0.0.1", 1)] == ["[::1]:1", "127.0.0.1:1"]


def test_what_is_said_when_ready(capsys):
    models = Models.of(Options("m", "births"))
    models.stores["births"]._versions = dict.fromkeys((1, 2))
    say_ready(Options("m"), models, "127.0.0.1:8501", "127.0.0.1:8500")
    expected = "ready: model births, versions 2, 1, REST http://127.0.0.1:8501, gRPC 127.0.0.1:8500\n"
    assert capsys.readouterr().out == expected
    say_ready(Options("m", json=True), models, "127.0.0.1:8501", "127.0.0.1:8500")
    assert json.loads(capsys.readouterr().out) == {
        "ready": True,
        "rest": "http://127.0.0.1:8501",
        "grpc": "127.0.0.1:8500",
        "model": "births",
        "versions": [2, 1],
        "models": {"births": [2, 1]},
    }


def test_help_needs_nothing_heavy():
    code = "import sys, model.serve; sys.exit(bool({'tensorflow', 'numpy', 'grpc', 'starlette'} & set(sys.modules)))"
    assert processes.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    said = run("--help").stdout
    assert all(option in said for option in ("--max-batch-rows", "--max-request-rows", "--allowed-host"))


def test_in_flight_requests_finish_when_told_to_stop(births, expected):
    """On ports of TensorFlow Serving's arrangement, if they are free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(PACKAGED, "--latency-ms", "1500", port=port) as server, ThreadPoolExecutor(2) as pool:
        assert server.rest == f"http://127.0.0.1:{port}"
        few = {name: values[:3] for name, values in births.items()}
        path = f"{server.rest}/v1/models/default:predict"
        over_rest = pool.submit(httpx.post, path, content=dump({"inputs": few}), timeout=30)
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            over_grpc = pool.submit(stub.Predict, predict_request(few), timeout=30)
            while "in_flight 2.0" not in httpx.get(f"{server.rest}/metrics").text:
                assert server.process.poll() is None, server.stderr
            server.process.send_signal(signal.SIGTERM)
            assert same(over_rest.result().json()["outputs"], expected[:3])
            assert same(tf.make_ndarray(over_grpc.result().outputs["predictions"]), expected[:3])
        assert server.process.wait(20) == 0, server.stderr
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.rest)
