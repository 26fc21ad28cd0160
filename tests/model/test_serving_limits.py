"""Small requests that would take much memory or time, and errors that would repeat what they refuse."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.serving import limits as limits_module
from model.serving.batcher import Batcher
from model.serving.errors import MESSAGE_CHARACTERS, RequestError, Status, brief
from model.serving.limits import Limits, check_sizes, string_bytes
from model.serving.metrics import Metrics
from model.serving.options import Options
from model.specs import TensorSpec
from tests.support.serving_process import ROOT, serving

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

PATH = "/v1/models/default:predict"
INFER = "/v2/models/default/infer"
NUMBERS = ("mother_age", "plurality", "gestation_weeks")
TEXTS = ("is_male", "mother_race", "mother_married", "cigarette_use", "alcohol_use")
MIB = 2**20
MOST_MIB = 400
"""What the server's peak may grow by, over all of these tests; each bomb took gigabytes."""


def peak_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


@pytest.fixture(scope="module")
def server():
    with serving(ROOT / "model" / "trained" / "v1", "--max-body-mb", "16") as found:
        before = peak_mib(found.process.pid)
        yield found
        assert found.process.poll() is None, found.stderr
        assert peak_mib(found.process.pid) - before < MOST_MIB
        assert max(map(len, found.stderr.splitlines()), default=0) <= MESSAGE_CHARACTERS


def refusal(server, body, path=PATH, **options):
    response = httpx.post(server.rest + path, content=body, timeout=60, **options)
    error = response.json()["error"]
    assert len(error) <= MESSAGE_CHARACTERS
    assert error.isprintable()
    return response.status_code, error


