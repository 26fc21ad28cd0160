"""Starts what a job needs on this machine: Prism's process, and workers that are threads of this one.

Beam would start both by itself. Its workers listen on all addresses of the machine, and its Prism is left
behind when this process is killed; ours are not.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from apache_beam.options.pipeline_options import (
    DebugOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main, worker_pool_main
from apache_beam.utils import thread_pool_executor

from inference.log_throttle import first_line
from model import terminal
from pipelines import process_state
from pipelines.beam_fixes import thread_workers
from pipelines.beam_fixes.prism_outlet import is_prism
from pipelines.config.errors import ConfigError
from pipelines.engine import job_server, processes
from pipelines.engine.options import is_loopback_job

RESTARTED = threading.Event()
"""Set when the runner of a stream has lost it and tries to start it again, which workers in this process cannot."""
process_state.reset_by(RESTARTED.clear)

_TOOLS = Path(__file__).resolve().parents[2] / ".tools"
_READY_WITHIN_S = 20.0
_YEAR_S = 365 * 24 * 3600
_WORKERS_END_WITHIN_S = 1.0
_DOWNLOAD_ANSWERS_WITHIN_S = 9.0
_OF_WORKERS = ("run_worker_", "read_grpc_client_inputs")
"""Names of the threads of Beam's workers that end with an error when a runner lets go of them."""
_SERVING = "Serving JobManagement"


@contextlib.contextmanager
def started(options: PipelineOptions) -> Iterator[PipelineOptions]:
    """Starts what a job needs here; gives the options to run it with. Nothing is left when it ends.

    Raises:
      ConfigError: something cannot be started, or the job server is not there.
    """
    ready = copy.deepcopy(options)
    portable = ready.view_as(PortableOptions)
    # Beam says that it is for answers only, but it also ends the watching of a job that runs (Prism) for longer.
    portable.job_server_timeout = _YEAR_S
    if not ready.view_as(StandardOptions).streaming:
        thread_workers.use(ready)
    with contextlib.ExitStack() as stack:
        if portable.job_endpoint:
            job_server.check(portable.job_endpoint)
        elif is_prism(options):
            portable.job_endpoint = stack.enter_context(_prism(options))
        if is_loopback_job(options) and portable.job_endpoint:
            portable.environment_config = stack.enter_context(_workers(options))
            portable.environment_type = "EXTERNAL"
        yield ready


def _tell(failure: threading.ExceptHookArgs) -> None:
    """In place of Python's own: a worker whose runner is gone says so in a page, and the job's state says it too."""
    if failure.thread is None or not failure.thread.name.startswith(_OF_WORKERS):
        threading.__excepthook__(failure)


def _wait_for_workers() -> None:
    """Waits for the threads of workers that a runner has let go of: what they log of it comes before the run's end."""
    for thread in threading.enumerate():
        if thread.name.startswith(_OF_WORKERS):
            thread.join(_WORKERS_END_WITHIN_S)


class _Workers(worker_pool_main.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]  # Beam's classes are untyped
    """Starts a worker in this process when a runner needs one; a stream's only once.

    A runner that needs another has gone back to a checkpoint after a failure. But what the sources here have handed out
    since then cannot be told from what was written, and it must not be acknowledged.
    """

    def __init__(self, options: PipelineOptions) -> None:
        super().__init__(
            state_cache_size=sdk_worker_main._get_state_cache_size_bytes(options=options),
            data_buffer_time_limit_ms=sdk_worker_main._get_data_buffer_time_limit_ms(
                options.view_as(DebugOptions).experiments or []
            ),
        )
        self._once = options.view_as(StandardOptions).streaming

    def StartWorker(self, request: Any, context: Any) -> Any:
        if self._once and self._worker_threads:
            RESTARTED.set()
            return beam_fn_api_pb2.StartWorkerResponse(error="the workers of this job are gone")
        return super().StartWorker(request, context)


@contextlib.contextmanager
def _workers(options: PipelineOptions) -> Iterator[str]:
    """Lets a runner start workers in this process; gives the address where it does."""
    threading.excepthook = _tell
    server = grpc.server(thread_pool_executor.shared_unbounded_instance())
    port = server.add_insecure_port("127.0.0.1:0")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_Workers(options), server)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(1)


@contextlib.contextmanager
def _prism(options: PipelineOptions) -> Iterator[str]:
    """A process of Prism; gives the endpoint of its job server."""
    level = options.view_as(PrismRunnerOptions).prism_log_level
    program = _prism_program(options)
    arguments = ["--job_port=0", "--serve_http=false", "--log_kind=json", f"--log_level={_least_level(level)}"]
    process = processes.start([program, *arguments], subprocess.DEVNULL, subprocess.PIPE)
    log = _PrismLog(process, shown=level == "debug")
    try:
        yield log.endpoint(program)
    finally:
        processes.let_go(process)
        process.wait()
        _wait_for_workers()


def _least_level(level: str) -> str:
    """The endpoint is told at level info."""
    return level if level == "debug" else "info"


class _PrismLog:
    """What a process of Prism says, read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], shown: bool) -> None:
        assert process.stderr is not None
        self._stream = io.TextIOWrapper(process.stderr, errors="replace")
        self._shown = shown
        self._last: deque[str] = deque(maxlen=5)
        self._endpoint = ""
        self._told = threading.Event()
        threading.Thread(target=self._read, name="prism log", daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError), self._stream:
            for line in self._stream:
                self._last.append(line.strip())
                if not self._endpoint and _SERVING in line:
                    self._endpoint = json.loads(line)["endpoint"]
                    self._told.set()
                if self._shown:
                    terminal.print_line(line.rstrip("\n"), stderr=True)
        self._told.set()

    def endpoint(self, program: str) -> str:
        """Where the job server listens, as soon as it does."""
        self._told.wait(_READY_WITHIN_S)
        if not self._endpoint:
            said = f": {' '.join(self._last)[-300:]}" if self._last else ""
            raise ConfigError([f"--prism_location {program}: did not start as Prism{said}"])
        return self._endpoint


def _prism_program(options: PipelineOptions) -> str:
    """Prism's program: the one given, else this project's, else the one on the PATH, else Beam's download."""
    given: str | None = options.view_as(PrismRunnerOptions).prism_location
    for name in [given] if given else [str(_TOOLS / "prism"), "prism"]:
        if found := shutil.which(name):
            return found
    return _downloaded(options)


def _downloaded(options: PipelineOptions) -> str:
    from apache_beam.runners.portability.prism_runner import PrismJobServer

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_ANSWERS_WITHIN_S)
    try:
        return str(PrismJobServer.local_bin(PrismJobServer(options).path_to_binary()))
    except Exception as error:  # of the network, of the archive, of a file system
        raise ConfigError(
            [
                f"--prism_location: missing, and Prism cannot be downloaded: {first_line(error)}; build it with make "
                "prism"
            ]
        ) from None
    finally:
        socket.setdefaulttimeout(before)
