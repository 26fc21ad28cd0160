"""Predictions to a Pub/Sub topic, against Google's own emulator: every row once, with its key, whatever happens."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.pubsub_v1 import types

from inference import SavedModelHandler
from pipelines.connectors import retry
from pipelines.connectors.pubsub import publisher as pubsub_topic
from pipelines.connectors.simulated.natality import births_at
from tests.servers.forwarder import Forwarder
from tests.servers.pubsub_emulator import SUBSCRIPTION, Emulator, pubsub_emulator
from tests.support import processes
from tests.support.commands import ROOT, Command
from tests.support.ledger import DEFAULTS, MODEL
from tests.support.streams import dead_letters, sets

CONFIG = ["--config", "configs/natality-pubsub.json"]
COLUMNS = ["source_id", "predictions", "model_version"]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def births(count: int) -> list[dict[str, Any]]:
    return [json.loads(each.as_py()) for each in births_at(np.arange(count), 1, np.zeros(count, np.int64))]


def encoded(messages: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(each).encode() for each in messages]


def predictions(messages: list[dict[str, Any]]) -> dict[str, float]:
    """What a direct call of the model gives, by key."""
    handler = SavedModelHandler(MODEL, defaults=DEFAULTS)
    [predicted] = handler.run_inference([pa.RecordBatch.from_pylist(messages)], handler.load_model())
    return dict(zip(predicted["source_id"].to_pylist(), predicted["predictions"].to_pylist(), strict=True))


def output(name: str, **settings: Any) -> dict[str, Any]:
    return {"type": "pubsub", "topic": name, "columns": COLUMNS, **settings}


def settings(folder: Path, to: dict[str, Any], **changes: Any) -> list[str]:
    """Arguments that write to a topic, and dead letters into a folder."""
    found = sets(folder, dead_letters__max_fraction=0.1, **changes)
    kept = [
        part
        for flag, value in zip(found[::2], found[1::2], strict=True)
        if not value.startswith("output.")
        for part in (flag, value)
    ]
    return [*kept, "--set", f"output={json.dumps(to)}"]


def test_every_row_is_a_message_with_its_prediction_key_and_attributes(
    command: Command, emulator: Emulator, tmp_path: Path
) -> None:
    name, subscription = emulator.add("predicted")
    messages = births(5_000)
    attributes = [{"trace": f"t{n}", "at": f"17000{n:08d}", "googclient_x": "1"} for n in range(5_000)]
    emulator.publish(encoded(messages), attributes)
    source = {"type": "pubsub", "subscription": SUBSCRIPTION, "key": "source_id", "timestamp_attribute": "at"}
    given = settings(tmp_path, output(name), source=source)
    result = command("stream", *CONFIG, "--max-messages", "5000", *given, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["output"]) == (5_000, name)
    found = emulator.taken(subscription)
    rows = {message.attributes["source_id"]: json.loads(message.data) for message in found}
    assert len(rows) == len(found) == 5_000
    assert {key: np.float32(row["predictions"]) for key, row in rows.items()} == pytest.approx(
        predictions(messages), rel=2e-7
    )
    assert all(list(row) == COLUMNS and row["source_id"] == key for key, row in rows.items())
    came = {each["source_id"]: given for each, given in zip(messages, attributes, strict=True)}
    for message in found:
        given_here = dict(message.attributes)
        key = given_here.pop("source_id")
        at = given_here.pop("at")
        assert given_here == {"trace": came[key]["trace"]}
        assert round(np.datetime64(at.rstrip("Z"), "us").astype(int) / 1000) == int(came[key]["at"])
    assert emulator.acknowledged() == 10_000


def test_attributes_stay_behind_when_asked(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    name, subscription = emulator.add("predicted")
    emulator.publish(encoded(births(20)), [{"trace": "t"}] * 20)
    given = settings(tmp_path, output(name, attributes=False))
    result = command("stream", *CONFIG, "--max-messages", "20", *given)
    assert result.code == 0, result
    assert {tuple(message.attributes) for message in emulator.taken(subscription)} == {("source_id",)}


def test_rows_with_the_same_ordering_key_come_in_order(command: Command, emulator: Emulator, tmp_path: Path) -> None:
    name, subscription = emulator.add("predicted")
    source = {"type": "simulated", "messages": 6_000, "rate": 0, "seed": 1}
    changes = {"source": source, "batching__max_rows": 4_000}
    given = settings(tmp_path, output(name, ordering_key="mother_race"), **changes)
    result = command("stream", *CONFIG, *given)
    assert result.code == 0, result
    found = emulator.taken(subscription)
    races = {each["source_id"]: each["mother_race"] for each in births(6_000)}
    assert {message.attributes["source_id"]: message.ordering_key for message in found} == races
    places: dict[str, list[str]] = {}
    for message in sorted(found, key=lambda each: int(each.message_id[1:])):
        places.setdefault(message.ordering_key, []).append(message.attributes["source_id"])
    assert all(keys == sorted(keys) for keys in places.values())


def test_a_row_that_is_too_large_becomes_a_dead_letter_alone(
    command: Command, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_topic, "LARGEST_MESSAGE_BYTES", 50_000)
    name, subscription = emulator.add("predicted")
    messages = births(200)
    messages[77]["note"] = "x" * 50_000
    messages[78]["note"] = "x" * 49_000
    emulator.publish(encoded(messages))
    to = output(name, columns=["source_id", "note", "predictions"])
    result = command("stream", *CONFIG, "--max-messages", "200", *settings(tmp_path, to), "--json")
    assert result.code == 0, result
    [dead_letter] = dead_letters(tmp_path)
    assert (dead_letter["key"], dead_letter["stage"], dead_letter["error"]) == (
        "b000000077",
        "write",
        "RowRefusedError",
    )
    assert "bytes; a message of Pub/Sub may have 50,000" in dead_letter["message"]
    assert base64.b64decode(dead_letter["payload"]) == encoded(messages)[77]
    keys = Counter(message.attributes["source_id"] for message in emulator.taken(subscription))
    assert keys == Counter(each["source_id"] for n, each in enumerate(messages) if n != 77)


def test_a_broker_that_cannot_be_reached_for_a_while(
    command: Command, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on where it was: nothing is lost, and nothing is acknowledged meanwhile."""
    name, subscription = emulator.add("predicted")
    count = 3_000
    host, _, port = emulator.host.rpartition(":")
    with Forwarder(host, int(port)) as forwarder:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", forwarder.address)
        emulator.publish(encoded(births(count))[:1_000])

        def interrupt() -> None:
            emulator.wait_for_acknowledged(1_000, 60)
            forwarder.cut()
            emulator.publish(encoded(births(count))[1_000:])
            time.sleep(3)
            assert emulator.acknowledged() == 1_000
            forwarder.mend()

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(interrupt)
            given = settings(tmp_path, output(name), batching__max_rows=100)
            result = command("stream", *CONFIG, "--max-messages", str(count), *given, "--json")
            done.result()
    assert result.code == 0, result
    keys = Counter(message.attributes["source_id"] for message in emulator.taken(subscription))
    assert set(keys) == {f"b{n:09d}" for n in range(count)}
    # An answer that was lost is a message that is published twice; of what was not under way there is one.
    assert keys.total() - count <= 1_000


