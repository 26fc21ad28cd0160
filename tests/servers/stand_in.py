"""An HTTP server that answers as a test tells it to, and remembers who asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes]


@dataclass(frozen=True)
class Seen:
    """A request.

    Attributes:
      method: such as GET.
      path: with the query.
      headers: names in lower case.
      body: whole body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class StandIn:
    """A running server.

    Attributes:
      url: its address.
      answer: gives status and body (JSON).
      seen: the requests so far.
    """

    answer: Callable[[Seen], Answer]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)


@contextlib.contextmanager
def stand_in(answer: Callable[[Seen], Answer]) -> Iterator[StandIn]:
    """A server on a free port of this machine while the block runs."""
    made = StandIn(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen = Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            made.seen.append(seen)
            status, content = made.answer(seen)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="stand_in", kwargs={"poll_interval": 0.02})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sevens(seen: Seen) -> Answer:
    """7.5 for every row, as TensorFlow Serving's REST API answers columns."""
    columns = json.loads(seen.body)["inputs"]
    return 200, json.dumps({"outputs": [7.5] * len(next(iter(columns.values())))}).encode()
