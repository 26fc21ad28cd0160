"""Loads and calls a SavedModel by TensorFlow's C++ core, through its C API: without TensorFlow's Python.

It is loaded as TensorFlow Serving does: variables restored, tables filled, the graph's own initialisation run.
"""

from __future__ import annotations

import copy
import ctypes
import math
import os
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import ModelInputError
from model.proto_subset import entries
from model.runtime.arrays import Dense, Output, Ragged, Sparse, Strings, numpy_type, shape_of
from model.runtime.errors import NotFoundError, OpError, UnknownOperationError, UnsupportedModelError
from model.runtime.library import CallStatus, OpOutput, load_operations, opened, session_options
from model.runtime.neutral import neutral_inputs
from model.runtime.small_graphs import check_library, string_graph
from model.runtime.suitable import Operations, reason_against, tensor_names
from model.runtime.tensors import Feed, from_tensor, type_code
from model.saved_model_proto import dtype_name
from model.saved_model_proto import shape_of as sizes_of
from model.signature import choose_signature, read_meta_graph, signatures_of
from model.specs import Signature, TensorSpec

_NO_OPERATION = ("Op type not registered", "No OpKernel was registered", "No registered")


@dataclass(frozen=True)
class _Place:
    """A dense tensor of a signature.

    Attributes:
      keyword: the name by which a call gives it.
      tensor: the graph's name of it.
      dtype: TensorFlow's name of its type.
      shape: its sizes, None where open.
    """

    keyword: str
    tensor: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def check(self, value: Dense, any_shape: bool) -> None:
        """Raises ModelInputError if the graph does not take such a value. It would not notice by itself."""
        given = "string" if isinstance(value, Strings) else value.dtype
        wanted = "string" if self.dtype == "string" else numpy_type(self.dtype)
        if given != wanted:
            raise ModelInputError(f"input '{self.keyword}' has values of type {given}; the model takes {self.dtype}")
        shape = shape_of(value)
        if isinstance(value, Strings) and (len(value.values) != math.prod(shape) or value.values.null_count):
            raise ModelInputError(f"input '{self.keyword}' has not one string for each place of shape {list(shape)}")
        if self.shape is None or any_shape:
            return
        if len(shape) != len(self.shape) or any(
            size is not None and size != found for size, found in zip(self.shape, shape, strict=True)
        ):
            takes = ", ".join("?" if size is None else str(size) for size in self.shape)
            raise ModelInputError(f"input '{self.keyword}' has shape {list(shape)}; the model takes [{takes}]")


@dataclass(frozen=True)
class _Plan:
    """How one signature is called.

    Attributes:
      signature: what it takes and gives.
      places: the dense tensors that it takes.
      outputs: its outputs and their parts in the graph.
      keeps: whether values of a call may stay in the graph.
    """

    signature: Signature
    places: list[_Place]
    outputs: list[tuple[TensorSpec, list[str]]]
    keeps: bool


def _plans(meta_graph: Any, signatures: Mapping[str, Signature]) -> dict[str, _Plan]:
    operations = Operations(meta_graph)
    plans = {}
    for name, definition in entries(meta_graph.signature_def).items():
        if name in signatures:
            infos = entries(definition.outputs)
            outputs = [(spec, tensor_names(infos[spec.name])) for spec in signatures[name].outputs]
            inputs = sorted(entries(definition.inputs).items())
            places = [place for key, info in inputs for place in _places(key, info)]
            keeps = operations.keep_values(tensor for _, names in outputs for tensor in names)
            plans[name] = _Plan(signatures[name], places, outputs, keeps)
    return plans


