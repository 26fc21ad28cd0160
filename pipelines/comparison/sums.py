"""Makes the results of a comparison from its runs: sums, ranking, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from pipelines.comparison import statistics
from pipelines.comparison.demands import FELL_BEHIND
from pipelines.comparison.manifest import hash_of, manifest_of
from pipelines.comparison.parity import in_words
from pipelines.comparison.results import Cell, Parity, Ranking, Results, Run
from pipelines.comparison.rounds import Rounds, Slot
from pipelines.comparison.ways import CompleteWay
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.files import FileSource
from pipelines.plan import Plan

_BEHIND = 0.2
"""Share of the seconds in which its messages were sent by which a stream may be late that keeps up."""
_STARTING_S = 1.0
"""By which its first messages may be late."""


@dataclass(frozen=True)
class Measured:
    """Holds what was measured.

    Attributes:
      config: of the comparison.
      config_path: of its config.
      plan: of the run that it is based on.
      ways: the ways.
      loads: sizes or rates, ascending.
      schedule: what was to be run.
      runs: what was.
      parity: what was found of each way.
      distinct: how many rows there are before they are repeated; None if the source is not files.
      hashed: what the hash of the config is made of.
    """

    config: ComparisonConfig
    config_path: str
    plan: Plan
    ways: Sequence[CompleteWay]
    loads: tuple[float, ...]
    schedule: Rounds
    runs: Sequence[Run]
    parity: Sequence[Parity]
    distinct: int | None
    hashed: object

    @property
    def is_batch(self) -> bool:
        """Tells whether batch runs were compared, not streams."""
        return self.plan.config.is_batch

    def results(self) -> Results:
        """Makes the results, without costs."""
        figure = self.schedule.figure
        runs = statistics.with_outliers(self.runs, figure)
        cells = self._cells(runs)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        begun = min((run.begun for run in runs), default=now)
        source = self.plan.config.source
        said = f"{source.format} files {source.path}" if isinstance(source, FileSource) else source.describe()
        return Results(
            kind="batch" if self.is_batch else "stream",
            name=self.config.name,
            manifest=manifest_of(self.plan, self.config_path, hash_of(self.hashed), said, runs, (begun, now)),
            ways=tuple(way.described(self.plan.model.runtime) for way in self.ways),
            loads=self.loads,
            runs=tuple(runs),
            cells=tuple(cells),
            parity=tuple(self.parity),
            rankings=tuple(self._ranking(load, cells, runs) for load in self.loads),
            notes=tuple(self._notes()),
            max_dead_letters=self.plan.config.dead_letters.max_fraction,
        )

    def _cells(self, runs: Sequence[Run]) -> list[Cell]:
        errors = {found.way: found.error for found in self.parity if found.error}
        shared = statistics.spreads(runs)
        cells = []
        for way in self.ways:
            for load in self.loads:
                left_out = f"it failed: {errors[way.name]}" if way.name in errors else ""
                if not way.is_run_at(load):
                    left_out = left_out or f"it is run at {way.max_load:,g} at most (max_load)"
                left_out = left_out or self.schedule.left_out(Slot(way.name, load), runs)
                cells.append(statistics.cell(way.name, load, runs, left_out, shared))
        return cells

    def _ranking(self, load: float, cells: Sequence[Cell], runs: Sequence[Run]) -> Ranking:
        disagree = {found.way: in_words(found) for found in self.parity if not found.agrees}
        figure = self.schedule.figure
        contestants, not_ranked = [], {}
        for cell in (cell for cell in cells if cell.load == load):
            lost = any(
                run.rows_read != run.rows_written + run.rows_dead_lettered
                for run in runs
                if run.ok and (run.way, run.load) == (cell.way, load)
            )
            why = disagree.get(cell.way) or cell.left_out or self._fell_behind(cell)
            why = why or ("rows are missing from its output" if lost else "")
            if why or figure not in cell.figures:
                not_ranked[cell.way] = why or "it has no such figure"
            else:
                contestants.append(statistics.Contestant(cell.way, cell.figures[figure]))
        return statistics.ranking(load, figure, contestants, not_ranked)

    def _fell_behind(self, cell: Cell) -> str:
        """Why the latencies of a stream mean nothing: it was slower than its messages came."""
        latest = cell.figures.get("latency.total.max")
        if self.is_batch or latest is None:
            return ""
        waits = next(way.waits_s for way in self.ways if way.name == cell.way)
        sent = self.schedule.sending_s[cell.load]
        if latest.median / 1000 <= _BEHIND * sent + _STARTING_S + waits:
            return ""
        took = cell.figures["work_s"].median
        rate = cell.figures["rows_read"].median / took if took else 0.0
        return f"{FELL_BEHIND}: {rate:,.0f} messages/s, and {cell.load:,g}/s came"

    def _notes(self) -> list[str]:
        notes = []
        if self.distinct is not None and max(self.loads) > self.distinct:
            notes.append(f"The source's first {self.distinct:,} rows are repeated where a size is larger.")
        left_out = sorted(set(map(float, self.config.sizes)) - set(self.loads)) if self.is_batch else []
        if left_out and not self.config.inputs and isinstance(self.plan.config.source, FileSource):
            sizes = ", ".join(f"{size:,.0f}" for size in left_out)
            notes.append(f"The sizes {sizes} are left out: each row is a file, and so many files are not made.")
        if any(way.server is not None for way in self.ways):
            notes.append(
                "Servers ran on the same processors as the pipeline: on a machine of their own they would not take its "
                "time, and a network would add its own."
            )
        if any(way.kind == "batch_job" and way.server is not None for way in self.ways):
            notes.append(
                "The batch job's service was played by the local server, which starts at once; Google's takes minutes "
                "to start its nodes."
            )
        return notes
