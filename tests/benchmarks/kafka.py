"""`python -m tests.benchmarks.kafka`: a topic of births -> predictions -> another topic, by this project and by others.

The broker is a real one, on this machine; the same for all, with the same messages in 6 partitions. Each contestant
runs first on a small topic, untimed: a broker that has just started takes seconds over its first groups. Imports are
not timed. Every round is checked: each key is written once, with the same prediction.

exit codes: 0 everything was measured, whether or not the target is met; 1 a contestant failed, or wrote something else
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.connectors.simulated.natality import births_at
from tests.benchmarks import engines, harness
from tests.benchmarks.contest import ContestError
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown
from tests.servers.kafka import Broker, kafka_broker

TARGET = 5
"""Times the messages a second of the per-message pipeline."""
PARTITIONS = 6
FIRST = 10_000
"""Messages of the runs that are not timed."""
MODEL = "model/trained/v1"
TIMEOUT_S = 1800
TOLERANCE = 1e-4
"""Relative; contestants cut the rows into batches differently, and float32 sums differ with the batch."""
HEADER = ("Kafka -> predict -> Kafka", "messages", "seconds", "messages/s", "peak MB", "ours is", "target", "met")


@dataclass(frozen=True)
class Run:
    """What a contestant took.

    Attributes:
      seconds: wall time, imports apart.
      peak_mb: of memory, in 10^6 bytes.
    """

    seconds: float
    peak_mb: float


def _ours(broker: Broker, topic: str, output: str, group: str, messages: int) -> list[str]:
    settings = {
        "source.bootstrap_servers": broker.address,
        "source.topic": topic,
        "source.group": group,
        "batching.max_rows": "32768",
        "output": json.dumps({"type": "kafka", "bootstrap_servers": broker.address, "topic": output, "headers": False}),
        "dead_letters.path": f"{tempfile.gettempdir()}/{output}",
    }
    parts = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "pipelines.stream", "--config", "configs/natality-kafka.json", "--json"]
    return [*command, "--max-messages", str(messages), *parts]


def _other(module: str, python: Callable[[], str]) -> Callable[[Broker, str, str, str, int], list[str]]:
    def command(broker: Broker, topic: str, output: str, group: str, messages: int) -> list[str]:
        job = {"servers": broker.address, "topic": topic, "group": group, "output": output, "model": MODEL}
        parts = [part for name, value in job.items() for part in (f"--{name}", value)]
        name = f"tests.benchmarks.contestants.{module}"
        return [python(), "-m", name, "--messages", str(messages), *parts]

    return command


OURS, PER_MESSAGE = "this project", "per-message Beam, FnApiRunner"
CONTESTANTS = {
    OURS: _ours,
    PER_MESSAGE: _other("kafka_per_message", lambda: sys.executable),
    "Bytewax, one worker": _other("kafka_bytewax", engines.python),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kafka",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="in the topic (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contestant (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    options = parser.parse_args(argv)
    runs: dict[str, list[Run]] = {name: [] for name in CONTESTANTS}
    try:
        check_target([Table("kafka", [], HEADER, section="kafka")], options.markdown)
        with kafka_broker() as broker:
            first, topic = (broker.create_topic(PARTITIONS, name) for name in ("first", "births"))
            _fill(broker, first, FIRST)
            _fill(broker, topic, options.messages)
            for name in CONTESTANTS:
                _run(name, broker, first, FIRST, {})
            wanted: dict[bytes, float] = {}
            for round in range(options.repeats):
                for name in list(CONTESTANTS) if round % 2 == 0 else reversed(CONTESTANTS):
                    runs[name].append(_run(name, broker, topic, options.messages, wanted))
                    rate = options.messages / runs[name][-1].seconds
                    print(f"round {round + 1}/{options.repeats}  {name}: {rate:,.0f} messages/s", file=sys.stderr)
    except ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [_cells(name, runs, options.messages) for name in CONTESTANTS]
    met = [{"yes": True, "NO": False}.get(row[-1]) for row in rows]
    table = Table("Kafka, medians", rows, HEADER, met, "kafka")
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _fill(broker: Broker, topic: str, messages: int) -> None:
    for first in range(0, messages, 100_000):
        numbers = np.arange(first, min(first + 100_000, messages))
        payloads = births_at(numbers, 1, np.full(len(numbers), 1_700_000_000_000_000)).to_pylist()
        keys = (str(number).encode() for number in numbers.tolist())
        broker.produce(topic, zip(keys, payloads, strict=True))


def _run(name: str, broker: Broker, topic: str, messages: int, wanted: dict[bytes, float]) -> Run:
    """A contestant's run, checked; what the first one wrote is what is wanted of the others."""
    id = uuid.uuid4().hex[:8]
    output = broker.create_topic(PARTITIONS, f"predictions-{id}")
    command = CONTESTANTS[name](broker, topic, output, f"group-{id}", messages)
    finished = harness.run(command, timeout=TIMEOUT_S)
    if finished.code:
        raise ContestError(f"{name} ended with {finished.code}:\n{finished.err[-3000:]}")
    written = broker.consume_all(output)
    found = {message.key() or b"": json.loads(message.value() or b"")["predictions"] for message in written}
    broker.delete_topic(output)
    if len(written) != messages or len(found) != messages:
        raise ContestError(f"{name} wrote {len(written):,} messages with {len(found):,} keys, not {messages:,}")
    wanted.update(found if not wanted else {})
    if any(abs(found.get(key, np.inf) - value) > TOLERANCE * abs(value) for key, value in wanted.items()):
        raise ContestError(f"{name} wrote other predictions")
    seconds: float = json.loads(finished.out.strip().splitlines()[-1])["seconds"]
    return Run(seconds, finished.peak_rss_mb)


def _cells(name: str, runs: dict[str, list[Run]], messages: int) -> tuple[str, ...]:
    seconds = {each: statistics.median(run.seconds for run in found) for each, found in runs.items()}
    ratio = seconds[name] / seconds[OURS]
    return (
        name,
        f"{messages:,}",
        f"{seconds[name]:,.1f}",
        f"{messages / seconds[name]:,.0f}",
        f"{statistics.median(run.peak_mb for run in runs[name]):,.0f}",
        "" if name == OURS else f"{ratio:.1f}x as fast",
        f">= {TARGET}x" if name == PER_MESSAGE else "",
        ("yes" if ratio >= TARGET else "NO") if name == PER_MESSAGE else "",
    )


if __name__ == "__main__":
    sys.exit(main())
