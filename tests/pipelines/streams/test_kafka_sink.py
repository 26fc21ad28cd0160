"""A stream into Kafka, against a real broker: rows are there when their messages are committed; retries repeat none."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inference import SavedModelHandler
from pipelines.config.kafka import KafkaSecurity
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.producer import KafkaTopic
from tests.servers.kafka import PASSWORD, USER, Broker, kafka_broker
from tests.support.commands import Command
from tests.support.kafka_streams import CONFIG, source
from tests.support.ledger import DEFAULTS, MODEL
from tests.support.streams import births, dead_letters, keys
from tests.support.waiting import wait_until


def output(broker: Broker, to: str, **more: Any) -> dict[str, Any]:
    return {"type": "kafka", "bootstrap_servers": broker.address, "topic": to, **more}


def to_kafka(folder: Path, read: dict[str, Any], write: dict[str, Any], **changes: Any) -> list[str]:
    """Arguments of a stream."""
    values = {"source": read, "output": write, "dead_letters.path": f"{folder}/out/d", **changes}
    texts = {name.replace("__", "."): json.dumps(value) for name, value in values.items()}
    return [*CONFIG, *(part for name, text in texts.items() for part in ("--set", f"{name}={text}"))]


def test_what_is_written_is_what_the_model_says(command: Command, broker: Broker, tmp_path: Path) -> None:
    first, second = broker.create_topic(3), broker.create_topic(4)
    payloads = births(2_000)
    headers: list[list[tuple[str, bytes | None]]] = [
        [("trace", f"t{n}".encode()), ("source_id", b"another"), ("nothing", None)] for n in range(2_000)
    ]
    broker.produce(first, [(f"r{n}".encode(), each) for n, each in enumerate(payloads)], headers=headers)
    read = source(broker, first, messages=2_000)
    result = command("stream", *to_kafka(tmp_path, read, output(broker, second), batching__max_rows=300), "--json")
    assert result.code == 0, result
    assert result.summary["output"] == f"topic {second} at {broker.address}"
    messages = broker.consume_all(second)
    assert Counter((message.key() or b"").decode() for message in messages) == Counter(keys(2_000))
    rows = [json.loads(message.value() or b"") for message in messages]
    handler = SavedModelHandler(MODEL, defaults=DEFAULTS)
    batch = pa.RecordBatch.from_pylist([json.loads(each) for each in payloads])
    [predicted] = handler.run_inference([batch], handler.load_model())
    wanted = dict(zip(predicted["source_id"].to_pylist(), predicted["predictions"].to_pylist(), strict=True))
    assert {row["source_id"]: np.float32(row["predictions"]) for row in rows} == pytest.approx(wanted, rel=2e-7)
    assert all(set(row) == {"source_id", "predictions"} for row in rows)
    sent = {each.value(): each.timestamp()[1] for each in broker.consume_all(first)}
    for message in messages:
        key = (message.key() or b"").decode()
        number = int(key[1:])
        assert message.headers() == [("trace", f"t{number}".encode()), ("nothing", None), ("source_id", key.encode())]
        assert message.timestamp()[1] == sent[payloads[number]]
    # The same key is in the same partition, as Java's clients have it.
    assert len({message.partition() for message in messages}) == 4
    assert sum(broker.committed(read["group"], first).values()) == 2_000


def test_without_headers(command: Command, broker: Broker, tmp_path: Path) -> None:
    first, second = broker.create_topic(), broker.create_topic()
    broker.produce(first, births(10), headers=[[("trace", b"t")]] * 10)
    write = output(broker, second, headers=False)
    result = command("stream", *to_kafka(tmp_path, source(broker, first, messages=10), write), "--json")
    assert result.code == 0, result
    assert [message.headers() for message in broker.consume_all(second)] == [None] * 10


@pytest.mark.parametrize(("messages", "max_rows"), [(500, 1_024), (30_000, 8_192)])
def test_a_row_that_is_too_large_is_a_dead_letter_alone(
    command: Command, broker: Broker, tmp_path: Path, messages: int, max_rows: int
) -> None:
    """The answers to large micro-batches are waited for while the next are read."""
    first, second = broker.create_topic(), broker.create_topic(2, max_message_bytes=2_000)
    payloads = births(messages)
    large = {3, 4, messages // 2, messages - 1}
    for n in range(messages):
        payloads[n] = payloads[n][:-1] + f', "note": "{"x" * (3_000 if n in large else 100)}"}}'.encode()
    broker.produce(first, payloads)
    write = output(broker, second, columns=["source_id", "predictions", "note"])
    read = source(broker, first, messages=messages)
    changes = {"dead_letters.max_fraction": 0.1, "batching.max_rows": max_rows}
    result = command("stream", *to_kafka(tmp_path, read, write, **changes), "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == messages - len(large)
    found = Counter((message.key() or b"").decode() for message in broker.consume_all(second))
    assert found == Counter(keys(messages) - {f"b{n:09d}" for n in large})
    assert Counter(dead_letter["key"] for dead_letter in dead_letters(tmp_path)) == Counter(f"b{n:09d}" for n in large)
    assert {dead_letter["stage"] for dead_letter in dead_letters(tmp_path)} == {"write"}
    assert all("larger than the 2,000 bytes" in dead_letter["message"] for dead_letter in dead_letters(tmp_path))


def test_large_micro_batches_are_committed_when_the_topic_has_their_rows(
    command: Command, broker: Broker, tmp_path: Path
) -> None:
    first = broker.create_topic(2)
    payloads = births(60_000)
    broker.produce(first, payloads[:20_000])
    read = source(broker, first, messages=60_000)
    with kafka_broker() as another:
        second = another.create_topic(3)
        seen: list[int] = []

        def stall() -> None:
            wait_until(lambda: another.size(second) >= 20_000, "some rows are written")
            another.pause()
            broker.produce(first, payloads[20_000:])
            # The committer has its turn too.
            time.sleep(5)
            seen.append(sum(broker.committed(read["group"], first).values()))
            another.resume()

        thread = threading.Thread(target=stall)
        thread.start()
        write = output(another, second)
        settings = to_kafka(tmp_path, read, write, batching__max_rows=8_192)
        # It would wait for good if the rest were never produced.
        result = command("stream", *settings, "--duration", "180", "--json")
        thread.join()
        assert result.code == 0, result
        assert seen[0] <= 20_000
        found = Counter((message.key() or b"").decode() for message in another.consume_all(second))
        assert found == Counter(keys(60_000))
    assert sum(broker.committed(read["group"], first).values()) == 60_000


def test_a_broker_that_is_away_for_a_while_gets_every_row_once(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kafka_broker() as broker:
        topic = broker.create_topic(3)

        def interrupt() -> None:
            wait_until(lambda: broker.consume_all(topic), "some rows are written", every_s=0.2)
            broker.kill()
            time.sleep(6)
            broker.start()

        thread = threading.Thread(target=interrupt)
        thread.start()
        read = {"type": "simulated", "rate": 1_000, "messages": 5_000}
        result = command("stream", *to_kafka(tmp_path, read, output(broker, topic)), "--json")
        thread.join()
        assert result.code == 0, result
        found = Counter((message.key() or b"").decode() for message in broker.consume_all(topic))
        assert found == Counter(keys(5_000))
        assert f"topic {topic} does not take rows, trying again" in caplog.text


def test_who_logs_in(command: Command, broker: Broker, tmp_path: Path) -> None:
    topic = broker.create_topic()
    security = {"protocol": "sasl_plaintext", "username": USER, "password": PASSWORD}
    write = output(broker, topic, bootstrap_servers=broker.sasl_address, security=security)
    read = {"type": "simulated", "rate": 0, "messages": 20}
    result = command("stream", *to_kafka(tmp_path, read, write), "--json")
    assert result.code == 0, result
    assert len(broker.consume_all(topic)) == 20


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such topic": ({"topic": "predictions-2"}, ["output.topic", "there is no topic 'predictions-2'"]),
    "unreachable": ({"bootstrap_servers": "127.0.0.1:1"}, ["output.bootstrap_servers", "refused"]),
    "no CA file": ({"security": {"protocol": "ssl", "ca_file": "no.pem"}}, ["output.security.ca_file", "no.pem"]),
    "unknown key": ({"header": False}, ["output.header", "did you mean 'headers'"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, broker: Broker, tmp_path: Path, what: str) -> None:
    changes, words = WRONG[what]
    read = {"type": "simulated", "messages": 20}
    result = command("stream", *to_kafka(tmp_path, read, output(broker, "predictions", **changes)))
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result.errors


def test_a_message_at_the_limit_is_taken_and_one_above_it_is_refused(broker: Broker) -> None:
    name = broker.create_topic(1, max_message_bytes=5_000)
    topic = KafkaTopic(Cluster(broker.address, KafkaSecurity.model_construct()), name)
    try:
        values = [b"x" * size for size in (10, 4_800, 5_000, 1)]
        assert list(topic.send([b"k"] * 4, values, [1_700_000_000_000] * 4, [None] * 4)()) == [2]
    finally:
        topic.close()
    assert [len(message) for message in broker.consume_all(name)] == [10, 4_800, 1]


def test_what_is_in_the_topic_is_not_written_again(command: Command, broker: Broker, tmp_path: Path) -> None:
    first, second = broker.create_topic(3), broker.create_topic(4)
    broker.produce(first, births(3_000))
    for group, wanted in (("once", 0), ("again", 3_000)):
        read = source(broker, first, messages=3_000, group=group)
        changes = {"dedupe": {"window_s": 600}}
        result = command("stream", *to_kafka(tmp_path, read, output(broker, second), **changes), "--json")
        assert result.code == 0, result
        assert result.summary["rows_repeated"] == wanted
        assert ("3,000 keys of what was written lately are known" in result.err) == bool(wanted)
    assert Counter((message.key() or b"").decode() for message in broker.consume_all(second)) == Counter(keys(3_000))
