"""`python -m pipelines.simulate`: messages as lines on standard output, at an exact rate."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines import cli

if TYPE_CHECKING:
    from pipelines.streams.lines import Lines

_DESCRIPTION = """\
Prints births as JSON objects, one a line, message n at n / rate seconds after the start. Without --messages and
--duration it goes on until it is interrupted or nobody reads any more.

What a stream does to its readers can be rehearsed, with the same outcome for the same seed:
  --duplicates 0.01   of the messages are replaced by one of the 1,000 before them, byte for byte
  --malformed 0.001   are cut or garbled, so that they are not JSON
  --late 0.005        have a timestamp 2 to 30 minutes in the past

exit codes: 0 done, interrupted or no longer read; 1 cannot write, 2 the command line is wrong"""

_CHUNK = 8_192
_TICK_US = 2_000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.duplicates + arguments.malformed + arguments.late > 1:
        return cli.fail(["--duplicates, --malformed and --late are more than 1 together"])
    from pipelines.streams import stop
    from pipelines.streams.lines import Lines, rows_of

    try:
        rows = rows_of(arguments.source) if arguments.source else None
    except OSError as error:
        return cli.fail([f"--source: cannot read {arguments.source}: {error.strerror or error}"])
    except ValueError as error:
        return cli.fail([f"--source: {arguments.source}: {error}"])
    lines = Lines(arguments.seed, arguments.duplicates, arguments.malformed, arguments.late, rows)
    stop.reset()
    try:
        with stop.on_signals(), _progress(_limit(arguments)) as show:
            sent, seconds = _send(lines, arguments, show)
    except BrokenPipeError:
        # Python would complain when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return cli.OK
    except OSError as error:
        print(f"error: cannot write: {error.strerror or error}", file=sys.stderr)
        return cli.FAILED
    rate = sent / seconds if seconds else 0.0
    print(f"sent {sent:,} message{'' if sent == 1 else 's'} in {seconds:.1f} s ({rate:,.1f}/s)", file=sys.stderr)
    return cli.OK


def _send(lines: Lines, arguments: Any, show: Callable[[int], None]) -> tuple[int, float]:
    """Prints messages when they are due; gives their number and the seconds that it took."""
    import numpy as np

    from pipelines.streams.schedule import Schedule, now_us
    from pipelines.streams.stop import STOPPING

    out = sys.stdout.buffer
    limit = _limit(arguments)
    start = now = now_us()
    end = math.inf if arguments.duration is None else start + arguments.duration * 1e6
    schedule = Schedule(start, arguments.rate) if arguments.rate else None
    sent = 0
    while sent < limit and not STOPPING.is_set() and (schedule or now < end):
        count = int(min(limit - sent, _CHUNK, schedule.due_by(now) - sent if schedule else _CHUNK))
        out.write(lines.make(sent, schedule.due_times(sent, count) if schedule else np.full(count, now)))
        out.flush()
        sent += count
        show(sent)
        if schedule and sent < limit:
            # At high rates, a few messages at a time: one by one, this would be all that the core does.
            _wait_until(max(schedule.due_us(sent), now + _TICK_US))
        now = now_us()
    if schedule and sent == limit:
        # The last message has its 1 / rate seconds too: n messages take n / rate.
        _wait_until(schedule.due_us(sent))
    return sent, (now_us() - start) / 1e6


def _wait_until(us: int) -> None:
    from pipelines.streams.schedule import now_us
    from pipelines.streams.stop import STOPPING

    while (left := us - now_us()) > 0 and not STOPPING.wait(left / 1e6):
        pass


def _limit(arguments: Any) -> float:
    from pipelines.streams.schedule import messages_within

    limit = math.inf if arguments.messages is None else arguments.messages
    if arguments.duration is not None and arguments.rate:
        limit = min(limit, messages_within(arguments.rate, arguments.duration))
    return limit


@contextlib.contextmanager
def _progress(limit: float) -> Iterator[Callable[[int], None]]:
    """What shows how many were sent: a moving line, if standard error is a terminal and the messages go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda sent: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sending", total=None if limit == math.inf else limit)
        yield lambda sent: bar.update(task, completed=sent)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(cli.fail([message]))


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pipelines.simulate",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rate", type=_amount, default=500.0, metavar="N", help="messages a second; 0: as fast as possible (500)")
    add("--messages", type=_count, metavar="N", help="stop after so many")
    add("--duration", type=_amount, metavar="SECONDS", help="stop after so long")
    add("--seed", type=int, default=0, help="of the values and of what goes wrong (default: %(default)s)")
    add("--source", metavar="FILE", help="send its lines again and again, or the rows of a .csv as JSON")
    add("--duplicates", type=_share, default=0.0, metavar="SHARE", help="messages that repeat an earlier one, 0 to 1")
    add("--malformed", type=_share, default=0.0, metavar="SHARE", help="messages that are not JSON, 0 to 1")
    add("--late", type=_share, default=0.0, metavar="SHARE", help="messages with a timestamp in the past, 0 to 1")
    return parser


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _amount(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1e9")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if not (value >= 0 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 up")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
