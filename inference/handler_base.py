"""Does what every handler of record batches has in common: signature, binding of columns, counting of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import pyarrow as pa
from typing_extensions import Self

from inference.batches import column_nbytes, padded_to, predict_batches, reject_all
from inference.call_size import CallSize
from inference.calls import Call, Explain, Limit, Outlook
from inference.columns.binding import bind
from inference.columns.bound import Binding, ColumnMap
from inference.errors import BindingError, TooManyFailuresError
from inference.sizes import batch_bytes
from inference.tensors import output_type
from model.rows import rows_of_a_call
from model.specs import Signature

GATHERED_BYTES = 64 << 20
"""Decoded bytes to which small batches are gathered at most."""

VERSION_COLUMN = "model_version"
"""Column with the version of the model that predicted a row."""


class Columnar:
    """Calls a model with record batches; it is mixed into a Beam model handler.

    Args:
      signature: what the model takes and gives.
      columns: model input -> column, for inputs whose column has another name; or a list of columns, of which a vector
        is gathered.
      defaults: model input (or column) -> value of rows that miss it.
      encodings: column -> "base64", for text that stands for bytes.
      max_batch_size: rows in a call of the model; also the size to which small batches are gathered.
      model_version: whether the outputs have a column "model_version".
      batching: further arguments of Beam's BatchElements.
      gather: whether small batches are gathered to larger ones; if not, each goes to the model as it comes.
      max_bytes: most bytes in a call of the model, see `call_size`; None: calls are bounded by rows alone.

    Attributes:
      signature: the model's inputs and outputs.
      outputs: names and types of the columns that are added to a batch.
    """

    def __init__(
        self,
        signature: Signature,
        *,
        columns: ColumnMap | None,
        defaults: Mapping[str, Any] | None,
        encodings: Mapping[str, str] | None = None,
        max_batch_size: int,
        model_version: bool,
        batching: Mapping[str, Any],
        gather: bool = True,
        max_bytes: int | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size is {max_batch_size}; it must be at least 1")
        self.signature = signature
        outputs = [(spec.name, output_type(spec)) for spec in signature.outputs]
        self._tells_version = model_version and VERSION_COLUMN not in dict(outputs)
        self.outputs = pa.schema([*outputs, *([(VERSION_COLUMN, pa.string())] if self._tells_version else [])])
        self._columns = dict(columns or {})
        self._defaults = dict(defaults or {})
        self._encodings = dict(encodings or {})
        self._fixed_rows = rows_of_a_call(signature)
        self._max_rows = min(max_batch_size, self._fixed_rows or max_batch_size)
        # Calls of a fixed number of rows are of that number, however large they are.
        self._call_size = CallSize(signature, max_bytes) if max_bytes and not self._fixed_rows else None
        self._batching = dict(batching)
        self._gather = gather
        self._bindings: dict[pa.Schema, Binding] = {}
        self._limit: Limit | None = None
        self._note: Callable[[int, int], None] | None = None
        self._outlook: Outlook | None = None

    def limited_by(self, limit: Limit) -> Self:
        """Ends the run once so many rows have failed that it cannot end well; without it, every row is tried."""
        self._limit = limit
        return self

    def timed_by(self, note: Callable[[int, int], None]) -> Self:
        """Has the time of predictions noted.

        Args:
          note: called with how many rows were predicted together, and the microseconds that it took; a function of a
            module, as it is pickled.
        """
        self._note = note
        return self

    def hopeless(self, said: str) -> Exception:
        """Makes the error that ends a run in which the model fails on every row."""
        return TooManyFailuresError(said)

    def bind(self, schema: pa.Schema) -> Binding:
        """Returns how batches of `schema` feed the model. Raises BindingError."""
        found = self._bindings.get(schema)
        if found is None:
            found = self._bindings[schema] = bind(
                self.signature, schema, self._columns, self._defaults, self._encodings
            )
        return found

    def predict(
        self,
        batches: Sequence[pa.RecordBatch],
        make_call: Callable[[Binding], Call],
        explain: Explain,
        pool: Executor | None = None,
        max_rows: int | None = None,
    ) -> list[pa.RecordBatch]:
        """Predicts batches of one or more schemas.

        Args:
          batches: the input batches.
          make_call: gives what calls the model with the inputs of a binding.
          explain: see `predict_batches`.
          pool: see `predict_batches`.
          max_rows: in a call; as many as `max_batch_size` by default.
        """
        results: list[pa.RecordBatch] = []
        run: list[pa.RecordBatch] = []
        for batch in [*batches, None]:
            if run and (batch is None or not batch.schema.equals(run[0].schema)):
                began = time.perf_counter()
                results += self._predict_alike(run, make_call, explain, pool, max_rows or self._max_rows)
                if self._note is not None:
                    rows = sum(batch.num_rows for batch in run)
                    self._note(rows, int((time.perf_counter() - began) * 1e6))
                run = []
            if batch is not None:
                run.append(batch)
        return results

    def _predict_alike(
        self,
        batches: list[pa.RecordBatch],
        make_call: Callable[[Binding], Call],
        explain: Explain,
        pool: Executor | None,
        max_rows: int,
    ) -> list[pa.RecordBatch]:
        try:
            binding = self.bind(batches[0].schema)
        except BindingError as error:
            # These batches are not like those that the run was planned for; others may be.
            return [reject_all(batch, self.outputs, error) for batch in batches]
        call = make_call(binding)
        if self._outlook is None:
            self._outlook = Outlook(self._limit, self.hopeless)

        def padded(arrays: list[pa.Array]) -> Mapping[str, pa.Array]:
            rows = len(arrays[0])
            filled = padded_to(arrays, self._fixed_rows)
            columns = call(filled)
            return columns if filled is arrays else {name: c.slice(0, rows) for name, c in columns.items()}

        return predict_batches(
            batches, binding, self.outputs, padded, max_rows, explain, pool, self._outlook, self._call_size
        )

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Returns the bytes of the columns of batches."""
        return column_nbytes(batch)

    def should_skip_batching(self) -> bool:
        """Tells whether batches go to the model one by one (`Predict` makes a list of each)."""
        return not self._gather

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """BatchElements counts rows: a batch counts as its rows, a large one as a full batch."""
        most = self._max_rows
        return {
            "min_batch_size": most,
            "max_batch_size": most,
            "element_size_fn": _RowCount(most),
            **self._batching,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bindings": {}, "_outlook": None}


class _RowCount:
    """Rows of a batch or of a (key, batch) pair, at most `most`; wide rows count for more, as bytes are bounded too."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, element: Any) -> int:
        batch = element[1] if isinstance(element, tuple) else element
        wide = batch_bytes(batch) * self.most // GATHERED_BYTES
        return max(1, min(self.most, max(int(batch.num_rows), wide)))
