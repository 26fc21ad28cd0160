"""Defines `results.json`: what a comparison has measured, as its report and `recommend` read it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.comparison.cost_results import BreakEven, CostOfWay, Positive, ResultPart, WayCosts

__all__ = [
    "BreakEven",
    "Cell",
    "ComparisonManifest",
    "CostOfWay",
    "Difference",
    "Disagreement",
    "Figure",
    "Machine",
    "Parity",
    "Positive",
    "RankedPlace",
    "Ranking",
    "ResultPart",
    "Results",
    "Run",
    "Way",
    "WayCosts",
    "WayKind",
]  # fmt: skip

Amount = Annotated[float, Field(allow_inf_nan=False)]
WayKind = Literal["direct", "endpoint", "batch_job"]


class Way(ResultPart):
    """Describes a way to call the model.

    Attributes:
      name: as the config names it.
      kind: where the model runs.
      single: whether each call has one record.
      settings: how it was set, in words: runtime, protocol, rows in a call.
    """

    name: str
    kind: WayKind
    single: bool = False
    settings: tuple[str, ...] = ()


class Machine(ResultPart):
    """Describes the machine that everything ran on.

    Attributes:
      cpu: name of the processor.
      cores: how many there are for this process.
      memory_gb: memory of the machine, or of what it may use.
      system: operating system and release.
    """

    cpu: str
    cores: int
    memory_gb: Positive
    system: str


class ComparisonManifest(ResultPart):
    """Says what is needed to repeat a comparison.

    Attributes:
      begun: date and time of the first run, ISO 8601 in UTC.
      ended: likewise of the last.
      command: the command line.
      config: name of the config.
      config_hash: SHA-256 of the config with all that it names filled in.
      model: path of the model.
      model_hash: SHA-256 of the model's files.
      source: the source in words.
      machine: the machine.
      versions: versions of what ran, by name.
      seconds: that all runs took together.
    """

    begun: str
    ended: str
    command: str
    config: str
    config_hash: str
    model: str
    model_hash: str
    source: str
    machine: Machine
    versions: dict[str, str]
    seconds: Positive


class Run(ResultPart):
    """Describes one run: a command, from the start of its process to the end.

    Attributes:
      way: name of the way.
      load: rows of a batch run, messages a second of a stream.
      round: number of the round, from 1; 0 for warming up, which no figure has.
      begun: date and time, ISO 8601 in UTC.
      elapsed_s: from the start of the process to its end.
      start_s: of these, before the first row: imports, checks, construction.
      work_s: of these, while rows were on their way.
      end_s: of these, after the last row.
      steps_s: of a batch prediction job: seconds of prepare, submit, wait, join.
      rows_read: rows or messages that were read.
      rows_written: of these, with a prediction.
      rows_dead_lettered: of these, in the dead letters.
      pipeline_cpu_s: seconds of processors that the command used.
      server_cpu_s: likewise of the local server while the command ran; None if there was none.
      pipeline_peak_mb: most resident memory of the command.
      server_peak_mb: likewise of the local server, since it started.
      requests: sent to the model server.
      requests_repeated: of these, further attempts.
      bytes_sent: bodies of these requests.
      latency_ms: of a stream: p50, p95, p99 and max by stage (lag, wait, model, total).
      exit_code: of the command.
      error: why the run failed; empty if it did not. A run that failed is in no figure.
      outlier: the figure that is far from those of the other rounds; empty if none is. It is in all figures.
    """

    way: str
    load: Positive
    round: int
    begun: str
    elapsed_s: Positive
    start_s: Positive = 0
    work_s: Positive = 0
    end_s: Positive = 0
    steps_s: dict[str, Positive] = {}
    rows_read: int = 0
    rows_written: int = 0
    rows_dead_lettered: int = 0
    pipeline_cpu_s: Positive = 0
    server_cpu_s: Positive | None = None
    pipeline_peak_mb: Positive = 0
    server_peak_mb: Positive | None = None
    requests: int | None = None
    requests_repeated: int | None = None
    bytes_sent: int | None = None
    latency_ms: dict[str, dict[str, Positive]] = {}
    exit_code: int = 0
    error: str = ""
    outlier: str = ""

    @property
    def ok(self) -> bool:
        """Tells whether its figures count."""
        return not self.error


class Figure(ResultPart):
    """Sums up one figure over all rounds.

    Attributes:
      median: of the rounds.
      low: where its 95% interval begins; None with one round.
      high: where it ends.
      rounds: how many there are.
    """

    median: Amount
    low: Amount | None = None
    high: Amount | None = None
    rounds: int = 1


class Cell(ResultPart):
    """Sums up the runs of one way at one load.

    Attributes:
      way: name of the way.
      load: rows of a batch run, messages a second of a stream.
      figures: by name: members of `Run` with numbers, `rows_per_second`, `cpu_s` (pipeline and server together),
        `steps.prepare` and the like, `latency.total.p99` and the like.
      left_out: why it was not run, or not counted; empty if it was.
    """

    way: str
    load: Positive
    figures: dict[str, Figure] = {}
    left_out: str = ""


class Difference(ResultPart):
    """Says how far the values of one output are from those of the reference.

    Attributes:
      output: name of the output.
      rows: rows that were compared.
      greatest: the greatest absolute difference; for values that are not numbers 1 if any differs, else 0.
      typical: the median of the absolute differences.
      greatest_relative: the greatest difference, relative to the reference.
      over: rows whose difference is above the tolerance.
      absolute: tolerance, absolute.
      relative: tolerance, relative to the reference.
    """

    output: str
    rows: int
    greatest: Amount
    typical: Amount
    greatest_relative: Amount
    over: int
    absolute: Positive
    relative: Positive


class Disagreement(ResultPart):
    """Shows one row on which a way and the reference differ.

    Attributes:
      key: identifies the row.
      what: output that differs, or `missing`, `extra`, `repeated`, `failed here only`, `failed in the reference only`.
      reference: value of the reference in words.
      here: value of the way in words.
    """

    key: str
    what: str
    reference: str = ""
    here: str = ""


class Parity(ResultPart):
    """Says whether a way gives the same outputs as the reference.

    Attributes:
      way: name of the way.
      reference: name of the way that it is compared with.
      rows: rows that both wrote.
      differences: of each output.
      missing: rows that only the reference accounted for.
      extra: rows that only this way accounted for.
      repeated: rows that this way wrote more often than the reference.
      failed_here_only: rows that became dead letters here, and were predicted by the reference.
      failed_in_reference_only: the other way round.
      failed_in_both: rows that became dead letters in both.
      examples: some of the rows that differ.
      agrees: whether nothing is missing, extra or repeated, no row failed in one only, no value is over its tolerance.
      error: why there is nothing to compare; empty if there is.
    """

    way: str
    reference: str
    rows: int = 0
    differences: tuple[Difference, ...] = ()
    missing: int = 0
    extra: int = 0
    repeated: int = 0
    failed_here_only: int = 0
    failed_in_reference_only: int = 0
    failed_in_both: int = 0
    examples: tuple[Disagreement, ...] = ()
    agrees: bool = True
    error: str = ""


class RankedPlace(ResultPart):
    """Says which place a way takes at one load.

    Attributes:
      way: name of the way.
      place: 1 for the best; ways whose intervals overlap with the best of a group share its place.
      value: its median.
      ratio: its median divided by that of the best.
      tied: whether it shares its place.
    """

    way: str
    place: int
    value: Amount
    ratio: Positive
    tied: bool = False


class Ranking(ResultPart):
    """Ranks ways at one load by one figure, the least first.

    Attributes:
      load: rows of a batch run, messages a second of a stream.
      figure: `elapsed_s` for batch runs, `latency.total.p99` for streams.
      places: the ways that are ranked.
      not_ranked: the ways that are not, and why.
    """

    load: Positive
    figure: str
    places: tuple[RankedPlace, ...]
    not_ranked: dict[str, str] = {}


class Results(ResultPart):
    """Holds all that a comparison has found.

    Attributes:
      format: number of this format.
      kind: what was compared: batch runs over sizes, or streams over rates.
      name: of the comparison.
      manifest: what is needed to repeat it.
      ways: the ways, in the order of the config.
      loads: sizes or rates, ascending.
      runs: all runs, in the order in which they ran.
      cells: their sums.
      parity: whether the ways agree with the first one.
      rankings: which is faster, at each load.
      costs: what they cost; None if there are no prices.
      notes: what a reader should know, one sentence each.
      max_dead_letters: the largest share of dead letters that the run's config allows; None if it is not known.
    """

    format: Literal[1] = 1
    kind: Literal["batch", "stream"]
    name: str
    manifest: ComparisonManifest
    ways: tuple[Way, ...]
    loads: tuple[Positive, ...]
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    parity: tuple[Parity, ...]
    rankings: tuple[Ranking, ...]
    costs: WayCosts | None = None
    notes: tuple[str, ...] = ()
    max_dead_letters: Positive | None = None

    def way(self, name: str) -> Way:
        """Returns the way of a name."""
        return next(each for each in self.ways if each.name == name)

    def cell(self, way: str, load: float) -> Cell | None:
        """Returns the sums of a way at a load; None if there is no such cell."""
        return next((each for each in self.cells if each.way == way and each.load == load), None)