class _Session:
    """A loaded graph, closed when nobody has it any more; but not at the end of the process, whose threads may run."""

    def __init__(self, folder: str, meta_graph: Any, *, callers_thread: bool) -> None:
        lib = opened()
        tags = [tag.encode() for tag in meta_graph.meta_info_def.tags]
        self.graph: int = lib.TF_NewGraph()
        try:
            with session_options(callers_thread=callers_thread) as options, CallStatus() as status:
                self.pointer: int = lib.TF_LoadSessionFromSavedModel(
                    options,
                    None,
                    os.fsencode(folder),
                    (ctypes.c_char_p * len(tags))(*tags),
                    len(tags),
                    self.graph,
                    None,
                    status.pointer,
                )
                status.check()
        except BaseException:
            lib.TF_DeleteGraph(self.graph)
            raise
        weakref.finalize(self, _close, lib, self.pointer, self.graph).atexit = False

    def outputs(self, tensors: list[str]) -> Any:
        """Finds tensors of the graph. Raises UnsupportedModelError if one is not there."""
        return (OpOutput * len(tensors))(*map(self._output, tensors))

    def _output(self, tensor: str) -> OpOutput:
        name, _, index = tensor.partition(":")
        operation = opened().TF_GraphOperationByName(self.graph, name.encode())
        place = int(index or 0) if index.isdecimal() or not index else -1
        if not operation or not 0 <= place < opened().TF_OperationNumOutputs(operation):
            raise UnsupportedModelError(f"its graph has no tensor {tensor}")
        return OpOutput(operation, place)


def _close(lib: Any, session: int, graph: int) -> None:
    with CallStatus() as status:
        lib.TF_CloseSession(session, status.pointer)
        lib.TF_DeleteSession(session, status.pointer)
        lib.TF_DeleteGraph(graph)


class NativeModel:
    """Calls a loaded SavedModel through one signature, in TensorFlow's C API. Calls may come from several threads at
    once.

    Args:
      path: the local folder that holds saved_model.pb.
      signature: the name of the signature.
      op_libraries: libraries of further operations that the graph uses.

    Attributes:
      signature: what the model takes and gives.

    Raises:
      ModelError: as `SavedModel` does.
      UnsupportedModelError: this runtime cannot run the model; the Python runtime may.
    """

    runtime = "native"

    def __init__(self, path: str, signature: str, *, op_libraries: tuple[str, ...] = ()) -> None:
        meta_graph = read_meta_graph(path)
        signatures = signatures_of(meta_graph)
        against = reason_against(meta_graph, choose_signature(signatures, signature, path), path)
        if against:
            raise UnsupportedModelError(against)
        check_library()
        load_operations(op_libraries)
        self._path = path
        self._plans = _plans(meta_graph, signatures)
        # A graph that keeps something may wait for another of its operations: it runs in TensorFlow's own threads.
        alone = not any(plan.keeps for plan in self._plans.values())
        try:
            self._session = _Session(path, meta_graph, callers_thread=alone)
        except OpError as error:
            raise _unsupported(error.message) from error
        self._call_through(signature)

    def with_signature(self, signature: str) -> NativeModel:
        """Returns the same loaded model, called through another of its signatures.

        Raises:
          SignatureNotFoundError: the model has no signature of that name.
          UnsupportedModelError: this runtime cannot call that signature.
        """
        other = copy.copy(self)
        other._call_through(signature)
        return other

    def _call_through(self, signature: str) -> None:
        self.signature = choose_signature({name: p.signature for name, p in self._plans.items()}, signature, self._path)
        plan = self._plans[signature]
        self._places, self._outputs, self._keeps = plan.places, plan.outputs, plan.keeps
        for dtype in (*(place.dtype for place in plan.places), *(spec.dtype for spec in self.signature.outputs)):
            type_code(dtype)
        given = {place.tensor: place.keyword for place in self._places}
        # An input that is an output as it is: TensorFlow gives nothing that it is given.
        self._passed = {name: given[name] for _, names in self._outputs for name in names if name in given}
        self._fetched = list(dict.fromkeys(n for _, names in self._outputs for n in names if n not in given))
        self._feeds = self._session.outputs([place.tensor for place in self._places])
        self._fetches = self._session.outputs(self._fetched)
        self._pointers = (ctypes.c_void_p * len(self._places), ctypes.c_void_p * len(self._fetched))
        self._keywords = {place.keyword for place in self._places}
        ragged = [spec.components for spec in self.signature.inputs if spec.kind == "ragged"]
        self._splits = {name for components in ragged for name in components[1:]}

    def warm_up(self) -> None:
        """Calls the model once with neutral values, so that the first real call does not pay for it.

        A model may reject the values: that is ignored.

        Raises:
          UnsupportedModelError: TensorFlow has no code for one of the operations.
        """
        shapes = {place.keyword: (place.dtype, place.shape) for place in self._places}
        try:
            self(neutral_inputs(self.signature, shapes))
        except NotFoundError as error:
            if any(said in error.message for said in _NO_OPERATION):
                raise _unsupported(error.message) from error
        except (OpError, ModelInputError, MemoryError):
            pass

    def __call__(self, inputs: Mapping[str, Dense], *, any_shape: bool = False) -> dict[str, Output]:
        """Calls the signature.

        Args:
          inputs: an array for each dense input, and for each of the `components` of a ragged or sparse one.
          any_shape: whether values may have other shapes than the signature declares; the graph decides then.

        Raises:
          ModelInputError: an input is missing, unknown, or not of the signature's type or shape.
          OpError: the model fails on these values; its class has the name that TensorFlow's Python gives it.
        """
        if inputs.keys() != self._keywords:
            raise ModelInputError(self._mismatch(inputs))
        with Feed() as feed:
            for place in self._places:
                value = inputs[place.keyword]
                if place.keyword in self._splits and not isinstance(value, Strings):
                    value = value.astype(numpy_type(place.dtype), copy=False)
                place.check(value, any_shape)
                if self._keeps and isinstance(value, Strings):
                    feed.adopt(string_graph().copied(value))
                else:
                    feed.add(value, owned=self._keeps)
            # Strings that the model gives may be views of those that it was given: they are read in here.
            found = self._run(feed.pointers)
        found.update({name: inputs[keyword] for name, keyword in self._passed.items()})
        return {spec.name: _output(spec, [found[name] for name in names]) for spec, names in self._outputs}

    def _run(self, given: list[int]) -> dict[str, Dense]:
        lib = opened()
        feeds, fetches = self._pointers[0](*given), self._pointers[1]()
        with CallStatus() as status:
            lib.TF_SessionRun(
                self._session.pointer,
                None,
                self._feeds,
                feeds,
                len(feeds),
                self._fetches,
                fetches,
                len(fetches),
                None,
                0,
                None,
                status.pointer,
            )
            status.check()
        found: dict[str, Dense] = {}
        left = [pointer for pointer in fetches if pointer is not None]
        try:
            for name in self._fetched:
                found[name] = from_tensor(left.pop(0), copied=self._keeps)
        finally:
            for pointer in left:
                lib.TF_DeleteTensor(pointer)
        return found

    def _mismatch(self, inputs: Mapping[str, Any]) -> str:
        missing, unknown = sorted(self._keywords - inputs.keys()), sorted(inputs.keys() - self._keywords)
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        names = ", ".join(spec.name for spec in self.signature.inputs)
        return f"the inputs do not match signature '{self.signature.name}' ({'; '.join(parts)}); it takes {names}"


