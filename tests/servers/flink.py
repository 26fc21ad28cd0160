"""A Flink job server for Beam with a small Flink in it, as a process: put together by Maven on first use, into .tools.

`python -m tests.servers.flink` runs one for a person, until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parent / "flink"
_TOOLS = _SOURCE.parent.parent.parent / ".tools"
_READY_WITHIN_S = 60.0
_PORT = 8099
_FLAGS = """\
add to a command of this project, in another shell:

  --runner FlinkRunner --job_endpoint localhost:{port}

as in: python -m pipelines.stream --runner FlinkRunner --job_endpoint localhost:{port}

Ctrl-C ends the server."""


@contextlib.contextmanager
def flink_job_server(port: int = 0) -> Iterator[str]:
    """A job server that ends with the block, or with this process; gives its endpoint.

    Args:
      port: where it listens; 0 for a free one.
    """
    jars = _jars()
    with tempfile.TemporaryDirectory(prefix="flink-") as folder:
        port = port or _free_port()
        # A job whose workers are gone is to end.
        (Path(folder) / "flink-conf.yaml").write_text("restart-strategy.type: none\n")
        command = [
            "java", "-Xmx768m", f"-Djava.io.tmpdir={folder}", "-cp", f"{jars}/*",
            "org.apache.beam.runners.flink.FlinkJobServerDriver", "--flink-master=[local]",
            f"--flink-conf-dir={folder}", f"--artifacts-dir={folder}/artifacts",
            f"--job-port={port}", "--artifact-port=0", "--expansion-port=-1",
        ]  # fmt: skip
        # A shell ends it when its standard input ends, which it does with this process.
        process = subprocess.Popen(
            ["sh", "-c", '"$@" </dev/null & server=$!; cat; kill -9 $server; wait $server', "flink", *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            _wait_for(port)
            yield f"localhost:{port}"
        finally:
            process.communicate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no job server of Flink listens at port {port}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _jars() -> str:
    """The folder with the server's jars; they are downloaded if they are not there or older than pom.xml."""
    if shutil.which("java") is None:
        pytest.skip("Flink needs Java, which is not installed")
    folder, pom = _TOOLS / "flink", _SOURCE / "pom.xml"
    _TOOLS.mkdir(exist_ok=True)
    with open(_TOOLS / "flink.lock", "wb") as file:
        # Tests run in several processes.
        fcntl.flock(file, fcntl.LOCK_EX)
        if not folder.exists() or folder.stat().st_mtime < pom.stat().st_mtime:
            if shutil.which("mvn") is None:
                pytest.skip("Flink's job server is put together with Maven, which is not installed")
            print("downloading Flink's job server (150 MB, a minute or two the first time) ...", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=_TOOLS) as made:
                goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={made}/jars"]
                subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *goal], check=True)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(f"{made}/jars", folder)
    return str(folder)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), flink_job_server(_PORT) as _endpoint:
        print(_FLAGS.format(port=_PORT), flush=True)
        while True:
            time.sleep(3600)
