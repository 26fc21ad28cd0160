"""The ledger of a stream under faults: killed three times, its model and its disk away in between, repeats mixed in.

Keys in = keys out + dead letters, and with `dedupe` none of them twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.connectors.simulated.natality import births_at
from tests.servers.flink import flink_job_server
from tests.servers.kafka import Broker, kafka_broker
from tests.servers.prism import built_prism
from tests.servers.pubsub_emulator import SUBSCRIPTION, Emulator, pubsub_emulator
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.ledger import MODEL
from tests.support.serving_process import serving
from tests.support.streams import dead_letters, hidden, sets, wait_for_rows, written

MESSAGES = 50_000
MALFORMED = 120
REPEATED = 2_500
_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
runpy.run_module("pipelines.stream", run_name="__main__", alter_sys=True)
"""


class Feed(ABC):
    """Where a stream's messages come from."""

    source: dict[str, Any]

    @abstractmethod
    def publish(self, payloads: list[bytes], keys: list[str]) -> None:
        """Publishes messages with their keys."""

    @abstractmethod
    def done(self) -> int:
        """How many are acknowledged, or committed."""


class PubSubFeed(Feed):
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self.source = {"type": "pubsub", "subscription": SUBSCRIPTION, "key_attribute": "k"}

    def publish(self, payloads: list[bytes], keys: list[str]) -> None:
        self._emulator.publish(payloads, [{"k": key} for key in keys])

    def done(self) -> int:
        return self._emulator.acknowledged()


class KafkaFeed(Feed):
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._topic = broker.create_topic(6)
        self.source = {
            "type": "kafka", "bootstrap_servers": broker.address, "topic": self._topic, "group": "ledger",
        }  # fmt: skip

    def publish(self, payloads: list[bytes], keys: list[str]) -> None:
        records = [(key.encode(), payload) for key, payload in zip(keys, payloads, strict=True)]
        self._broker.produce(self._topic, records)

    def done(self) -> int:
        return sum(self._broker.committed("ledger", self._topic).values())


@pytest.fixture
def feed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    if request.param == "kafka":
        with kafka_broker() as broker:
            yield KafkaFeed(broker)
        return
    with pubsub_emulator() as emulator:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
        yield PubSubFeed(emulator)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The flags for an engine."""
    if request.param == "FlinkRunner":
        with flink_job_server() as endpoint:
            yield ["--runner", request.param, "--job_endpoint", endpoint]
        return
    if request.param == "PrismRunner":
        built_prism()
    yield ["--runner", request.param]


def messages() -> tuple[list[bytes], list[str], set[str], set[str]]:
    """Payloads and keys, repeats among them; the keys of the good and of the malformed."""
    generator = random.Random(11)
    payloads = [each.as_py() for each in births_at(np.arange(MESSAGES), 1, np.zeros(MESSAGES, np.int64))]
    bad = set(generator.sample(range(MESSAGES), MALFORMED))
    for n in bad:
        payloads[n] = payloads[n][: generator.randrange(len(payloads[n]))]
    order = [*range(MESSAGES), *generator.choices(range(MESSAGES), k=REPEATED)]
    # A repeat is anywhere behind the message that it repeats, or before.
    generator.shuffle(order)
    good = {f"k{n}" for n in range(MESSAGES) if n not in bad}
    return [payloads[n] for n in order], [f"k{n}" for n in order], good, {f"k{n}" for n in bad}


def start(
    folder: Path, source: dict[str, Any], url: str, engine: list[str], most_bytes: int | None = None
) -> subprocess.Popen[str]:
    changes = {
        "source": source,
        "model": {
            "type": "endpoint", "protocol": "tf_serving_rest", "url": url, "deadline_s": 300, "max_attempts": 1000,
        },
        "output__columns": ["key", "predictions"], "batching": {"max_rows": 500, "max_wait_ms": 20},
        "dedupe": {"window_s": 3600}, "dead_letters__max_fraction": 0.5,
    }  # fmt: skip

    arguments = [*sets(folder, **changes), "--json", *engine]
    # Not preexec_fn, which forks this process: gRPC does not bear that.
    command = ["-m", "pipelines.stream"] if most_bytes is None else ["-c", _LIMITED.format(most_bytes)]
    return processes.start(
        [sys.executable, *command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ("engine", "feed"),
    [
        ("FnApiRunner", "pubsub"),
        pytest.param("FnApiRunner", "kafka", marks=pytest.mark.long),
        pytest.param("PrismRunner", "pubsub", marks=pytest.mark.long),
        pytest.param("PrismRunner", "kafka", marks=pytest.mark.long),
        pytest.param("FlinkRunner", "pubsub", marks=pytest.mark.long),
        pytest.param("FlinkRunner", "kafka", marks=pytest.mark.long),
    ],
    indirect=True,
)
def test_nothing_is_lost_and_nothing_comes_twice(engine: list[str], feed: Feed, tmp_path: Path) -> None:
    payloads, keys, good, malformed = messages()
    feed.publish(payloads, keys)

    def run(most_bytes: int | None = None) -> subprocess.Popen[str]:
        return start(tmp_path, feed.source, server.rest, engine, most_bytes)

    with serving(MODEL) as server:
        port = int(server.rest.rpartition(":")[2])
        process = run()
        wait_for_rows(tmp_path, 8_000, process)
        kill(process)
        process = run()
        wait_for_rows(tmp_path, 14_000, process)
        # The model's server dies under the stream.
        os.kill(server.process.pid, signal.SIGKILL)
        time.sleep(2)
        assert process.poll() is None
    with serving(MODEL, port=port) as server:
        wait_for_rows(tmp_path, 22_000, process)
        kill(process)
        # The disk takes no more.
        process = run(most_bytes=100_000)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "File too large" in err.strip().splitlines()[-1]
        process = run()
        wait_for_rows(tmp_path, 35_000, process)
        kill(process)
        process = run()
        # What the killed ones held is delivered again when its deadline is over.
        until = time.monotonic() + 300
        while (done := feed.done()) < len(payloads):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < until, f"{done} done, not {len(payloads)}"
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["rows_repeated"] > 0
    rows = Counter(row["key"] for row in written(tmp_path))
    assert rows == Counter(good)
    assert Counter(dead_letter["key"] for dead_letter in dead_letters(tmp_path)) == Counter(malformed)
    assert hidden(tmp_path) == []
