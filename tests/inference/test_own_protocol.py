"""A protocol of one's own stands where the name of a known one does."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from inference import Endpoint, EndpointHandler, Target
from inference.endpoint.client import Client
from inference.endpoint.protocols import Answer, Protocol, Request, Response
from inference.errors import EndpointConfigError


class Own(Protocol):
    """A protocol that addresses models by a version only."""

    name = "own"
    needs_signature = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.version is None:
            raise ValueError("version: missing; this protocol needs one")

    def predict(self, arrays: Sequence[Any], inputs: Sequence[Any]) -> Request:
        return Request(f"{self.target.url}/{self.target.version}", b"{}")

    def read(self, response: Response, rows: int, outputs: Sequence[Any]) -> Answer:
        return Answer({})

    def error_message(self, response: Response) -> str:
        return ""


TARGET = Target(url="http://127.0.0.1:1", version="3")


def test_it_is_named_as_it_says() -> None:
    endpoint = pickle.loads(pickle.dumps(Endpoint(Own, TARGET)))
    assert endpoint.name == "own:http://127.0.0.1:1/default/3"
    assert isinstance(endpoint.make_protocol(), Own)


def test_what_it_says_of_a_target_is_a_mistake_of_the_config() -> None:
    with pytest.raises(EndpointConfigError, match="version: missing; this protocol needs one"):
        Client(Endpoint(Own, Target(url="http://127.0.0.1:1")))


def test_a_server_that_cannot_tell_its_signature() -> None:
    with pytest.raises(EndpointConfigError, match="own servers do not tell what a model takes"):
        EndpointHandler(Endpoint(Own, TARGET))
