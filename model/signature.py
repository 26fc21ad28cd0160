"""Reads the signatures of a SavedModel from saved_model.pb without TensorFlow.

TensorFlow takes 5-10 s to import and loads the weights too; this takes milliseconds, so that a wrong path, name
or column is known before anything starts.
"""

import difflib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import ModelFormatError, ModelNotFoundError, SignatureNotFoundError
from model.graph import ModelGraph, composite_spec
from model.other_formats import SAVED_MODEL_FILE, by_name, is_address, version_number, why_none
from model.outside import OutsideOperation, outside_operations
from model.proto_subset import entries
from model.saved_model_proto import dtype_name, parse_saved_model, shape_of
from model.specs import ExampleFeature, Signature, TensorSpec

__all__ = [
    "Contents",
    "ExampleFeature",
    "Signature",
    "TensorSpec",
    "choose_signature",
    "latest_version",
    "read_contents",
    "read_signature",
    "read_signatures",
]

DEFAULT_SIGNATURE = "serving_default"

_MAX_BYTES = 2**31 - 1
"""Protobuf's limit for one message."""

_SERVE_TAG = "serve"
_INIT_SIGNATURE = "__saved_model_init_op"


@dataclass(frozen=True)
class Contents:
    """Describes what saved_model.pb tells about a model.

    Attributes:
      signatures: by name, sorted; TensorFlow's internal initialisation is left out.
      outside: what its graph does beside computing, such as reading files, see `outside.py`.
    """

    signatures: Mapping[str, Signature]
    outside: tuple[OutsideOperation, ...]


def read_signatures(path: str, *, read_bytes: Callable[[str], bytes] | None = None) -> dict[str, Signature]:
    """Reads every signature of a SavedModel.

    Args:
      path: the folder that holds saved_model.pb.
      read_bytes: reads a whole file, given `<path>/saved_model.pb`; for paths that are not local, such as gs://.
        It raises FileNotFoundError where there is no such file.

    Returns:
      The signatures by name, sorted; TensorFlow's internal initialisation is left out.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
    """
    return signatures_of(read_meta_graph(path, read_bytes))


def read_contents(path: str, *, read_bytes: Callable[[str], bytes] | None = None) -> Contents:
    """Reads every signature of a SavedModel, and what else its graph does.

    Args:
      path: as for `read_signatures`.
      read_bytes: as for `read_signatures`.

    Returns:
      Both, of one reading of the file.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
    """
    meta_graph = read_meta_graph(path, read_bytes)
    return Contents(signatures_of(meta_graph), outside_operations(meta_graph))


