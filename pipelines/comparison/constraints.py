"""Lists what may be demanded of a way beside its cost, and which kinds of ways it rules out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.comparison.results import WayKind


@dataclass(frozen=True)
class Constraint:
    """Rules out kinds of ways.

    Attributes:
      means: what is asked for.
      rules_out: why a kind of way does not do.
    """

    means: str
    rules_out: Mapping[WayKind, str]


CONSTRAINTS = {
    "no-server": Constraint(
        "no model server is to be kept running",
        {"endpoint": "its server runs all the time, and somebody has to look after it"},
    ),
    "no-cloud-job": Constraint(
        "no managed batch prediction service is to be used",
        {"batch_job": "a managed service predicts the rows"},
    ),
    "other-clients-need-the-model": Constraint(
        "other programs call the same model, one record at a time",
        {
            "direct": "the model is in the workers, where no other program can call it",
            "batch_job": "a job answers no other program",
        },
    ),
    "model-not-in-workers": Constraint(
        "the model may not be loaded by workers: it is too large for them, or must stay where it is",
        {"direct": "each worker loads the model"},
    ),
    "model-changes-daily": Constraint(
        "a new version of the model is to be used soon after it is there",
        {"batch_job": "a job keeps the version that was uploaded before it; each new one takes an upload and a job"},
    ),
    "no-copies-of-rows": Constraint(
        "rows may not be kept in files on the way",
        {"batch_job": "rows and instances are kept in a folder until they are joined, and after"},
    ),
}
"""What --constraint takes; a new one is an entry here."""


def reason_against(constraint: str, kind: WayKind) -> str | None:
    """Returns why a constraint rules out a kind of way; None if it does not."""
    return CONSTRAINTS[constraint].rules_out.get(kind)
