"""Runs a Flink job server for Beam with a small Flink in it: put together by Maven on first use, into .tools.

`python -m tests.servers.flink` runs one for a person, until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import tools
from tests.support import processes

POM = Path(__file__).resolve().parent / "flink" / "pom.xml"
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
    tools.needs("Flink", "java")
    jars = tools.jars("flink", POM, "150 MB")
    with tempfile.TemporaryDirectory(prefix="flink-") as folder:
        port = port or tools.free_ports(1)[0]
        # A job whose workers are gone is to end.
        (Path(folder) / "flink-conf.yaml").write_text("restart-strategy.type: none\n")
        command = [
            "java", "-Xmx768m", f"-Djava.io.tmpdir={folder}", "-cp", f"{jars}/*",
            "org.apache.beam.runners.flink.FlinkJobServerDriver", "--flink-master=[local]",
            f"--flink-conf-dir={folder}", f"--artifacts-dir={folder}/artifacts",
            f"--job-port={port}", "--artifact-port=0", "--expansion-port=-1",
        ]  # fmt: skip
        # A shell ends it when its standard input ends, which it does with this process.
        process = processes.start(
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


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), flink_job_server(_PORT) as _endpoint:
        print(_FLAGS.format(port=_PORT), flush=True)
        while True:
            time.sleep(3600)
