"""Holds a loaded version of a model, and its signatures, to be called."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.errors import ModelInputError, ModelLoadError, SignatureNotFoundError
from model.other_formats import SAVED_MODEL_FILE
from model.runtime.arrays import Dense, Output, Strings
from model.runtime.errors import ResourceExhaustedError, is_op_error
from model.runtime.load import Model, Name, load
from model.runtime.messages import saved_model_pb2
from model.serving.errors import RequestError, Status, invalid, note
from model.serving.tensors import Array, Arrays, has_rows, numpy_dtype
from model.signature import DEFAULT_SIGNATURE, choose_signature, read_signatures
from model.specs import Signature


@dataclass
class Servable:
    """Describes one signature of one version.

    Attributes:
      version: the version.
      signature: what it takes and gives, all dense.
      joinable: whether the rows of several requests may share a call: every input has rows of an open number.
    """

    version: "Version"
    signature: Signature
    joinable: bool = field(init=False)

    def __post_init__(self) -> None:
        inputs = self.signature.inputs
        self.joinable = bool(inputs) and all(map(has_rows, inputs))

    def __call__(self, arrays: Arrays) -> Arrays:
        """Calls the model.

        Raises:
          RequestError: the model fails on these values.
        """
        model = self.version.model(self.signature.name)
        try:
            inputs = {spec.name: _dense(arrays[spec.name], spec.dtype) for spec in self.signature.inputs}
            outputs = model(inputs, any_shape=True)
            return {spec.name: _array(outputs[spec.name]) for spec in self.signature.outputs}
        except Exception as error:
            if isinstance(error, MemoryError) or type(error).__name__ == ResourceExhaustedError.__name__:
                raise RequestError(Status.UNAVAILABLE, f"no memory for the model: {reason_of(error)}") from error
            if is_op_error(error) or isinstance(error, (ModelInputError, ValueError, TypeError, pa.ArrowException)):
                raise invalid(f"the model fails on these values: {reason_of(error)}") from error
            raise


@dataclass(frozen=True)
class LoadSettings:
    """Describes how versions are loaded.

    Attributes:
      runtime: what runs them; None: native where that can, else python.
      op_libraries: libraries of further operations.
    """

    runtime: Name | None = None
    op_libraries: tuple[str, ...] = ()

    def __call__(self, path: str, signature: str) -> Model:
        """Loads a model and calls it once."""
        return load(path, signature, runtime=self.runtime, op_libraries=self.op_libraries, note=note)


class Version:
    """Holds one version of a model, loaded.

    The signature that requests get by default is loaded at once and called; another one, when it is first asked for.
    A model without `serving_default` is served: its requests name a signature.

    Args:
      model_name: the name of the model in requests.
      number: the version's number.
      path: the SavedModel's folder.
      default: the name of the default signature.
      loading: what runs it.

    Attributes:
      model_name, number, path: as given.
      signatures: what the model takes and gives, by the signature's name.
      definitions: the same as TensorFlow's SignatureDef messages.
      runtime: what runs it, native or python.

    Raises:
      ModelError: it cannot be loaded or served.
    """

    def __init__(self, model_name: str, number: int, path: str, default: str, loading: LoadSettings) -> None:
        self.model_name = model_name
        self.number = number
        self.path = path
        self.signatures = read_signatures(path)
        first = first_signature(self.signatures, default, path)
        reason = _not_served(first)
        if reason is not None:
            raise ModelLoadError(f"the model at {path} cannot be served: {reason}")
        self.definitions = _definitions(path, self.signatures)
        self._servables = {name: Servable(self, signature) for name, signature in self.signatures.items()}
        self._models: dict[str, Model] = {}
        self._load = loading
        self._loading = threading.Lock()
        self.runtime = self.model(first.name).runtime

    def model(self, signature: str) -> Model:
        """Returns the model as called through one of its signatures."""
        model = self._models.get(signature)
        if model is None:
            with self._loading:
                model = self._models.get(signature)
                if model is None:
                    first = next(iter(self._models.values()), None)
                    model = first.with_signature(signature) if first else self._load(self.path, signature)
                    self._models[signature] = model
        return model

    def servable(self, signature: str) -> Servable:
        """Returns one signature of the model, ready to be called.

        Raises:
          RequestError: there is none of that name, or it takes or gives what requests cannot carry.
        """
        servable = self._servables.get(signature)
        if servable is None:
            known = ", ".join(self._servables)
            message = f'Serving signature key "{signature}" not found; the model has {known}'
            raise RequestError(Status.PRECONDITION, message)
        reason = _not_served(servable.signature)
        if reason is not None:
            raise invalid(reason)
        return servable


def rows_of(outputs: Arrays) -> set[int]:
    """Returns the numbers of rows of the outputs; -1 for one that has none."""
    return {len(array) if np.ndim(array) else -1 for array in outputs.values()}


def first_signature(signatures: Mapping[str, Signature], default: str, path: str) -> Signature:
    """Returns the signature that a version is loaded with.

    It is the default one; another if nobody chose the default, and the model has none of its name that is served.

    Raises:
      SignatureNotFoundError: there is none.
    """
    served = [signature for signature in signatures.values() if _not_served(signature) is None]
    if default == DEFAULT_SIGNATURE and served and default not in [signature.name for signature in served]:
        return served[0]
    return choose_signature(signatures, default, path)


def _not_served(signature: Signature) -> str | None:
    for role, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.kind != "dense":
                return f"{role} '{spec.name}' of signature '{signature.name}' is {spec.kind}; requests carry dense ones"
            try:
                numpy_dtype(spec.dtype)
            except RequestError as error:
                return f"{role} '{spec.name}' of signature '{signature.name}': {error}"
    return None


def _definitions(path: str, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    data = Path(path, SAVED_MODEL_FILE).read_bytes()
    for graph in saved_model_pb2.SavedModel.FromString(data).meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return {name: graph.signature_def[name] for name in signatures}
    raise SignatureNotFoundError(f"the model at {path} has no graph to serve")


def reason_of(error: BaseException) -> str:
    """Returns what went wrong, in one line: TensorFlow puts it behind a stack trace and before the op's name."""
    text = (getattr(error, "message", "") or str(error)).strip()
    lines = [line.strip() for line in text.splitlines()]
    skipped = ("Graph execution error", "Detected at node", "<stack traces unavailable>", "File ", "[[{{node")
    telling = [line for line in lines if line and not line.startswith(skipped)]
    return (telling or lines or [type(error).__name__])[0][:500] or type(error).__name__


def _dense(array: Array, dtype: str) -> Dense:
    if dtype == "string":
        return Strings(pa.array(array.ravel().tolist(), pa.large_binary()), array.shape)
    return array.astype(numpy_dtype(dtype), copy=False)


def _array(value: Output) -> Array:
    if isinstance(value, Strings):
        array = np.empty(len(value.values), object)
        array[:] = value.values.to_pylist()
        return array.reshape(value.shape)
    if not isinstance(value, np.ndarray):
        raise TypeError("the model gives a ragged or sparse tensor where a dense one was announced")
    return value
