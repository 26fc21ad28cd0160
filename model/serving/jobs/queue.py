"""Keeps the jobs of the server: those that were submitted, and the threads that run them."""

from __future__ import annotations

import random
import threading

from model.serving.errors import RequestError, Status
from model.serving.jobs.files import AnyFiles
from model.serving.jobs.job import Job
from model.serving.jobs.options import JobOptions
from model.serving.jobs.work import run
from model.serving.limits import Limits

_MOST_JOBS = 10_000
_MOST_AT_ONCE = 100


class JobQueue:
    """Keeps jobs by their names, and runs each in a thread.

    Args:
      options: how jobs are run.
      limits: of one call of a model.
    """

    def __init__(self, options: JobOptions, limits: Limits) -> None:
        self.options = options
        self.files = AnyFiles(options.folders)
        self._limits = limits
        self._jobs: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._draw = random.Random(options.seed)

    def admit(self) -> None:
        """Raises RequestError if callers are refused."""
        if self.options.denied:
            raise RequestError(
                Status.FORBIDDEN,
                "Permission 'aiplatform.batchPredictionJobs.create' denied on the resource, on purpose",
            )

    def submit(self, job: Job) -> None:
        """Takes a job and starts it. Raises RequestError: its name is taken, or there are too many."""
        options = self.options
        with self._lock:
            if job.name in self._jobs:
                raise RequestError(Status.PRESENT, f"Field: job.job_id Error: a job {job.name} is there already.")
            if options.quota is not None and len(self._jobs) >= options.quota:
                raise RequestError(Status.QUOTA, f"Quota exceeded: {options.quota} batch prediction jobs")
            running = sum(not each.state.is_final for each in self._jobs.values())
            if len(self._jobs) >= _MOST_JOBS or running >= _MOST_AT_ONCE:
                raise RequestError(Status.QUOTA, "too many batch prediction jobs; come again")
            self._jobs[job.name] = job
            work = (job, options, self._limits, self.files)
            thread = threading.Thread(target=run, args=work, name="job", daemon=True)
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def find(self, name: str) -> Job:
        """Returns a job. Raises RequestError: there is none of this name."""
        found = self._jobs.get(name)
        if found is None:
            raise RequestError(Status.NOT_FOUND, f"The job {name} was not found.")
        return found

    def below(self, parent: str) -> list[Job]:
        """Returns the jobs of a parent, the newest first."""
        with self._lock:
            return [job for name, job in reversed(self._jobs.items()) if name.startswith(f"{parent}/")]

    def remove(self, name: str) -> None:
        """Forgets a job, which is ended."""
        self.find(name).cancel()
        with self._lock:
            self._jobs.pop(name, None)

    def loses_answer(self) -> bool:
        """Tells whether the connection of this call is to be reset."""
        with self._lock:
            return self._draw.random() < self.options.reset_rate

    def close(self) -> None:
        """Ends all jobs."""
        with self._lock:
            jobs, threads = list(self._jobs.values()), list(self._threads)
        for job in jobs:
            job.cancel()
        for thread in threads:
            thread.join(5)
