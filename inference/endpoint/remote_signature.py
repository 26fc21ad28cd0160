"""Asks what a model on a server takes, and checks that a request can carry it. Needs no Beam."""

from __future__ import annotations

from inference.endpoint.client import Client, Endpoint
from inference.errors import BindingError
from model.specs import Signature


def ask_signature(endpoint: Endpoint) -> Signature:
    """Returns what a model takes and gives, as its server says. Raises EndpointError."""
    client = Client(endpoint)
    try:
        return client.signature()
    finally:
        client.close()


def check_inputs(signature: Signature) -> None:
    """Raises BindingError if a request cannot carry the inputs."""
    problems = [
        f"input '{spec.name}' is {spec.kind}: a request cannot carry it; export a signature with dense inputs, or "
        "one that takes tf.Examples"
        for spec in signature.inputs
        if spec.kind != "dense"
    ]
    if problems:
        raise BindingError(problems)
