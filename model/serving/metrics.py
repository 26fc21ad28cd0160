"""Counts what the server does, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = tuple(4**power for power in range(11))


class Metrics:
    """Counters of one server, in a registry of their own.

    Attributes:
      requests: prediction requests, by protocol and code (HTTP's, or the name of gRPC's).
      rows: rows predicted.
      seconds: of a prediction request, by protocol, from its first byte to the answer.
      calls: calls of the model.
      batch_rows: rows of a call of the model.
      in_flight: prediction requests that are being answered.
      waiting_rows: rows that wait for the model.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "model_server_requests", "Prediction requests.", ["protocol", "code"], registry=self.registry
        )
        self.rows = Counter("model_server_rows", "Rows predicted.", registry=self.registry)
        self.seconds = Histogram(
            "model_server_request_seconds",
            "Time to answer a prediction request.",
            ["protocol"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.calls = Counter("model_server_model_calls", "Calls of the model.", registry=self.registry)
        self.batch_rows = Histogram(
            "model_server_batch_rows", "Rows of a call of the model.", buckets=_ROWS, registry=self.registry
        )
        self.in_flight = Gauge(
            "model_server_requests_in_flight", "Prediction requests being answered.", registry=self.registry
        )
        self.waiting_rows = Gauge("model_server_waiting_rows", "Rows that wait for the model.", registry=self.registry)

    def text(self) -> bytes:
        """Returns all of them, in Prometheus' text format."""
        data: bytes = generate_latest(self.registry)
        return data
