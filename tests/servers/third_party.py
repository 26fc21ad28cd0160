"""Runs model servers that others wrote, each in an environment of its own (`.venv-kserve`, `.venv-mlserver`).

Environments are made on first use from the servers' requirements.txt. All servers serve `arithmetic.predict`, whose
SavedModel is in reference_model.py, and listen on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers import tools
from tests.servers.arithmetic import MODEL
from tests.support import processes

_HERE = Path(__file__).resolve().parent
_READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    Attributes:
      url: without a path.
      model: the model's name on it.
    """

    url: str
    model: str


@contextlib.contextmanager
def kserve_server(careless: bool = False) -> Iterator[Server]:
    """KServe's Python server, V1 and V2 over REST.

    Args:
      careless: the model fails with an error that its server knows nothing of (500), not with a declared one (400).
    """
    [port] = tools.free_ports(1)
    command = [_program("kserve", "python"), str(_HERE / "kserve" / "serve.py"), str(port)]
    with _running(command, {}, port, careless) as server:
        yield server


@contextlib.contextmanager
def mlserver_server(careless: bool = False) -> Iterator[Server]:
    """Seldon's MLServer, V2 over REST.

    Args:
      careless: as of `kserve_server`; the message is lost then.
    """
    [port] = tools.free_ports(1)
    command = [_program("mlserver", "mlserver"), "start", str(_HERE / "mlserver")]
    settings = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": "0",
        "MLSERVER_METRICS_ENDPOINT": "",
        # Its worker processes do not start with the uvloop of today.
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
    }
    with _running(command, settings, port, careless) as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], settings: Mapping[str, str], port: int, careless: bool) -> Iterator[Server]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")}
    environment |= {**settings, "PYTHONPATH": str(_HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    if careless:
        environment["CARELESS"] = "1"
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+b") as log:
        process = processes.start(
            tools.guarded(command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            server = Server(f"http://127.0.0.1:{port}", MODEL)
            _wait_until_ready(server, process, log.name)
            try:
                yield server
            except BaseException:
                print(f"{server.url} said: {_tail(log.name)}", file=sys.stderr)
                raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/v2/models/{server.model}/ready", timeout=5, trust_env=False).is_success:
                return
        time.sleep(0.05)
    state = "is not ready" if process.returncode is None else "ended"
    raise RuntimeError(f"the server {state}: {_tail(log)}")


def _program(server: str, name: str) -> str:
    return str(tools.environment(server, _HERE / server / "requirements.txt", "300 MB") / "bin" / name)


def _tail(path: str) -> str:
    return Path(path).read_text(errors="replace")[-3000:]
