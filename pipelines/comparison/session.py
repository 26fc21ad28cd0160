"""Takes a comparison from its config to its results: servers, parity, rounds, sums."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from inference.columns.bound import arrow_type
from inference.saved_model import files as model_files
from model.secrets import masked
from pipelines.comparison import commands, inputs, parity
from pipelines.comparison.folder import INPUTS, LOGS, ResultsFolder
from pipelines.comparison.identity import identity_of
from pipelines.comparison.journal import Journal
from pipelines.comparison.loads import problems_of_loads
from pipelines.comparison.parity import NOTHING_WRITTEN, Written, in_words, nothing_written
from pipelines.comparison.results import Parity, Results, Run
from pipelines.comparison.rounds import Rounds, Slot
from pipelines.comparison.servers import RunningServer, Servers
from pipelines.comparison.sums import Measured
from pipelines.comparison.trials import TrialCommand, Trials, written_by
from pipelines.comparison.ways import CompleteWay, problems_of, served_model, ways_of
from pipelines.config import load as configs
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.errors import ConfigError
from pipelines.config.files import FileSource
from pipelines.plan import Plan
from pipelines.planning.planner import make_plan

RANKED_BY = {"batch": "elapsed_s", "stream": "latency.total.p99"}
_LONGEST_S = 120.0
"""That a run may take at least, whatever was expected."""
Tell = Callable[[str], None]


class ComparisonSession:
    """Runs a comparison.

    Args:
      config: of the comparison.
      path: of its config.
      tell: gets a line about each thing that was done.
      restart: begin anew, whatever an earlier command has measured.
      plan: of the run that it is based on; it is made if it is not given.

    Raises:
      ConfigError: the config is wrong, or the run that it is based on cannot be planned; on entering: there are no
        rows, or the folder cannot be used.
    """

    trials: Trials
    _journal: Journal

    def __init__(
        self, config: ComparisonConfig, path: str, tell: Tell, restart: bool = False, plan: Plan | None = None
    ) -> None:
        self.config = config
        self._path = path
        self._tell = tell
        self._content = configs.content_of(config.config)
        if "config" in self._content and "source" not in self._content:
            raise ConfigError([f"config: {config.config} is itself a comparison; name a run's config"])
        self._plan = plan or make_plan(configs.load(config.config))
        self._refuse_unfit()
        self.ways = ways_of(config, self._content, self._plan)
        # Of the usual ways, those that do not suit the run are left out, as ways that cannot run are.
        if config.ways and (wrong := problems_of(self.ways, config.config, self._plan)):
            raise ConfigError([f"{path}: {problem}" for problem in wrong])
        self._identity = identity_of(config, self._content, self._plan, self.ways)
        self.folder = Path(config.folder) / config.name
        self._place = ResultsFolder(self.folder, config.name)
        self._work = self._place.work
        self._restart = restart
        settings = self._content.get("model") or {}
        self._servers = Servers(
            {name: settings.get(name) for name in ("runtime", "op_libraries")}
            | {"signature": self._plan.signature.name},
            str(self._work.resolve()),
            self._work / LOGS,
        )

    def __enter__(self) -> ComparisonSession:
        with ExitStack() as entered:
            entered.enter_context(self._place)
            repeated = self._repeated
            self.trials = Trials(self.config, self._content, self._plan, self._work, repeated)
            if repeated is not None:
                sizes = {int(load) for load in self.loads if any(way.is_run_at(load) for way in self.ways)}
                sizes.add(min(self.config.parity_rows, repeated.rows))
                self._place.require_room(inputs.room_needed(self._work / INPUTS, sizes, repeated))
            self._journal = Journal(self.folder / "runs.jsonl", self._identity, self._restart)
            if not self._journal.goes_on:
                self._place.empty_work()
            entered.enter_context(self._servers)
            self._entered = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    @property
    def kind(self) -> str:
        """Returns whether batch runs or streams are compared."""
        return "batch" if self._plan.config.is_batch else "stream"

    @cached_property
    def loads(self) -> tuple[float, ...]:
        """Returns the sizes or rates, ascending."""
        if self.kind == "stream":
            return tuple(sorted(self.config.rates))
        if self.config.inputs:
            return tuple(sorted(map(float, self.config.inputs)))
        source = self._plan.config.source
        if isinstance(source, FileSource):
            sizes = sorted(self.config.sizes)
            if source.format == "bytes":
                sizes = [size for size in sizes if size <= inputs.MOST_FILES] or [inputs.MOST_FILES]
            return tuple(map(float, sizes))
        extent = self._plan.extent
        return (float(extent.rows if extent is not None and extent.rows else 1),)

    def run(self) -> Results:
        """Compares; goes on where an earlier session was interrupted."""
        if self._journal.goes_on:
            runs = self._journal.runs
            were = f"{len(runs)} earlier run{'s are' if len(runs) != 1 else ' is'}"
            until = f", the last of {runs[-1].begun[:16].replace('T', ' at ')} UTC" if runs else ""
            self._tell(f"going on: {were} used{until}; --restart measures anew")
        if self._journal.anew:
            self._tell(self._journal.anew)
        self._check_parity()
        self._measure()
        return self._results()

    @property
    def goes_on(self) -> bool:
        """Tells whether an earlier session has measured something that is used."""
        return self._journal.goes_on

    def so_far(self) -> Results:
        """Returns what earlier sessions have measured; measures nothing."""
        return self._results()

    def _refuse_unfit(self) -> None:
        source = self._plan.config.source
        if problems := problems_of_loads(self.config, self._plan):
            raise ConfigError(problems)
        if self.kind == "stream" and source.type != "simulated" and self.config.publish_to is None:
            raise ConfigError(
                [f"publish_to is missing: say where messages for a {source.type} source are sent, such as kafka:births"]
            )
        if "://" in self.config.folder:
            raise ConfigError([f"folder: {self.config.folder} is no local folder; results are kept on this machine"])

    @cached_property
    def _repeated(self) -> inputs.Repeated | None:
        if self.kind == "stream" or self.config.inputs or not isinstance(self._plan.config.source, FileSource):
            return None
        most = max(int(max(self.loads)), self.config.parity_rows)
        self._tell("reading the first rows of the source ...")
        return inputs.first_rows(self._plan, most)

    def _server(self, way: CompleteWay) -> RunningServer | None:
        if way.server is None:
            return None
        model = served_model(way.server, self._plan)
        if model is None:
            raise ConfigError([f"ways.{way.name}: no SavedModel to serve; give server.model, or model.url"])
        return self._servers.of(way.server, model_files.local_copy(model))

    def _check_parity(self) -> None:
        """Runs each way once and compares what it has written with the first way."""
        known = {found.way: found for found in self._journal.parity}
        left = [way for way in self.ways if way.name not in known]
        if not left:
            return
        key = self._key_of_rows()
        reference: tuple[str, Written] | None = None
        # The first one is run again, as what it wrote is not kept.
        first = next((way for way in self.ways if not (way.name in known and known[way.name].error)), None)
        for way in [way for way in self.ways if way is first or way in left]:
            written, error = self._written(way, key)
            if error.startswith(NOTHING_WRITTEN) and way is self.ways[0]:
                # Nothing can be held against it, and all ways would be measured at failing.
                raise ConfigError([f"{way.name}: {error}; see that the source is what the config says"])
            if written is None:
                found = Parity(way=way.name, reference=self.ways[0].name, agrees=False, error=error)
            elif reference is None:
                reference = way.name, written
                found = Parity(way=way.name, reference=way.name, rows=written.table.num_rows)
            else:
                found = self._compared(way.name, written, *reference)
            if way.name not in known:
                self._journal.add_parity(found)
                self._tell(f"parity  {way.name}: {in_words(found)}")

    def _compared(self, way: str, written: Written, reference_way: str, reference: Written) -> Parity:
        outputs = [pa.field(spec.name, arrow_type(spec.dtype)) for spec in self._plan.signature.outputs]
        try:
            return parity.compare(way, reference_way, written, reference, outputs, self.config.tolerance)
        except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            said = f"its output cannot be compared: {error}"
            return Parity(way=way, reference=reference_way, agrees=False, error=said)

    def _key_of_rows(self) -> str | None:
        """The source's key column, if it identifies the rows that are compared."""
        source = self._plan.config.source
        if self._repeated is None or not isinstance(source, FileSource) or source.key is None:
            return getattr(source, "key", None)
        return source.key if self._repeated.has_unique(self._plan, source.key) else None

    def _written(self, way: CompleteWay, key: str | None) -> tuple[Written | None, str]:
        try:
            trial = self.trials.parity(way, self._server(way), key)
        except ConfigError as error:
            said = masked("; ".join(error.problems))
            self._place.refuse_if_full(said)
            return None, said
        try:
            found = self._execute(trial, 0)
            if not self._plan.config.is_batch:
                self._journal.add_run(found)
            if not found.ok:
                return None, found.error
            written = written_by(trial)
            why = masked(nothing_written(written))
            return (None, why) if why else (written, "")
        finally:
            trial.clear()

    def _execute(self, trial: TrialCommand, round: int, expected: float = 0.0) -> Run:
        limit = max(_LONGEST_S, 4 * expected)
        found = commands.run(trial.command, round, self._work / LOGS / "command.log", limit, trial.publish)
        if not found.ok:
            self._place.refuse_if_full(found.error)
        return found

    @cached_property
    def _schedule(self) -> Rounds:
        usable = {found.way for found in self._journal.parity if not found.error}
        slots = [
            Slot(way.name, load)
            for load in self.loads
            for way in self.ways
            if way.name in usable and way.is_run_at(load)
        ]
        seconds = self.config.seconds
        sending = {
            load: seconds if self.config.messages is None else self.config.messages / load for load in self.loads
        }
        return Rounds(
            slots,
            RANKED_BY[self.kind],
            self.config.precision,
            self.config.rounds,
            60 * self.config.minutes,
            sending if self.kind == "stream" else {},
            {found.way for found in self._journal.parity if not found.agrees},
        )

    def _measure(self) -> None:
        schedule, runs = self._schedule, self._journal.runs
        by_name = {way.name: way for way in self.ways}
        for name in dict.fromkeys(slot.way for slot in schedule.slots):
            least = Slot(name, min(slot.load for slot in schedule.slots if slot.way == name))
            while not schedule.is_warm(least, runs):
                if not self._once(by_name[name], least, 0).ok:
                    break
        while (following := schedule.next(runs)) is not None:
            slot, round = following
            self._once(by_name[slot.way], slot, round)
        if not schedule.can_rank(runs):
            self._tell("nothing more is measured: fewer than two ways are left that could be ranked")

    def _once(self, way: CompleteWay, slot: Slot, round: int) -> Run:
        trial = self.trials.measured(way, slot.load, self._server(way))
        try:
            found = self._execute(trial, round, self._schedule.expected(slot, self._journal.runs))
        finally:
            trial.clear()
        self._journal.add_run(found)
        self._tell(self._line(found))
        return found

    def _line(self, run: Run) -> str:
        left = max(0.0, self._schedule.left(self._journal.runs))
        step = f"round {run.round}" if run.round else "warm-up"
        load = f"{run.load:,.0f} rows" if self.kind == "batch" else f"{run.load:,g}/s"
        if not run.ok:
            return f"{step}  {run.way}, {load}: {run.error}"
        found = f"{run.elapsed_s:.2f} s"
        if self.kind == "stream":
            p99 = run.latency_ms.get("total", {}).get("p99")
            found = "no message was predicted" if p99 is None else f"p99 {p99:,.1f} ms"
        return f"{step}  {run.way}, {load}: {found}; at most {left / 60:.1f} min left"

    def _results(self) -> Results:
        return Measured(
            self.config,
            self._path,
            self._plan,
            self.ways,
            self.loads,
            self._schedule,
            self._journal.runs,
            self._journal.parity,
            self.trials.distinct,
            self._content,
        ).results()
