"""A stream from Pub/Sub, against Google's own emulator: nothing lost, nothing acknowledged before it is written."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.connectors.files import rolling
from pipelines.connectors.pubsub import pulled
from tests.servers.pubsub_emulator import SUBSCRIPTION, TOPIC, Emulator, pubsub_emulator
from tests.support import processes
from tests.support.commands import ROOT, Command
from tests.support.message_samples import poisoned
from tests.support.pubsub_streams import CONFIG, SOURCE, start
from tests.support.streams import births, dead_letters, hidden, keys, sets, wait_for_rows, written
from tests.support.waiting import wait_until


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def test_every_message_once_and_all_acknowledged(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    payloads = births(5_000)
    bad = range(7, 5_000, 500)
    for n in bad:
        payloads[n] = payloads[n][:-9]
    emulator.publish(payloads)
    changes = {"batching__max_rows": 300}
    result = command("stream", *CONFIG, "--max-messages", "5000", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    wanted = keys(5_000) - {f"b{n:09d}" for n in bad}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(wanted)
    assert Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path)) == Counter(
        payloads[n] for n in bad
    )
    counts = emulator.counts()
    assert set(counts.values()) == {(1, 1)}
    assert emulator.subscriber.pull(subscription=SUBSCRIPTION, max_messages=1).received_messages == []


def test_poison_is_a_dead_letter_and_the_stream_goes_on(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    """Nothing that a message holds ends the stream, which would end again at each start."""
    payloads = births(200)
    bad = poisoned(payloads[0])
    for n, payload in bad.items():
        payloads[n] = payload
    emulator.publish(payloads)
    changes = {"dead_letters__max_fraction": 1}
    result = command("stream", *CONFIG, "--max-messages", "200", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    wanted = keys(200) - {f"b{n:09d}" for n in bad}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(wanted)
    found = Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path))
    assert found == Counter(bad.values())
    assert set(emulator.counts().values()) == {(1, 1)}


def test_nothing_is_acknowledged_before_it_is_written(
    command: Command, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.publish(births(600))
    stalled, go_on = threading.Event(), threading.Event()
    flush = rolling.RollingFile.flush

    def slow(self: rolling.RollingFile) -> None:
        if self.is_open and not go_on.is_set():
            stalled.set()
            assert go_on.wait(60)
        flush(self)

    monkeypatch.setattr(rolling.RollingFile, "flush", slow)
    seen: list[Any] = []

    def watch() -> None:
        assert stalled.wait(60)
        # Longer than any deadline is left alone, so that the keeper has its turn.
        time.sleep(3.5)
        seen.append(emulator.counts())
        go_on.set()

    thread = threading.Thread(target=watch)
    thread.start()
    result = command("stream", *CONFIG, "--max-messages", "600", *sets(tmp_path), "--json")
    thread.join()
    assert result.code == 0, result
    [counts] = seen
    assert {each.acks for each in counts.values()} == {0}
    assert {each.deliveries for each in counts.values()} == {1}
    assert set(emulator.counts().values()) == {(1, 1)}
    assert {row["source_id"] for row in written(tmp_path)} == keys(600)


def test_deadlines_are_extended(
    command: Command, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held for longer than the subscription's deadline of 10 s, no message is delivered again."""
    emulator.publish(births(300))
    flush = rolling.RollingFile.flush
    again: list[int] = []

    def slow(self: rolling.RollingFile) -> None:
        if self.is_open and not again:
            time.sleep(11)
            response = emulator.subscriber.pull(subscription=SUBSCRIPTION, max_messages=1000)
            again.append(len(response.received_messages))
        flush(self)

    monkeypatch.setattr(rolling.RollingFile, "flush", slow)
    result = command("stream", *CONFIG, "--max-messages", "300", *sets(tmp_path), "--json")
    assert result.code == 0, result
    assert again == [0]
    assert set(emulator.counts().values()) == {(1, 1)}


def test_a_killed_stream_loses_nothing(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    ids = emulator.publish(births(1_000))
    process = start(tmp_path)
    wait_for_rows(tmp_path, 900, process)
    ids += emulator.publish(births(3_000, 1_000))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    acknowledged = {id for id, each in emulator.counts().items() if each.acks}
    # What the killed one held is delivered again when its deadline is over.
    left = len(ids) - len(acknowledged)
    result = command("stream", *CONFIG, "--max-messages", str(left), *sets(tmp_path), "--json")
    assert result.code == 0, result
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows) == keys(4_000)
    numbers = {id: f"b{n:09d}" for n, id in enumerate(ids)}
    assert {key for key, count in rows.items() if count > 1} <= {numbers[id] for id in set(ids) - acknowledged}
    assert emulator.acknowledged() == 4_000


