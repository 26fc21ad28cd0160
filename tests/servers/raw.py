"""Sends bytes as a test tells it to, whatever they are: HTTP that no library would send, gRPC frames."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\n"
_FRAME_HEAD = 9
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK = _END_STREAM = 1
_END_HEADERS = 4


@contextlib.contextmanager
def raw_server(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on a free port while the block runs; gives its host:port.

    Args:
      act: is given each connection in a thread of its own; the connection is closed when it returns, and when the
        block ends.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            act(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, name="raw_server")
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for each in (listening, *connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        thread.join()


def read_request(connection: socket.socket) -> bytes:
    """Reads an HTTP request, as long as its head says, and gives the head."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (more := connection.recv(1 << 16)):
            raise OSError("the client is gone")
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    sizes = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = int(sizes[0]) - len(body) if sizes else 0
    while left > 0:
        left -= len(connection.recv(1 << 16))
    return head


def sends(content: bytes) -> Callable[[socket.socket], None]:
    """Answers each request of a connection with these bytes."""

    def act(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            connection.sendall(content)

    return act


def drips(start: bytes, piece: bytes, every_s: float = 0.05) -> Callable[[socket.socket], None]:
    """Answers with `start`, then with `piece` again and again, until the client goes."""

    def act(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(start)
        while True:
            time.sleep(every_s)
            connection.sendall(piece)

    return act


def grpc_answers(message: bytes, encoding: str | None = None) -> Callable[[socket.socket], None]:
    """Answers a gRPC call with one message, which may be compressed."""

    def act(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        connection.sendall(_frame(_SETTINGS, 0, 0, b""))
        stream.read(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        while head := stream.read(_FRAME_HEAD):
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
            content = stream.read(int.from_bytes(head[:3], "big"))
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                connection.sendall(_frame(kind, _ACK, 0, content if kind == _PING else b""))
            if kind == _DATA and flags & _END_STREAM:
                headers = b"\x88" + _field(b"content-type", b"application/grpc")
                headers += _field(b"grpc-encoding", encoding.encode()) if encoding else b""
                data = struct.pack(">BI", encoding is not None, len(message)) + message
                connection.sendall(_frame(_HEADERS, _END_HEADERS, number, headers))
                for start in range(0, len(data), 1 << 14):
                    connection.sendall(_frame(_DATA, 0, number, data[start : start + (1 << 14)]))
                end = _field(b"grpc-status", b"0")
                connection.sendall(_frame(_HEADERS, _END_HEADERS | _END_STREAM, number, end))

    return act


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame of HTTP/2, RFC 9113."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _field(name: bytes, value: bytes) -> bytes:
    """A header as a literal without an index, RFC 7541."""
    return b"".join([b"\x00", bytes([len(name)]), name, bytes([len(value)]), value])
