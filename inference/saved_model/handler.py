"""Calls a SavedModel in the worker, as a Beam model handler over record batches."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from inference.call_size import MAX_BYTES
from inference.calls import Call
from inference.columns.bound import Binding, ColumnMap
from inference.errors import Failure, OutputError
from inference.examples import encode_examples
from inference.handler_base import VERSION_COLUMN, Columnar
from inference.native_tensors import as_row, first_row, from_output, to_inputs
from inference.saved_model import files as model_files
from inference.saved_model.hot_swap import Followed, LoadedVersion
from inference.saved_model.loader import ModelLoader
from inference.tensors import Words, from_tensor, to_tensors
from model import packaged
from model.rows import is_by_row, shape_text, takes_one_row, with_rows
from model.runtime.arrays import Dense, Strings
from model.runtime.load import Model, Name
from model.runtime.python import PythonModel
from model.signature import read_signature
from model.specs import Signature

MAX_BATCH_SIZE = 16384


class SavedModelHandler(Columnar, ModelHandler[pa.RecordBatch, pa.RecordBatch, Model | Followed]):
    """Predicts record batches with a SavedModel that runs inside the worker.

    Each input batch gives one output batch: the same rows in the same order, the input's columns, then one
    column for each output of the signature. If rows failed, `inference.marks.failures_of` says
    why, and their outputs are null; `Predict` takes those rows out.

    | column | model input |
    |---|---|
    | number, bool, string, bytes | [batch], [batch, 1] |
    | list, list of lists, text with a list in JSON | [batch, n], [batch, n, m], ragged, sparse |
    | n columns, named in a list | [batch, n] |
    | bytes | serialized tf.Examples, where the model parses them |
    | the features of a tf.Example | the same, encoded by tfx-bsl |

    Args:
      path: folder of the SavedModel, local or on any Beam file system; a remote one is copied to the worker
        once. With `version`, the folder that holds the versions.
      signature: which signature to call; None for serving_default, or the only one that there is.
      version: name of a version's folder, or "latest": the newest when the handler is made.
      follow_s: with "latest": a newer version that appears while the model is used replaces it, between two
        batches; looked for after so many seconds, again and again. None: the model stays.
      columns: model input -> column, for inputs whose column has another name; or a list of columns, of which a vector
        is gathered.
      defaults: model input (or column) -> value of rows that miss it.
      encodings: column -> "base64", for text that stands for bytes.
      max_batch_size: rows in a call of the model; also the size to which small batches are gathered.
      max_bytes: most bytes in a call of the model, estimated from its inputs and outputs, see `call_size`.
      model_version: adds column "model_version": the name of the model's folder.
      gather: whether small batches are gathered; a stream forms its own, and must not wait for the next.
      runtime: "native" for TensorFlow's C++ core alone, "python" for TensorFlow's Python; by default native, and
        python where that cannot run the model.
      op_libraries: libraries of further operations that the graph uses, where the workers find them.
      outputs: names of the outputs to give; None for all.
      batching: further arguments of Beam's BatchElements, such as `min_batch_size` (rows) and
        `max_batch_duration_secs`.

    Raises:
      model.errors.ModelError: there is no such model, version or signature.
      OutputError: an output cannot be a column, as it has no value for each row.

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
        signature: str | None = None,
        *,
        version: str | None = None,
        columns: ColumnMap | None = None,
        defaults: Mapping[str, Any] | None = None,
        encodings: Mapping[str, str] | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        max_bytes: int = MAX_BYTES,
        model_version: bool = False,
        gather: bool = True,
        follow_s: float | None = None,
        runtime: Name | None = None,
        op_libraries: Sequence[str] = (),
        outputs: Collection[str] | None = None,
        **batching: Any,
    ) -> None:
        if follow_s is not None and version != model_files.LATEST:
            raise ValueError('follow_s: only version "latest" can be followed')
        self.path = model_files.resolve(path, version)
        self._folder = path
        self._follow_s = follow_s
        self._loader = ModelLoader(runtime, tuple(op_libraries))
        self._called = read_signature(self.path, signature, read_bytes=model_files.read_bytes)
        self._one_row = takes_one_row(self._called)
        super().__init__(
            with_outputs(with_rows(self._called), outputs),
            columns=columns,
            defaults=defaults,
            encodings=encodings,
            max_batch_size=max_batch_size,
            max_bytes=max_bytes,
            model_version=model_version,
            batching=batching,
            gather=gather,
        )

    @property
    def model_id(self) -> str:
        """Returns the model as dead letters name it: path and signature."""
        return f"{self.path}:{self.signature.name}"

    def load_model(self) -> Model | Followed:
        """Loads the model and calls it once; Beam does this once in a process."""
        if self._follow_s is not None:
            return Followed(self._folder, self.path, self._called, self._follow_s, self._loader)
        return self._loader.load(self.path, self.signature.name)

    def run_inference(
        self,
        batch: Sequence[pa.RecordBatch],
        model: Model | Followed,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[pa.RecordBatch]:
        """Predicts batches of one or more schemas, each as the class says."""
        version = model.now if isinstance(model, Followed) else LoadedVersion(self.path, model)

        def make_call(binding: Binding) -> Call:
            in_python = isinstance(version.model, PythonModel)
            predict = _call_python if in_python else _call_native
            to_column = partial(from_tensor, importlib.import_module("tensorflow")) if in_python else from_output
            words: Words = {}

            def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
                outputs = predict(version.model, arrays, binding, words, one_row=self._one_row)
                rows = len(arrays[0])
                columns = {spec.name: to_column(outputs[spec.name], spec, rows) for spec in self.signature.outputs}
                if self._tells_version:
                    columns[VERSION_COLUMN] = pa.repeat(pa.scalar(version.name), len(arrays[0]))
                return columns

            return call

        return self.predict(batch, make_call, explain)

    def get_metrics_namespace(self) -> str:
        return "SavedModel"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "packaged_model": packaged.name_of(self.path)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A packaged model is elsewhere on a worker of another machine.
        name = state.pop("packaged_model")
        self.__dict__.update(state)
        if name is not None:
            self.path = packaged.find(name) or self.path


def _call_native(
    model: Any, arrays: list[pa.Array], binding: Binding, words: Words, *, one_row: bool
) -> Mapping[str, Any]:
    inputs: dict[str, Dense] = {}
    if binding.encode_examples:
        encoded = pa.array(encode_examples(arrays, binding), pa.large_binary())
        inputs[str(binding.signature.examples_input)] = Strings(encoded, (len(encoded),))
    else:
        for array, bound in zip(arrays, binding.inputs, strict=True):
            inputs.update(to_inputs(array, bound))
    if not one_row:
        outputs: Mapping[str, Any] = model(inputs)
        return outputs
    return {name: as_row(value) for name, value in model({n: first_row(v) for n, v in inputs.items()}).items()}


def _call_python(
    model: Any, arrays: list[pa.Array], binding: Binding, words: Words, *, one_row: bool
) -> Mapping[str, Any]:
    tf = importlib.import_module("tensorflow")
    tensors: dict[str, Any] = {}
    if binding.encode_examples:
        encoded = encode_examples(arrays, binding)
        tensors[str(binding.signature.examples_input)] = tf.constant(encoded, tf.string)
    else:
        for array, bound in zip(arrays, binding.inputs, strict=True):
            tensors.update(to_tensors(tf, array, bound, words))
    saved_model = model.saved_model
    outputs: Mapping[str, Any] = saved_model.call_for_one_row(tensors) if one_row else saved_model(tensors)
    return outputs


def with_outputs(signature: Signature, names: Collection[str] | None) -> Signature:
    """Returns a signature with some of its outputs.

    Args:
      signature: see `model.rows.with_rows`.
      names: of the outputs; None for all.

    Raises:
      OutputError: one of them has no value for each row.
    """
    outputs = tuple(spec for spec in signature.outputs if names is None or spec.name in names)
    for spec in outputs:
        if not is_by_row(spec, signature):
            others = ", ".join(f"'{other.name}'" for other in signature.outputs if is_by_row(other, signature))
            raise OutputError(
                f"output '{spec.name}' has no value for each row: its shape is {shape_text(spec.shape)}; choose from "
                f"the others: {others or 'there are none'}"
            )
    return replace(signature, outputs=outputs)


def explain(error: Exception) -> Failure:
    """Returns what the model's exception for a single row says, without TensorFlow's graph addresses."""
    text = str(getattr(error, "message", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [
        line
        for line in lines
        if not line.startswith(("Graph execution error", "Detected at node", 'File "', "[[", "Traceback", "Stack"))
    ] or lines
    message = said[-1] if said else type(error).__name__
    return Failure("predict", type(error).__name__, message.split(" [[{{")[0].split(" [Op:")[0][:500])
