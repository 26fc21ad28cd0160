"""Decides what is run next: all ways take turns, until figures are narrow or the time is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.comparison.expectation import expected_s
from pipelines.comparison.results import Run
from pipelines.comparison.statistics import figure, figures_of, is_narrow

_STABLE = 0.1
_MOST_WARM_UPS = 3
_WARM_UP_SHARE = 0.03
"""Of all the time, that a run may take for warming up only."""
_NARROW_ROUNDS = 3
"""Rounds from which an interval may be called narrow."""
_START_S = 4.0
"""That a command is presumed to take beside its work, before any was run."""


@dataclass(frozen=True)
class Slot:
    """Describes a way at a load.

    Attributes:
      way: name of the way.
      load: rows of a batch run, messages a second of a stream.
    """

    way: str
    load: float


@dataclass
class Rounds:
    """Holds what is to be run, and what was.

    Args:
      slots: in the order of a round: all ways at the least load, then at the next.
      figure: what the ways are ranked by.
      precision: see ComparisonConfig.
      rounds: most rounds.
      seconds: that all runs may take together.
      sending_s: seconds that messages are sent to a stream, by load; empty for batch runs.
      unranked: ways that are in no ranking, as they disagree with the first.
    """

    slots: Sequence[Slot]
    figure: str
    precision: float
    rounds: int
    seconds: float
    sending_s: Mapping[float, float] = field(default_factory=dict)
    unranked: Collection[str] = ()

    def is_warm(self, slot: Slot, runs: Sequence[Run]) -> bool:
        """Tells whether a way has run often enough that its next run takes as long as the last, or takes too long."""
        expected = self.expected(slot, runs)
        if expected > min(_WARM_UP_SHARE * self.seconds, self.left(runs)) or not self.can_rank(runs):
            return True
        way = slot.way
        times = [run.elapsed_s for run in runs if run.way == way and not run.round and run.ok]
        if times and expected > self.left(runs) - self._first_round_s(runs):
            return True
        if self.sending_s:
            return len(times) >= 1
        if len(times) >= _MOST_WARM_UPS:
            return True
        return len(times) >= 2 and abs(times[-1] - times[-2]) <= _STABLE * times[-2]

    def left(self, runs: Sequence[Run]) -> float:
        """Returns the seconds that are left."""
        return self.seconds - sum(run.elapsed_s for run in runs)

    def expected(self, slot: Slot, runs: Sequence[Run]) -> float:
        """Returns how long a run is expected to take, from those before it."""
        own = [run for run in runs if run.way == slot.way and run.ok]
        same = [run for run in own if run.load == slot.load and run.round]
        if same:
            return same[-1].elapsed_s
        if self.sending_s:
            beside = max((run.elapsed_s - run.work_s for run in own), default=_START_S)
            return beside + self.sending_s[slot.load]
        smaller = [run for run in own if run.load <= slot.load]
        return expected_s(smaller, slot.load) if smaller else _START_S

    def can_rank(self, runs: Sequence[Run]) -> bool:
        """Tells whether two ways are left at some load: that agree with each other and have not failed."""
        return any(
            sum(
                slot.load == load and slot.way not in self.unranked and not self._has_failed(self._counted(slot, runs))
                for slot in self.slots
            )
            > 1
            for load in {slot.load for slot in self.slots}
        )

    def next(self, runs: Sequence[Run]) -> tuple[Slot, int] | None:
        """Returns what is to be run next and the number of its round; None if nothing is, fits, or can be ranked."""
        if not self.can_rank(runs):
            return None
        left = self.left(runs)
        counts = {slot: self._counted(slot, runs) for slot in self.slots}
        for round in range(1, self.rounds + 1):
            for slot in self.slots:
                if len(counts[slot]) >= round or self._is_done(counts[slot]):
                    continue
                if self.expected(slot, runs) <= left:
                    return slot, round
        return None

    def _first_round_s(self, runs: Sequence[Run]) -> float:
        """Seconds that one run of each slot takes that was not run yet; of those only that fit into what is left."""
        left, total = self.left(runs), 0.0
        for slot in self.slots:
            if not self._counted(slot, runs) and total + (needed := self.expected(slot, runs)) <= left:
                total += needed
        return total

    def _counted(self, slot: Slot, runs: Sequence[Run]) -> list[Run]:
        return [run for run in runs if run.round and (run.way, run.load) == (slot.way, slot.load)]

    def _is_done(self, runs: Sequence[Run]) -> bool:
        """Whether more rounds would tell nothing: the figure is narrow, or the way has failed."""
        if any(not run.ok for run in runs):
            return True
        if len(runs) < _NARROW_ROUNDS:
            return False
        return is_narrow(figure([figures_of(run).get(self.figure, 0.0) for run in runs]), self.precision)

    def _has_failed(self, runs: Sequence[Run]) -> bool:
        """Whether the runs of a slot give no figure: there are some, and none succeeded."""
        return bool(runs) and not any(run.ok for run in runs)

    def left_out(self, slot: Slot, runs: Sequence[Run]) -> str:
        """Returns why a slot was not run; empty if it was."""
        counted = self._counted(slot, runs)
        if self._has_failed(counted):
            return f"it failed: {counted[-1].error}"
        if counted:
            return ""
        if not self.can_rank(runs):
            return "not measured: fewer than two ways are left that could be ranked"
        return f"no time was left: it would have taken about {self.expected(slot, runs):,.0f} s"
