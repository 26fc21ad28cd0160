"""Answers over HTTP as a test tells it to, and remembers who asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
"""Status, body, and further headers if there are any."""


@dataclass(frozen=True)
class Seen:
    """A request.

    Attributes:
      path: with the query.
      headers: names in lower case.
      body: whole body.
      method: of HTTP.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


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

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.path, headers, body, self.command)
            made.seen.append(seen)
            status, content, *further = made.answer(seen)
            self.send_response(status)
            for name, value in further[0].items() if further else ():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST

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