def read_meta_graph(path: str, read_bytes: Callable[[str], bytes] | None = None) -> Any:
    """Reads the MetaGraphDef message of a SavedModel that is for serving.

    Args:
      path: as for `read_signatures`.
      read_bytes: as for `read_signatures`.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
    """
    path = os.fspath(path)
    file = f"{path.rstrip('/') or path}/{SAVED_MODEL_FILE}"
    if is_address(path):
        raise ModelNotFoundError(why_none(path))
    if read_bytes is None:
        data = _read_local(path, file)
    else:
        try:
            data = read_bytes(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            if "://" not in path:
                raise ModelNotFoundError(why_none(path)) from error
            said = by_name(path) or f"no SavedModel at {path}: {file} does not exist; check the path"
            raise ModelNotFoundError(said) from error
        except OSError as error:
            raise ModelFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    return _serving_graph(parse_saved_model(data, file), file)


def signatures_of(meta_graph: Any) -> dict[str, Signature]:
    """Returns every signature of a MetaGraphDef message by name, sorted, as `read_signatures` does."""
    graph = ModelGraph(meta_graph)
    return {
        name: _signature(name, definition, graph)
        for name, definition in sorted(entries(meta_graph.signature_def).items())
        if name != _INIT_SIGNATURE
    }


def read_signature(
    path: str, name: str | None = None, *, read_bytes: Callable[[str], bytes] | None = None
) -> Signature:
    """Reads one signature of a SavedModel.

    Args:
      path: the folder that holds saved_model.pb.
      name: the signature's name; None for serving_default, or the only one that there is.
      read_bytes: as for `read_signatures`.

    Returns:
      The signature.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
      SignatureNotFoundError: the model has no signature of that name.
    """
    return choose_signature(read_signatures(path, read_bytes=read_bytes), name, path)


def choose_signature(signatures: Mapping[str, Signature], name: str | None, path: str) -> Signature:
    """Returns the signature of that name.

    Args:
      signatures: of the model.
      name: the signature's name; None for serving_default, or the only one that there is.
      path: of the model, for the error message.

    Raises:
      SignatureNotFoundError: the model has no signature of that name, or has several and none was named.
    """
    if name is None:
        name = next(iter(signatures)) if len(signatures) == 1 else DEFAULT_SIGNATURE
        if signatures and name not in signatures:
            raise SignatureNotFoundError(
                f"the model at {path} has several signatures, and none is named {DEFAULT_SIGNATURE}: name one of "
                f"{', '.join(repr(known) for known in signatures)}"
            )
    if name in signatures:
        return signatures[name]
    if not signatures:
        raise SignatureNotFoundError(
            f"the model at {path} has no signatures; export it with tf.saved_model.save(..., signatures=...)"
        )
    close = difflib.get_close_matches(name, signatures, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    available = ", ".join(repr(known) for known in signatures)
    raise SignatureNotFoundError(f"the model at {path} has no signature '{name}': {hint}available: {available}")


def latest_version(names: Iterable[str]) -> str | None:
    """Picks the newest of the version folders of a model.

    Args:
      names: names of folders; those that are not `v` and a number, or a number, do not count.

    Returns:
      The name with the highest number, None if there is no version.

    >>> latest_version(["v1", "v10", "v2", "archive"])
    'v10'
    """
    plain = (name.rstrip("/") for name in names)
    versions = [(number, name) for name in plain if (number := version_number(name)) is not None]
    return max(versions)[1] if versions else None


def _read_local(path: str, file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFormatError(f"{file} is not a regular file; export or copy the model again")
            if status.st_size > _MAX_BYTES:
                raise ModelFormatError(
                    f"{file} has {status.st_size} bytes, above protobuf's limit of 2 GiB; export the model with "
                    "its weights as variables"
                )
            return stream.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(why_none(path)) from error
    except OSError as error:
        raise ModelFormatError(f"{file} cannot be read: {error.strerror}") from error


def serving_tags(path: str) -> list[str]:
    """Reads the tags of a local SavedModel's graph that is for serving.

    Args:
      path: the folder that holds saved_model.pb.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
    """
    return list(read_meta_graph(path).meta_info_def.tags)


def _serving_graph(saved_model: Any, file: str) -> Any:
    graphs = sorted(saved_model.meta_graphs, key=lambda graph: len(graph.meta_info_def.tags))
    for meta_graph in graphs:
        # Of graphs for serving on several devices, that with the fewest tags is the one for any device.
        if _SERVE_TAG in meta_graph.meta_info_def.tags:
            return meta_graph
    if len(graphs) == 1 and not graphs[0].meta_info_def.tags:
        return graphs[0]
    tags = sorted({tag for meta_graph in graphs for tag in meta_graph.meta_info_def.tags})
    found = ", ".join(repr(tag) for tag in tags) or "none"
    raise ModelFormatError(
        f"{file} has no graph tagged '{_SERVE_TAG}' (tags found: {found}); export the model for serving"
    )


def _signature(name: str, definition: Any, graph: ModelGraph) -> Signature:
    infos = entries(definition.inputs)
    specs = {key: _spec(key, info, is_input=True) for key, info in infos.items()}
    tensors = {key: info.name for key, info in infos.items() if info.name}
    dense = {key: spec for key, spec in specs.items() if spec.kind == "dense"}
    for composite in graph.composites(tensors, dense):
        for component in composite.components:
            specs.pop(component, None)
        specs[composite.name] = composite
    examples_input: str | None = None
    features: tuple[ExampleFeature, ...] = ()
    for key, spec in sorted(specs.items()):
        if spec.kind == "dense" and spec.dtype == "string" and key in tensors:
            parsed = graph.example_features(tensors[key])
            if parsed is not None:
                examples_input, features = key, parsed
                break
    return Signature(
        name=name,
        inputs=_sorted(specs.values()),
        outputs=_sorted(_spec(key, info, is_input=False) for key, info in entries(definition.outputs).items()),
        method_name=definition.method_name,
        examples_input=examples_input,
        example_features=features,
    )


def _spec(name: str, info: Any, *, is_input: bool) -> TensorSpec:
    """Returns the spec of a TensorInfo; models of TensorFlow 1 declare composite inputs here."""
    if info.HasField("coo_sparse"):
        parts = tuple(f"{name}_{part}" for part in ("indices", "values", "dense_shape"))
        shape = shape_of(info.tensor_shape)
        return TensorSpec(name, dtype_name(info.dtype), shape, "sparse", parts if is_input else ())
    if info.HasField("composite_tensor"):
        count = len(info.composite_tensor.components)
        parts = tuple(f"{name}_component_{i}" for i in range(count))
        spec = composite_spec(name, info.composite_tensor.type_spec, parts if is_input else ())
        return spec or TensorSpec(name, dtype_name(info.dtype), None, "composite", parts if is_input else ())
    return TensorSpec(name, dtype_name(info.dtype), shape_of(info.tensor_shape))


def _sorted(specs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(sorted(specs, key=lambda spec: spec.name))