def filled(rows, text=b"x"):
    """A request that says one value for all rows of each input."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    for name in NUMBERS:
        request.inputs[name].dtype = 1
        request.inputs[name].float_val.append(30)
    for name in TEXTS:
        request.inputs[name].dtype = 7
        request.inputs[name].string_val.append(text)
    for tensor in request.inputs.values():
        tensor.tensor_shape.dim.add(size=rows)
    return request


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        (lambda r: None, "200,000,000 rows, and --max-request-rows allows 262,144; send fewer"),
        (lambda r: r.inputs["plurality"].tensor_shape.dim.add(size=2), "200,000,000 rows, and"),
        (lambda r: r.inputs["plurality"].tensor_shape.dim[0].__setattr__("size", -1), "a size is 0 or more"),
        (lambda r: r.inputs["plurality"].tensor_shape.dim[0].__setattr__("size", 2**62), "beyond any memory"),
        (lambda r: [r.inputs["plurality"].tensor_shape.dim.add() for _ in range(99)], "more than 32 dimensions"),
        (lambda r: setattr(r.inputs["plurality"].tensor_shape, "unknown_rank", True), "unknown rank"),
        (lambda r: r.CopyFrom(filled(3000, b"x" * MIB)), "bytes as arrays, and 67,108,864 are allowed"),
        (lambda r: setattr(r.model_spec, "name", "x\n\x1b" * 10**6), r"x\n\x1b"),
        (lambda r: r.inputs["x" * 10**6].CopyFrom(r.inputs["plurality"]), "no input 'xxx"),
        (lambda r: r.output_filter.append("x" * 10**6), "no output 'xxx"),
    ],
)
def test_a_message_that_says_more_than_it_holds(server, change, telling):
    request = filled(200_000_000)
    change(request)
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    assert error.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert telling in error.value.details()
    assert len(error.value.details()) <= MESSAGE_CHARACTERS


def test_what_is_no_message_or_too_large_when_decompressed(server):
    with grpc.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for data, compression, code in [
            (b"\xff" * 1000, None, "INVALID_ARGUMENT"),
            (b"\xff" * 100_000, None, "INVALID_ARGUMENT"),
            (bytes(100 * MIB), grpc.Compression.Gzip, "RESOURCE_EXHAUSTED"),
        ]:
            with pytest.raises(grpc.RpcError) as error:
                call(data, timeout=60, compression=compression)
            assert error.value.code().name == code


def test_one_value_for_as_many_rows_as_are_taken(server):
    with grpc.insecure_channel(server.grpc) as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(filled(10_000), timeout=60)
    assert len(answer.outputs["predictions"].float_val) == 10_000


SIZE = 15 * MIB


@pytest.mark.parametrize(
    ("body", "telling"),
    [
        (b'{"instances":[' + b"[]," * (SIZE // 3) + b"[]]}", "more than 2,097,152 lists, objects and members"),
        (b'{"instances":[' + b"{}," * (SIZE // 3) + b"{}]}", "more than 2,097,152 lists"),
        (b'{"instances":[NaN,' + b"[]," * (SIZE // 3) + b"[]]}", "more than 2,097,152 lists"),
        (b'{"instances":[{' + b'"":1,' * (SIZE // 5) + b'"":1}]}', "more than 2,097,152 lists"),
        (b'{"instances":[' + b"1," * 300_000 + b"1]}", "300,001 rows, and --max-request-rows"),
    ],
)
def test_json_that_would_be_much_larger_in_memory(server, body, telling):
    for path in (PATH, "/v1/projects/p/models/default:predict"):
        response = httpx.post(server.rest + path, content=body, timeout=60)
        assert response.status_code == 413
        error = response.json()["error"]
        assert telling in (error["message"] if isinstance(error, dict) else error)
    if "lists" in telling:
        assert refusal(server, body, INFER)[0] == 413


def v2(**changes):
    return json.dumps({"inputs": [{"name": "mother_age", "datatype": "FP32", "shape": [1], "data": [1], **changes}]})


@pytest.mark.parametrize(
    ("body", "telling"),
    [
        (v2(shape=[2**31 - 1] * 10**6), "more than 32 dimensions"),
        (v2(shape=[2**31 - 1] * 32), "beyond any memory"),
        (v2(shape=[0, *[2**31 - 1] * 10]), "beyond any memory"),
        (v2(shape=[-1]), "has no shape"),
        (v2(shape=[2**63]), "has no shape"),
        (v2(shape=[1e300]), "has no shape"),
        (v2(datatype="FP" * 10**6), "the model takes FP32"),
        (v2(name="x" * 10**6), "it has alcohol_use"),
        (json.dumps({"id": "x" * 2000, **json.loads(v2())}), "input 'alcohol_use'"),
        ('{"inputs": [], "x": ' + "[" * 5000 + "]" * 5000 + "}", "not JSON"),
        ('{"inputs": [NaN], "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"inputs": [NaN], "x": ' + "1" * 10**6 + "}", "not JSON"),
        ('{"inputs": [' + "1" * 10**6 + "]}", "not JSON"),
    ],
)
def test_wrong_tensors_and_json_that_is_costly_to_read(server, body, telling):
    status, error = refusal(server, body.encode(), INFER)
    assert status == 400
    assert telling in error


@pytest.mark.parametrize("given", ["x" * 1025, "a\nb", "\ud800", 2**70, {"a": 1}])
def test_an_id_is_a_short_text(server, given):
    """It is repeated in good answers."""
    tensors = [{"name": name, "datatype": "FP32", "shape": [1], "data": [30]} for name in NUMBERS]
    tensors += [{"name": name, "datatype": "BYTES", "shape": [1], "data": ["a"]} for name in TEXTS]
    body = {"inputs": tensors, "x": float("nan")}
    assert httpx.post(server.rest + INFER, content=json.dumps({**body, "id": "x" * 1024})).status_code == 200
    assert httpx.post(server.rest + INFER, content=json.dumps({**body, "id": None})).status_code == 200
    status, error = refusal(server, json.dumps({**body, "id": given}).encode(), INFER)
    assert (status, "'id' is not a printable string" in error) == (400, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, json.dumps({"signature_name": "\x1b[31m" * 10**6})),
        (PATH, json.dumps({"inputs": {"\x1b" * 10**6: 1}})),
        (PATH, json.dumps({"inputs": {f"x{n}" * 100: 1 for n in range(1000)}})),
        (PATH, json.dumps({"instances": [{"x" * 10**6: 1}]})),
        (f"/v1/models/{'x' * 10_000}:predict", "{}"),
        (f"/v1/models/default/labels/{'%1b' * 4000}:predict", "{}"),
        (f"/v2/models/default/versions/{'9' * 10_000}/infer", "{}"),
        (f"/{'%0a' * 5000}", "{}"),
    ],
)
def test_errors_repeat_little_of_the_request(server, path, body):
    assert refusal(server, body.encode(), path)[0] in (400, 404)


def status_of(server, head):
    """The status of the answer to a raw request; None if the connection is closed while it is sent."""
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{{}}".encode())
            return int(connection.recv(4096)[9:12])
        except OSError:
            return None


def test_heads_and_lengths(server):
    for head in (f"x: {'y' * 2 * MIB}\r\n", f"x: {'y' * 100}\r\n" * 20_000):
        assert status_of(server, head) in (400, None)
    for length in ("9" * 5000, "-1", "1_0", "+2", "2, 3", "2\r\nContent-Length: 3"):
        assert status_of(server, f"Content-Length: {length}\r\n") == 400
    assert status_of(server, f"Content-Length: {10**15}\r\n") == 413
    twice = [("content-encoding", "identity"), ("content-encoding", "gzip")]
    status, error = refusal(server, b"{}", headers=twice)
    assert (status, "send the body as it is" in error) == (415, True)
    huge = {"inference-header-content-length": "9" * 5000}
    assert "not a length within the body" in refusal(server, b"{}", INFER, headers=huge)[1]


def test_many_strings_for_few_rows(server):
    """Each is four bytes on the way and more in memory: one more than the shape has is enough."""
    tensor = {"name": "is_male", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8 * MIB}}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    status, error = refusal(server, header + bytes(8 * MIB), INFER, headers=headers)
    assert (status, "more than the 1 strings of its shape" in error) == (400, True)


def limits(**changes):
    return Limits.of(Options("m", max_body_bytes=8000, **changes))


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}:,"\\ab\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='[{:"\\'), inner),
    max_leaves=30,
)


def items(value):
    if isinstance(value, list):
        return 1 + sum(map(items, value))
    return 1 + len(value) + sum(map(items, value.values())) if isinstance(value, dict) else 0


@given(JSON, st.integers(1, 9))
def test_items_are_counted_outside_of_strings(value, block):
    body = json.dumps(value).encode()
    before = limits_module._BLOCK
    limits_module._BLOCK = block
    try:
        assert limits_module._items_outside_strings(body) == items(value)
    finally:
        limits_module._BLOCK = before


def test_text_with_brackets_is_no_list():
    limits().check_json(json.dumps(["[{:" * 2000]).encode())
    limits().check_json(b"[" * 1000)
    with pytest.raises(RequestError, match="more than 1,000 lists"):
        limits().check_json(b"[" * 1001)


def test_sizes():
    spec = TensorSpec("x", "float32", None)
    for shape in ([], [0], [1] * 32, [0, 2**59], [2**30, 2**29]):
        check_sizes(shape, spec)
    for shape in ([1] * 33, [-1], [0, -1], [2**30, 2**30], [0, 2**30, 2**30]):
        with pytest.raises(RequestError, match="'x' has"):
            check_sizes(shape, spec)
        assert math.prod(shape) < 2**60 or len(shape) == 2
    assert string_bytes([3], [b"a", b"b", b"c"]) == 72
    assert string_bytes([3], [b"a", b"bb"]) == 74
    assert string_bytes([3], []) == 72
    assert string_bytes([2, 3], [b"x" * 100]) == 6 * 24 + 500


def test_rows_and_bytes_of_a_request():
    limits(max_request_rows=10).check_rows(10)
    limits().check_input_bytes(32_000)
    for check, value, option in [("rows", 11, "--max-request-rows"), ("input_bytes", 32_001, "--max-body-mb")]:
        with pytest.raises(RequestError, match=option) as error:
            getattr(limits(max_request_rows=10), f"check_{check}")(value)
        assert error.value.status is Status.TOO_LARGE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a value", "a value"),
        ("é 黒人", "é 黒人"),
        ("a\r\nb\x1b[0m\x7f\u202e\ud800", r"a\r\nb\x1b[0m\x7f\u202e\ud800"),
        ("a" * 500, "a" * 500),
    ],
)
def test_messages_are_brief(text, shown):
    assert brief(text) == shown
    assert str(RequestError(Status.INVALID, text)) == shown


@pytest.mark.parametrize("text", ["the value " + "x" * 10**6 + " is wrong; send another", "\x1b" * 10**6])
def test_the_end_of_a_long_message_is_kept(text):
    assert len(brief(text)) == MESSAGE_CHARACTERS
    assert brief(text).isprintable()
    assert brief(text)[:4] == brief(text[:100])[:4]
    assert brief(text)[-10:] == brief(text[-100:])[-10:]


def test_a_batch_has_limits_for_the_first_request_and_in_bytes():
    """A request that could never wait is refused for good, one that cannot wait now is to come again."""
    calls = []

    class Servable:
        joinable = True

        def __call__(self, arrays):
            calls.append(len(arrays["x"]))
            return {"y": arrays["x"]}

    async def main():
        batcher = Batcher(1, 100, 0, 30, Metrics(), max_bytes=64, max_queue_bytes=160)
        servable = Servable()
        with pytest.raises(RequestError, match="31 rows, and --max-queue-rows allows 30; send fewer") as error:
            await batcher(servable, {"x": np.zeros(31)}, 31)
        assert error.value.status is Status.TOO_LARGE
        sizes = [1, 4, 4, 4, 8, 1]
        tasks = [asyncio.ensure_future(batcher(servable, {"x": np.zeros(rows)}, rows)) for rows in sizes]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        return [len(result["y"]) if isinstance(result, dict) else str(result) for result in results]

    results = asyncio.run(main())
    assert results[:5] == [1, 4, 4, 4, 8]
    assert results[5] == "inputs of 160 bytes wait for the model already, and 160 may; come again"
    assert calls == [1, 8, 4, 8]
