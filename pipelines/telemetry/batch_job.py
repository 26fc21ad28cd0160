"""Says what became of a batch prediction job: for people, and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.cost.batch_job import JobCostEstimate


@dataclass(frozen=True)
class BatchJobAccount:
    """Describes what is known of a batch prediction job.

    Attributes:
      folder: of the job.
      resource: its name; None if there is none.
      state: in the service's own word.
      succeeded: instances with a prediction.
      failed: instances that were refused.
      node_hours: what was billed.
      cost: what that costs.
      seconds: how long each step took, of those that a command did.
    """

    folder: str
    resource: str | None = None
    state: str | None = None
    succeeded: int | None = None
    failed: int | None = None
    node_hours: float | None = None
    cost: JobCostEstimate | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def findings(self) -> dict[str, Any]:
        """Returns what is known, for --json; what is not known is left out."""
        known = {
            "state": self.state,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "node_hours": self.node_hours,
            "cost": self.cost and self.cost.cost,
            "currency": self.cost and self.cost.currency,
            "steps_s": {name: round(taken, 3) for name, taken in self.seconds.items()} or None,
        }
        told = {name: value for name, value in known.items() if value is not None}
        return {"folder": self.folder, "resource": self.resource, **told}

    def in_words(self) -> list[tuple[str, str]]:
        """Returns lines of a summary: names and values."""
        words = [("steps", ", ".join(f"{name} {taken:,.1f} s" for name, taken in self.seconds.items()))]
        if self.resource is not None:
            words.append(("batch job", f"{self.resource}, {self.state}"))
        if self.cost is not None:
            words.append(("job's cost", self.cost.in_words()))
        return words
