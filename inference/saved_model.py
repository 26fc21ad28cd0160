"""A SavedModel called in the worker, as a Beam model handler over record batches."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from inference import model_files
from inference.batches import column_nbytes, predict_batches, reject_all
from inference.binding import Binding, bind
from inference.coercion import is_list, is_text
from inference.errors import BindingError, Failure, OutputError
from inference.tensors import Words, from_tensor, output_type, to_tensors
from model.savedmodel import SavedModel
from model.signature import read_signature
from model.specs import Signature

MAX_BATCH_SIZE = 16384


class SavedModelHandler(ModelHandler[pa.RecordBatch, pa.RecordBatch, SavedModel]):
    """Predicts record batches with a SavedModel that runs inside the worker.

    Each input batch gives one output batch: the same rows in the same order, the input's columns, then one
    column for each output of the signature. If rows failed, column `__error` says why (see
    `inference.errors`) and their outputs are null; `Predict` takes those rows out.

    | column | model input |
    |---|---|
    | number, bool, string, bytes | [batch], [batch, 1] |
    | list, list of lists | [batch, n], [batch, n, m], ragged, sparse |
    | bytes | serialized tf.Examples, where the model parses them |
    | the features of a tf.Example | the same, encoded by tfx-bsl |

    Args:
      path: folder of the SavedModel, local or on any Beam file system; a remote one is copied to the worker
        once. With `version`, the folder that holds the versions.
      signature: which signature to call.
      version: name of a version's folder, or "latest": the newest when the handler is made.
      columns: model input -> column, for inputs whose column has another name.
      defaults: model input (or column) -> value of rows that miss it.
      max_batch_size: rows in a call of the model; also the size to which small batches are gathered.
      batching: further arguments of Beam's BatchElements, such as `min_batch_size` (rows) and
        `max_batch_duration_secs`.

    Raises:
      model.errors.ModelError: there is no such model, version or signature.

    >>> import apache_beam as beam
    >>> import pyarrow as pa
    >>> from inference import Predict, SavedModelHandler
    >>> births = pa.RecordBatch.from_pydict({
    ...     "is_male": ["True", "False"], "mother_race": ["White", "Black"], "mother_married": ["True", "False"],
    ...     "cigarette_use": ["False", "True"], "alcohol_use": ["False", "False"],
    ...     "mother_age": [32.0, 19.0], "plurality": [1.0, 2.0], "gestation_weeks": [40.0, 33.0]})
    >>> handler = SavedModelHandler("model/trained/v1")
    >>> with beam.Pipeline(runner="FnApiRunner") as p:
    ...     _ = (p | beam.Create([births]) | Predict(handler)
    ...          | beam.Map(lambda batch: print([6 < p < 9 for p in batch["predictions"].to_pylist()])))
    [True, False]
    """

    def __init__(
        self,
        path: str,
        signature: str = "serving_default",
        *,
        version: str | None = None,
        columns: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        **batching: Any,
    ) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size is {max_batch_size}; it must be at least 1")
        self.path = model_files.resolve(path, version)
        self.signature: Signature = read_signature(self.path, signature, read_bytes=model_files.read_bytes)
        self.outputs = pa.schema([(spec.name, output_type(spec)) for spec in self.signature.outputs])
        self._columns = dict(columns or {})
        self._defaults = dict(defaults or {})
        self._fixed_rows = _fixed_rows(self.signature)
        self._max_rows = min(max_batch_size, self._fixed_rows or max_batch_size)
        self._batching = batching
        self._bindings: dict[pa.Schema, Binding] = {}

    @property
    def model_id(self) -> str:
        """The model as dead letters name it: path and signature."""
        return f"{self.path}:{self.signature.name}"

    def bind(self, schema: pa.Schema) -> Binding:
        """How batches of `schema` feed the model. Raises BindingError."""
        found = self._bindings.get(schema)
        if found is None:
            found = self._bindings[schema] = bind(self.signature, schema, self._columns, self._defaults)
        return found

    def load_model(self) -> SavedModel:
        """Loads the model and calls it once; Beam does this once in a process."""
        loaded = SavedModel(model_files.local_copy(self.path), self.signature.name)
        loaded.warm_up()
        return loaded

    def run_inference(
        self,
        batch: Sequence[pa.RecordBatch],
        model: SavedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[pa.RecordBatch]:
        """Predicts batches of one or more schemas, each as the class says."""
        results: list[pa.RecordBatch] = []
        run: list[pa.RecordBatch] = []
        for item in batch:
            if run and not item.schema.equals(run[0].schema):
                results += self._run_inference(run, model)
                run = []
            run.append(item)
        return results + self._run_inference(run, model) if run else results

    def _run_inference(self, batches: list[pa.RecordBatch], model: SavedModel) -> list[pa.RecordBatch]:
        tf = importlib.import_module("tensorflow")
        try:
            binding = self.bind(batches[0].schema)
        except BindingError as error:
            # These batches are not like those that the run was planned for; others may be.
            return [reject_all(batch, self.outputs, error) for batch in batches]

        words: Words = {}

        def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
            rows = len(arrays[0])
            padded = self._padded(arrays)
            outputs = model(
                _examples(tf, padded, binding) if binding.encode_examples else _named(tf, padded, binding, words)
            )
            specs = self.signature.outputs
            columns = {spec.name: from_tensor(tf, outputs[spec.name], spec, len(padded[0])) for spec in specs}
            return columns if padded is arrays else {name: c.slice(0, rows) for name, c in columns.items()}

        return predict_batches(batches, binding, self.outputs, call, self._max_rows, explain)

    def _padded(self, arrays: list[pa.Array]) -> list[pa.Array]:
        """For a model that takes a fixed number of rows: the last row repeated to make up that number."""
        rows = len(arrays[0])
        if self._fixed_rows is None or rows == self._fixed_rows:
            return arrays
        index = pa.array([*range(rows), *[rows - 1] * (self._fixed_rows - rows)])
        return [array.take(index) for array in arrays]

    def get_num_bytes(self, batch: Sequence[pa.RecordBatch]) -> int:
        return column_nbytes(batch)

    def get_metrics_namespace(self) -> str:
        return "SavedModel"

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
        return {**self.__dict__, "_bindings": {}}


class _RowCount:
    """Rows of a batch or of a (key, batch) pair, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, element: Any) -> int:
        batch = element[1] if isinstance(element, tuple) else element
        return max(1, min(self.most, int(batch.num_rows)))