def _places(key: str, info: Any) -> list[_Place]:
    """The dense tensors of an input, by the keywords that `model.signature` gives them."""
    if info.HasField("coo_sparse"):
        names, dtypes = tensor_names(info), ("int64", dtype_name(info.dtype), "int64")
        rank = None if info.tensor_shape.unknown_rank else len(info.tensor_shape.dim)
        shapes: tuple[tuple[int | None, ...], ...] = ((None, rank), (None,), (rank,))
        parts = ("indices", "values", "dense_shape")
        return [
            _Place(f"{key}_{part}", name, dtype, shape)
            for part, name, dtype, shape in zip(parts, names, dtypes, shapes, strict=True)
        ]
    if info.HasField("composite_tensor"):
        return [
            _Place(f"{key}_component_{i}", part.name, dtype_name(part.dtype), sizes_of(part.tensor_shape))
            for i, part in enumerate(info.composite_tensor.components)
        ]
    return [_Place(key, info.name, dtype_name(info.dtype), sizes_of(info.tensor_shape))]


def _output(spec: TensorSpec, parts: list[Dense]) -> Output:
    if spec.kind == "dense":
        return parts[0]
    numbers: list[Any] = parts
    if spec.kind == "sparse":
        return Sparse(numbers[0], parts[1], numbers[2])
    return Ragged(parts[0], tuple(numbers[1:]))


def _unsupported(message: str) -> UnsupportedModelError:
    """What TensorFlow says of a model that it cannot load, in one line."""
    unknown = re.search(r"Op type not registered '([^']{1,200})'", message)
    if unknown:
        return UnknownOperationError(f"its operation {unknown[1]} is in no library that is loaded (model.op_libraries)")
    return UnsupportedModelError((message.strip() or "TensorFlow does not say why").splitlines()[0][:500])
