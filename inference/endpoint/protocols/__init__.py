"""Speaks to each kind of model server: one module for each, bodies of requests and responses only."""

from __future__ import annotations

from importlib import import_module

from inference.endpoint.protocols.base import Answer, Protocol, Request, Response, Target

__all__ = ["NAMES", "Answer", "Protocol", "Request", "Response", "Target", "protocol_class"]

_CLASSES = {
    "ai_platform": "AIPlatform",
    "vertex": "Vertex",
    "tf_serving_rest": "TFServingRest",
    "tf_serving_grpc": "TFServingGrpc",
    "kserve_v1": "KServeV1",
    "kserve_v2": "KServeV2",
}

NAMES = tuple(_CLASSES)
"""The protocols, as configs name them."""


def protocol_class(name: str) -> type[Protocol]:
    """Returns the protocol of a name. Only `tf_serving_grpc` imports TensorFlow's messages.

    Raises:
      ValueError: there is no such protocol.
    """
    if name not in _CLASSES:
        raise ValueError(f"there is no protocol '{name}'; there are {', '.join(NAMES)}")
    protocol: type[Protocol] = getattr(import_module(f"{__name__}.{name}"), _CLASSES[name])
    return protocol
