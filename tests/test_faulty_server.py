"""The proxies that fail on purpose: each fault is the one it is called, and the log tells of it."""

from __future__ import annotations

import errno
import json
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
import pytest

from tests.servers.faulty import HTTP_KINDS, Faults, faulty_http
from tests.servers.faulty_grpc import GRPC_KINDS, faulty_grpc
from tests.servers.misaligned import without_last_prediction, without_last_row
from tests.support.waiting import wait_until

PREDICT = "/tensorflow.serving.PredictionService/Predict"
LOST = ("ReadError", "RemoteProtocolError")
NOT_PREDICTED = {"quota", "quota_retry_after", "unavailable", "reset_before", "reset_after", "stall", "html"}


class Doubler(BaseHTTPRequestHandler):
    """Predicts twice each instance; refuses negative ones."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    predicted: list[list[float]] = []

    def do_GET(self) -> None:
        self.answer(200, {"state": "AVAILABLE"})

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        if min(rows) < 0:
            return self.answer(400, {"error": "a negative age"})
        self.predicted.append(rows)
        self.answer(200, {"predictions": [2 * row for row in rows]})

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[str]:
    Doubler.predicted = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Doubler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def ask(client: httpx.Client, url: str, *rows: float) -> str:
    """What came of a request: the predictions, a status, or the class of an exception."""
    try:
        answer = client.post(f"{url}/v1/models/m:predict", json={"instances": rows})
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.headers.get('retry-after', '')}".strip()
        return json.dumps(answer.json()["predictions"])
    except (httpx.HTTPError, ValueError) as error:
        return f"{type(error).__name__} {error}"


@pytest.mark.parametrize("kind", HTTP_KINDS)
def test_each_http_fault_is_the_one_it_is_called(upstream: str, kind: str) -> None:
    faults = Faults(rate=1, kinds=(kind,), stall_seconds=5, retry_after=7)
    with faulty_http(upstream, faults) as proxy, httpx.Client(timeout=0.3) as client:
        outcome = ask(client, proxy.url, 1, 2, 3)
    expected: dict[str, str | tuple[str, ...]] = {
        "quota": "429",
        "quota_retry_after": "429 7",
        "unavailable": "503",
        # If the reset comes while the body is sent, httpx goes on to read, and finds nothing.
        "reset_before": ("ReadError", "RemoteProtocolError Server disconnected"),
        "reset_after": f"ReadError [Errno {errno.ECONNRESET}]",
        "answer_lost": f"ReadError [Errno {errno.ECONNRESET}]",
        "stall": "ReadTimeout timed out",
        "truncated": "RemoteProtocolError peer closed connection",
        "misaligned": "[2, 4]",
        "html": "JSONDecodeError Expecting value",
    }
    assert outcome.startswith(expected[kind])
    assert proxy.log == {kind: 1}
    assert Doubler.predicted == ([] if kind in NOT_PREDICTED else [[1, 2, 3]])


def test_what_does_not_fail_is_passed_on_as_it_is(upstream: str) -> None:
    with faulty_http(upstream, Faults(rate=0)) as proxy, httpx.Client() as client:
        answer = client.post(f"{proxy.url}/v1/models/m:predict", json={"instances": [-1]})
        assert (answer.status_code, answer.json()) == (400, {"error": "a negative age"})
        assert ask(client, proxy.url, *range(100_000)) == json.dumps(list(range(0, 200_000, 2)))
    assert proxy.log == {"passed": 2}


def test_a_seed_is_a_schedule_and_metadata_never_fails(upstream: str) -> None:
    def run(seed: int) -> list[str]:
        faults = Faults(seed, rate=0.4, kinds=tuple(HTTP_KINDS.keys() - {"stall"}))
        with faulty_http(upstream, faults) as proxy, httpx.Client() as client:
            outcomes = [ask(client, proxy.url, row, row) for row in range(60)]
            assert all(client.get(proxy.url).is_success for _ in range(10))
        assert proxy.requests == sum(proxy.log.values()) == 60
        assert all(proxy.log[kind] >= 1 for kind in proxy.faults.kinds)
        assert 10 <= 60 - proxy.log["passed"] <= 40
        # How a lost connection shows is a matter of timing.
        return ["lost" if outcome.startswith(LOST) else outcome for outcome in outcomes]

    assert run(1) == run(1) != run(2)


def test_a_server_dies_and_comes_back_on_the_same_port(upstream: str) -> None:
    faults = Faults(rate=0, die_at=(3,), down_seconds=0.3)
    with faulty_http(upstream, faults) as proxy, httpx.Client() as client, httpx.Client() as idle:
        assert [ask(idle, proxy.url, 1), ask(client, proxy.url, 1)] == ["[2]", "[2]"]
        assert ask(client, proxy.url, 1).startswith(LOST)
        assert ask(client, proxy.url, 1).startswith("ConnectError")
        assert ask(idle, proxy.url, 1).startswith(("ConnectError", *LOST))
        wait_until(lambda: ask(client, proxy.url, 1) == "[2]", "the server is back")
    assert proxy.log == {"passed": 3, "died": 1, "came_back": 1}
    assert proxy.requests == 4


@pytest.mark.parametrize(
    ("stall", "patience", "expected"), [(0.2, 5, "RemoteProtocolError Server disconnected"), (5, 0.2, "ReadTimeout")]
)
def test_stalled_requests_are_open_until_either_side_gives_up(
    upstream: str, stall: float, patience: float, expected: str
) -> None:
    faults = Faults(rate=1, kinds=("stall",), stall_seconds=stall)
    client = httpx.Client(timeout=patience)
    with faulty_http(upstream, faults) as proxy, client, ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda row: ask(client, proxy.url, row), range(12)))
    assert all(outcome.startswith(expected) for outcome in outcomes)
    assert proxy.log == {"stall": 12}
    assert proxy.most_at_once == 4


def test_unknown_faults_are_refused(upstream: str) -> None:
    with (
        pytest.raises(ValueError, match="no such faults: \\['typo'\\]"),
        faulty_http(upstream, Faults(kinds=("typo",))),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "less"),
    [
        ({"predictions": [1, [2]]}, {"predictions": [1]}),
        ({"outputs": {"a": [1, 2], "b": ["x", "y"]}}, {"outputs": {"a": [1], "b": ["x"]}}),
        ({"outputs": [1, 2]}, {"outputs": [1]}),
        (
            {"outputs": [{"name": "a", "datatype": "FP32", "shape": [3, 2], "data": [1, 2, 3, 4, 5, 6]}]},
            {"outputs": [{"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]},
        ),
        ({"predictions": []}, None),
        ({"error": "a negative age"}, None),
    ],
)
def test_an_answer_loses_its_last_row(answer: dict[str, Any], less: dict[str, Any] | None) -> None:
    shortened = without_last_prediction(json.dumps(answer).encode())
    assert (shortened and json.loads(shortened)) == less


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def response_of(*values: float, packed: bool = True) -> bytes:
    """A PredictResponse, by hand: output `predictions` of DT_FLOAT, and a model_spec."""
    shape = field(2, field(2, bytes([1 << 3, len(values)])))
    floats = struct.pack(f"<{len(values)}f", *values)
    tensor = bytes([1 << 3, 1]) + shape + field(5 if packed else 4, floats)
    return field(1, field(1, b"predictions") + field(2, tensor)) + field(2, field(1, b"m"))


@pytest.mark.parametrize("packed", [True, False])
def test_a_message_loses_its_last_row(packed: bool) -> None:
    assert without_last_row(response_of(1, 2, 3, packed=packed)) == response_of(1, 2, packed=packed)
    assert without_last_row(field(2, b"")) is None


class Service(grpc.GenericRpcHandler):
    """Predicts what is asked, one float a byte; refuses an empty request."""

    def __init__(self) -> None:
        self.predicted: list[bytes] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if not request:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no rows")
            self.predicted.append(request)
            return response_of(*request)

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def service() -> Iterator[tuple[str, Service]]:
    handler = Service()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", handler
    server.stop(None).wait()


def call(channel: grpc.Channel, request: bytes, timeout: float = 5, method: str = PREDICT) -> str | bytes:
    """What came of a call: the message, or the name of its status."""
    try:
        return bytes(channel.unary_unary(method)(request, timeout=timeout))
    except grpc.RpcError as error:
        return str(error.code().name)


@pytest.mark.parametrize("kind", GRPC_KINDS)
def test_each_grpc_fault_is_the_one_it_is_called(service: tuple[str, Service], kind: str) -> None:
    faults = Faults(rate=1, kinds=(kind,), stall_seconds=5)
    with faulty_grpc(service[0], faults) as proxy, grpc.insecure_channel(proxy.url) as channel:
        outcome = call(channel, b"\1\2\3", 0.5 if kind == "stall" else 5)
        assert call(channel, b"", method="/tensorflow.serving.PredictionService/Other") == "INVALID_ARGUMENT"
    expected = {
        "unavailable": "UNAVAILABLE",
        "quota": "RESOURCE_EXHAUSTED",
        "stall": "DEADLINE_EXCEEDED",
        "answer_lost": "UNAVAILABLE",
        "truncated": response_of(1, 2, 3)[:-1],
        "misaligned": response_of(1, 2),
    }
    assert outcome == expected[kind]
    assert proxy.log == {kind: 1}
    assert service[1].predicted == ([b"\1\2\3"] if kind in ("answer_lost", "truncated", "misaligned") else [])


def test_a_grpc_server_dies_and_comes_back_on_the_same_port(service: tuple[str, Service]) -> None:
    faults = Faults(rate=0, die_at=(2,), down_seconds=0.3)
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
    with faulty_grpc(service[0], faults) as proxy, grpc.insecure_channel(proxy.url, options) as channel:
        assert call(channel, b"\1") == response_of(1)
        assert call(channel, b"\1") == "UNAVAILABLE"
        assert call(channel, b"\1") == "UNAVAILABLE"
        outcome = wait_until(lambda: (got := call(channel, b"\1")) != "UNAVAILABLE" and got, "the server is back")
        assert outcome == response_of(1)
    assert proxy.log == {"passed": 2, "died": 1, "came_back": 1}
    assert len(service[1].predicted) == 2