def _fixed_rows(signature: Signature) -> int | None:
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape and spec.kind == "dense"} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def _named(tf: Any, arrays: list[pa.Array], binding: Binding, words: Words) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for array, bound in zip(arrays, binding.inputs, strict=True):
        tensors.update(to_tensors(tf, array, bound, words))
    return tensors


def _examples(tf: Any, arrays: list[pa.Array], binding: Binding) -> dict[str, Any]:
    """The features encoded as serialized tf.Examples, in C++; a missing value is a missing feature."""
    from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

    columns = [_feature_lists(array) for array in arrays]
    batch = pa.RecordBatch.from_arrays(columns, names=[bound.spec.name for bound in binding.inputs])
    encoded = RecordBatchToExamplesEncoder().encode(batch)
    return {str(binding.signature.examples_input): tf.constant(encoded, tf.string)}


def _feature_lists(array: pa.Array) -> pa.Array:
    """Values as the lists of bytes, float32 or int64 that a tf.Example holds; null for no feature at all."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    leaves = array.flatten() if is_list(array.type) else array
    if is_list(leaves.type):
        raise OutputError("lists of lists do not fit into a tf.Example")
    wanted = pa.binary() if is_text(leaves.type) else pa.float32() if pa.types.is_floating(leaves.type) else pa.int64()
    if is_list(array.type):
        return array.cast(pa.list_(wanted))
    present = array.is_valid()
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(present.to_numpy(zero_copy_only=False), out=offsets[1:])
    mask = pa.compute.invert(present) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), array.drop_null().cast(wanted), mask=mask)


def explain(error: Exception) -> Failure:
    """What the model's exception for a single row says, without TensorFlow's graph addresses."""
    text = str(getattr(error, "message", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [
        line
        for line in lines
        if not line.startswith(("Graph execution error", "Detected at node", 'File "', "[[", "Traceback", "Stack"))
    ] or lines
    message = said[-1] if said else type(error).__name__
    return Failure("predict", type(error).__name__, message.split(" [[{{")[0].split(" [Op:")[0][:500])
