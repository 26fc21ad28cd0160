"""Whom the server listens to, and for how long: hosts, and connections whose clients keep it waiting."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn

from model.serving.connections import Connections
from model.serving.hosts import AllowedHosts
from model.serving.options import Options
from model.serving.ports import bind
from tests.support.serving_process import ROOT, serving
from tests.support.waiting import wait_until

pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

PATH = "/v1/models/default:predict"
REQUEST_S = 1
IDLE_S = 2
CONNECTIONS = 6
LONG = 30


@pytest.fixture(scope="module")
def server():
    limits = ["--request-seconds", REQUEST_S, "--idle-seconds", IDLE_S, "--max-connections", CONNECTIONS]
    hosts = ["--allowed-host", "models.example", "--allowed-host", "192.0.2.7"]
    with serving(ROOT / "model" / "trained" / "v1", *map(str, limits), *hosts) as found:
        yield found


def place(url):
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


@contextmanager
def connected(url):
    with socket.create_connection(place(url), timeout=LONG) as connection:
        yield connection


def ending(connection, drip=b""):
    """What is answered until the server ends the connection, while something drips into it."""
    connection.settimeout(0.1)
    started = time.monotonic()
    answer = b""
    while time.monotonic() - started < LONG:
        try:
            data = connection.recv(65536)
            if not data:
                return answer
            answer += data
        except TimeoutError:
            pass
        except OSError:
            return answer
        try:
            connection.sendall(drip)
        except OSError:
            return answer
    raise AssertionError("the connection is kept")


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "drip", "status"),
    [
        (b"", b"", b""),
        (HEAD, b"", b"408"),
        (HEAD, b"a", b"408"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"", b"408"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" ", b"408"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"408"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"", b"200"),
        # Nobody reads the body of what is not a prediction.
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", b" ", b"200"),
    ],
)
def test_a_client_that_keeps_the_server_waiting(server, sent, drip, status):
    with connected(server.rest) as connection:
        connection.sendall(sent)
        answer = ending(connection, drip)
    assert answer[9:12] == status
    if status == b"408":
        assert "--request-seconds" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_client_that_does_not_take_its_answers(server):
    """Requests are sent without reading, until the answers fill all buffers."""
    with connected(server.rest) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        started = time.monotonic()
        ended = False
        while not ended and time.monotonic() - started < LONG:
            try:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
            except TimeoutError:
                pass
            except OSError:
                ended = True
        assert ended


def test_the_limits_are_the_clients():
    """An answer may take longer to be found, and a connection in use is kept."""
    options = Options("m", request_s=0.2, idle_s=0.2)

    async def answer(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(0.8)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def main():
        connections = Connections(options)
        config = uvicorn.Config(answer, http=connections, ws="none", lifespan="off", log_config=None)
        web = uvicorn.Server(config)
        with bind("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(web.serve(sockets=[listener]))
            watching = asyncio.create_task(connections.watch())
            while not web.started:
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            for _ in range(2):
                writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
                assert b" 200 " in (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG))
            assert await asyncio.wait_for(reader.read(), LONG) == b""
            writer.close()
            web.should_exit = True
            await serving
            watching.cancel()

    asyncio.run(main())


def test_connections_over_the_limit_are_refused_and_others_go_on(server):
    with httpx.Client(base_url=server.rest, timeout=LONG) as client, ExitStack() as stack:
        assert client.get("/healthz").status_code == 200
        many = [stack.enter_context(connected(server.rest)) for _ in range(CONNECTIONS + 3)]
        refused = ending(many[-1])
        assert refused[9:12] == b"503"
        assert b"retry-after: 1" in refused
        assert "--max-connections" in json.loads(refused.partition(b"\r\n\r\n")[2])["error"]
        assert client.get("/healthz").status_code == 200
    wait_until(lambda: httpx.get(f"{server.rest}/healthz").status_code == 200, "there is room again")


def test_connections_of_grpc_end_too(server):
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(server.grpc)) for _ in range(CONNECTIONS + 1)]
        ending(silent[-1])
        ending(silent[0])
    with grpc.insecure_channel(server.grpc) as channel:
        states = []
        channel.subscribe(states.append, try_to_connect=True)
        ready = grpc.ChannelConnectivity.READY
        wait_until(lambda: ready in states and states[-1] != ready, lambda: f"the connection has ended: {states}")


@pytest.mark.parametrize(
    ("host", "here", "allowed"),
    [
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:8501", "127.0.0.1", True),
        ("localhost.", "127.0.0.1", True),
        ("a.localhost:1", "127.0.0.1", True),
        ("127.0.0.1:8501", "127.0.0.1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("[::1]:8501", "::1", True),
        ("[0:0::1]", "::1", True),
        ("[::ffff:127.0.0.1]:1", "::1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.2", "192.0.2.1", False),
        ("bound.example", "192.0.2.1", True),
        ("models.example:443", "192.0.2.1", True),
        ("MODELS.example.", "192.0.2.1", True),
        ("x.models.example", "192.0.2.1", False),
        ("evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("evillocalhost", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost:8501@evil.example", "127.0.0.1", False),
        ("evil.example/localhost", "127.0.0.1", False),
        ("[::1", "::1", False),
        ("[::1]evil.example", "::1", False),
        ("", "127.0.0.1", False),
        ("\xa0", "127.0.0.1", False),
    ],
)
def test_which_hosts(host, here, allowed):
    hosts = AllowedHosts(None, ["Bound.example", "models.example"])
    assert hosts._is_allowed(host.encode("latin-1"), here) is allowed


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/v1/models", "/v2/health/live", "/nothing", PATH])
def test_other_hosts_are_refused_wherever_they_ask(server, path):
    method = "POST" if path == PATH else "GET"
    for host in ("localhost:1", "models.example", "192.0.2.7", "127.0.0.1"):
        assert httpx.request(method, server.rest + path, headers={"Host": host}).status_code != 403
    response = httpx.request(method, server.rest + path, headers={"Host": "evil.example:8501"})
    assert response.status_code == 403
    assert "'evil.example:8501' are not taken" in response.json()["error"]
    assert "--allowed-host" in response.json()["error"]


def test_two_hosts_are_refused(server):
    with connected(server.rest) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert ending(connection)[9:12] == b"400"
    with connected(server.rest) as connection:
        connection.sendall(b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert ending(connection)[9:12] == b"404"
