"""Dead letters of streams in topics and tables: as those in files, and durable before anything is acknowledged."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.dead_letters import buffered
from pipelines.rows.origin import DeadLetter
from tests.servers.bigquery_emulator import DATASET, bigquery_emulator
from tests.servers.kafka import Broker
from tests.servers.pubsub_emulator import Emulator, pubsub_emulator
from tests.support.commands import Command
from tests.support.streams import births, dead_letters, keys, sets, written

CONFIG = ["--config", "configs/natality-pubsub.json"]
Read = Callable[[], list[DeadLetter]]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def settings(folder: Path, to: dict[str, Any], **changes: Any) -> list[str]:
    """Arguments that write rows into a folder, and dead letters to a service."""
    found = sets(folder, **changes)
    kept = [
        part
        for flag, value in zip(found[::2], found[1::2], strict=True)
        if not value.startswith("dead_letters.")
        for part in (flag, value)
    ]
    return [*kept, "--set", f"dead_letters={json.dumps({'max_fraction': 0.2, **to})}"]


def messages(count: int) -> tuple[list[bytes], set[int]]:
    """Messages, and which of them are bad: they cannot be decoded, coerced, or written."""
    payloads = births(count)
    bad = set(range(3, count, 10))
    for n in bad:
        birth = json.loads(payloads[n])
        if n % 3 == 0:
            payloads[n] = payloads[n][:-9]
        elif n % 3 == 1:
            payloads[n] = json.dumps({**birth, "mother_age": None, "é": "\ud83d\ude00"}).encode()
        else:
            payloads[n] = json.dumps({**birth, "plurality": "many"}).encode()
    return payloads, bad


def _pubsub(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Read]:
    emulator: Emulator = request.getfixturevalue("emulator")
    name, subscription = emulator.add("letters")

    def read() -> list[DeadLetter]:
        found = []
        for message in emulator.taken(subscription):
            found.append(DeadLetter.from_json(message.data))
            assert dict(message.attributes) == {"source_id": found[-1].key}
        return found

    return {"type": "pubsub", "topic": name}, read


def _kafka(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Read]:
    broker: Broker = request.getfixturevalue("broker")
    topic = broker.create_topic(2)

    def read() -> list[DeadLetter]:
        found = []
        for message in broker.consume_all(topic):
            found.append(DeadLetter.from_json(message.value() or b""))
            assert message.key() == found[-1].key.encode()
        return found

    return {"type": "kafka", "topic": topic, "bootstrap_servers": broker.address}, read


def _bigquery(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Read]:
    emulator = request.getfixturevalue("bigquery")
    table = f"{DATASET}.letters"

    def read() -> list[DeadLetter]:
        found = []
        for row in emulator.rows("letters"):
            fields = {**row, "payload": base64.b64encode(row["payload"]).decode(), "format": json.loads(row["format"])}
            found.append(DeadLetter.from_json(json.dumps(fields).encode()))
        return found

    return {"type": "bigquery", "table": table, "create": True}, read


@pytest.fixture
def bigquery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bigquery_emulator() as made:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", made.rest)
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", made.grpc)
        yield made


PLACES = {"pubsub": _pubsub, "kafka": _kafka, "bigquery": _bigquery}


@pytest.mark.parametrize("kind", list(PLACES))
def test_the_letters_are_those_of_files(
    command: Command, emulator: Emulator, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    to, read = PLACES[kind](request)
    payloads, bad = messages(1_000)
    ids = emulator.publish(payloads)
    result = command("stream", *CONFIG, "--max-messages", "1000", *settings(tmp_path, to), "--json")
    assert result.code == 0, result
    assert result.summary["rows_dead_lettered"] == len(bad) == 100
    assert any(to[name] in result.summary["dead_letters"] for name in ("topic", "table") if name in to)
    good = {f"b{n:09d}" for n in range(1_000) if n not in bad}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(good)
    assert {each.acks for id, each in emulator.counts().items() if id in ids} == {1}
    found = read()
    assert Counter(dead_letter.payload for dead_letter in found) == Counter(payloads[n] for n in bad)
    assert dead_letters(tmp_path) == []

    emulator.publish(payloads)
    changes = {"dead_letters__max_fraction": 0.2}
    result = command("stream", *CONFIG, "--max-messages", "1000", *sets(tmp_path / "2", **changes))
    assert result.code == 0, result
    # Where a message stood among those pulled differs from one run to the next.
    [files] = [{each["payload"]: each for each in dead_letters(tmp_path / "2")}]
    for dead_letter in found:
        same = files[base64.b64encode(dead_letter.payload).decode()]
        theirs = {
            "stage": dead_letter.stage,
            "error": dead_letter.error,
            "message": dead_letter.message,
            "format": dead_letter.format,
        }
        assert {name: same[name] for name in theirs} == theirs
        assert (same["attempts"], same["model"]) == (dead_letter.attempts, dead_letter.model)
    assert len({dead_letter.stage for dead_letter in found}) >= 2


def test_nothing_is_acknowledged_while_the_letters_topic_is_away(
    command: Command, emulator: Emulator, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic()
    payloads = births(300)
    payloads[7] = b"{"
    emulator.publish(payloads)
    stalled = threading.Event()
    send = buffered.BufferedWriter._send_all

    def slow(self: buffered.BufferedWriter) -> None:
        if self._dead_letters and not stalled.is_set():
            broker.pause()
            stalled.set()
        send(self)

    monkeypatch.setattr(buffered.BufferedWriter, "_send_all", slow)
    seen: list[Any] = []

    def watch() -> None:
        assert stalled.wait(60)
        time.sleep(4)
        seen.append(emulator.counts())
        broker.resume()

    thread = threading.Thread(target=watch)
    thread.start()
    to = {"type": "kafka", "topic": topic, "bootstrap_servers": broker.address}
    result = command("stream", *CONFIG, "--max-messages", "300", *settings(tmp_path, to), "--json")
    thread.join()
    assert result.code == 0, result
    [counts] = seen
    assert {each.acks for each in counts.values()} == {0}
    assert set(emulator.counts().values()) == {(1, 1)}
    assert [
        message.value() and DeadLetter.from_json(message.value()).payload for message in broker.consume_all(topic)
    ] == [b"{"]
    assert {row["source_id"] for row in written(tmp_path)} == keys(300) - {"b000000007"}


def test_a_letter_that_is_too_large_loses_the_end_of_its_payload_and_says_so(
    command: Command, emulator: Emulator, broker: Broker, tmp_path: Path
) -> None:
    topic = broker.create_topic(max_message_bytes=20_000)
    large = b'{"source_id": "large", ' + b"x" * 100_000
    emulator.publish([*births(30), b"{", large])
    to = {"type": "kafka", "topic": topic, "bootstrap_servers": broker.address}
    result = command("stream", *CONFIG, "--max-messages", "32", *settings(tmp_path, to), "--json")
    assert result.code == 0, result
    found = [DeadLetter.from_json(message.value() or b"") for message in broker.consume_all(topic)]
    by_size = sorted(found, key=lambda dead_letter: len(dead_letter.payload))
    assert [dead_letter.payload_truncated for dead_letter in by_size] == [False, True]
    assert len(by_size[1].payload) > 5_000
    assert large.startswith(by_size[1].payload)


def test_letters_of_a_topic_saved_to_a_file_are_replayed(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    name, subscription = emulator.add("letters")
    payloads = births(40)
    payloads[3] = json.dumps({**json.loads(payloads[3]), "mother_age": None}).encode()
    emulator.publish(payloads)
    to = {"type": "pubsub", "topic": name}
    result = command("stream", *CONFIG, "--max-messages", "40", *settings(tmp_path, to))
    assert result.code == 0, result
    result = command("replay", *CONFIG, *settings(tmp_path, to))
    assert (result.code, len(result.errors)) == (2, 1), result
    assert "dead_letters.type: replay reads files, not pubsub" in result.errors[0]
    saved = tmp_path / "saved-00000-of-00001.jsonl"
    saved.write_bytes(b"".join(message.data + b"\n" for message in emulator.taken(subscription)))
    mended = ["--set", 'source.defaults={"mother_age": 30}']
    replayed = settings(tmp_path, {"path": str(tmp_path / "saved")}, output__path=f"{tmp_path}/out/q")
    result = command("replay", *CONFIG, *replayed, *mended, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_read"], result.summary["rows_written"]) == (1, 1)
    [path] = (tmp_path / "out").glob("q-replay-*.csv")
    assert "b000000003," in path.read_text()
    assert not saved.exists()


def test_letters_in_a_streams_own_files_are_replayed(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    payloads = births(40)
    payloads[3] = json.dumps({**json.loads(payloads[3]), "mother_age": None}).encode()
    payloads[5] = b"no json"
    emulator.publish(payloads)
    given = sets(tmp_path, dead_letters__max_fraction=0.2)
    assert command("stream", *CONFIG, "--max-messages", "40", *given).code == 0
    assert len(dead_letters(tmp_path)) == 2
    mended = ["--set", 'source.defaults={"mother_age": 30}']
    result = command("replay", *CONFIG, *given, *mended, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (1, 1)
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(40) - {"b000000005"})
    [left] = dead_letters(tmp_path)
    assert (base64.b64decode(left["payload"]), left["attempts"]) == (b"no json", 2)


# Mistakes ------------------------------------------------------------------------------------------------------------

TOPIC = "projects/test-project/topics/no-letters"
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such topic": ({"type": "pubsub", "topic": TOPIC}, ["dead_letters.topic", "there is no", "create it"]),
    "no broker": (
        {"type": "kafka", "topic": "t", "bootstrap_servers": "127.0.0.1:1"},
        ["dead_letters.bootstrap_servers", "127.0.0.1:1"],
    ),
    "no name": ({"type": "pubsub", "topic": "letters"}, ["dead_letters.topic", "projects/"]),
    "an unknown kind": ({"type": "pubsup", "topic": TOPIC}, ["dead_letters.type", "did you mean 'pubsub'"]),
    "a path": ({"type": "kafka", "topic": "t", "bootstrap_servers": "h:1", "path": "x"}, ["dead_letters.path"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, emulator: Emulator, tmp_path: Path, what: str) -> None:
    to, words = WRONG[what]
    result = command("stream", *CONFIG, *settings(tmp_path, to))
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result.errors


def test_batch_has_its_letters_in_files(command: Command) -> None:
    result = command("batch", "--set", f'dead_letters={{"type": "pubsub", "topic": "{TOPIC}"}}')
    assert (result.code, len(result.errors)) == (2, 1), result
    assert "dead_letters.type: pubsub is for streams" in result.errors[0]