def test_sigterm_ends_in_order_and_gives_the_rest_back(emulator: Emulator, tmp_path: Path) -> None:
    emulator.publish(births(20_000))
    process = start(tmp_path, "--set", "batching.max_rows=5", "--json")
    wait_for_rows(tmp_path, 500, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows.values()) == {1}
    assert rows.total() == json.loads(out)["rows_written"] == emulator.acknowledged()
    assert hidden(tmp_path) == []
    left = 0
    while found := emulator.subscriber.pull(subscription=SUBSCRIPTION, max_messages=1000).received_messages:
        left += len(found)
    assert left == 20_000 - rows.total() > 0


def test_a_broker_that_is_away_for_a_while(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    emulator.publish(births(500))

    def interrupt() -> None:
        emulator.wait_for_acknowledged(500)
        emulator.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        emulator.process.send_signal(signal.SIGCONT)
        emulator.publish(births(500, 500))

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = command("stream", *CONFIG, "--max-messages", "1000", *sets(tmp_path), "--json")
    thread.join()
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(1_000))
    assert emulator.acknowledged() == 1_000


def test_keys_and_times_are_attributes(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    payloads = births(100)
    payloads[9] = b"{"
    now = str(time.time_ns() // 1_000_000 - 5_000)
    emulator.publish(payloads, [{"order": f"o{n}", "at": now} for n in range(100)])
    source = {**SOURCE, "key_attribute": "order", "timestamp_attribute": "at", "messages": 100}
    changes = {"source": source, "output__columns": None, "dead_letters__max_fraction": 0.1}
    result = command("stream", *CONFIG, *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert Counter(row["key"] for row in written(tmp_path)) == Counter(f"o{n}" for n in range(100) if n != 9)
    assert [dead_letter["key"] for dead_letter in dead_letters(tmp_path)] == ["o9"]
    assert result.summary["stage_latency_ms"]["lag"]["p50"] > 4_900


def test_csv_from_a_topic_with_a_temporary_subscription(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    names = ["source_id", "is_male", "mother_race", "mother_age", "plurality", "gestation_weeks", "mother_married",
             "cigarette_use", "alcohol_use"]  # fmt: skip
    rows = [",".join(str(json.loads(payload)[name]) for name in names).encode() for payload in births(50)]

    def publish() -> None:
        wait_until(lambda: len(emulator.subscriptions()) >= 2, "the stream has a subscription of its own")
        emulator.publish(rows)

    thread = threading.Thread(target=publish)
    thread.start()
    source = {"type": "pubsub", "topic": TOPIC, "format": "csv", "column_names": names, "key": "source_id"}
    result = command("stream", *CONFIG, "--max-messages", "50", *sets(tmp_path, source=source), "--json")
    thread.join()
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(50))
    assert emulator.subscriptions() == [SUBSCRIPTION]


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such subscription": ({"subscription": f"{SUBSCRIPTION}-2"}, ["source.subscription", "there is no", "births-2"]),
    "no such topic": ({"subscription": None, "topic": f"{TOPIC}-2"}, ["source.topic", "there is no", "births-2"]),
    "malformed": ({"subscription": "births"}, ["source.subscription", "projects/"]),
    "neither": ({"subscription": None}, ["either a subscription or a topic"]),
    "two keys": ({"key": "a", "key_attribute": "b"}, ["not both"]),
    "no names": ({"format": "csv"}, ["column_names"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, emulator: Emulator, tmp_path: Path, what: str) -> None:
    changes, words = WRONG[what]
    result = command("stream", *CONFIG, *sets(tmp_path, source={**SOURCE, **changes}))
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result.errors


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}, ["127.0.0.1:1", "cannot be reached"]),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "", "NO_GCE_CHECK": "true"}, ["no Google credentials"]),
    ],
)
def test_who_is_not_there_is_told_in_one_line(tmp_path: Path, variables: dict[str, str], words: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PUBSUB_EMULATOR_HOST"}
    environment |= {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), **variables}
    done = processes.run(
        [sys.executable, "-m", "pipelines.stream", *CONFIG, *sets(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: source.subscription: ")
    assert all(word in line for word in words), line


def test_times_of_attributes() -> None:
    read = pulled.parsed_time
    assert read("1700000000123") == 1_700_000_000_123_000
    assert read("2023-11-14T22:13:20.5Z") == read("2023-11-14T23:13:20.5+01:00") == 1_700_000_000_500_000
    assert [read(text) for text in ("", "yesterday", "9" * 30, "2023-11-14")] == [None] * 4
