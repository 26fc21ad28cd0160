"""`python -m pipelines.simulate` to Pub/Sub and Kafka: all that is sent is there, with its key and time."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from pipelines import simulate
from tests.servers.forwarder import Forwarder
from tests.servers.kafka import PASSWORD, USER, Broker
from tests.servers.pubsub_emulator import Emulator, pubsub_emulator
from tests.support import processes
from tests.support.commands import ROOT, Command
from tests.support.streams import sets, written
from tests.support.waiting import wait_until

SIMULATE = [sys.executable, "-m", "pipelines.simulate"]
WRONGS = ["--duplicates=0.1", "--malformed=0.05", "--late=0.05", "--seed=3"]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def lines(command: Command, *arguments: str) -> list[bytes]:
    """What goes to standard output, without the times."""
    result = command("simulate", "--rate=0", *arguments)
    assert result.code == 0, result
    return [timeless(line) for line in result.out.encode("utf-8", "surrogateescape").splitlines()]


def timeless(payload: bytes) -> bytes:
    """A message without its timestamp's characters."""
    before, mark, after = payload.partition(b'"timestamp": "')
    return before + mark + after[27:]


def is_json(payload: bytes) -> bool:
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


def count(broker: Broker, topic: str) -> int:
    """How many messages a topic of one partition has."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "counts", "log_level": 0})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]
    finally:
        consumer.close()


def us(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6)


def test_messages_of_pubsub_have_their_keys_and_times(command: Command, emulator: Emulator) -> None:
    name, subscription = emulator.add("simulated")
    result = command("simulate", f"--to=pubsub:{name}", "--rate=0", "--messages=9000", *WRONGS, "--json")
    assert result.code == 0, result
    summary = result.summary
    assert (summary["sent"], summary["refused"], summary["to"]) == (9_000, 0, name)
    assert summary["messages_per_second"] == pytest.approx(9_000 / summary["seconds"], rel=0.01)
    found = emulator.taken(subscription)
    assert len(found) == 9_000
    whole = 0
    for message in found:
        attributes = dict(message.attributes)
        assert set(attributes) == {"source_id", "timestamp"}
        try:
            birth = json.loads(message.data)
        except ValueError:
            continue
        whole += 1
        assert birth["source_id"] == attributes["source_id"]
        assert birth["timestamp"] == attributes["timestamp"]
    assert 0.9 < whole / 9_000 < 0.97
    keys = Counter(message.attributes["source_id"] for message in found)
    assert 0.87 < len(keys) / 9_000 < 0.93
    now = time.time() * 1e6
    late = sum(now - us(message.attributes["timestamp"]) > 110e6 for message in found)
    assert 0.03 < late / 9_000 < 0.07


def test_messages_of_kafka_are_those_of_standard_output_with_keys_and_times(command: Command, broker: Broker) -> None:
    topic = broker.create_topic(3)
    to = [f"--to=kafka:{topic}", f"--bootstrap-servers={broker.address}"]
    began_ms = time.time_ns() // 1_000_000
    result = command("simulate", *to, "--rate=2000", "--messages=3000", "--malformed=0.05", "--seed=3")
    assert result.code == 0, result
    assert re.fullmatch(r"sent 3,000 messages in [1-9]\.\d s \([\d.,]+/s\)\n", result.err)
    assert result.out == ""
    found = broker.consume_all(topic)
    first = min(message.timestamp()[1] for message in found)
    assert first >= began_ms
    for message in found:
        number = int((message.key() or b"b0")[1:])
        assert message.timestamp()[1] == pytest.approx(first + number / 2, abs=1)
        assert message.partition() == {m.key(): m.partition() for m in found}[message.key()] if number < 5 else True
    values = {(message.key() or b"").decode(): message.value() or b"" for message in found}
    births = lines(command, "--messages=3000", "--malformed=0.05", "--seed=3")
    assert sorted(values) == [f"b{n:09d}" for n in range(3_000)]
    same = [timeless(values[f"b{n:09d}"]) == birth for n, birth in enumerate(births)]
    # Garbage is no text: standard output was read as some.
    assert sum(same) > 2_800
    assert all(same[n] or not is_json(values[f"b{n:09d}"]) for n in range(3_000))


def test_a_file_goes_to_a_topic_with_numbers_as_keys(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,weight\n1,2.5\n2,3.5\n")
    name, subscription = emulator.add("simulated")
    result = command("simulate", f"--to=pubsub:{name}", "--rate=0", "--messages=5", "--source", str(path))
    assert result.code == 0, result
    rows = {message.attributes["source_id"]: json.loads(message.data)["id"] for message in emulator.taken(subscription)}
    assert rows == {"0": 1, "1": 2, "2": 1, "3": 2, "4": 1}


def test_latency_is_measured_from_the_time_that_a_message_was_due(
    command: Command, emulator: Emulator, tmp_path: Path
) -> None:
    name, subscription = emulator.add("simulated")
    assert command("simulate", f"--to=pubsub:{name}", "--rate=0", "--messages=200").code == 0
    time.sleep(2)
    source = {
        "type": "pubsub", "subscription": subscription, "key_attribute": "source_id",
        "timestamp_attribute": "timestamp", "messages": 200,
    }  # fmt: skip
    changes = {"source": source, "output__columns": ["key", "predictions"]}
    result = command("stream", "--config", "configs/natality-pubsub.json", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert {row["key"] for row in written(tmp_path)} == {f"b{n:09d}" for n in range(200)}
    assert result.summary["stage_latency_ms"]["lag"]["p50"] > 1_900


def test_a_message_that_is_refused_is_told(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + json.dumps({"a": "x" * 5_000_000}) + '\n{"a": 2}\n')
    name, subscription = emulator.add("simulated")
    to = ["--to", f"pubsub:{name}", "--rate=0", "--messages=3", "--source", str(path)]
    result = command("simulate", *to, "--json")
    assert result.code == 1, result
    assert (result.summary["sent"], result.summary["refused"]) == (2, 1)
    assert "1 message refused" in result.errors[0]
    assert len(emulator.taken(subscription)) == 2


# Brokers that are away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pubsub", "kafka"])
def test_a_broker_that_is_away_is_waited_for(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = dict(os.environ)
    if kind == "pubsub":
        emulator: Emulator = request.getfixturevalue("emulator")
        name, subscription = emulator.add("simulated")
        host, _, port = emulator.host.rpartition(":")
        forwarder = Forwarder(host, int(port))
        environment["PUBSUB_EMULATOR_HOST"] = forwarder.address
        to, away, back = [f"--to=pubsub:{name}"], forwarder.cut, forwarder.mend
    else:
        broker: Broker = request.getfixturevalue("broker")
        topic = broker.create_topic()
        to = [f"--to=kafka:{topic}", f"--bootstrap-servers={broker.address}"]
        away, back = broker.kill, broker.start
    with processes.start(
        [*SIMULATE, *to, "--rate=300", "--messages=4000", "--json"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until(lambda: emulator.counts() if kind == "pubsub" else count(broker, topic), "messages are there")
        away()
        time.sleep(4)
        back()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["sent"] == 4_000
    assert "trying again" in err
    if kind == "pubsub":
        keys = Counter(message.attributes["source_id"] for message in emulator.taken(subscription))
        forwarder.cut()
    else:
        keys = Counter((message.key() or b"").decode() for message in broker.consume_all(topic))
        assert keys.total() == 4_000
    assert set(keys) == {f"b{n:09d}" for n in range(4_000)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["pubsub", "kafka"])
def test_what_was_said_to_be_sent_is_there_after_an_interrupt(
    kind: str, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    if kind == "pubsub":
        emulator: Emulator = request.getfixturevalue("emulator")
        name, subscription = emulator.add("simulated")
        to = [f"--to=pubsub:{name}"]
    else:
        broker: Broker = request.getfixturevalue("broker")
        topic = broker.create_topic()
        to = [f"--to=kafka:{topic}", f"--bootstrap-servers={broker.address}"]
    with processes.start(
        [*SIMULATE, *to, "--rate=3000", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: emulator.counts() if kind == "pubsub" else count(broker, topic), "messages are there")
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    sent = json.loads(out)["sent"]
    assert sent > 0
    assert sent == len(emulator.taken(subscription) if kind == "pubsub" else broker.consume_all(topic))


# What is shown -------------------------------------------------------------------------------------------------------


def test_a_line_every_ten_seconds_in_a_pipe(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "_SAY_EVERY_S", 0.4)
    assert simulate.main(["--rate=1000", "--messages=1500"]) == 0
    *shown, _ = capfd.readouterr().err.splitlines()
    assert 2 <= len(shown) <= 3
    assert all(line.startswith("sent ") and " of 1,500, " in line and line.endswith("/s") for line in shown)
    assert float(shown[1].split(", ")[1].removesuffix("/s").replace(",", "")) == pytest.approx(1000, rel=0.25)


def test_a_moving_line_on_a_terminal_though_standard_output_is_one(emulator: Emulator) -> None:
    name, _ = emulator.add("simulated")
    ours, theirs = pty.openpty()
    with processes.start(
        [*SIMULATE, f"--to=pubsub:{name}", "--rate=200", "--messages=100"], cwd=ROOT, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            said += piece
        os.close(ours)
        assert process.wait(120) == 0
    assert b"/100" in said
    assert b"sent 100 messages in" in said
    assert b"source_id" not in said


# Mistakes ------------------------------------------------------------------------------------------------------------

PUBSUB = "--to=pubsub:projects/test-project/topics/births"
KAFKA = ["--to=kafka:births", "--bootstrap-servers=127.0.0.1:1"]
WRONG: dict[str, tuple[list[str], list[str]]] = {
    "an unknown kind": (["--to=nats:births"], ["--to", "'nats:births'", "kafka:<topic>"]),
    "half a name": (["--to=pubsub:births"], ["--to", "pubsub:projects/<project>/topics/<name>"]),
    "no servers": (["--to=kafka:births"], ["--bootstrap-servers"]),
    "servers without a port": (["--to=kafka:births", "--bootstrap-servers=localhost"], ["--bootstrap-servers"]),
    "servers of nothing": ([PUBSUB, "--bootstrap-servers=h:1"], ["--bootstrap-servers"]),
    "no emulator": ([PUBSUB], ["--to", "127.0.0.1:1", "cannot be reached"]),
    "no broker": (KAFKA, ["--bootstrap-servers", "127.0.0.1:1"]),
    "no security": ([*KAFKA, "--security=/no/such.json"], ["/no/such.json", "no such file"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    arguments, words = WRONG[what]
    result = command("simulate", *arguments)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1), result
    assert all(word in result.errors[0] for word in words), result


def test_a_topic_that_is_not_there(command: Command, emulator: Emulator, broker: Broker) -> None:
    emulator.add("simulated")
    for to in (
        ["--to=pubsub:projects/test-project/topics/birth"],
        ["--to=kafka:birth", f"--bootstrap-servers={broker.address}"],
    ):
        result = command("simulate", *to)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result
        assert result.err.startswith("error: --to: there is no ")
        assert "create it" in result.err


def test_who_logs_in_to_kafka_is_read_from_a_file(
    command: Command, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic()
    path = tmp_path / "security.json"
    to = [f"--to=kafka:{topic}", f"--bootstrap-servers={broker.sasl_address}", f"--security={path}", "--messages=5"]
    path.write_text(json.dumps({"protocol": "sasl_plaintext", "username": USER, "password": "${KAFKA_PASSWORD}"}))
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    assert command("simulate", *to).code == 0
    assert len(broker.consume_all(topic)) == 5
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong-secret")
    result = command("simulate", *to)
    assert (result.code, len(result.errors)) == (2, 1), result
    assert "--security" in result.errors[0]
    assert "wrong-secret" not in result.err
    path.write_text(json.dumps({"protocol": "sasl_plaintext", "username": USER, "passwort": "hidden-secret"}))
    result = command("simulate", *to)
    assert result.code == 2
    assert "hidden-secret" not in result.err
    assert all(str(path) in line for line in result.errors)
