"""Misbehaviour on purpose, limits on the number of requests, and the end of a server that is not left alone."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from model.serving.batcher import Batcher
from model.serving.errors import RequestError, invalid
from model.serving.faults import Faults, Quota
from model.serving.metrics import Metrics
from model.serving.options import ERROR_KINDS
from tests.support.serving_process import ROOT, serving
from tests.support.waiting import wait_until

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

PACKAGED = ROOT / "model" / "trained" / "v1"
PATH = "/v1/models/default:predict"
SEED = 11
COLUMNS = {
    **dict.fromkeys(("is_male", "mother_race", "mother_married", "cigarette_use", "alcohol_use"), ["True"] * 3),
    **dict.fromkeys(("mother_age", "plurality", "gestation_weeks"), [30.0] * 3),
}
BODY = json.dumps({"inputs": COLUMNS}).encode()
STALL = 0.4


def rest(client):
    """What became of a request, in one word, and the seconds that it took."""
    started = time.monotonic()
    try:
        response = client.post(PATH, content=BODY)
    except httpx.RemoteProtocolError as error:
        return "truncated" if "without sending complete message body" in str(error) else str(error), 0
    except (httpx.ReadError, httpx.WriteError):
        return "reset", 0
    seconds = time.monotonic() - started
    if response.status_code != 200:
        expected = "7" if response.status_code in (429, 503) else None
        assert response.headers.get("retry-after") == expected
        assert response.json().keys() == {"error"}
        return str(response.status_code), seconds
    if response.headers["content-type"].startswith("text/html"):
        return "html", seconds
    rows = len(response.json()["outputs"])
    return {3: "good", 2: "misaligned"}[rows], seconds


CODES = {
    "429": "RESOURCE_EXHAUSTED",
    "500": "INTERNAL",
    "503": "UNAVAILABLE",
    "reset": "UNAVAILABLE",
    "truncated": "INTERNAL",
    "html": "UNKNOWN",
}


def request():
    inputs = {
        name: tf.make_tensor_proto(np.array(values, object if values[0] == "True" else np.float32))
        for name, values in COLUMNS.items()
    }
    found = predict_pb2.PredictRequest(inputs=inputs)
    found.model_spec.name = "default"
    return found


def rpc(stub):
    started = time.monotonic()
    try:
        answer = stub.Predict(request(), timeout=120)
    except grpc.RpcError as error:
        return error.code().name, 0
    rows = answer.outputs["predictions"].tensor_shape.dim[0].size
    return {3: "good", 2: "misaligned"}[rows], time.monotonic() - started


def test_every_kind_of_fault_by_its_seed():
    """The same seed draws the same faults, here and there."""
    faults = Faults(0.9, ERROR_KINDS, SEED)
    options = ["--error-kinds", ",".join(ERROR_KINDS), "--stall-seconds", str(STALL), "--retry-after", "7"]
    met = set()
    with (
        serving(PACKAGED, "--error-rate", "0.9", "--seed", str(SEED), *options) as server,
        httpx.Client(base_url=server.rest, timeout=120) as client,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        for _ in range(60):
            drawn = faults.draw() or "good"
            found, seconds = rest(client)
            assert found == ("good" if drawn == "stall" else drawn)
            assert drawn != "stall" or seconds >= STALL
            met.add(drawn)
        assert met == {"good", *ERROR_KINDS}
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(40):
            drawn = faults.draw() or "good"
            found, seconds = rpc(stub)
            assert found == ("good" if drawn == "stall" else CODES.get(drawn, drawn))
            assert drawn != "stall" or seconds >= STALL
        # Faults are for predictions.
        assert {client.get(path).status_code for path in ("/v1/models/default", "/healthz", "/metrics")} == {200}
        assert "Traceback" not in server.stderr
        assert "failed" not in server.stderr
        counted = client.get("/metrics").text
        for code in ('code="reset",protocol="tf_serving_rest"', 'code="UNKNOWN",protocol="tf_serving_grpc"'):
            assert f"model_server_requests_total{{{code}}}" in counted


def test_quota_then_a_second_signal():
    options = ["--quota-qps", "0.01", "--retry-after", "3", "--latency-ms", "8000", "--drain-seconds", "60"]
    with (
        serving(PACKAGED, *options) as server,
        httpx.Client(base_url=server.rest, timeout=60) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(client.post, PATH, content=BODY)
        wait_until(lambda: "in_flight 1.0" in client.get("/metrics").text, "a request is worked on")
        # The delay of one request holds up no other.
        refused = client.post(PATH, content=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        assert "Quota exceeded" in refused.json()["error"]
        google = client.post("/v1/projects/p/models/default:predict", content=BODY).json()["error"]
        assert (google["code"], google["status"]) == (429, "RESOURCE_EXHAUSTED")
        with grpc.insecure_channel(server.grpc) as channel:
            assert rpc(prediction_service_pb2_grpc.PredictionServiceStub(channel)) == ("RESOURCE_EXHAUSTED", 0)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 1
        assert "stopped at once" in server.stderr
        assert isinstance(first.exception(120), httpx.TransportError)


def test_quota_by_the_clock():
    now = [0.0]
    quota = Quota(50, lambda: now[0])
    assert [quota.take() for _ in range(7)] == [True] * 5 + [False] * 2
    now[0] = 0.02
    assert [quota.take() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert sum(quota.take() for _ in range(9)) == 5
    slow = Quota(0.1, lambda: now[0])
    assert [slow.take(), slow.take()] == [True, False]
    assert all(Quota(None).take() for _ in range(100))


def test_faults_by_rate():
    assert {Faults(0, ("503",), 1).draw() for _ in range(100)} == {None}
    assert {Faults(1, ("503",), 1).draw() for _ in range(100)} == {"503"}
    faults = Faults(0.3, ("429", "503"), 1)
    drawn = [faults.draw() for _ in range(3_000)]
    assert 800 < sum(kind is not None for kind in drawn) < 1_000
    assert min(drawn.count("429"), drawn.count("503")) > 350


class Slow:
    """Stands in for a servable: takes a while, doubles, and fails on a negative number."""

    joinable = True

    def __init__(self):
        self.calls = []
        self.free = threading.Event()

    def __call__(self, arrays):
        self.calls.append(arrays["x"].tolist())
        assert self.free.wait(120)
        if (arrays["x"] < 0).any():
            raise invalid("negative")
        return {"y": arrays["x"] * 2}


async def gathered(batcher, slow, values):
    tasks = [asyncio.ensure_future(batcher(slow, {"x": np.array(value)}, len(value))) for value in values]
    await asyncio.sleep(0.05)
    slow.free.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    batcher.close()
    return [result["y"].tolist() if isinstance(result, dict) else str(result) for result in results]


def run(values, threads=1, max_rows=4, max_queue_rows=100):
    slow = Slow()

    async def main():
        return await gathered(Batcher(threads, max_rows, 0, max_queue_rows, Metrics()), slow, values)

    return asyncio.run(main()), slow.calls


def test_only_what_waits_is_joined():
    results, calls = run([[1], [2], [3, 4], [5], [6] * 9, [7]])
    assert results == [[2], [4], [6, 8], [10], [12] * 9, [14]]
    # The first finds the model free; a request beyond the limit goes alone.
    assert calls == [[1], [2, 3, 4, 5], [6] * 9, [7]]
    assert run([[1], [2], [3]], max_rows=1)[1] == [[1], [2], [3]]
    assert sorted(run([[1], [2], [3]], threads=2)[1]) == [[1], [2], [3]]


def test_a_joined_failure_is_found_out_one_by_one():
    results, calls = run([[1], [2], [-3], [4]])
    assert results == [[2], [4], "negative", [8]]
    assert calls == [[1], [2, -3, 4], [2], [-3], [4]]


def test_other_inner_shapes_and_types_are_not_joined():
    _, calls = run([[1], [[1, 2]], [[3, 4]], [1.5], [2]])
    assert calls == [[1], [[1, 2], [3, 4]], [1.5], [2]]


def test_a_full_queue_refuses():
    results, _ = run([[1], [2] * 60, [3] * 60, [4] * 40], max_queue_rows=100)
    assert results == [
        [2],
        [4] * 60,
        "60 rows wait for the model already, and --max-queue-rows allows 100; come again",
        [8] * 40,
    ]


def test_who_has_gone_is_not_predicted():
    slow = Slow()

    async def main():
        batcher = Batcher(1, 1, 0, 100, Metrics())
        tasks = [asyncio.ensure_future(batcher(slow, {"x": np.array([n])}, 1)) for n in (1, 2, 3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        slow.free.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        return results

    results = asyncio.run(main())
    assert isinstance(results[1], asyncio.CancelledError)
    assert slow.calls == [[1], [3]]


def test_too_much_held_at_a_time():
    from model.serving.options import Options
    from model.serving.service import Service

    service = Service(Options("m", max_body_bytes=100), models=None)
    for _ in range(16):
        service.hold(100)
    with pytest.raises(RequestError, match="too many large requests"):
        service.hold(1)
    service.hold(-101)
    service.hold(100)
