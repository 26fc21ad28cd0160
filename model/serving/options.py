"""Reads the command line of the server into plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model.errors import ModelError
from model.serving.jobs.options import JobOptions

ERROR_KINDS = ("429", "500", "503", "reset", "stall", "truncated", "misaligned", "html")


@dataclass(frozen=True)
class ServedModel:
    """Describes a model to serve.

    Attributes:
      name: in requests.
      path: a SavedModel's folder, or a folder of versions.
      keep: how many of the newest versions are served; None for all.
      versions: the versions that are served, in place of the newest; none for those.
      labels: versions by label.
    """

    name: str
    path: str
    keep: int | None = 2
    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Describes what to serve, where, within which limits, and how to misbehave.

    Attributes:
      model: a SavedModel's folder, or a folder of versions; None if only `more` are served.
      name: the model's name in requests.
      more: further models.
      model_config_file: where `more` was read; None if nowhere.
      model_config_poll_s: how often to read it again; 0 for never.
      signature: the one that is called where a request names none.
      host: the address to bind.
      port: of REST; 0 for any free one.
      grpc_port: of gRPC; None for the one below `port`, or any free one if that is taken.
      labels: versions by label.
      poll_seconds: how often to look for new versions.
      keep_versions: how many of the newest versions are served.
      threads: how many model calls run at a time.
      max_batch_rows: how many rows waiting requests are joined to; 1 joins none.
      max_batch_wait_s: how long a request waits for others although the model is free.
      max_request_rows: most rows of a request.
      max_queue_rows: how many rows may wait for the model.
      max_body_bytes: most bytes of a request body.
      max_connections: how many connections of REST are kept, and of gRPC.
      request_s: how long a request may take to arrive, and an answer to be taken.
      idle_s: how long a connection without a request is kept.
      allowed_hosts: further names of this machine that requests may be addressed to.
      latency_s: added to each prediction request.
      error_rate: the share of prediction requests that fail, from 0 to 1.
      error_kinds: how they fail; some of ERROR_KINDS.
      stall_s: how long a stalled request takes.
      seed: of the faults.
      quota_qps: prediction requests a second; None for no limit.
      retry_after_s: what answers that ask to come again say; None for nothing.
      drain_s: how long a request may go on when the server is told to stop.
      runtime: what runs the model, native or python; None: native where that can.
      op_libraries: libraries of further operations that its graph uses.
      json: whether to say in JSON that the server is ready.
      jobs: how batch prediction jobs are run.
    """

    model: str | None
    name: str = "default"
    more: tuple[ServedModel, ...] = ()
    model_config_file: str | None = None
    model_config_poll_s: float = 0.0
    signature: str = "serving_default"
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    poll_seconds: float = 1.0
    keep_versions: int = 2
    threads: int = 1
    max_batch_rows: int = 16_384
    max_batch_wait_s: float = 0.0
    max_request_rows: int = 262_144
    max_queue_rows: int = 1_000_000
    max_body_bytes: int = 64 * 2**20
    max_connections: int = 512
    request_s: float = 60.0
    idle_s: float = 75.0
    allowed_hosts: tuple[str, ...] = ()
    latency_s: float = 0.0
    error_rate: float = 0.0
    error_kinds: tuple[str, ...] = ("503",)
    stall_s: float = 30.0
    seed: int = 0
    quota_qps: float | None = None
    retry_after_s: float | None = None
    drain_s: float = 10.0
    runtime: Literal["native", "python"] | None = None
    op_libraries: tuple[str, ...] = ()
    json: bool = False
    jobs: JobOptions = field(default_factory=JobOptions)

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ModelError(f"there are two models of the name {name}; rename one")

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Returns all models that are served."""
        if self.model is None:
            return self.more
        return (ServedModel(self.name, self.model, self.keep_versions, labels=self.labels), *self.more)
