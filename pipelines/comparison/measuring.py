"""Measures for a recommendation: of the ways only those that its constraints do not rule out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.comparison.constraints import reason_against
from pipelines.comparison.results import Results
from pipelines.comparison.session import ComparisonSession, Tell
from pipelines.comparison.view import start
from pipelines.comparison.ways import CompleteWay, given_ways, ways_of
from pipelines.config import load as configs
from pipelines.config.comparison import ComparisonConfig
from pipelines.planning.planner import make_plan


@dataclass(frozen=True)
class Measuring:
    """Says what is measured, and how.

    Attributes:
      path: config of a comparison, or of a run.
      overrides: changes of the comparison's keys, `KEY=VALUE` each.
      minutes: that all runs may take together.
      folder: where what was measured is kept.
      constraints: names of constraints.
      restart: forget what was measured before.
    """

    path: str
    overrides: Sequence[str] = ()
    minutes: float = 2.0
    folder: str = "out/recommend"
    constraints: Sequence[str] = ()
    restart: bool = False

    def kind(self) -> str:
        """Returns whether batch runs or streams would be measured: "batch" or "stream". Raises ConfigError."""
        return "batch" if configs.load(self._config().config).is_batch else "stream"

    def results(self, tell: Tell) -> Results:
        """Measures, or takes what an earlier command has measured; ways that are ruled out are in the results too.

        Args:
          tell: gets a line about each thing that was done.

        Raises:
          ConfigError: a config is wrong, or its run cannot be planned.
        """
        config = self._config()
        plan = make_plan(configs.load(config.config))
        ways = ways_of(config, configs.content_of(config.config), plan)
        left = [way for way in ways if not self._rules_out(way)]
        if left and len(left) < len(ways):
            given = given_ways(config, plan)
            kinds = "-".join(sorted({way.kind for way in ways if way not in left}))
            # In a folder of its own: what was measured of all ways, or of others, stays there for its own command.
            folder = f"{config.folder}/without-{kinds}"
            config = config.model_copy(update={"ways": {way.name: given[way.name] for way in left}, "folder": folder})
            tell(f"not measured, as a constraint rules them out: {'; '.join(w.name for w in ways if w not in left)}")
        if len(left) == 1:
            tell(f"one way is left, {left[0].name}: it is compared with no other, and measured for what it costs")
        if not left:
            tell("the constraints rule out all ways: nothing is measured")
            tell = _say_nothing
        with ComparisonSession(config, self.path, tell, self.restart and bool(left), plan) as session:
            if left and not session.goes_on:
                tell(start(session))
            results = session.run() if left else session.so_far()
        return results.model_copy(update={"ways": tuple(way.described(plan.model.runtime) for way in ways)})

    def _config(self) -> ComparisonConfig:
        config = configs.load_comparison(self.path, self.overrides)
        return config.model_copy(update={"minutes": self.minutes, "folder": self.folder})

    def _rules_out(self, way: CompleteWay) -> bool:
        return any(reason_against(name, way.kind) for name in self.constraints)


def _say_nothing(line: str) -> None:
    """A session tells what it reads for runs that there will be none of."""
