"""Predicts with TensorFlow for PCollections of Arrow record batches.

Importing a name imports what it needs (Beam, about 4 s); TensorFlow is imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.endpoint.client import Endpoint
    from inference.endpoint.handler import EndpointHandler
    from inference.endpoint.protocols.base import Target
    from inference.predict import Predict, Rejected
    from inference.saved_model.handler import SavedModelHandler

__all__ = ["Endpoint", "EndpointHandler", "Predict", "Rejected", "SavedModelHandler", "Target"]

_HOMES = {
    "Endpoint": "inference.endpoint.client",
    "EndpointHandler": "inference.endpoint.handler",
    "Predict": "inference.predict",
    "Rejected": "inference.predict",
    "SavedModelHandler": "inference.saved_model.handler",
    "Target": "inference.endpoint.protocols.base",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inference' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
