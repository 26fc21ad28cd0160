"""Starts workers of Beam as processes, as worker_pool_main of Beam does, which listens on all addresses.

`python -m tests.servers.worker_pool PORT WORKER` runs one on 127.0.0.1. Its workers end with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker import worker_pool_main
from apache_beam.utils import thread_pool_executor


def serve(port: int, worker: str) -> None:
    """Serves at a port of this machine until the process is killed; `worker` is the program of a worker."""
    server = grpc.server(thread_pool_executor.shared_unbounded_instance())
    server.add_insecure_port(f"127.0.0.1:{port}")
    pool = worker_pool_main.BeamFnExternalWorkerPoolServicer(use_process=True, container_executable=worker)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    threading.Event().wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
