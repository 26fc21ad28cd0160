"""The versions of a model: found in a folder, loaded, replaced while the server runs."""

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from model.errors import ModelError, ModelInputError, ModelLoadError, SignatureNotFoundError
from model.other_formats import SAVED_MODEL_FILE
from model.savedmodel import SavedModel
from model.serving.errors import RequestError, Status, brief, invalid, note
from model.serving.tensors import Array, Arrays, has_rows, numpy_dtype
from model.signature import read_signature, read_signatures
from model.specs import Signature

_VERSION = re.compile(r"v?([0-9]{1,18})", re.ASCII)


@dataclass
class Servable:
    """One signature of one version.

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
            outputs = model({spec.name: tf.constant(arrays[spec.name], spec.dtype) for spec in self.signature.inputs})
            return {spec.name: _array(outputs[spec.name]) for spec in self.signature.outputs}
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise RequestError(Status.UNAVAILABLE, f"no memory for the model: {_reason(error)}") from error
        except (tf.errors.OpError, ModelInputError, ValueError, TypeError) as error:
            raise invalid(f"the model fails on these values: {_reason(error)}") from error


class Version:
    """One version of a model, loaded.

    The signature that requests get by default is loaded at once and called; another one, when it is first asked for.

    Args:
      number: the version's number.
      path: the SavedModel's folder.
      default: the name of the default signature.

    Attributes:
      number, path: as given.
      signatures: what the model takes and gives, by the signature's name.
      definitions: the same as TensorFlow's SignatureDef messages.

    Raises:
      ModelError: it cannot be loaded or served.
    """

    def __init__(self, number: int, path: str, default: str) -> None:
        self.number = number
        self.path = path
        self.signatures = read_signatures(path)
        read_signature(path, default)
        reason = _not_served(self.signatures[default])
        if reason is not None:
            raise ModelLoadError(f"the model at {path} cannot be served: {reason}")
        self.definitions = _definitions(path, self.signatures)
        self._servables = {name: Servable(self, signature) for name, signature in self.signatures.items()}
        self._models: dict[str, SavedModel] = {}
        self._loading = threading.Lock()
        self.model(default).warm_up()

    def model(self, signature: str) -> SavedModel:
        """The model as called through one of its signatures."""
        model = self._models.get(signature)
        if model is None:
            with self._loading:
                model = self._models.get(signature)
                if model is None:
                    first = next(iter(self._models.values()), None)
                    model = first.with_signature(signature) if first else SavedModel(self.path, signature)
                    self._models[signature] = model
        return model

    def servable(self, signature: str) -> Servable:
        """One signature, to be called.

        Raises:
          RequestError: there is none of that name, or it takes or gives what requests cannot carry.
        """
        servable = self._servables.get(signature)
        if servable is None:
            known = ", ".join(self._servables)
            raise invalid(f'Serving signature key "{signature}" not found; the model has {known}')
        reason = _not_served(servable.signature)
        if reason is not None:
            raise invalid(reason)
        return servable


class Store:
    """The versions of a model that are served.

    Served are the newest ones and those that have a label. A version that cannot be loaded is tried again when its
    files have changed; a version that appears is loaded when its files have stayed the same between two looks, as
    one that is being copied may load without all of its vocabulary. One whose folder is removed is let go, unless
    it is the last.

    Args:
      path: a SavedModel's folder, or a folder of versions.
      name: the model's name.
      signature: the default signature.
      keep: how many of the newest versions are served.
      labels: versions by label.
    """

    def __init__(self, path: str, name: str, signature: str, keep: int, labels: Mapping[str, int]) -> None:
        self.name = name
        self._path = path
        self._signature = signature
        self._keep = keep
        self._labels = labels
        self._seen: dict[int, Any] = {}
        self._failed: dict[int, tuple[Any, str]] = {}
        # Replaced as a whole, never changed: requests read it while a version is loaded.
        self._versions: dict[int, Version] = {}

    def load(self) -> None:
        """Loads what is there.

        Raises:
          ModelError: no version can be loaded.
        """
        found = find_versions(self._path)
        if not found:
            read_signatures(self._path)
        problem: ModelError | None = None
        for number in sorted(found, reverse=True):
            if number in self._wanted(found):
                error = self._try(number, found[number], _files(found[number]))
                problem = problem or error
        if not self._versions and problem is not None:
            raise problem
        for label, number in self._labels.items():
            if number not in self._versions:
                note(f"label {label}: there is no version {number} yet")

    def refresh(self) -> None:
        """Looks for versions that appeared, changed or are gone."""
        try:
            found = find_versions(self._path)
        except OSError as error:
            note(f"cannot look for versions: {error}")
            return
        seen = self._seen
        wanted = self._wanted(found)
        self._seen = {number: _files(found[number]) for number in wanted if number not in self._versions}
        for number, files in self._seen.items():
            failed = self._failed.get(number)
            if files == seen.get(number) and (failed is None or failed[0] != files):
                self._try(number, found[number], files)
        self._failed = {number: failed for number, failed in self._failed.items() if number in found}
        self._let_go(found)

    @property
    def versions(self) -> list[int]:
        """The versions that are served, the newest first."""
        return sorted(self._versions, reverse=True)

    @property
    def failures(self) -> dict[int, str]:
        """The versions that cannot be loaded, and why."""
        return {number: reason for number, (_, reason) in self._failed.items()}

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """A version: the newest, or the one with that number or label.

        Raises:
          RequestError: there is none.
        """
        versions = self._versions
        if name != self.name:
            raise RequestError(Status.NOT_FOUND, f"Servable not found for request: Latest({name})")
        if label is not None:
            version = self._labels.get(label)
            if version not in versions:
                raise RequestError(Status.NOT_FOUND, f"Unrecognized servable version label: {label}")
        number = max(versions) if version is None else version
        if number not in versions:
            raise RequestError(Status.NOT_FOUND, f"Servable not found for request: Specific({name}, {number})")
        return versions[number]

    def _wanted(self, found: Mapping[int, str]) -> list[int]:
        """The newest versions, and the labelled ones; one that does not load does not count."""
        wanted = []
        good = 0
        for number in sorted(found, reverse=True):
            if good < self._keep or number in self._labels.values():
                wanted.append(number)
            good += number not in self._failed
        return wanted

    def _try(self, number: int, path: str, files: Any) -> ModelError | None:
        started = time.perf_counter()
        try:
            version = Version(number, path, self._signature)
        except ModelError as error:
            self._fail(number, files, str(error))
            return error
        except Exception as error:  # whatever half a model makes TensorFlow say: the server goes on
            self._fail(number, files, f"{type(error).__name__}: {_reason(error)}")
            return ModelLoadError(f"the model at {path} cannot be loaded: {_reason(error)}")
        self._failed.pop(number, None)
        self._versions = {**self._versions, number: version}
        note(f"version {number} loaded from {path} in {time.perf_counter() - started:.1f} s")
        return None

    def _fail(self, number: int, files: Any, reason: str) -> None:
        reason = brief(reason)
        self._failed[number] = (files, reason)
        note(f"version {number} does not load: {reason}")

    def _let_go(self, found: Mapping[int, str]) -> None:
        """Unloads what is gone or too old, once enough newer versions are loaded."""
        present = {number: path for number, path in found.items() if number in self._versions}
        keep = set(self._wanted(present)) or {max(self._versions)}
        for number in self._versions.keys() - keep:
            note(f"version {number} unloaded")
        self._versions = {number: version for number, version in self._versions.items() if number in keep}


def find_versions(path: str) -> dict[int, str]:
    """Finds the versions of a model.

    Args:
      path: a SavedModel's folder, or a folder of versions: v1, v2, ... or 1, 2, ...

    Returns:
      The folders by version; a SavedModel that is not in a folder of that kind is version 1.
    """
    folder = Path(path)
    if (folder / SAVED_MODEL_FILE).exists():
        match = _VERSION.fullmatch(folder.resolve().name)
        return {int(match[1]) if match else 1: path}
    if not folder.is_dir():
        return {}
    named = {entry.name: str(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    return {int(match[1]): path for name, path in named.items() if (match := _VERSION.fullmatch(name))}


def _files(path: str) -> list[tuple[str, int, int]]:
    """What tells whether a folder's files have changed."""
    files = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            try:
                status = os.stat(file)
            except OSError:
                continue
            files.append((file, status.st_size, status.st_mtime_ns))
    return sorted(files)


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


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: TensorFlow puts it behind a stack trace and before the op's name."""
    text = (getattr(error, "message", "") or str(error)).strip()
    lines = [line.strip() for line in text.splitlines()]
    skipped = ("Graph execution error", "Detected at node", "<stack traces unavailable>", "File ", "[[{{node")
    telling = [line for line in lines if line and not line.startswith(skipped)]
    return (telling or lines or [type(error).__name__])[0][:500] or type(error).__name__


def _array(tensor: Any) -> Array:
    value = tensor.numpy()
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, object if tensor.dtype == tf.string else None)


def rows_of(outputs: Arrays) -> set[int]:
    """The numbers of rows of the outputs; -1 for one that has none."""
    return {len(array) if np.ndim(array) else -1 for array in outputs.values()}
