"""Stands before the BigQuery emulator's REST API, so that tests can refuse, lose and see what goes through it.

It mends what the emulator does otherwise than BigQuery: a load job says how many rows it has loaded, not how many the
table has; and a job that is uploaded has the id that was asked for, which no other job can have then.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx

Answer = tuple[int, dict[str, Any]]
Refuse = Callable[[str, str, bytes], Answer | None]
"""(method, path, body) -> what to answer in place of the emulator; None to pass the request on."""


def refusal(code: int, reason: str, message: str) -> Answer:
    """Returns an answer as BigQuery gives it."""
    return code, {"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}}


class RestProxy:
    """Listens on a port of 127.0.0.1.

    Attributes:
      host: its address.
      refuse: answers requests itself.
      lose: gives another answer than the emulator's to what it has done; None to pass its answer on.
      seen: method, path and body of the requests.
    """

    def __init__(self, target: str) -> None:
        self._target = f"http://{target}"
        self._client = httpx.Client(timeout=60, trust_env=False)
        self._before: dict[str, int] = {}
        self._uploads: dict[str, tuple[str, int | None]] = {}
        self._jobs: dict[str, str] = {}
        self._lock = threading.Lock()
        self.refuse: Refuse = lambda method, path, body: None
        self.lose: Callable[[str, str], Answer | None] = lambda method, path: None
        self.seen: list[tuple[str, str, bytes]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                # A client that was killed reads no answer.
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                proxy._pass(self)

            do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends listening."""
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def _pass(self, request: BaseHTTPRequestHandler) -> None:
        method, path = request.command, request.path
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.seen.append((method, path, body))
        refused = self.refuse(method, path, body)
        if refused is not None:
            self._answer(request, refused[0], json.dumps(refused[1]).encode(), {})
            return
        wanted = self._job_asked_for(method, path, body)
        if wanted in self._jobs and method == "POST":
            code, answer = refusal(409, "duplicate", f"Already Exists: Job {wanted}")
            self._answer(request, code, json.dumps(answer).encode(), {})
            return
        for mine, its in self._jobs.items():
            path = path.replace(f"/jobs/{mine}?", f"/jobs/{its}?")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        before = self._rows_before(method, path, body)
        found = self._client.request(method, self._target + path, content=body, headers=headers)
        content = found.content
        kept = {name: found.headers[name] for name in ("location", "content-type", "range") if name in found.headers}
        if "location" in kept:
            kept["location"] = f"http://{self.host}{urlsplit(kept['location'])._replace(scheme='', netloc='').geturl()}"
            self._uploads[urlsplit(kept["location"]).query] = (wanted, before)
        if content and "json" in kept.get("content-type", ""):
            content = json.dumps(self._mended(wanted, before, json.loads(content))).encode()
        lost = self.lose(method, path)
        if lost is not None:
            self._answer(request, lost[0], json.dumps(lost[1]).encode(), {})
            return
        self._answer(request, found.status_code, content, kept)

    def _job_asked_for(self, method: str, path: str, body: bytes) -> str:
        """The id of the job that an upload is to have."""
        if method == "PUT":
            return self._uploads.get(urlsplit(path).query, ("", None))[0]
        if method != "POST" or not path.startswith("/upload/"):
            return ""
        return str(json.loads(body)["jobReference"]["jobId"])

    def _rows_before(self, method: str, path: str, body: bytes) -> int | None:
        """How many rows the table has that a load job is about to add to."""
        if method == "PUT":
            return self._uploads.get(urlsplit(path).query, ("", None))[1]
        if method != "POST" or "/jobs" not in path:
            return None
        load = json.loads(body).get("configuration", {}).get("load")
        if not load or load.get("writeDisposition") != "WRITE_APPEND":
            return None
        table = load["destinationTable"]
        where = f"/bigquery/v2/projects/{table['projectId']}/datasets/{table['datasetId']}/tables/{table['tableId']}"
        return int(self._client.get(self._target + where).json().get("numRows", 0))

    def _mended(self, wanted: str, before: int | None, answer: Any) -> Any:
        job = answer.get("jobReference") if isinstance(answer, dict) else None
        if job:
            if wanted:
                self._jobs[wanted] = job["jobId"]
            job["jobId"] = next((mine for mine, its in self._jobs.items() if its == job["jobId"]), job["jobId"])
        load = answer.get("statistics", {}).get("load") if isinstance(answer, dict) else None
        if load and "outputRows" in load:
            with self._lock:
                known = self._before.setdefault(answer["jobReference"]["jobId"], before or 0)
            load["outputRows"] = str(int(load["outputRows"]) - known)
        return answer

    def _answer(self, request: BaseHTTPRequestHandler, code: int, content: bytes, headers: dict[str, str]) -> None:
        request.send_response(code)
        for name, value in ({"content-type": "application/json"} | headers).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


_OWN = ("host", "content-length", "connection", "accept-encoding")


@contextlib.contextmanager
def rest_proxy_to(target: str) -> Iterator[RestProxy]:
    """A proxy that ends with the block."""
    proxy = RestProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
