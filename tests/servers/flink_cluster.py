"""Runs a Flink session cluster on this machine: job manager, two task managers, Beam's job server, worker pool.

Its jars are those of the job server (tests/servers/flink.py). Everything listens on 127.0.0.1, except the job server,
which Beam lets listen on all addresses only. `python -m tests.servers.flink_cluster` runs one for a person.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.servers import tools
from tests.servers.flink import POM
from tests.support import processes
from tests.support.waiting import wait_until

WORKER = tools.ROOT / "examples" / "flink" / "worker.py"
_READY_WITHIN_S = 120.0
_JOB_PORT, _REST_PORT, _POOL_PORT = 8099, 8081, 50000
_OPENED = (
    "java.lang", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.text", "java.time", "java.util",
    "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch",
)  # fmt: skip
"""Packages of Java 17 that Flink looks into."""
_CONF = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
cluster.evenly-spread-out-slots: true
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 1s
cluster.registration.error-delay: 1000
heartbeat.interval: 2000
heartbeat.timeout: 20000
classloader.resolve-order: parent-first
state.checkpoints.dir: file://{folder}/checkpoints
io.tmp.dirs: {folder}/tmp
"""
_FLAGS = """\
Flink's page: http://127.0.0.1:{rest}

add to a command of this project, in another shell:

  --runner FlinkRunner --job_endpoint localhost:{job} {workers}

as in: python -m pipelines.batch --runner FlinkRunner --job_endpoint localhost:{job} {workers}

Ctrl-C ends the cluster."""


@dataclass
class FlinkCluster:
    """Represents a running cluster.

    Attributes:
      job_endpoint: where Beam's job server listens.
      rest: where Flink's own REST listens.
      pool: where workers are asked for.
    """

    job_endpoint: str
    rest: str
    pool: str
    task_managers: list[subprocess.Popen[Any]]
    _command: list[str]
    _env: Mapping[str, str]

    @property
    def flags(self) -> list[str]:
        """Returns the flags of a command whose job it is to run."""
        return ["--runner", "FlinkRunner", "--job_endpoint", self.job_endpoint]

    @property
    def by_pool(self) -> list[str]:
        """Returns the flags that have the pool start the workers."""
        return ["--environment_type", "EXTERNAL", "--environment_config", self.pool]

    @property
    def by_process(self) -> list[str]:
        """Returns the flags that have the task managers start the workers."""
        return ["--environment_type", "PROCESS", "--environment_config", f'{{"command": "{WORKER}"}}']

    def start_task_manager(self) -> None:
        """Starts one more."""
        self.task_managers.append(_start(self._command, self._env))

    def kill_task_manager(self, number: int = -1) -> None:
        """Kills one, as if its machine were gone; the others stay."""
        process = self.task_managers.pop(number)
        process.kill()
        process.wait()

    def ask(self, path: str, **parameters: str) -> Any:
        """Returns what Flink's REST answers."""
        return httpx.get(f"{self.rest}{path}", params=parameters, timeout=30).raise_for_status().json()

    def jobs(self) -> dict[str, str]:
        """Returns the state of each job."""
        return {job["id"]: job["status"] for job in self.ask("/jobs")["jobs"]}

    def running_job(self) -> str:
        """Returns the id of the job that runs, or is about to; waits for one."""

        def running() -> list[str]:
            return [job for job, state in self.jobs().items() if state in ("RUNNING", "RESTARTING")]

        wait_until(lambda: bool(running()), "a job runs", _READY_WITHIN_S)
        return running()[0]

    def tasks_of(self, job: str) -> list[dict[str, Any]]:
        """Returns what Flink says of each task of a job."""
        vertices = self.ask(f"/jobs/{job}")["vertices"]
        asked = (self.ask(f"/jobs/{job}/vertices/{vertex['id']}")["subtasks"] for vertex in vertices)
        return [task for tasks in asked for task in tasks]

    def hosts_of(self, job: str) -> set[str]:
        """Returns the task managers that run a task of a job."""
        return {task["taskmanager-id"] for task in self.tasks_of(job) if task["status"] == "RUNNING"}

    def number_of(self, host: str) -> int:
        """Returns which of the processes a task manager is, by the port in its name."""
        port = int(host.partition("-")[0].rpartition(":")[2])
        listening = [psutil.Process(process.pid).net_connections("tcp") for process in self.task_managers]
        return next(n for n, found in enumerate(listening) if port in {each.laddr.port for each in found})

    def cancel(self, job: str) -> None:
        """Cancels a job, and waits for its end."""
        httpx.patch(f"{self.rest}/jobs/{job}", params={"mode": "cancel"}, timeout=30).raise_for_status()
        wait_until(lambda: self.jobs()[job] in ("CANCELED", "FAILED", "FINISHED"), f"job {job} ends", _READY_WITHIN_S)


