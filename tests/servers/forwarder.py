"""Forwards connections to a server byte for byte; the way can be cut and mended."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any


class Forwarder:
    """Listens on a port of 127.0.0.1, and passes on what comes.

    Args:
      host: of the server.
      port: of the server.

    Attributes:
      address: where to connect.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._listen(0)
        self.address = f"127.0.0.1:{self._port}"

    def _listen(self, port: int) -> None:
        listener = socket.create_server(("127.0.0.1", port))
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._server)
                with self._lock:
                    cut = self._listener is not listener
                    self._ends |= {near, far}
                if cut:
                    _close(near, far)
                    return
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        _close(source, sink)
        with self._lock:
            self._ends -= {source, sink}

    def cut(self) -> None:
        """Ends all connections, and takes no new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            ends = list(self._ends)
        if listener is not None:
            _close(listener)
        _close(*ends)

    def mend(self) -> None:
        """Takes connections again, on the same port."""
        self._listen(self._port)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *error: Any) -> None:
        self.cut()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
