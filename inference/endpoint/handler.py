"""Calls a model on a server, as a Beam model handler over record batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RemoteModelHandler

from inference.calls import Call
from inference.columns.bound import Binding, ColumnMap
from inference.endpoint.client import Client, Endpoint
from inference.endpoint.remote_signature import ask_signature, check_inputs
from inference.errors import ENDPOINT_METRICS, EndpointConfigError, Failure
from inference.examples import encode_examples
from inference.handler_base import VERSION_COLUMN, Columnar
from model.specs import Signature

MAX_BATCH_SIZE = 16384


class EndpointHandler(Columnar, RemoteModelHandler[pa.RecordBatch, pa.RecordBatch, Client]):
    """Predicts record batches by asking a model server; otherwise like `SavedModelHandler`.

    Rows are cut into requests of at most `max_batch_size` rows and of as many bytes as the service takes;
    `endpoint.max_in_flight` of them are under way at once. A request that fails for a transient cause (408, 429,
    5xx, no connection, no answer in time, an answer that is none) is sent again with growing pauses; refusals for
    quota slow all requests down. A request that the server refuses is cut in halves until the row stands alone
    that is at fault. A server that refuses the caller, or does not know the model, stops the run.

    | answer | rows |
    |---|---|
    | predictions | the outputs |
    | 400 and the like | failed, with the server's message |
    | a transient failure, `max_attempts` times or until `deadline_s` | failed, with the last failure |
    | 401, 403, 404 | EndpointConfigError |
    | no answer of a model (a page, not JSON, without the outputs), thrice before any request has succeeded, or 64 \
      times in a row | EndpointConfigError |
    | any failure of 32 requests, before any request has succeeded | EndpointConfigError |

    Args:
      endpoint: the server, the model on it, and how to call it.
      signature: what the model takes and gives; None to have the server tell, where the protocol can.
      columns: model input -> column, for inputs whose column has another name; or a list of columns, of which a vector
        is gathered.
      defaults: model input (or column) -> value of rows that miss it.
      encodings: column -> "base64", for text that stands for bytes.
      max_batch_size: rows in a request; also the size to which small batches are gathered.
      model_version: adds column "model_version": the version that answered, null where the answer does not tell.
      gather: whether small batches are gathered; a stream forms its own, and must not wait for the next.
      batching: further arguments of Beam's BatchElements.

    Raises:
      EndpointError: the server does not tell the signature, or cannot be reached for it.
      BindingError: the model has inputs that a request cannot carry.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        signature: Signature | None = None,
        *,
        columns: ColumnMap | None = None,
        defaults: Mapping[str, Any] | None = None,
        encodings: Mapping[str, str] | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        model_version: bool = False,
        gather: bool = True,
        **batching: Any,
    ) -> None:
        RemoteModelHandler.__init__(self, namespace=__name__, retry_filter=_not_again)
        self.endpoint = endpoint
        Columnar.__init__(
            self,
            signature or ask_signature(endpoint),
            columns=columns,
            defaults=defaults,
            encodings=encodings,
            max_batch_size=max_batch_size,
            model_version=model_version,
            batching=batching,
            gather=gather,
        )
        check_inputs(self.signature)

    @property
    def model_id(self) -> str:
        """Returns the model as dead letters name it: protocol and address."""
        return self.endpoint.name

    def hopeless(self, said: str) -> Exception:
        """Makes the error that ends a run in which nothing can succeed: the config or the server is at fault."""
        return EndpointConfigError(f"{self.endpoint.name}: {said}")

    def create_client(self) -> Client:
        """Connects; Beam does this once in a process."""
        return Client(self.endpoint)

    def request(
        self, batch: Sequence[pa.RecordBatch], model: Client, inference_args: dict[str, Any] | None = None
    ) -> Iterable[pa.RecordBatch]:
        """Predicts batches of one or more schemas, each as the class says."""
        deadline = model.retries.deadline()
        outputs = self.signature.outputs

        def make_call(binding: Binding) -> Call:
            if binding.encode_examples:
                specs = [spec for spec in self.signature.inputs if spec.name == self.signature.examples_input]
            else:
                specs = [bound.spec for bound in binding.inputs]

            def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
                if binding.encode_examples:
                    arrays = [pa.array(encode_examples(arrays, binding), pa.binary())]
                answer = model.predict(arrays, specs, outputs, deadline)
                columns = dict(answer.columns)
                if self._tells_version:
                    version = answer.version or self.endpoint.target.version
                    columns[VERSION_COLUMN] = pa.repeat(pa.scalar(version, pa.string()), len(arrays[0]))
                return columns

            return call

        max_rows = min(self._max_rows, model.rows_that_fit or self._max_rows)
        try:
            return self.predict(batch, make_call, explain, model.pool, max_rows)
        finally:
            for name, count in model.counts().items():
                Metrics.counter(ENDPOINT_METRICS, name).inc(count)

    def get_metrics_namespace(self) -> str:
        return "Endpoint"


def _not_again(error: Exception) -> bool:
    """What is worth another try has had it: the client repeats single requests, not batches."""
    return False


def explain(error: Exception) -> Failure:
    """Returns what the failure of a request means for its rows."""
    message = " ".join(str(error).split()) or type(error).__name__
    return Failure("predict", type(error).__name__, message[:500], getattr(error, "attempts", 1))
