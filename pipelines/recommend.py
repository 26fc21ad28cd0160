"""Recommends a way to call the model, and what it costs: the command `python -m pipelines.recommend`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from model import terminal
from pipelines.cli import command

if TYPE_CHECKING:
    from pipelines.comparison.results import Results

_DESCRIPTION = """\
Recommends a way to call the model, for the least money a month: in the workers, at an endpoint, or by a batch
prediction job. It takes what a comparison has measured (--results, twice for batch runs and for a stream), or measures
for two minutes (--config), and a file of prices.

constraints:
{constraints}

exit codes: 0 a way is recommended, 1 something else went wrong, 2 the command line or a file is wrong,
  3 no way does all that is asked for"""

_MINUTES = 2.0
_FOLDER = "out/recommend"
"""For what it measures: that of a longer comparison stays as it is."""
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_VOLUME = re.compile(r"(\d[\d,_]*(?:\.\d+)?)([kmb]?)", re.IGNORECASE)
_MOST = 1e15

Measure = Callable[[str, Sequence[str], float], "Results"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return command.guarded(lambda: _recommend(arguments))


def _measure(config: str, overrides: Sequence[str], minutes: float) -> Results:
    """Measures the ways of a config, of a run or of a comparison."""
    from pipelines.comparison.session import compare_config

    terminal.print_line(f"measuring the ways for {minutes:g} minutes", stderr=True)
    return compare_config(config, overrides, minutes, _FOLDER)


def _recommend(arguments: Any) -> int:
    from pipelines.comparison import recommendation_view as view
    from pipelines.comparison.recommendation import Wish, recommend
    from pipelines.cost.assumptions import Assumptions
    from pipelines.cost.prices import load as load_prices

    prices = load_prices(arguments.prices)
    wish = Wish(arguments.latency_ms, arguments.within, tuple(dict.fromkeys(arguments.constraint)))
    volumes = {"batch": arguments.rows_a_day, "stream": arguments.messages_a_second}
    within = 1.0 if arguments.within is None else arguments.within
    found = [
        recommend(each, prices, Assumptions(volume=volumes[each.kind], within_hours=within), wish)
        for each in _results(arguments, _measure)
    ]
    if arguments.json:
        terminal.print_line(json.dumps({each.results.kind: view.findings(each) for each in found}))
    else:
        out, _ = command.consoles()
        for each in found:
            view.show(out, each)
    return command.OK if all(each.best for each in found) else command.INCOMPLETE


def _results(arguments: Any, measure: Measure) -> list[Results]:
    """What was measured, of one kind or of both. Raises ConfigError: that does not go with the options."""
    from pipelines.comparison.reading import read_results
    from pipelines.config.errors import ConfigError
    from pipelines.config.load import PACKAGED

    if arguments.results and (arguments.config or arguments.set):
        raise ConfigError(["--results: what was measured is there; leave --config and --set out, or --results"])
    if arguments.results:
        found = [read_results(path) for path in arguments.results]
    else:
        found = [measure(arguments.config or PACKAGED, arguments.set, _MINUTES)]
    kinds = [each.kind for each in found]
    if len(set(kinds)) < len(kinds):
        raise ConfigError([f"--results: two of {kinds[0]} runs; give one of batch runs and one of a stream"])
    needed = {
        "--rows-a-day": ("batch", arguments.rows_a_day),
        "--within": ("batch", arguments.within),
        "--messages-a-second": ("stream", arguments.messages_a_second),
        "--latency-ms": ("stream", arguments.latency_ms),
    }
    problems = [
        f"{option}: it is for {'batch runs' if kind == 'batch' else 'a stream'}, and none was measured"
        for option, (kind, value) in needed.items()
        if value is not None and kind not in kinds
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _parser() -> argparse.ArgumentParser:
    from pipelines.comparison.constraints import CONSTRAINTS

    width = max(map(len, CONSTRAINTS))
    lines = "\n".join(f"  {name:{width}}  {each.means}" for name, each in CONSTRAINTS.items())
    parser = command.parser("recommend", _DESCRIPTION.format(constraints=lines))
    add = parser.add_argument
    add("--results", action="append", metavar="FILE", help="results.json of a comparison; two for both kinds")
    add("--rows-a-day", type=_volume, metavar="N", help="rows of the batch run of each day, such as 500k, 10M, 1B")
    add("--messages-a-second", type=_volume, metavar="N", help="messages a second of a stream")
    add("--latency-ms", type=_positive, metavar="N", help="of a stream: milliseconds for 99 of 100 messages, at most")
    add("--within", type=_hours, metavar="HOURS", help="hours in which a batch run is to end, at most 24 (1)")
    add("--prices", metavar="FILE", help="prices of machines and services (configs/prices.json)")
    add("--constraint", action="append", default=[], choices=list(CONSTRAINTS), metavar="NAME", help="see above")
    add("--json", action="store_true", help="print what was found as one JSON object")
    return parser


def _volume(text: str) -> float:
    """A number that may end in k, M or B."""
    found = _VOLUME.fullmatch(text.strip())
    value = float(re.sub("[,_]", "", found[1])) * _SCALES[found[2].lower()] if found else -1.0
    if not 0 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number up to 1e15, such as 500k, 10M or 1B")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _hours(text: str) -> float:
    if (value := _positive(text)) > 24:
        raise argparse.ArgumentTypeError(f"{text} h is longer than a day, and there is a run each day")
    return value


if __name__ == "__main__":
    sys.exit(main())
