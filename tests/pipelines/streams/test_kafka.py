"""A stream from Kafka, against a real broker: nothing lost, nothing committed before it is written."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.connectors.files import rolling
from tests.servers.kafka import PASSWORD, USER, Broker, kafka_broker
from tests.support import processes
from tests.support.commands import ROOT, Command
from tests.support.kafka_streams import CONFIG, end, records, source, start
from tests.support.message_samples import poisoned
from tests.support.streams import births, dead_letters, hidden, keys, sets, wait_for_rows, written
from tests.support.waiting import wait_until


def test_every_message_once_and_all_committed(command: Command, broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic(6)
    sent = records(5_000)
    bad = range(7, 5_000, 500)
    for n in bad:
        sent[n] = (sent[n][0], bytes(sent[n][1] or b"")[:-9])
    broker.produce(topic, sent)
    made = {
        message.value(): f"{topic}[{message.partition()}]:{message.offset()}" for message in broker.consume_all(topic)
    }
    read = source(broker, topic, messages=5_000)
    result = command("stream", *CONFIG, *sets(tmp_path, source=read, batching__max_rows=300), "--json")
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(5_000) - {f"b{n:09d}" for n in bad})
    found = {base64.b64decode(dead_letter["payload"]): dead_letter["source"] for dead_letter in dead_letters(tmp_path)}
    assert found == {sent[n][1]: made[sent[n][1]] for n in bad}
    assert sum(broker.committed(read["group"], topic).values()) == 5_000
    assert broker.members(read["group"]) == 0


def test_poison_is_a_dead_letter_and_the_stream_goes_on(command: Command, broker: Broker, tmp_path: Path) -> None:
    """Nothing that a message holds ends the stream, which would end again at each start."""
    topic = broker.create_topic(3)
    sent = records(200)
    bad = poisoned(sent[0][1] or b"")
    for n, payload in bad.items():
        sent[n] = (sent[n][0], payload)
    broker.produce(topic, sent)
    read = source(broker, topic, messages=200)
    result = command("stream", *CONFIG, *sets(tmp_path, source=read, dead_letters__max_fraction=1), "--json")
    assert result.code == 0, result
    wanted = keys(200) - {f"b{n:09d}" for n in bad}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(wanted)
    found = Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path))
    assert found == Counter(bad.values())
    assert sum(broker.committed(read["group"], topic).values()) == 200


def test_poison_of_csv_is_a_dead_letter_and_not_a_number_is_none(
    command: Command, broker: Broker, tmp_path: Path
) -> None:
    topic = broker.create_topic(1)
    births_read = [json.loads(payload) for _, payload in records(60)]
    names = list(births_read[0])
    ages = {5: "many", 20: "NaN", 30: "1e400", 40: "[20.0]", 50: "20.0"}
    for n, age in ages.items():
        births_read[n]["mother_age"] = age
    lines = [",".join(str(row[name]) for name in names).encode() for row in births_read]
    broker.produce(topic, [(b"k", line) for line in lines])
    read = source(broker, topic, messages=60, format="csv", column_names=names)
    result = command("stream", *CONFIG, *sets(tmp_path, source=read, dead_letters__max_fraction=1), "--json")
    assert result.code == 0, result
    assert Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path)) == Counter(
        lines[n] for n in (5, 30, 40)
    )
    wanted = keys(60) - {f"b{n:09d}" for n in (5, 30, 40)}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(wanted)


def test_a_limited_stream_leaves_the_rest_to_the_next(command: Command, broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic(3)
    broker.produce(topic, records(1_000))
    read = source(broker, topic)
    for limit, total in ((300, 300), (700, 1_000)):
        result = command("stream", *CONFIG, "--max-messages", str(limit), *sets(tmp_path, source=read), "--json")
        assert result.code == 0, result
        assert result.summary["rows_written"] == limit
        assert sum(broker.committed(read["group"], topic).values()) == total
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(1_000))


def test_an_empty_topic(command: Command, broker: Broker, tmp_path: Path) -> None:
    read = source(broker, broker.create_topic(2))
    result = command("stream", *CONFIG, "--duration", "2", *sets(tmp_path, source=read), "--json")
    assert result.code == 0, result
    assert result.summary["rows_read"] == 0
    assert written(tmp_path) == []


def test_nothing_is_committed_before_it_is_written(
    command: Command, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic(3)
    broker.produce(topic, records(600))
    read = source(broker, topic)
    stalled, go_on = threading.Event(), threading.Event()
    flush = rolling.RollingFile.flush

    def slow(self: rolling.RollingFile) -> None:
        if self.is_open and not go_on.is_set():
            stalled.set()
            assert go_on.wait(60)
        flush(self)

    monkeypatch.setattr(rolling.RollingFile, "flush", slow)
    seen: list[dict[int, int]] = []

    def watch() -> None:
        assert stalled.wait(60)
        # The keeper has its turn too.
        time.sleep(7)
        seen.append(broker.committed(read["group"], topic))
        go_on.set()

    thread = threading.Thread(target=watch)
    thread.start()
    result = command("stream", *CONFIG, "--max-messages", "600", *sets(tmp_path, source=read), "--json")
    thread.join()
    assert result.code == 0, result
    assert seen == [{}]
    assert sum(broker.committed(read["group"], topic).values()) == 600
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(600))


def test_ledger_of_a_stream_that_is_killed_twice(broker: Broker, tmp_path: Path) -> None:
    """20,000 messages, some malformed, some twice, over 6 partitions: each key is in the output or in a dead letter."""
    topic = broker.create_topic(6)
    draw = random.Random(7)
    sent = records(20_000)
    malformed = set(draw.sample(range(20_000), 200))
    for n in malformed:
        sent[n] = (sent[n][0], bytes(sent[n][1] or b"")[: draw.randrange(1, 60)])
    twice = [sent[n] for n in draw.sample(range(20_000), 300)]
    read = source(broker, topic)
    total = len(sent) + len(twice)
    settings = {"batching__max_rows": 100, "dead_letters__max_fraction": 0.1}
    broker.produce(topic, sent[:8_000])
    at_kills = []
    for reached, more in ((2_000, sent[8_000:14_000]), (9_000, sent[14_000:] + twice)):
        process = start(tmp_path, read, **settings)
        broker.wait_for_committed(read["group"], topic, reached, within_s=120)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        at_kills.append(broker.committed(read["group"], topic))
        broker.produce(topic, more)
    process = start(tmp_path, read, "--json", **settings)
    broker.wait_for_committed(read["group"], topic, total, within_s=120)
    end(process)
    rows = Counter(row["source_id"] for row in written(tmp_path))
    dead = Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path))
    assert set(rows) == {f"b{n:09d}" for n in range(20_000) if n not in malformed}
    assert set(dead) == {sent[n][1] for n in malformed}
    # Again is only what was not committed when the stream was killed, and what was sent twice.
    places = {message.value(): (message.partition(), message.offset()) for message in broker.consume_all(topic)}
    by_key = {f"b{n:09d}": sent[n][1] for n in range(20_000)}
    again = {by_key[key] for key, count in rows.items() if count > 1} - {value for _, value in twice}
    assert all(any(places[value][1] >= committed.get(places[value][0], 0) for committed in at_kills) for value in again)
    assert sum(broker.committed(read["group"], topic).values()) == total


def test_sigterm_ends_in_order_and_leaves_the_rest(broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic(2)
    broker.produce(topic, records(20_000))
    read = source(broker, topic)
    process = start(tmp_path, read, "--json", batching__max_rows=5)
    wait_for_rows(tmp_path, 500, process)
    out, _ = end(process)
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows.values()) == {1}
    assert 500 < rows.total() == json.loads(out)["rows_written"] < 20_000
    assert sum(broker.committed(read["group"], topic).values()) == rows.total()
    assert hidden(tmp_path) == []


def test_a_broker_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with kafka_broker() as broker:
        topic = broker.create_topic(3)
        read = source(broker, topic)
        broker.produce(topic, records(2_000))
        process = start(tmp_path, read)
        broker.wait_for_committed(read["group"], topic, 2_000, within_s=120)
        broker.kill()
        time.sleep(12)
        assert process.poll() is None
        broker.start()
        broker.produce(topic, records(2_000, 2_000))
        broker.wait_for_committed(read["group"], topic, 4_000)
        _, err = end(process)
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows) == keys(4_000)
    assert f"Kafka at {broker.address}: no broker answers, trying again" in err


def test_a_second_process_joins_the_group(broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic(4)
    read = source(broker, topic)
    folders = [tmp_path / "first", tmp_path / "second"]
    broker.produce(topic, records(2_000))
    first = start(folders[0], read, batching__max_rows=50)
    wait_for_rows(folders[0], 500, first)
    second = start(folders[1], read, batching__max_rows=50)
    sent = 2_000

    def has_written() -> bool:
        """Messages come all the time, also while partitions change hands."""
        nonlocal sent
        broker.produce(topic, records(200, sent))
        sent += 200
        return any((folders[1] / "out").glob("*p-*"))

    wait_until(has_written, "the second process has written", every_s=0.1)
    assert broker.members(read["group"]) == 2
    broker.produce(topic, records(2_000, sent))
    sent += 2_000
    broker.wait_for_committed(read["group"], topic, sent)
    end(first)
    end(second)
    rows = [{row["source_id"] for row in written(folder)} for folder in folders]
    assert rows[0] | rows[1] == keys(sent)
    assert rows[0]
    assert rows[1]
    assert sum(broker.committed(read["group"], topic).values()) == sent


def test_records_without_a_key_field(command: Command, broker: Broker, tmp_path: Path) -> None:
    """Their keys are those of the records; where there is none, topic, partition and offset."""
    topic = broker.create_topic()
    payloads = births(5)
    broker.produce(topic, [(b"a", payloads[0]), payloads[1], (b"\xff\x01", payloads[2]), (b"gone", None), (b"e", b"{")])
    read = source(broker, topic, key=None, messages=5)
    changes = {"source": read, "output__columns": None, "dead_letters__max_fraction": 1}
    result = command("stream", *CONFIG, *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert sorted(row["key"] for row in written(tmp_path)) == sorted(["a", f"{topic}[0]:1", "ff01"])
    found = {
        dead_letter["key"]: (dead_letter["source"], dead_letter["message"]) for dead_letter in dead_letters(tmp_path)
    }
    assert found["gone"] == (f"{topic}[0]:3", "the message has no payload")
    assert found["e"][0] == f"{topic}[0]:4"


def test_malformed_messages_at_the_same_offset_of_two_partitions_are_not_repeats(
    command: Command, broker: Broker, tmp_path: Path
) -> None:
    topic = broker.create_topic(2)
    for partition in (0, 1):
        broker.produce(topic, [b"{", b"["], partition)
    changes = {"source": source(broker, topic, messages=4), "dedupe": {"window_s": 60}}
    result = command("stream", *CONFIG, *sets(tmp_path, **changes, dead_letters__max_fraction=1), "--json")
    assert result.code == 0, result
    places = {f"{topic}[{partition}]:{offset}" for partition in (0, 1) for offset in (0, 1)}
    assert Counter(dead_letter["source"] for dead_letter in dead_letters(tmp_path)) == Counter(places)


def test_several_topics(command: Command, broker: Broker, tmp_path: Path) -> None:
    topics = [broker.create_topic(2), broker.create_topic(3)]
    for n, topic in enumerate(topics):
        broker.produce(topic, records(100, 100 * n))
    read = source(broker, topics, messages=200)
    result = command("stream", *CONFIG, *sets(tmp_path, source=read), "--json")
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(200))
    assert [sum(broker.committed(read["group"], topic).values()) for topic in topics] == [100, 100]


def test_where_a_new_group_begins(command: Command, broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic(2)
    broker.produce(topic, records(100))
    time.sleep(0.01)
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1)) + "Z"
    # A group that begins at the latest has begun, though it was given nothing.
    latest = source(broker, topic, start="latest", group=f"{topic}-latest")
    result = command("stream", *CONFIG, "--duration", "0.5", *sets(tmp_path / "a", source=latest), "--json")
    assert (result.code, result.summary["rows_read"]) == (0, 0), result
    time.sleep(1.1)
    broker.produce(topic, records(50, 100))
    at_a_time = source(broker, topic, start=now, group=f"{topic}-time")
    for folder, read in ((tmp_path / "b", latest), (tmp_path / "c", at_a_time)):
        result = command("stream", *CONFIG, "--max-messages", "50", *sets(folder, source=read), "--json")
        assert result.code == 0, result
        assert Counter(row["source_id"] for row in written(folder)) == Counter(keys(50, 100))


def test_who_logs_in(command: Command, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = broker.create_topic()
    broker.produce(topic, records(10))
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    security = {"protocol": "sasl_plaintext", "username": USER, "password": "${KAFKA_PASSWORD}"}
    read = source(broker, topic, bootstrap_servers=broker.sasl_address, security=security, messages=10)
    result = command("stream", *CONFIG, *sets(tmp_path, source=read), "--json")
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(10))


SECRET = "not-the-password"
SASL = {"protocol": "sasl_plaintext", "username": USER, "password": SECRET}
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unreachable": ({"bootstrap_servers": "127.0.0.1:1"}, ["source.bootstrap_servers", "127.0.0.1:1", "refused"]),
    "unknown host": ({"bootstrap_servers": "no-such-host.invalid:9092"}, ["source.bootstrap_servers", "resolve"]),
    "malformed": ({"bootstrap_servers": "kafka"}, ["source.bootstrap_servers"]),
    "no such topic": ({"topic": "birth-messages"}, ["source.topic", "did you mean", "births-messages"]),
    "one of two": ({"topic": ["births-messages", "nothing-like-it"]}, ["source.topic", "'nothing-like-it'"]),
    "credentials": ({"bootstrap_servers": "SASL", "security": SASL}, ["source.security", "credentials"]),
    "no login": ({"bootstrap_servers": "SASL"}, ["source.bootstrap_servers", "security.protocol"]),
    "no TLS there": ({"security": {"protocol": "ssl"}}, ["source.security", "TLS"]),
    "no CA file": ({"security": {"protocol": "ssl", "ca_file": "no.pem"}}, ["source.security.ca_file", "no.pem"]),
    "not a CA file": ({"security": {"protocol": "ssl", "ca_file": "setup.py"}}, ["source.security", "ca"]),
    "no password": ({"security": {"protocol": "sasl_ssl", "username": "me"}}, ["source.security", "need both"]),
    "password": ({"security": {**SASL, "password": [SECRET]}}, ["source.security.password"]),
    "unknown key": ({"security": {"user": "me"}}, ["source.security.user", "did you mean 'username'"]),
    "start": ({"start": "yesterday"}, ["source.start", "earliest, latest"]),
    "no zone": ({"start": "2024-05-01T12:00:00"}, ["source.start", "no time zone"]),
    "no group": ({"group": None}, ["source.group", "missing"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, broker: Broker, tmp_path: Path, what: str) -> None:
    if "births-messages" not in broker.topics():
        broker.create_topic(1, "births-messages")
    changes, words = WRONG[what]
    if changes.get("bootstrap_servers") == "SASL":
        changes = {**changes, "bootstrap_servers": broker.sasl_address}
    result = command("stream", *CONFIG, *sets(tmp_path, source=source(broker, "births-messages", **changes)))
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result.errors
    assert SECRET not in result.err


def test_an_unreachable_broker_is_told_before_anything_is_read(tmp_path: Path) -> None:
    done = processes.run(
        [sys.executable, "-m", "pipelines.stream", *CONFIG, *sets(tmp_path)],
        cwd=ROOT, env={**os.environ, "KAFKA_SERVERS": "127.0.0.1:1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: source.bootstrap_servers: ")
