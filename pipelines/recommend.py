"""Recommends a way to call the model, and what it costs: the command `python -m pipelines.recommend`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model import terminal
from model.signals import signals_to
from pipelines.cli import command

if TYPE_CHECKING:
    from pipelines.comparison.results import Results

_DESCRIPTION = """\
Recommends a way to call the model, for the least money a month: in the workers, at an endpoint, or by a batch
prediction job. It takes what a comparison has measured (--results, twice for batch runs and for a stream), or measures
for two minutes (--config; the same command goes on after Ctrl-C), and a file of prices.

constraints:
{constraints}

exit codes: 0 a way is recommended, 1 something else went wrong, 2 the command line or a file is wrong,
  3 no way does all that is asked for, 130 it was interrupted"""

_MINUTES = 2.0
_FOLDER = "out/recommend"
"""For what it measures: that of a longer comparison stays as it is."""
_POWERS = {"": 0, "k": 3, "m": 6, "b": 9}
_VOLUME = re.compile(r"(\d[\d,_]*(?:\.\d+)?)(?:(e\+?\d{1,3})|([kmb]?))", re.IGNORECASE)
_MOST = 1e15


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    with signals_to(command.end_at_once):
        arguments = _parser().parse_args(argv)
        return command.guarded(lambda: _until_interrupted(arguments))


def _until_interrupted(arguments: Any) -> int:
    with signals_to(command.interrupt):
        try:
            return _recommend(arguments)
        except KeyboardInterrupt:
            # A terminal has shown ^C on this line.
            line = "\n" * sys.stderr.isatty() + "stopped"
            if not arguments.results:
                line += ": what was measured is kept; the same command goes on, with --restart it begins anew"
            terminal.print_text(line, stderr=True)
            return command.INTERRUPTED


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
        for each in _results(arguments)
    ]
    if arguments.json:
        terminal.print_line(json.dumps({each.results.kind: view.findings(each) for each in found}))
    else:
        out, _ = command.consoles()
        for each in found:
            view.show(out, each)
    return command.OK if all(each.best for each in found) else command.INCOMPLETE


def _results(arguments: Any) -> list[Results]:
    """What was measured, of one kind or of both. Raises ConfigError: that does not go with the options."""
    from pipelines.comparison.reading import read_results
    from pipelines.config.errors import ConfigError

    if not arguments.results:
        return [_measured(arguments)]
    if arguments.config or arguments.set or arguments.restart:
        raise ConfigError(
            ["--results: what was measured is there; leave --config, --set and --restart out, or --results"]
        )
    found = [read_results(path) for path in arguments.results]
    kinds = [each.kind for each in found]
    if len(set(kinds)) < len(kinds):
        raise ConfigError([f"--results: two of {kinds[0]} runs; give one of batch runs and one of a stream"])
    _refuse_others(arguments, kinds, "none was measured")
    return found


def _measured(arguments: Any) -> Results:
    """Measures the ways of a config, of a run or of a comparison. Raises ConfigError before anything is measured."""
    from pipelines.comparison.measuring import Measuring
    from pipelines.config.load import PACKAGED

    path = arguments.config or PACKAGED
    measuring = Measuring(path, arguments.set, _MINUTES, _FOLDER, arguments.constraint, arguments.restart)
    kind = measuring.kind()
    _refuse_others(arguments, [kind], f"{path} is {'a batch run' if kind == 'batch' else 'a stream'}")
    _, err = command.consoles()
    return measuring.results(lambda line: err.print(line))


def _refuse_others(arguments: Any, kinds: Sequence[str], why: str) -> None:
    """Raises ConfigError for options of a kind of runs that there is not."""
    from pipelines.config.errors import ConfigError

    needed = {
        "--rows-a-day": ("batch", arguments.rows_a_day),
        "--within": ("batch", arguments.within),
        "--messages-a-second": ("stream", arguments.messages_a_second),
        "--latency-ms": ("stream", arguments.latency_ms),
    }
    problems = [
        f"{option}: it is for {'batch runs' if kind == 'batch' else 'a stream'}, and {why}"
        for option, (kind, value) in needed.items()
        if value is not None and kind not in kinds
    ]
    if problems:
        raise ConfigError(problems)


def _parser() -> argparse.ArgumentParser:
    from pipelines.comparison.constraints import CONSTRAINTS

    width = max(map(len, CONSTRAINTS))
    lines = "\n".join(f"  {name:{width}}  {each.means}" for name, each in CONSTRAINTS.items())
    parser = command.parser("recommend", _DESCRIPTION.format(constraints=lines))
    add = parser.add_argument
    add(
        "--results",
        action="append",
        metavar="FILE",
        help="results.json of a comparison, or its folder; two for both kinds",
    )
    add("--rows-a-day", type=_rows, metavar="N", help="rows of the batch run of each day, such as 500k, 10M, 1B")
    add("--messages-a-second", type=_rate, metavar="N", help="messages a second of a stream")
    add("--latency-ms", type=_positive, metavar="N", help="of a stream: milliseconds for 99 of 100 messages, at most")
    add("--within", type=_hours, metavar="HOURS", help="hours in which a batch run is to end, at most 24 (1)")
    add("--prices", metavar="FILE", help="your prices, which replace those of configs/prices.json by name")
    add("--constraint", action="append", default=[], choices=list(CONSTRAINTS), metavar="NAME", help="see above")
    add("--restart", action="store_true", help="with --config: forget what an earlier command has measured")
    add("--json", action="store_true", help="print what was found as one JSON object")
    return parser


def _rows(text: str) -> float:
    """A whole number of rows, which may end in k, M or B."""
    value = _number(text)
    if not 1 <= value <= _MOST or value % 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of rows from 1 to 1,000,000B; give one such as 500k, 10M or 1e9"
        )
    return value


def _rate(text: str) -> float:
    """A number of messages a second, which may end in k, M or B."""
    value = _number(text)
    if not 0 < value <= _MOST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number above 0 and up to 1,000,000B; give one such as 0.5, 200 or 10k"
        )
    return value


def _number(text: str) -> float:
    """A number without a sign, with k, M, B or an exponent at its end or without; -1 if it is none."""
    found = _VOLUME.fullmatch(text.strip())
    if not found:
        return -1.0
    value = re.sub("[,_]", "", found[1])
    # As a whole: 1.1 times 1e6 is a little more than 1,100,000.
    return float(value + (found[2] or f"e{_POWERS[(found[3] or '').lower()]}"))


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
