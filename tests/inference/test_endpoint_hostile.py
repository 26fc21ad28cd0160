"""Servers that hold up, flood or mislead whoever asks them: each request ends in time, and in bounded memory."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from inference import Endpoint, Target
from inference.endpoint.protocols import protocol_class
from inference.endpoint.protocols.base import Request, Response
from inference.endpoint.protocols.tf_serving_grpc import TFServingGrpc
from inference.endpoint.remote_signature import ask_signature
from inference.endpoint.retries import ModelServerRetries
from inference.endpoint.secrets import FixedHeaders
from inference.endpoint.transports import MAX_ERROR_BYTES, Connection, GrpcTransport, HttpTransport
from inference.errors import EndpointConfigError, EndpointError, ResponseError, TransientError
from model.cloud.errors import ServiceError
from model.cloud.rest import RestApi
from model.secrets import Secret
from model.specs import TensorSpec
from tests.servers.raw import OK, drips, grpc_answers, raw_server, read_request, sends
from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent.parent
HANGS_AFTER_S = 30
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def http(server: str, *, timeout_s: float = 0.3, body: bytes = b"{}", secure: bool = False) -> Response:
    """One request, in a thread: a test that waits for good would tell nothing."""
    transport = HttpTransport(Connection(FixedHeaders({}), timeout_s=timeout_s), server)
    request = Request(f"http{'s' if secure else ''}://{server}/v1/models/m:predict?x=y", body)
    worker = ThreadPoolExecutor(1)
    try:
        return worker.submit(transport.send, request, lambda said: said.body.decode()).result(HANGS_AFTER_S)
    finally:
        worker.shutdown(wait=False)
        transport.close()


def answer(head: bytes, body: bytes) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


# One deadline ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "piece"),
    {
        "status line": (b"HTTP/1.1 200 ", b"O"),
        "headers": (OK, b"a: b\r\n"),
        "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "length of a chunk": (CHUNKED, b"0"),
        "extension of a chunk": (CHUNKED + b"1;", b"x"),
        "chunks": (CHUNKED, b"1\r\nx\r\n"),
        "trailers": (CHUNKED + b"0\r\n", b"x: y\r\n"),
        "body": (OK + b"content-length: 1000000\r\n\r\n", b" "),
        "body of an error": (b"HTTP/1.1 500 x\r\ncontent-length: 1000000\r\n\r\n", b" "),
        "body without end": (OK + b"\r\n", b" "),
    }.values(),
    ids=lambda value: repr(value)[-20:],
)
def test_a_server_that_sends_a_little_now_and_then(start: bytes, piece: bytes) -> None:
    with raw_server(drips(start, piece)) as server, pytest.raises(TransientError, match="no answer in time"):
        http(server)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, b"HTTP/1.1 103 -\r\na: b\r\n\r\n"])
def test_a_server_that_sends_answers_before_the_answer_without_end(piece: bytes) -> None:
    with raw_server(drips(b"", piece, 0)) as server, pytest.raises(TransientError, match="no answer in time"):
        http(server)


def test_a_server_that_takes_a_request_a_little_at_a_time() -> None:
    def act(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(1024):
            time.sleep(0.02)

    with raw_server(act) as server, pytest.raises(TransientError, match=r"no answer in time \(WriteTimeout"):
        http(server, body=bytes(64 << 20))


def test_a_server_that_shakes_hands_slowly() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00\x02")
        while True:
            time.sleep(0.05)
            connection.sendall(b"\x00")

    with raw_server(act) as server, pytest.raises(TransientError, match=r"no answer in time"):
        http(server, secure=True)


def test_a_request_that_is_late_does_not_hurt_the_next_one() -> None:
    """The connection of the one is not used for the other."""
    answers = [drips(OK, b"a: b\r\n"), sends(answer(OK, b"{}"))]
    with raw_server(lambda connection: answers.pop(0)(connection)) as server:
        transport = HttpTransport(Connection(FixedHeaders({}), timeout_s=0.5), server)
        request = Request(f"http://{server}/", b"{}")
        with pytest.raises(TransientError):
            transport.send(request, lambda said: "")
        assert [transport.send(request, lambda said: "").body for _ in range(2)] == [b"{}"] * 2
        transport.close()
    assert answers == []


def test_a_grpc_server_that_never_answers() -> None:
    gone = threading.Event()

    def act(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            connection.sendall(bytes(2) + b"\x08\x06" + bytes(13))  # a PING
        gone.set()

    with raw_server(act) as server:
        transport = GrpcTransport(Connection(FixedHeaders({}), timeout_s=0.5), server, secure=False)
        with pytest.raises(TransientError, match=r"DEADLINE_EXCEEDED|UNAVAILABLE"):
            transport.send(Request("/s/m", b""), lambda said: "")
        transport.close()
        assert gone.wait(HANGS_AFTER_S)


@pytest.mark.parametrize("protocol", ["tf_serving_rest", "kserve_v2"])
def test_a_server_that_tells_its_signature_slowly(protocol: str) -> None:
    with raw_server(drips(OK, b"a: b\r\n")) as server, pytest.raises(TransientError, match="no answer in time"):
        ask_signature(
            Endpoint(
                protocol,
                Target(url=f"http://{server}", model="m"),
                timeout_s=0.3,
                retry_limits=ModelServerRetries(2, 60),
            )
        )


def test_a_signature_without_end() -> None:
    body = b'{"metadata": {"signature_def": {}, "x": "' + b"x" * (17 << 20) + b'"}}'
    with raw_server(sends(answer(OK, body))) as server, pytest.raises(ResponseError, match="more than 16 MiB"):
        ask_signature(
            Endpoint("tf_serving_rest", Target(url=f"http://{server}"), retry_limits=ModelServerRetries(1, 60))
        )


def test_a_cloud_service_that_answers_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.cloud.rest._TIMEOUT_S", 0.1)
    with raw_server(drips(OK, b"a: b\r\n")) as server:
        api = RestApi(f"http://{server}", None, timeout=60, tell=lambda line: None, sleep=lambda seconds: None)
        with pytest.raises(ServiceError, match="Timeout"):
            api.get("v1/x")
        api.close()


# Sizes ----------------------------------------------------------------------------------------------------------------


def deflated(mebibytes: int, inner: bytes | None = None) -> bytes:
    """Zeros as gzip."""
    packed = zlib.compressobj(1, wbits=31)
    return b"".join([*(packed.compress(bytes(1 << 20)) for _ in range(mebibytes)), packed.flush()])


@pytest.mark.parametrize(
    "encoding", ["gzip, gzip", "gzip", "deflate", "br", "zstd", "x-gzip", "GZIP", "identity, gzip"]
)
def test_an_answer_that_is_compressed_is_refused_before_it_is_unpacked(encoding: str) -> None:
    body = gzip.compress(deflated(64)) if encoding == "gzip, gzip" else deflated(1)
    content = answer(OK + b"content-encoding: " + encoding.encode() + b"\r\n", body)
    with raw_server(sends(content)) as server:
        with pytest.raises(EndpointConfigError, match=r"compressed \(Content-Encoding.*turn compression off"):
            http(server)
        api = RestApi(f"http://{server}", None, timeout=60, tell=lambda line: None)
        with pytest.raises(ServiceError, match=r"compressed \(Content-Encoding"):
            api.get("v1/x")
        api.close()


def test_no_compression_is_asked_for() -> None:
    heads: list[bytes] = []

    def act(connection: socket.socket) -> None:
        heads.append(read_request(connection))
        connection.sendall(answer(OK + b"content-encoding: identity\r\nconnection: close\r\n", b'{"ok": 1}'))

    with raw_server(act) as server:
        assert http(server).body == b'{"ok": 1}'
        api = RestApi(f"http://{server}", None, timeout=60, tell=lambda line: None)
        assert api.get("v1/x") == {"ok": 1}
        api.close()
    assert [b"\r\naccept-encoding: identity\r\n" in head.lower() + b"\r\n" for head in heads] == [True, True]


def test_a_compressed_error_keeps_its_status() -> None:
    content = answer(b"HTTP/1.1 429 x\r\ncontent-encoding: gzip\r\n", deflated(1))
    with raw_server(sends(content)) as server, pytest.raises(TransientError, match="429: the answer is compressed"):
        http(server)


@pytest.mark.parametrize(
    "content",
    {
        "headers": OK + b"a: " + b"b" * (1 << 20) + b"\r\n\r\n",
        "many headers": OK + b"a: b\r\n" * 100_000 + b"\r\n",
        "trailers": CHUNKED + b"0\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
        "extension": CHUNKED + b"1;" + b"x" * (1 << 20) + b"\r\nx\r\n0\r\n\r\n",
        "transfer coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "length": CHUNKED + b"f" * 100 + b"\r\n",
    }.values(),
    ids=lambda content: repr(content[-40:]),
)
def test_an_answer_around_which_there_is_too_much(content: bytes) -> None:
    with raw_server(sends(content)) as server, pytest.raises(ResponseError, match="breaks off"):
        http(server, timeout_s=20)


def test_an_answer_that_announces_too_much_is_not_read() -> None:
    content = OK + b"content-length: %d\r\n\r\n" % (1 << 40)
    with raw_server(sends(content)) as server, pytest.raises(ResponseError, match="more than 256 MiB"):
        http(server, timeout_s=20)


def test_of_an_error_only_the_beginning_is_read() -> None:
    content = b"HTTP/1.1 400 x\r\n\r\n" + b"x" * (4 << 20)
    with raw_server(sends(content)) as server, pytest.raises(EndpointError) as caught:
        http(server, timeout_s=20)
    assert len(str(caught.value)) == len("400: ") + MAX_ERROR_BYTES


@pytest.mark.parametrize("location", [b"http://elsewhere.example/x?key=k", b"http://[", b"//[::1", b"/x"])
def test_a_redirect_is_not_followed(location: bytes) -> None:
    """So no other host is shown the credentials."""
    seen: list[bytes] = []

    def act(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(answer(b"HTTP/1.1 307 x\r\nlocation: " + location + b"\r\n", b""))

    with raw_server(act) as server:
        endpoint = Endpoint("tf_serving_rest", Target(url=f"http://{server}"), headers={"X-Key": Secret("tok-123")})
        with pytest.raises(EndpointConfigError, match="it is elsewhere") as caught:
            ask_signature(endpoint)
    assert len(seen) == 1
    assert "key=k" not in str(caught.value)


def test_a_grpc_message_that_unpacks_to_more_than_is_taken() -> None:
    packed = deflated(300)
    with raw_server(grpc_answers(packed, "gzip")) as server:
        transport = GrpcTransport(Connection(FixedHeaders({}), timeout_s=20), server, secure=False)
        with pytest.raises(EndpointError, match="larger than max"):
            transport.send(Request("/s/m", b""), lambda said: said.body.decode())
        transport.close()


def test_a_grpc_message_in_order() -> None:
    """The server of the tests beside this one is understood."""
    packed = zlib.compressobj(9, wbits=31)
    for message, encoding in ((b"hello", None), (packed.compress(b"hello") + packed.flush(), "gzip")):
        with raw_server(grpc_answers(message, encoding)) as server:
            transport = GrpcTransport(Connection(FixedHeaders({}), timeout_s=20), server, secure=False)
            assert transport.send(Request("/s/m", b""), lambda said: "").body == b"hello"
            transport.close()


# What is in an answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    {
        "deep": b"[" * 1_000_000,
        "deep and whole": b'{"outputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "a long number": b'{"outputs": [' + b"9" * 100_000 + b"]}",
        "a long number and NaN": b'{"outputs": [NaN, ' + b"9" * 100_000 + b"]}",
        "white space": b" " * 1_000_000,
        "not UTF-8": b'{"outputs": ["\xff"]}',
    }.values(),
    ids=lambda body: repr(body[:24]),
)
def test_json_that_is_not_an_answer(body: bytes) -> None:
    protocol = protocol_class("tf_serving_rest")(Target(url="http://127.0.0.1:1"))
    with pytest.raises(ResponseError):
        protocol.read(Response(body), 1, [TensorSpec("y", "float32", (None,))])
    assert len(protocol.error_message(Response(body))) <= 500


_UNPACKED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from inference.errors import ResponseError
from inference.endpoint.protocols.base import Response
from inference.endpoint.protocols.responses import object_in
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for piece, mebibytes, ok in ((b"NaN,", 32, True), (b"[],", 90, False), (b'{"":1},', 90, False), (b'"ab",', 90, False)):
    body = b'{"outputs": [' + piece * ((mebibytes << 20) // len(piece)) + b"1]}"
    try:
        object_in(Response(body), tokens=True)
        assert ok, piece
    except ResponseError as error:
        assert not ok and "of memory" in str(error), error
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_json_whose_values_take_much_more_room_than_its_text() -> None:
    """90 MiB of it; lists of nothing would take 2 GB."""
    command = [sys.executable, "-c", _UNPACKED]
    ended = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 500


def predicted(**fields: object) -> Response:
    """A PredictResponse with one output, y."""
    message = predict_pb2.PredictResponse()
    shape = fields.pop("shape")
    message.outputs["y"].CopyFrom(tensor_pb2.TensorProto(**fields))
    for size in shape:  # type: ignore[attr-defined]
        message.outputs["y"].tensor_shape.dim.add(size=size)
    return Response(message.SerializeToString())


@pytest.mark.parametrize(
    ("response", "dtype"),
    [
        (predicted(dtype=types_pb2.DT_FLOAT, shape=[2, 1 << 28], float_val=[1.0]), "float32"),
        (predicted(dtype=types_pb2.DT_FLOAT, shape=[2, 1 << 62, 1 << 62]), "float32"),
        (predicted(dtype=types_pb2.DT_STRING, shape=[2, 1 << 10], string_val=[b"x" * (1 << 20)]), "string"),
        (predicted(dtype=types_pb2.DT_FLOAT, shape=[2, 1 << 29, 0]), "float32"),
        (predicted(dtype=types_pb2.DT_FLOAT, shape=[2, 1 << 62, 1 << 62, 0]), "float32"),
        (predicted(dtype=types_pb2.DT_FLOAT, shape=[2, *[1 << 62] * 100_000]), "float32"),
        (predicted(dtype=types_pb2.DT_STRING, shape=[2], tensor_content=b"\xff" * 1_000_000), "string"),
    ],
    ids=["one value for many", "none for many", "a long text for many", "lists", "more lists", "dimensions", "varint"],
)
def test_a_tensor_that_stands_for_more_than_it_holds(response: Response, dtype: str) -> None:
    outputs = [TensorSpec("y", dtype, None if dtype == "float32" else (None, None))]
    with pytest.raises(ResponseError, match=r"MiB|dimensions|length"):
        TFServingGrpc(Target(url="127.0.0.1:1")).read(response, 2, outputs)


def test_a_tensor_that_leaves_out_values_as_tensorflow_does() -> None:
    response = predicted(dtype=types_pb2.DT_FLOAT, shape=[4, 1000], float_val=[1.0, 2.0])
    outputs = [TensorSpec("y", "float32", (None, 1000))]
    [column] = TFServingGrpc(Target(url="127.0.0.1:1")).read(response, 4, outputs).columns.values()
    assert column.flatten().to_pylist() == [1.0] + [2.0] * 3999
