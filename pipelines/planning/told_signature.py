"""Reads the signature of a model on a server from a config: by a SavedModel, or word by word."""

from __future__ import annotations

from typing import Any

from inference.saved_model import files as model_files
from model.signature import read_signature
from model.specs import Signature
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.model import DeclaredTensor, EndpointConfig


def told_signature(config: EndpointConfig | BatchJobConfig) -> Signature | None:
    """Returns the signature that a config tells, by a SavedModel or word by word; None if it tells none.

    Raises:
      ModelError: the SavedModel cannot be read.
      BindingError: what it says is no signature.
    """
    if config.signature_from is not None:
        path = model_files.resolve(config.signature_from)
        return read_signature(path, config.signature, read_bytes=model_files.read_bytes)
    if config.inputs is None:
        return None
    from inference.endpoint.declared_signature import declared_signature

    return declared_signature(_plain(config.inputs), _plain(config.outputs or {}), config.signature)


def _plain(tensors: dict[str, str | DeclaredTensor]) -> dict[str, Any]:
    return {name: value if isinstance(value, str) else value.model_dump() for name, value in tensors.items()}
