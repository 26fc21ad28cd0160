"""Stands in for Dataflow's jobs API on loopback: jobs are taken, run, told of, updated, cancelled and drained.

A batch job is run for real: the pipeline that was staged, on Beam's in-process runner, in a process of its own. What
Dataflow's service does besides (workers, autoscaling, shuffle) is not here; the amounts that a job has used are made
up.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.servers.stand_in import Answer, Seen, stand_in
from tests.support import processes
from tests.support.commands import ROOT

_PATH = re.compile(r"/v1b3/projects/([\w-]+)/locations/([\w-]+)/jobs(?:/([\w-]+)(/\w+)?)?")
_ERROR = 4
_RUNNING, _DONE, _FAILED, _CANCELLED, _UPDATED, _DRAINED = 2, 3, 4, 5, 6, 8
_ASKED = {_CANCELLED: _CANCELLED, _DRAINED: _DRAINED, "JOB_STATE_CANCELLED": _CANCELLED, "JOB_STATE_DRAINED": _DRAINED}
"""The states that can be asked for, as numbers and by their names; here they come at once."""
_TYPES = {"JOB_TYPE_BATCH": 1, "JOB_TYPE_STREAMING": 2}
USED = {
    "TotalVcpuTime": 7_200.0,
    "TotalMemoryUsage": 3_600.0 * 1024 * 8,
    "TotalPdUsage": 3_600.0 * 50,
    "BillableShuffleDataProcessed": 1.0,
}
"""What each job has used, by Dataflow's own metrics: 2 vCPU-h, 8 GB-h, 50 GB-h of disk, 1 GB shuffled."""


@dataclass
class Job:
    """A job that was submitted.

    Attributes:
      proto: the job, as it was submitted.
      state: number of its state.
      message: why it failed.
      counters: step, namespace, name and value of its counters.
      wished: the states that were asked for.
    """

    id: str
    proto: dict[str, Any]
    state: int = _RUNNING
    message: str = ""
    counters: list[list[Any]] = field(default_factory=list)
    wished: list[Any] = field(default_factory=list)

    @property
    def pipeline(self) -> str:
        """Where the pipeline is staged, gs://."""
        found: str = self.proto["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        return found

    def told(self) -> dict[str, Any]:
        """The job as the service tells of it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "id": self.id,
            "name": self.proto["name"],
            "projectId": "test-project",
            "location": "us-central1",
            "type": self.proto["type"],
            "currentState": self.state,
            "currentStateTime": now,
            "createTime": now,
            "clientRequestId": self.proto.get("clientRequestId", ""),
        }


class JobsApi:
    """The server.

    Attributes:
      endpoint: for --dataflow_endpoint.
      jobs: the jobs by their ids.
      fails: the message with which the next job fails instead of being run.
      refuses: status and message with which the next job is not taken.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self.endpoint = ""
        self.jobs: dict[str, Job] = {}
        self.fails = ""
        self.refuses: tuple[int, str] | None = None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answers a request: status and JSON."""
        found = _PATH.fullmatch(path.split("?")[0])
        if found is None:
            return 404, {"error": {"code": 404, "message": f"there is no {path}", "status": "NOT_FOUND"}}
        _, _, name, part = found.groups()
        if method == "POST" and name is None:
            return self._create(json.loads(body))
        if name is None:
            wanted = parse_qs(path.partition("?")[2]).get("name", [None])[0]
            return 200, {"jobs": [job.told() for job in self.jobs.values() if wanted in (None, job.proto["name"])]}
        job = self.jobs[name]
        if method == "PUT":
            wished = json.loads(body).get("requestedState")
            job.wished.append(wished)
            job.state = _ASKED[wished]
            return 200, job.told()
        if part == "/metrics":
            return 200, {"metrics": _metrics(job)}
        if part == "/messages":
            error = {
                "id": "1",
                "time": job.told()["createTime"],
                "messageText": job.message,
                "messageImportance": _ERROR,
            }
            return 200, {"jobMessages": [error]} if job.message else {}
        return 200, job.told()

    def start_template(self, content: bytes) -> Job:
        """Starts a job from a template, as the service does with what a launcher has written."""
        proto = json.loads(content)
        self._create(proto | {"type": _TYPES[proto["type"]]})
        return list(self.jobs.values())[-1]

    def _create(self, proto: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refuses is not None:
            (status, message), self.refuses = self.refuses, None
            return status, {"error": {"code": status, "message": message, "status": "PERMISSION_DENIED"}}
        job = Job(f"2026-01-01_00_00_00-{len(self.jobs) + 1}", proto)
        self.jobs[job.id] = job
        if replaced := self.jobs.get(proto.get("replaceJobId", "")):
            replaced.state = _UPDATED
        if self.fails:
            # Not at once: what a job says is only read of one that was seen to run.
            job.message, self.fails = self.fails, ""
            threading.Timer(2, lambda: setattr(job, "state", _FAILED)).start()
        elif job.proto["type"] == 1:
            threading.Thread(target=self._run, args=(job,), name="dataflow job", daemon=True).start()
        return 200, job.told()

    def _run(self, job: Job) -> None:
        done = processes.run(
            [sys.executable, str(ROOT / "tests" / "support" / "run_job.py"), job.pipeline],
            env=self._env | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            job.message, job.state = done.stderr[-2_000:], _FAILED
        else:
            job.counters, job.state = json.loads(done.stdout.splitlines()[-1]), _DONE


def _metrics(job: Job) -> list[dict[str, Any]]:
    """The counters of a job twice, as the service has them, and what it has used."""
    now = job.told()["createTime"]
    found = []
    for tentative in ({}, {"tentative": "true"}):
        for step, namespace, name, value in job.counters:
            context = {"namespace": namespace, "step": step, **tentative}
            found.append({"name": {"origin": "user", "name": name, "context": context}, "scalar": value})
        for name, amount in USED.items():
            factor = 0.5 if tentative else 1.0
            structured = {"origin": "dataflow/v1b3", "name": name, "context": dict(tentative)}
            found.append({"name": structured, "scalar": amount * factor})
    return [{**each, "updateTime": now, "kind": "Sum"} for each in found]


@contextlib.contextmanager
def jobs_api(env: dict[str, str]) -> Iterator[JobsApi]:
    """A server on a free port of this machine while the block runs; jobs run in an environment."""
    made = JobsApi(env)

    def answer(seen: Seen) -> Answer:
        status, value = made.answer(seen.method, seen.path, seen.body)
        return status, json.dumps(value).encode()

    with stand_in(answer) as server:
        # Beam takes an endpoint on this machine by this name only.
        made.endpoint = server.url.replace("127.0.0.1", "localhost")
        yield made
