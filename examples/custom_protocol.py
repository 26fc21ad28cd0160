"""Asks a model server whose API is none of the known ones: a protocol of one's own says how.

Run it with `python examples/custom_protocol.py`; it starts such a server by itself. The protocol builds the bodies of
requests and reads those of answers. All else is the endpoint handler's: requests of many rows, several at a time, sent
again when they fail for a passing cause, and halved when the server refuses them, until the row at fault stands alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import apache_beam as beam
import pyarrow as pa

from inference import Endpoint, EndpointHandler, Predict, Rejected, Target
from inference.endpoint.declared_signature import declared_signature
from inference.endpoint.protocols import Answer, Protocol, Request, Response
from inference.endpoint.protocols.json_read import read_columns
from inference.endpoint.protocols.json_write import columns_json
from inference.endpoint.protocols.responses import error_message, object_in
from model.specs import TensorSpec

BIRTHS = pa.record_batch({"source_id": ["a", "b", "c", "d"], "mother_age": [24, 31, -1, 40], "plurality": [1, 2, 1, 1]})
SIGNATURE = declared_signature({"mother_age": "float32", "plurality": "float32"}, {"weight": "float32"})
"""The server does not tell what its model takes and gives."""


class Weights(Protocol):
    """`{"mother_age": [...], "plurality": [...]}` to `/weigh`, answered with `{"weight": [...]}`."""

    name = "weights"
    needs_signature = True

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        return Request(f"{self.target.url}/weigh", columns_json(arrays, inputs), {"Content-Type": "application/json"})

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        return Answer(read_columns(object_in(response), rows, outputs))

    def error_message(self, response: Response) -> str:
        return error_message(response)


class Server(BaseHTTPRequestHandler):
    """The server: twins are lighter, and an age below zero is an error."""

    def do_POST(self) -> None:
        births = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if min(births["mother_age"]) < 0:
            self.answer(400, {"error": "an age is below zero"})
        else:
            self.answer(200, {"weight": [8.0 - 1.5 * (count - 1) for count in births["plurality"]]})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def started() -> Iterator[str]:
    """Runs the server; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def show(batch: pa.RecordBatch) -> None:
    """Prints keys and predictions."""
    print("predicted:", dict(zip(batch["source_id"].to_pylist(), batch["weight"].to_pylist(), strict=True)))


def show_rejected(rejected: Rejected) -> None:
    """Prints the rows that the server refuses, and why."""
    for key, failure in zip(rejected.rows["source_id"].to_pylist(), rejected.failures.values(), strict=True):
        print(f"refused: {key}: {failure.message}")


def run(url: str) -> None:
    """Predicts births with the server."""
    handler = EndpointHandler(Endpoint(Weights, Target(url=url)), SIGNATURE)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        predicted, rejected = pipeline | beam.Create([BIRTHS]) | Predict(handler).with_exception_handling()
        _ = predicted | beam.Map(show)
        _ = rejected | beam.Map(show_rejected)


if __name__ == "__main__":
    with started() as address:
        run(address)
