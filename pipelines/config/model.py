"""Defines the part of a config that says which model is called, and how."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from pipelines.config.base import Name, Strict
from pipelines.config.paths import AnyPath, LocalPath


class SavedModelConfig(Strict):
    """Calls a SavedModel inside the workers."""

    type: Literal["saved_model"] = "saved_model"
    path: AnyPath = Field(description="Folder of the SavedModel, local, gs:// or s3://; with version, of its versions.")
    signature: Name | None = Field(
        None, description="The signature to call; by default serving_default, or the only one that the model has."
    )
    version: Name | None = Field(
        None,
        description='A version\'s folder in path, or "latest": the newest when a batch run starts; a stream goes over '
        "to a newer one as soon as it is there.",
    )
    refresh_s: Annotated[float, Field(gt=0)] = Field(
        10, description='Seconds after which a stream with version "latest" looks for a newer version.'
    )
    runtime: Literal["native", "python"] | None = Field(
        None,
        description="What runs the model: native (TensorFlow's C++ core alone: starts in a second, answers faster) or "
        "python (TensorFlow's Python). By default native; python, with a line that says why, where it cannot.",
    )
    op_libraries: list[LocalPath] = Field(
        [],
        description="Libraries of further operations that the graph uses, such as the .so files of tensorflow-text; "
        "paths on the machines that run the model.",
    )


class DeclaredTensor(Strict):
    """Declares an input or output of a model whose server cannot tell it."""

    dtype: Name
    shape: list[int | None] = Field(
        [],
        description="Shape of one row's value, such as [3] for three numbers; a leading -1 stands for the rows and is "
        "dropped.",
    )


def _by_name(value: Any) -> Any:
    """[{"name": "x", "dtype": ...}, ...] as {"x": {"dtype": ...}, ...}."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in value):
        raise ValueError('in a list, each is an object with a name: [{"name": "x", "dtype": "float32"}]')
    twins = sorted(name for name, count in Counter(item["name"] for item in value).items() if count > 1)
    if twins:
        raise ValueError(f"'{twins[0]}' is there twice; remove one")
    return {item["name"]: {key: part for key, part in item.items() if key != "name"} for item in value}


Tensors = Annotated[dict[Name, Name | DeclaredTensor], BeforeValidator(_by_name)]
Version = Annotated[Name, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


def refuse_two_signatures(signature_from: str | None, inputs: object, outputs: object) -> None:
    """Raises ValueError if a config tells a signature in two ways, or a half of one."""
    if inputs is not None and signature_from is not None:
        raise ValueError("inputs and signature_from exclude each other; leave one out")
    if outputs is not None and inputs is None:
        raise ValueError("outputs stands beside inputs only; give both, or signature_from")


class EndpointConfig(Strict):
    """Calls a model on a server."""

    type: Literal["endpoint"]
    protocol: Literal["ai_platform", "vertex", "tf_serving_rest", "tf_serving_grpc", "kserve_v1", "kserve_v2"]
    url: Name | None = Field(
        None,
        repr=False,
        description="The server (http://127.0.0.1:8501; for gRPC 127.0.0.1:8500 or grpcs://host:port), or the whole "
        "address of the prediction. For ai_platform and vertex it replaces Google's host.",
    )
    resource: Name | None = Field(
        None,
        description="The cloud resource: projects/P/models/M[/versions/V] (ai_platform), "
        "projects/P/locations/L/endpoints/E (vertex).",
    )
    model: Name = Field("default", description="Name of the model on the server.")
    version: Version | None = Field(None, description="Number of the version to call; by default the server chooses.")
    label: Name | None = Field(None, description="Label of the version to call; use it instead of version.")
    signature: Name = "serving_default"
    signature_from: AnyPath | None = Field(
        None,
        description="Folder of a SavedModel to learn the inputs from; give it, or inputs, where the server cannot "
        "tell them.",
    )
    inputs: Tensors | None = Field(
        None,
        description=(
            'Inputs of the model, {input: dtype} or {input: {"dtype": ..., "shape": [...]}}; use it instead of '
            "signature_from."
        ),
    )
    outputs: Tensors | None = Field(
        None,
        description="Outputs of the model, as inputs are given; use it beside inputs. By default one float32 named "
        "predictions.",
    )
    body: Literal["columns", "rows", "raw", "json", "binary"] | None = Field(
        None,
        description="tf_serving_rest: columns (default) or rows; vertex: rows (default) or raw (rawPredict); "
        "kserve_v2: json (default) or binary.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(60, description="Longest time for a whole request, in seconds.")
    connect_timeout_s: Annotated[float, Field(gt=0)] = Field(
        10, description="Longest time to make a connection, in seconds."
    )
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        8, description="How many times a request is sent at most, the first time included."
    )
    deadline_s: Annotated[float, Field(gt=0)] = Field(
        600, description="How long a row is tried in all, in seconds, waits between attempts included."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="Most requests that one worker process has under way at the same time."
    )
    max_request_bytes: Annotated[int, Field(ge=1024)] | None = Field(
        None, description="Largest request body in bytes; by default the service's own limit (1.5 MB on Google's)."
    )
    headers: dict[Name, SecretStr] = Field(
        {}, description="HTTP headers (gRPC metadata) to send with each request; they are never shown."
    )
    credentials: Literal["google", "none"] | None = Field(
        None, description="google sends a token of Google's default credentials; by default to Google's hosts only."
    )
    ca_file: LocalPath | None = Field(
        None, description="File of certificates to trust, in PEM; the system's by default."
    )

    @model_validator(mode="after")
    def _complete(self) -> EndpointConfig:
        cloud = self.protocol in ("ai_platform", "vertex")
        if self.url is None and not (cloud and self.resource):
            wanted = "resource (or url)" if cloud else "url"
            raise ValueError(f"{wanted} is missing: where is the server?")
        if self.resource and not cloud:
            raise ValueError(f"resource: {self.protocol} has none; give url and model")
        refuse_two_signatures(self.signature_from, self.inputs, self.outputs)
        if self.version and self.label:
            raise ValueError("version and label exclude each other; leave one out")
        bodies = {"tf_serving_rest": ("columns", "rows"), "vertex": ("rows", "raw"), "kserve_v2": ("json", "binary")}
        suitable = bodies.get(self.protocol, ())
        if self.body is not None and self.body not in suitable:
            raise ValueError(f"body: {self.protocol} takes {' or '.join(suitable) or 'one kind only; leave it out'}")
        return self