def _start(command: list[str], env: Mapping[str, str], cwd: str | None = None) -> subprocess.Popen[Any]:
    """Starts a program in a session of its own."""
    log = env.get("FLINK_CLUSTER_LOG")
    with open(f"{log}-{len(os.listdir(os.path.dirname(log)))}" if log else os.devnull, "ab") as out:
        return processes.start(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=dict(env), cwd=cwd
        )


def _end(process: subprocess.Popen[Any]) -> None:
    """Kills a program with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def flink_cluster(job_port: int = 0, rest_port: int = 0, pool_port: int = 0, slots: int = 2) -> Iterator[FlinkCluster]:
    """A cluster of two task managers that ends with the block, or with this process.

    Args:
      job_port: of Beam's job server; 0 for a free one.
      rest_port: of Flink's REST; 0 for a free one.
      pool_port: of the worker pool; 0 for a free one.
      slots: of each task manager.
    """
    tools.needs("Flink", "java")
    tools.require_free(filter(None, (job_port, rest_port, pool_port)))
    jars = tools.jars("flink", POM, "150 MB")
    rpc, *free = tools.free_ports(4)
    job_port, rest_port, pool_port = (
        port or other for port, other in zip((job_port, rest_port, pool_port), free, strict=True)
    )
    with (
        tempfile.TemporaryDirectory(prefix="flink-", ignore_cleanup_errors=True) as folder,
        contextlib.ExitStack() as stack,
    ):
        (Path(folder) / "tmp").mkdir()
        (Path(folder) / "flink-conf.yaml").write_text(
            _CONF.format(rpc=rpc, rest=rest_port, slots=slots, folder=folder), "utf-8"
        )
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        classpath = os.pathsep.join(filter(None, [f"{jars}/*", os.environ.get("FLINK_CLUSTER_JARS", "")]))
        java = ["java", *opened, f"-Djava.io.tmpdir={folder}/tmp", "-cp", classpath]
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(tools.ROOT),
        }
        manager = [*java, "-Xmx512m", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"]
        worker = [*java, "-Xms384m", "-Xmx384m", "-XX:MaxDirectMemorySize=256m"]
        worker += ["org.apache.flink.runtime.taskexecutor.TaskManagerRunner", "--configDir", folder]
        server = [*java, "-Xmx512m", "org.apache.beam.runners.flink.FlinkJobServerDriver"]
        server += [f"--flink-master=127.0.0.1:{rest_port}", f"--flink-conf-dir={folder}", f"--job-port={job_port}"]
        server += [f"--artifacts-dir={folder}/artifacts", "--artifact-port=0", "--expansion-port=-1"]
        job, rest, pool = f"localhost:{job_port}", f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{pool_port}"
        cluster = FlinkCluster(job, rest, pool, [], worker, env)
        started = [
            _start([*manager, "--configDir", folder, "--host", "127.0.0.1"], env),
            _start([sys.executable, "-m", "tests.servers.worker_pool", str(pool_port), str(WORKER)], env, folder),
            _start(server, env),
        ]
        stack.callback(lambda: [_end(process) for process in (*started, *cluster.task_managers)])
        for _ in range(2):
            cluster.start_task_manager()
        wait_until(lambda: _is_ready(cluster), "the Flink cluster is ready", _READY_WITHIN_S)
        yield cluster


def _is_ready(cluster: FlinkCluster) -> bool:
    try:
        for endpoint in (cluster.job_endpoint, cluster.pool):
            host, _, port = endpoint.rpartition(":")
            socket.create_connection((host, int(port)), 1).close()
        return len(cluster.ask("/taskmanagers")["taskmanagers"]) == 2
    except (OSError, httpx.HTTPError):
        return False


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), flink_cluster(_JOB_PORT, _REST_PORT, _POOL_PORT) as _cluster:
        _workers = " ".join(_cluster.by_pool)
        print(_FLAGS.format(rest=_REST_PORT, job=_JOB_PORT, workers=_workers), flush=True)
        while True:
            time.sleep(3600)
