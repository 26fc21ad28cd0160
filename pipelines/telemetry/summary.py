"""Sums up a run at its end: for people, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model.secrets import masked

if TYPE_CHECKING:
    from pipelines.cost.dataflow import JobCost
from pipelines.telemetry.batch_job import BatchJobAccount


@dataclass(frozen=True)
class Summary:
    """Describes what a run did.

    Attributes:
      name: the run's name.
      runner: what ran it.
      rows_read: rows found in the source.
      rows_written: rows with a prediction, in the output.
      rows_dead_lettered: rows in the dead letters.
      seconds: from the pipeline's start to its end.
      startup_seconds: imports, checks and construction before that.
      rows_per_second: rows read a second of `seconds`.
      output: glob of the output's shards.
      dead_letters: glob of the dead letters' shards; empty if there are none.
      dead_letter_fraction: share of the rows read.
      max_fraction: the largest share allowed.
      ok: all rows accounted for, and not too many dead-lettered.
      runtime: what ran the model: native or python; None if it is on a server.
      notes: what a person should know of what was written, one line each.
      lost: what was published and is not there any more, one line each; None if all is there.
      ended_because: of a stream that was ended early: why; None if it was not.
      requests: sent to a model server, if the model is on one.
      requests_repeated: how many of them were further attempts.
      bytes_sent: bodies of these requests, as they were before any compression.
      rows_repeated: of a stream, dropped because their key had come before; None if repeats are kept.
      batching: of a stream with a latency budget: what was chosen at the end, `max_rows` and `max_wait_ms`.
      latency_ms: of a stream, from the event to its row being written: percentiles by name.
      stage_latency_ms: likewise of each stage, see telemetry/latency.py; of a batch run in this process too.
      job: of a job of Dataflow: its id.
      cost: of a job of Dataflow: what it has used, and what that costs.
      batch_job: of a batch prediction job: what became of it, and how long each step took.
    """

    name: str
    runner: str
    rows_read: int
    rows_written: int
    rows_dead_lettered: int
    seconds: float
    startup_seconds: float
    rows_per_second: float
    output: str
    dead_letters: str
    dead_letter_fraction: float
    max_fraction: float
    ok: bool
    runtime: str | None = None
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] | None = None
    ended_because: str | None = None
    requests: int | None = None
    requests_repeated: int | None = None
    bytes_sent: int | None = None
    rows_repeated: int | None = None
    batching: dict[str, float] | None = None
    latency_ms: dict[str, float] | None = None
    stage_latency_ms: dict[str, dict[str, float]] | None = None
    job: str | None = None
    cost: JobCost | None = None
    batch_job: BatchJobAccount | None = None

    def to_json(self) -> str:
        """Writes the summary as one JSON object on one line."""
        found = {
            name: value
            for name, value in asdict(self).items()
            if value is not None and name not in ("cost", "batch_job")
        }
        if self.cost is not None:
            found["cost"] = self.cost.findings()
        if self.batch_job is not None:
            found["batch_job"] = self.batch_job.findings()
        return json.dumps({k: round(v, 3) if isinstance(v, float) else _shown(v) for k, v in found.items()})

    @property
    def missing(self) -> int:
        """Returns rows read of which nobody knows what became; less than 0 if there are too many."""
        return self.rows_read - self.rows_written - self.rows_dead_lettered - (self.rows_repeated or 0)

    def problems(self) -> list[str]:
        """Returns why the run is not ok, one line each."""
        found = [*(self.lost or ()), *([masked(self.ended_because)] if self.ended_because else [])]
        if self.missing:
            found.append(f"{abs(self.missing):,} rows {'are missing' if self.missing > 0 else 'are too many'}")
        if self._too_many_dead_letters:
            again = "the same command with --resubmit" if self.batch_job else "python -m pipelines.replay"
            found.append(
                f"too many rows were dead-lettered: {self.rows_dead_lettered:,} of {self.rows_read:,} "
                f"({self.dead_letter_fraction:.2%}), and dead_letters.max_fraction allows {self.max_fraction:.2%}; "
                f"what was written stays; see why in {self.dead_letters}, mend, then run {again}"
            )
        return found

    @property
    def outcome(self) -> str:
        """Returns how the run ended, in a few words."""
        if self.ok:
            return "done"
        if self.missing or self.lost:
            return "rows are missing" if self.lost or self.missing > 0 else "more rows are written than were read"
        ended = "ended early" if self.ended_because else "done"
        return f"{ended}, but too many rows were dead-lettered" if self._too_many_dead_letters else ended

    @property
    def _too_many_dead_letters(self) -> bool:
        return self.dead_letter_fraction > self.max_fraction


def of_earlier_run(account: Any, output: str, dead_letters: str, max_fraction: float, further: str) -> Summary:
    """Returns the summary of a run that was stopped before it could give it.

    Args:
      account: the manifest that the run left.
      output: the output in words.
      dead_letters: glob of the dead letters' shards; empty if there are none.
      max_fraction: the largest share of dead letters allowed.
      further: what the same command does when it is run once more, after "to".
    """
    read, written, dead = account.rows_read, account.rows_written, account.rows_dead_lettered
    fraction = dead / read if read else 0.0
    taken = account.delivered.rows
    lost = () if taken == written else (f"{output} took {taken:,} rows, and {written:,} were written for it",)
    again = (
        f"run '{account.name}' ({account.run}) of this same command was stopped before it could say so, but its rows "
        f"are in {output}; nothing was done again; to {further}, run the same command again"
    )
    return Summary(
        name=account.name,
        runner="an earlier run",
        rows_read=read,
        rows_written=written,
        rows_dead_lettered=dead,
        seconds=0.0,
        startup_seconds=0.0,
        rows_per_second=0.0,
        output=output,
        dead_letters=dead_letters,
        dead_letter_fraction=fraction,
        max_fraction=max_fraction,
        ok=not lost and read == written + dead and fraction <= max_fraction,
        notes=(*account.notes, again),
        lost=lost or None,
    )


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(part) for part in value]
    return masked(value) if isinstance(value, str) else value


def print_summary(console: Any, summary: Summary) -> None:
    """Prints the summary as a table on a terminal, as plain lines in a pipe."""
    rows = [
        ("rows read", f"{summary.rows_read:,}"),
        ("rows written", f"{summary.rows_written:,}"),
        ("dead-lettered", f"{summary.rows_dead_lettered:,}" + _share(summary)),
        ("time", f"{summary.seconds:.2f} s (and {summary.startup_seconds:.1f} s to start)"),
        ("speed", f"{summary.rows_per_second:,.0f} rows/s"),
        ("runner", summary.runner + (f", {summary.runtime} runtime" if summary.runtime else "")),
        ("output", masked(summary.output)),
    ]
    if summary.batching:
        chosen = "at most {max_rows:,} rows, {max_wait_ms:,.1f} ms".format(**summary.batching)
        rows.insert(-2, ("batches, chosen", chosen))
    if summary.rows_repeated is not None:
        rows.insert(3, ("repeats dropped", f"{summary.rows_repeated:,}"))
    stages = {} if summary.latency_ms is None else summary.stage_latency_ms or {}
    for stage, found in stages.items():
        rows.insert(-2, (f"latency, {stage}", ", ".join(f"{name} {value:,.1f} ms" for name, value in found.items())))
    if summary.requests:
        rows.insert(5, ("requests", f"{summary.requests:,} ({summary.requests_repeated:,} of them repeated)"))
    if summary.batch_job is not None:
        rows += [(name, masked(value)) for name, value in summary.batch_job.in_words()]
    if summary.job:
        rows.append(("job", masked(summary.job)))
    if summary.cost is not None:
        rows.append(("cost", summary.cost.in_words()))
    if summary.dead_letters:
        rows.append(("dead letters", masked(summary.dead_letters)))
    if not console.is_terminal:
        width = max(15, 2 + max(len(name) for name, _ in rows))
        console.print(f"{summary.name}: {summary.outcome}", highlight=False, soft_wrap=True)
        for name, value in rows:
            console.print(f"{name + ':':<{width}}{value}", highlight=False, soft_wrap=True)
        _print_notes(console, summary)
        return
    from rich.table import Table

    colour = "green" if summary.ok else "red"
    title = summary.name if summary.ok else f"{summary.name}: {summary.outcome}"
    table = Table(title=title, title_style=f"bold {colour}", show_header=False, border_style=colour)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    _print_notes(console, summary)


def _print_notes(console: Any, summary: Summary) -> None:
    for note in summary.notes:
        console.print(f"note: {masked(note)}", highlight=False, soft_wrap=True)


def _share(summary: Summary) -> str:
    return f" ({summary.dead_letter_fraction:.2%})" if summary.rows_dead_lettered else ""