# Pub/Sub's own refusals, which the emulator does not know -----------------------------------------------------------


class _Picky(grpc.GenericRpcHandler):
    """A Pub/Sub that takes no request with a message that says "bad", and is sometimes away."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.failures = 0
        self._lock = threading.Lock()

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            self._publish,
            request_deserializer=types.PublishRequest.pb().FromString,
            response_serializer=types.PublishResponse.pb().SerializeToString,
        )

    def _publish(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            if self.failures:
                self.failures -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            data = [message.data for message in request.messages]
            if any(b"bad" in each for each in data):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message is bad\nvery")
            self.taken += data
        return types.PublishResponse.pb()(message_ids=["m"] * len(data))


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Picky]:
    handler = _Picky()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 10_000_000)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    yield handler
    server.stop(None)


def test_only_the_messages_at_fault_are_refused(picky: _Picky) -> None:
    to = pubsub_topic.Topic("projects/p/topics/t")
    data = [f"{n}".encode() for n in range(4_321)]
    for n in (0, 999, 1_000, 4_320):
        data[n] = b"bad"
    picky.failures = 3
    assert to.publish([to.message(each, {}) for each in data]) == dict.fromkeys(
        (0, 999, 1_000, 4_320), "400 a message is bad"
    )
    assert Counter(picky.taken) == Counter(each for each in data if each != b"bad")
    to.close()


def test_messages_with_an_ordering_key_keep_their_order_over_failures(picky: _Picky) -> None:
    to = pubsub_topic.Topic("projects/p/topics/t")
    data = [f"{n % 3}-{n:05d}".encode() for n in range(5_000)]
    data[2_500] += b"bad"
    picky.failures = 2
    assert list(to.publish([to.message(each, {}, each[:1].decode()) for each in data])) == [2_500]
    for key in (b"0", b"1", b"2"):
        mine = [each for each in picky.taken if each.startswith(key)]
        assert mine == sorted(mine)
    assert len(picky.taken) == 4_999
    to.close()


def test_requests_are_as_large_as_pubsub_takes(picky: _Picky) -> None:
    to = pubsub_topic.Topic("projects/p/topics/t")
    refused = to.publish([to.message(bytes(size), {}) for size in (9_995_000, 10, 9_980_000, 3_900_000, 3_900_000)])
    assert list(refused) == [0]
    assert "9,995,005 bytes" in refused[0]
    assert Counter(map(len, picky.taken)) == Counter([10, 9_980_000, 3_900_000, 3_900_000])
    to.close()


def test_a_server_that_takes_less_is_believed(emulator: Emulator) -> None:
    """The emulator takes 4 MiB."""
    name, subscription = emulator.add("predicted")
    to = pubsub_topic.Topic(name)
    refused = to.publish([to.message(bytes(size), {}) for size in (3_000_000, 3_000_000, 5_000_000, 10)])
    assert list(refused) == [2]
    assert "larger than max" in refused[2]
    assert sorted(len(message.data) for message in emulator.taken(subscription)) == [10, 3_000_000, 3_000_000]
    to.close()


def test_a_topic_that_is_deleted_ends_the_wait(emulator: Emulator) -> None:
    to = pubsub_topic.Topic("projects/test-project/topics/gone")
    with pytest.raises(Exception, match="gone"):
        to.publish([to.message(b"x", {})])
    to.close()


def test_waiting_is_told(picky: _Picky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(retry, "_WARN_EVERY_S", 0.5)
    picky.failures = 6
    to = pubsub_topic.Topic("projects/p/topics/t")
    to.publish([to.message(b"x", {})])
    assert picky.taken == [b"x"]
    assert "projects/p/topics/t does not take rows, trying again: 503 away" in caplog.text
    to.close()


# Mistakes ------------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such topic": ({"topic": "projects/test-project/topics/nope"}, ["output.topic", "there is no", "create it"]),
    "malformed": ({"topic": "predicted"}, ["output.topic", "projects/"]),
    "a column that is not there": ({"ordering_key": "colour"}, ["output.ordering_key", "'colour'"]),
    "an unknown key": ({"orderingkey": "x"}, ["output.orderingkey", "did you mean 'ordering_key'"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, emulator: Emulator, tmp_path: Path, what: str) -> None:
    changes, words = WRONG[what]
    to = output(emulator.add("predicted")[0], **changes) if "topic" not in changes else output("", **changes)
    result = command("stream", *CONFIG, *settings(tmp_path, to))
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
    to = output("projects/test-project/topics/t")
    source = {"type": "simulated", "messages": 10}
    done = processes.run(
        [sys.executable, "-m", "pipelines.stream", *CONFIG, *settings(tmp_path, to, source=source)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: output.topic: ")
    assert all(word in line for word in words), line
