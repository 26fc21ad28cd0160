"""Holds the figures of the article, a Google Cloud solution that compares ways to call a model from a pipeline.

Its runs were on Dataflow, whose virtual machines take minutes to start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.comparison.results import WayKind

TITLE = "Comparing ML model predictions in Cloud Dataflow pipelines"
BATCH_SETTING = (
    "BigQuery to CSV on Dataflow: workers n1-standard-1, their number scaled by the service up to 1,000,000 rows, 20 "
    "for 10,000,000; a batch prediction job with 20 workers at most."
)
STREAM_SETTING = (
    "Pub/Sub to BigQuery on Dataflow: 10,000 messages, 5 workers n1-standard-1 and 3 nodes of the endpoint, windows "
    "of 1 second."
)
MESSAGES = 10_000
"""Of each of its streams."""
ADVICE = (
    "Running the model directly in the workers gives the best performance.",
    "An endpoint is easier to maintain, as a new version of the model needs no change to the pipeline, and it serves "
    "other clients too.",
    "Always use micro-batches in a stream.",
    "Never call an online endpoint from a large batch.",
    "A batch prediction job pays when the data already lies in object storage in the right form.",
)


@dataclass(frozen=True)
class BatchFigures:
    """Holds what the article measured of a way at a size.

    Attributes:
      kind: the way.
      rows: the size.
      elapsed_s: seconds.
      vcpu_hours: hours of virtual processors.
      parts: of the elapsed time and the hours of a batch prediction job: preparation and job.
    """

    kind: WayKind
    rows: int
    elapsed_s: int
    vcpu_hours: float
    parts: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StreamFigures:
    """Holds what the article measured of a way at a rate.

    Attributes:
      kind: the way.
      single: whether each call has one record.
      rate: messages a second.
      total_s: seconds; None if it did not finish.
    """

    kind: Literal["direct", "endpoint"]
    single: bool
    rate: int
    total_s: int | None


UNFINISHED = "not finished (quota)"


def _clock(minutes: int, seconds: int) -> int:
    return 60 * minutes + seconds


def _job(rows: int, prepare: int, prepare_hours: float, job: int, job_hours: float) -> BatchFigures:
    parts = ((prepare, prepare_hours), (job, job_hours))
    return BatchFigures("batch_job", rows, prepare + job, round(prepare_hours + job_hours, 3), parts)


BATCH = (
    _job(10_000, _clock(7, 47), 0.151, _clock(7, 43), 0.15),
    BatchFigures("direct", 10_000, _clock(8, 24), 0.173),
    _job(100_000, _clock(8, 39), 0.184, _clock(7, 58), 0.15),
    BatchFigures("direct", 100_000, _clock(10, 31), 0.243),
    _job(1_000_000, _clock(11, 7), 0.256, _clock(10, 4), 0.19),
    BatchFigures("direct", 1_000_000, _clock(17, 12), 1.115),
    _job(10_000_000, _clock(12, 15), 3.581, _clock(20, 53), 1.67),
    BatchFigures("direct", 10_000_000, _clock(25, 2), 7.878),
)
STREAM = (
    StreamFigures("endpoint", True, 50, _clock(9, 34)),
    StreamFigures("endpoint", False, 50, _clock(7, 44)),
    StreamFigures("direct", True, 50, _clock(3, 43)),
    StreamFigures("direct", False, 50, _clock(3, 22)),
    StreamFigures("endpoint", True, 100, _clock(6, 3)),
    StreamFigures("endpoint", False, 100, _clock(4, 34)),
    StreamFigures("direct", True, 100, _clock(1, 51)),
    StreamFigures("direct", False, 100, _clock(1, 41)),
    StreamFigures("endpoint", True, 500, None),
    StreamFigures("endpoint", False, 500, _clock(2, 47)),
    StreamFigures("direct", True, 500, _clock(1, 23)),
    StreamFigures("direct", False, 500, _clock(0, 48)),
)


def in_words(kind: WayKind, single: bool = False) -> str:
    """Returns how the article calls a way.

    >>> in_words("endpoint", single=True)
    'endpoint, single'
    """
    return {"batch_job": "batch prediction job", "direct": "direct", "endpoint": "endpoint"}[kind] + (
        ", single" if single else ""
    )
