"""Finds out whether a job server is where the command line says, before anything slow is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipelines.config.errors import ConfigError

_ANSWER_WITHIN_S = 5.0
_METHOD = "/org.apache.beam.model.job_management.v1.JobService/DescribePipelineOptions"


def check_flags(flags: Sequence[str]) -> None:
    """Looks for the job server that Beam's flags name, if they do. Raises ConfigError if there is none."""
    for flag, after in zip(flags, [*flags, ""][1:], strict=True):
        name, equals, value = flag.partition("=")
        if name in ("--job_endpoint", "--job-endpoint"):
            check(value if equals else after)


def check(endpoint: str) -> None:
    """Raises ConfigError unless a Beam job server answers at host:port."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc

    host, colon, port = endpoint.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ConfigError([f"--job_endpoint {endpoint}: not host:port"])
    with grpc.insecure_channel(endpoint) as channel:
        try:
            channel.unary_unary(_METHOD)(b"", timeout=_ANSWER_WITHIN_S)
        except grpc.RpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            said = "nobody answers there" if refused else "what listens there is no job server of Beam's"
            raise ConfigError(
                [f"--job_endpoint {endpoint}: {said}; start one (make flink starts Flink's), or correct the address"]
            ) from None
