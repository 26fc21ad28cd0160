"""Holds what costs take for granted because no run on one machine can measure it."""

from __future__ import annotations

from dataclasses import dataclass

HOURS_A_MONTH = 730.0
DAYS_A_MONTH = HOURS_A_MONTH / 24


@dataclass(frozen=True)
class Assumptions:
    """Holds what is assumed.

    Attributes:
      volume: rows a day, or messages a second; None for the largest load that was measured.
      within_hours: in which time a batch run is to end.
      utilisation: share of a vCPU's time that does the work that was measured; the rest is the engine's, and waiting.
      slower: how many times slower a vCPU of a cloud is than a core of the measured machine, as docs/scaling.md has it.
      worker_start_minutes: that a worker is paid for before it works.
      worker_disk_gb: disk of a worker.
      least_nodes: nodes that an endpoint has at least, all month.
      job_startup_hours: that each node of a batch prediction job is paid for before it predicts.
      job_least_nodes: nodes that a batch prediction job has at least.
      message_bytes: of a message, with its attributes.
      row_bytes: of a row that a stream writes into a table.
    """

    volume: float | None = None
    within_hours: float = 1.0
    utilisation: float = 0.8
    slower: float = 3.0
    worker_start_minutes: float = 3.0
    worker_disk_gb: float = 30.0
    least_nodes: int = 1
    job_startup_hours: float = 0.15
    job_least_nodes: int = 1
    message_bytes: float = 300.0
    row_bytes: float = 400.0

    @property
    def worker_start_hours(self) -> float:
        """Returns the hours that a worker is paid for before it works."""
        return self.worker_start_minutes / 60

    def vcpu_hours(self, core_seconds: float) -> float:
        """Returns the hours of vCPUs that are paid for seconds of a core that were measured."""
        return core_seconds * self.slower / self.utilisation / 3600

    def sentences(self, kind: str, ways: set[str]) -> tuple[str, ...]:
        """Says what is assumed, one sentence each.

        Args:
          kind: `batch` or `stream`.
          ways: kinds of the ways that are compared.
        """
        said = [
            f"A vCPU of a cloud is {self.slower:g} times slower than a core of the measured machine.",
            f"{self.utilisation:.0%} of a vCPU's time does what was measured; the rest is the engine's, and waiting.",
            "A worker has a process for each vCPU, and each process needs as much memory as the command that was "
            f"measured; a worker's disk has {self.worker_disk_gb:g} GB.",
        ]
        if kind == "batch":
            said += [
                f"There is one run a day, {DAYS_A_MONTH:.1f} a month, which is to end within {self.within_hours:g} h.",
                f"A worker is paid for {self.worker_start_minutes:g} minutes before it works.",
                "Reading, storage, shuffling and traffic are not counted: they are the same in all ways, but for a "
                "job's files of instances and results.",
            ]
        else:
            said += [
                "A stream's workers run all month, 730 hours, at the stated rate, at least one; rates that go up and "
                "down are not counted.",
                f"A message has {self.message_bytes:g} bytes, a row of the output {self.row_bytes:g}: messages come "
                "from Pub/Sub, rows go to BigQuery, in all ways.",
            ]
        if "endpoint" in ways:
            said.append(
                f"An endpoint's nodes run all month, used or not, at least {self.least_nodes}, and are as many as the "
                "peak needs."
            )
        if "batch_job" in ways:
            said.append(
                f"A batch prediction job has at least {self.job_least_nodes} node, each is paid for "
                f"{self.job_startup_hours:g} h before it predicts; nodes and workers have half of a run's time each, "
                "and workers start twice, to prepare and to join."
            )
        return tuple(said)
