"""Estimates how long a run at a larger load takes: what does not depend on the rows, and what a row takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pipelines.comparison.results import Run

_ROWS_OF_FIXED = 100_000
"""Whose work takes as long, as is presumed from runs of one load, as opening, waiting and closing."""
_MOST_FIXED_S = 2.0
"""That these are presumed to take at most; what a service says of waiting comes to it."""
_NOISE = 0.2
"""Share of its work by which a run may differ from another one of the same rows."""


def expected_s(runs: Sequence[Run], load: float) -> float:
    """Returns the seconds that a batch run of a way is expected to take.

    The work of a run has a part that all rows together take and a part that each row takes. Runs of two loads tell
    both, as well as runs repeat; runs of one load tell their sum, of which much is fixed while rows are few.

    Args:
      runs: of this way, at least one, none of more rows.
      load: rows of the run.
    """
    loads = sorted({run.load for run in runs})
    nearest = [run for run in runs if run.load == loads[-1]]
    work = median(run.work_s for run in nearest)
    beside = median(run.elapsed_s - run.work_s for run in nearest)
    fixed = min(work * _ROWS_OF_FIXED / (loads[-1] + _ROWS_OF_FIXED), _MOST_FIXED_S + _waiting_s(nearest))
    of_a_row = max(0.0, work - fixed) / max(loads[-1], 1.0)
    if len(loads) > 1:
        before = median(run.work_s for run in runs if run.load == loads[-2])
        more, rows = work - before, loads[-1] - loads[-2]
        of_a_row = min(max(of_a_row, (more - _NOISE * work) / rows), max(0.0, more + _NOISE * work) / rows)
    return beside + work + of_a_row * (load - loads[-1])


def _waiting_s(runs: Sequence[Run]) -> float:
    """Seconds that the service of a batch prediction job took to take a job, and to run it."""
    return median(run.steps_s.get("submit", 0.0) + run.steps_s.get("wait", 0.0) for run in runs)
