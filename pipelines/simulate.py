"""Sends messages at an exact rate to standard output, Pub/Sub or Kafka: `python -m pipelines.simulate`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import argparse
import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from model import terminal
from model.argument_types import amount, number, share, whole_number
from model.version import add_version
from pipelines import process_state
from pipelines.cli import command

if TYPE_CHECKING:
    from pipelines.connectors.kafka.client import Cluster
    from pipelines.connectors.simulated.generator import Lines
    from pipelines.connectors.simulated.publishers import Publisher

_DESCRIPTION = """\
Publishes births as JSON objects, message n at n / rate seconds after the start. Without --messages and --duration it
goes on until it is interrupted (then what was sent is finished), or nobody reads any more.

  --to -                             lines on standard output (default)
  --to pubsub:projects/p/topics/t    attributes source_id (the key) and timestamp (the event time)
  --to kafka:births --bootstrap-servers localhost:9092
                                     the key is the message's, the event time its timestamp

What a stream does to its readers can be rehearsed, with the same outcome for the same seed:
  --duplicates 0.01   of the messages are replaced by one of the 1,000 before them, byte for byte, key and all
  --malformed 0.001   are cut or garbled, so that they are not JSON
  --late 0.005        have a timestamp 2 to 30 minutes in the past

exit codes: 0 done, interrupted or no longer read; 1 cannot send, or messages were refused; 2 the command line is wrong,
or the topic is not there"""

_TICK_US = 2_000
_SAY_EVERY_S = 10.0
_PUBSUB = re.compile(r"projects/[^/]+/topics/[^/]+")
_KAFKA = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SERVERS = re.compile(r"[^\s,/]+:\d+(,[^\s,/]+:\d+)*")


@dataclass
class _Sent:
    """What has been done.

    Attributes:
      count: messages sent.
      refused: messages that were refused, in their place.
      why: one of the reasons.
      seconds: that it took.
    """

    count: int = 0
    refused: int = 0
    why: str = ""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.count / self.seconds if self.seconds else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    problem = _mistake(arguments)
    return command.fail([problem]) if problem else command.guarded(lambda: _run(arguments))


def _mistake(arguments: Any) -> str | None:
    """What is wrong with options together."""
    if arguments.duplicates + arguments.malformed + arguments.late > 1:
        return "--duplicates, --malformed and --late are more than 1 together"
    kafka = arguments.to[0] == "kafka"
    if kafka and arguments.bootstrap_servers is None:
        return "--bootstrap-servers: --to kafka:... needs it, such as localhost:9092"
    if not kafka and (arguments.bootstrap_servers or arguments.security):
        return "--bootstrap-servers and --security: only --to kafka:... has them"
    return None


def _run(arguments: Any) -> int:
    from pipelines.connectors.simulated.generator import Lines, rows_of
    from pipelines.connectors.streaming import stop

    try:
        rows = rows_of(arguments.source) if arguments.source else None
    except OSError as error:
        return command.fail([f"--source: cannot read {arguments.source}: {error.strerror or error}"])
    except ValueError as error:
        return command.fail([f"--source: {arguments.source}: {error}"])
    lines = Lines(arguments.seed, arguments.duplicates, arguments.malformed, arguments.late, rows)
    publisher = _publisher(arguments)
    publisher.open()
    process_state.reset()
    sent = _Sent()
    failure = ""
    try:
        with stop.on_signals(), _progress(_limit(arguments), arguments.to[0] == "-") as show:
            _send(lines, publisher, arguments, sent, show)
    except BrokenPipeError:
        # Python would complain when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return command.OK
    except OSError as error:
        failure = f"cannot write: {error.strerror or error}"
    except Exception as error:  # of the service's client: it said what it tried for as long as it could
        from inference.log_throttle import first_line

        failure = f"cannot send: {first_line(error)}"
    finally:
        process_state.reset()
        publisher.close()
    _conclude(sent, publisher, arguments)
    if sent.refused:
        failure = failure or f"{sent.refused:,} message{'s' * (sent.refused > 1)} refused: {sent.why}"
    if failure:
        terminal.print_error(failure)
        return command.FAILED
    return command.OK


def _conclude(sent: _Sent, publisher: Publisher, arguments: Any) -> None:
    """The closing line, or object; standard output has the messages if they go there."""
    if arguments.json:
        found = {
            "sent": sent.count,
            "refused": sent.refused,
            "seconds": round(sent.seconds, 3),
            "messages_per_second": round(sent.rate, 1),
            "to": publisher.name,
        }
        terminal.print_line(json.dumps(found), stderr=arguments.to[0] == "-")
        return
    messages = f"{sent.count:,} message{'' if sent.count == 1 else 's'}"
    terminal.print_line(f"sent {messages} in {sent.seconds:.1f} s ({sent.rate:,.1f}/s)", stderr=True)


def _publisher(arguments: Any) -> Publisher:
    from pipelines.connectors.simulated.publishers import ToKafka, ToOutput, ToPubSub

    kind, name = arguments.to
    if kind == "pubsub":
        return ToPubSub(name)
    return ToKafka(name, _cluster(arguments)) if kind == "kafka" else ToOutput()


def _cluster(arguments: Any) -> Cluster:
    from pipelines.config.kafka import KafkaSecurity
    from pipelines.config.load import load_part
    from pipelines.connectors.kafka.client import Cluster

    security = load_part(arguments.security, KafkaSecurity) if arguments.security else KafkaSecurity.model_validate({})
    return Cluster(arguments.bootstrap_servers, security)


def _send(lines: Lines, publisher: Publisher, arguments: Any, sent: _Sent, show: Callable[[int], None]) -> None:
    """Publishes messages when they are due; keeps the account in `sent`."""
    import numpy as np

    from pipelines.clock import now_us
    from pipelines.connectors.simulated.schedule import Schedule
    from pipelines.connectors.streaming.stop import STOPPING

    limit = _limit(arguments)
    start = now = now_us()
    end = math.inf if arguments.duration is None else start + arguments.duration * 1e6
    schedule = Schedule(start, arguments.rate) if arguments.rate else None
    made = 0
    try:
        while made < limit and not STOPPING.is_set() and (schedule or now < end):
            most = publisher.most
            count = int(min(limit - made, most, schedule.due_by(now) - made if schedule else most))
            if count:
                messages = lines.make(made, schedule.due_times(made, count) if schedule else np.full(count, now))
                refused = publisher.send(messages)
                made += count
                sent.count += count - len(refused)
                sent.refused += len(refused)
                sent.why = sent.why or next(iter(refused.values()), "")
                show(sent.count)
            if schedule and made < limit:
                # At high rates, a few messages at a time: one by one, this would be all that the core does.
                _wait_until(max(schedule.due_us(made), now + _TICK_US))
            now = now_us()
        if schedule and made == limit:
            # The last message has its 1 / rate seconds too: n messages take n / rate.
            _wait_until(schedule.due_us(made))
    finally:
        sent.seconds = (now_us() - start) / 1e6


def _wait_until(us: int) -> None:
    from pipelines.clock import now_us
    from pipelines.connectors.streaming.stop import STOPPING

    while (left := us - now_us()) > 0 and not STOPPING.wait(left / 1e6):
        pass


def _limit(arguments: Any) -> float:
    from pipelines.connectors.simulated.schedule import messages_within

    limit = math.inf if arguments.messages is None else arguments.messages
    if arguments.duration is not None and arguments.rate:
        limit = min(limit, messages_within(arguments.rate, arguments.duration))
    return limit


@contextlib.contextmanager
def _progress(limit: float, to_output: bool) -> Iterator[Callable[[int], None]]:
    """What shows how many were sent: a moving line on a terminal without messages, else a line now and then."""
    if to_output and sys.stdout.isatty():
        yield lambda sent: None
        return
    if not sys.stderr.isatty():
        yield _Lines(limit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=command.consoles()[1], transient=True) as bar:
        task = bar.add_task("sending", total=None if limit == math.inf else limit)
        yield lambda sent: bar.update(task, completed=sent)


class _Lines:
    """Says every now and then how many were sent, for a pipe or a file."""

    def __init__(self, limit: float) -> None:
        self._of = "" if limit == math.inf else f" of {limit:,.0f}"
        self._last = (time.monotonic(), 0)

    def __call__(self, sent: int) -> None:
        then, before = self._last
        now = time.monotonic()
        if now - then >= _SAY_EVERY_S:
            self._last = (now, sent)
            rate = (sent - before) / (now - then)
            terminal.print_line(f"sent {sent:,}{self._of}, {rate:,.0f}/s", stderr=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(command.fail([message]))


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pipelines.simulate",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--to", type=_place, default=("-", ""), metavar="WHERE", help="-, pubsub:TOPIC or kafka:TOPIC (default: -)")
    add("--bootstrap-servers", type=_servers, metavar="HOST:PORT,...", help="of Kafka")
    add("--security", metavar="FILE", help="of Kafka: a file of JSON with what configs have as `security`")
    add("--json", action="store_true", help="the closing line as an object of JSON, on standard output if that is free")
    add("--rate", type=amount, default=500.0, metavar="N", help="messages a second; 0: as fast as possible (500)")
    add("--messages", type=_count, metavar="N", help="stop after so many")
    add("--duration", type=amount, metavar="SECONDS", help="stop after so long")
    add("--seed", type=whole_number, default=0, help="of the values and of what goes wrong (default: %(default)s)")
    add("--source", metavar="FILE", help="send its lines again and again, or the rows of a .csv as JSON")
    add("--duplicates", type=share, default=0.0, metavar="SHARE", help="messages that repeat an earlier one, 0 to 1")
    add("--malformed", type=share, default=0.0, metavar="SHARE", help="messages that are not JSON, 0 to 1")
    add("--late", type=share, default=0.0, metavar="SHARE", help="messages with a timestamp in the past, 0 to 1")
    add_version(parser)
    return parser


def _place(text: str) -> tuple[str, str]:
    kind, _, name = text.partition(":")
    if kind == "-" and not name:
        return kind, name
    if kind == "pubsub" and _PUBSUB.fullmatch(name):
        return kind, name
    if kind == "kafka" and _KAFKA.fullmatch(name):
        return kind, name
    raise argparse.ArgumentTypeError(f"{text!r} is not -, pubsub:projects/<project>/topics/<name> or kafka:<topic>")


def _servers(text: str) -> str:
    if not _SERVERS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, or several with commas between them")
    return text


def _count(text: str) -> int:
    value = number(text)
    if not (value >= 0 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 up")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
