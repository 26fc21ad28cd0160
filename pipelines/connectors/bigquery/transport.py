"""Connects to BigQuery's Storage APIs, or to the emulator that BIGQUERY_STORAGE_EMULATOR_HOST names."""

from __future__ import annotations

import os
from typing import Any

import grpc
import grpc.experimental

from pipelines.connectors.bigquery.tables import GRPC_EMULATOR

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 60_000),
    # A stream is read in the thread that works on it, not by way of another.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
]


def connected_to(kind: Any) -> Any:
    """Makes a transport of one of the client library's classes."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    emulator = os.environ.get(GRPC_EMULATOR)
    channel = grpc.insecure_channel(emulator, _OPTIONS) if emulator else kind.create_channel(options=_OPTIONS)
    return kind(channel=channel)


def told(error: grpc.RpcError) -> str:
    """Returns what an error of gRPC says, on one line."""
    return f"{error.code().name}: {' '.join((error.details() or '').split())[:300]}"
