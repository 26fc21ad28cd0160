"""Compares ways to call a model on a person's own data: the command `python -m pipelines.compare`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model import terminal
from model.signals import signals_to
from pipelines.cli import command

if TYPE_CHECKING:
    from pipelines.comparison.results import Results

_DESCRIPTION = """\
Runs the same rows through each way to call a model (in the workers, at an endpoint, by a batch prediction job), holds
their outputs against each other, measures time, processors, memory and latency in rounds, prices them, and writes
report.html, results.json and plots. It starts and stops the local servers that it needs.

--config names a comparison, such as configs/compare-batch.json or configs/compare-stream.json, or the config of any
run: then the usual ways are compared. Ctrl-C ends it; the same command goes on where it was.

exit codes: 0 at least two ways could be ranked; 1 no two ways could be; 2 the config or the command line is wrong, or
the first way predicts no row, or the folder is in use, is full or cannot be made; 3 ways disagree with the first one;
130 it was interrupted. With 0, 1 and 3 the report is written"""

_PACKAGED = "configs/compare-batch.json"
_DISAGREE = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    with signals_to(command.end_at_once):
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = command.parser("compare", _DESCRIPTION, f"a comparison, or a run (default: {_PACKAGED})")
    parser.set_defaults(config=_PACKAGED)
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help="that all runs may take together, earlier ones included (what the config says, else 5)",
    )
    parser.add_argument("--output", metavar="DIR", help="folder in which a folder NAME gets the results (out/compare)")
    parser.add_argument(
        "--prices", metavar="FILE", help="your prices, which replace those of configs/prices.json by name"
    )
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever an earlier command has measured")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    arguments = parser.parse_args(argv)
    return command.guarded(lambda: _run(arguments))


def _minutes(text: str) -> float:
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value


def _run(arguments: Any) -> int:
    from pipelines.comparison.publishing import publish
    from pipelines.comparison.session import ComparisonSession
    from pipelines.comparison.view import show, start
    from pipelines.config.load import load_comparison
    from pipelines.cost.prices import load as load_prices

    config = load_comparison(arguments.config, arguments.set)
    changes = {"minutes": arguments.minutes, "folder": arguments.output, "prices": arguments.prices}
    config = config.model_copy(update={name: value for name, value in changes.items() if value is not None})
    prices = load_prices(config.prices)
    out, err = command.consoles()
    session = ComparisonSession(config, arguments.config, lambda line: err.print(line), arguments.restart)
    with signals_to(command.interrupt):
        try:
            with session:
                err.print(start(session))
                places = publish(session.run(), config, prices, session.folder)
            for note in places.notes:
                err.print(f"note: {note}", highlight=False, soft_wrap=True)
            if arguments.json:
                terminal.print_line(places.results.model_dump_json())
            else:
                show(out, places)
        except KeyboardInterrupt:
            terminal.print_text(
                "\nstopped: what was measured is kept; the same command goes on, with --restart it begins anew",
                stderr=True,
            )
            return command.INTERRUPTED
    return _exit_code(places.results)


def _exit_code(results: Results) -> int:
    """Says why ways are not ranked, if they are not; returns the exit code."""
    if any(found.error for found in results.parity[:1]) or not any(len(each.places) > 1 for each in results.rankings):
        terminal.print_error("no two ways could be ranked; the report says why")
        return command.FAILED
    disagreeing = [found.way for found in results.parity if not found.agrees and not found.error]
    if disagreeing:
        terminal.print_error(
            f"{', '.join(disagreeing)}: disagrees with {results.parity[0].reference}; it is not ranked"
        )
        return _DISAGREE
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
