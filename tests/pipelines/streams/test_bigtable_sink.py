"""Streams into Bigtable, against Google's emulator: every row under its key, again and again, or a dead letter."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.bigtable_v2.types import MutateRowsRequest, MutateRowsResponse

from tests.servers import pubsub_emulator
from tests.servers.bigtable_emulator import INSTANCE, Emulator, bigtable_emulator
from tests.servers.grpc_proxy import LostError, Proxy, proxy_to
from tests.support import outputs_model, processes
from tests.support.commands import ROOT, Command
from tests.support.streams import births, dead_letters, sets
from tests.support.waiting import wait_until

NAMES = ["source_id", "weight", "count", "label", "parts", "many"]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigtable_emulator() as made:
        yield made


@pytest.fixture
def host(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", emulator.host)
    return emulator


@pytest.fixture
def proxy(host: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_to(host.host) as made:
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", made.host)
        yield made


@pytest.fixture
def pubsub(monkeypatch: pytest.MonkeyPatch) -> Iterator[pubsub_emulator.Emulator]:
    with pubsub_emulator.pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return outputs_model.make(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return f"t{zlib.crc32(request.node.name.encode())}"


PUBSUB = {
    "type": "pubsub",
    "subscription": pubsub_emulator.SUBSCRIPTION,
    "key": "source_id",
    "timestamp_attribute": "at",
}


def settings(folder: Path, model: str, table: str, **changes: Any) -> list[str]:
    output = {"type": "bigtable", "instance": INSTANCE, "table": table, "row_key": "births#{source_id}", "create": True}
    output |= {"columns": NAMES, **changes.pop("output", {})}
    source = {"type": "simulated", "rate": 2000, "key": "source_id"}
    model_config = {"type": "saved_model", "path": model}
    given = {"source": source, "model": model_config, "dead_letters__max_fraction": 0.1, **changes}
    return ["--config", "configs/natality-stream.json", *sets(folder, output=output, **given)]


def births_keys(count: int) -> set[str]:
    return {f"births#b{n:09d}" for n in range(count)}


def test_the_cells_of_a_new_table_are_the_predictions(
    command: Command, host: Emulator, model: str, table: str, tmp_path: Path
) -> None:
    began = time.time_ns() // 1_000_000
    result = command("stream", "--max-messages", "700", *settings(tmp_path, model, table), "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["output"]) == (700, f"table {table} of {INSTANCE}")
    rows = host.rows(table)
    assert set(rows) == births_keys(700)
    ended = time.time_ns() // 1_000_000
    for row in rows.values():
        assert {began <= cell.time_ms <= ended for cell in row.values()} == {True}
        assert {cell.versions for cell in row.values()} == {1}
    wanted = outputs_model.predicted(model, 700)
    for row in rows.values():
        texts = {name.removeprefix("p:"): cell.value.decode() for name, cell in row.items()}
        expected = wanted.pop(texts["source_id"])
        assert texts["label"] == expected.pop("label")
        assert texts.pop("source_id") == expected.pop("source_id")
        found = {name: json.loads(text) for name, text in texts.items() if name != "label"}
        assert found.pop("parts") == pytest.approx(expected.pop("parts"), rel=1e-6)
        assert found == pytest.approx(expected, rel=1e-6)
    assert not wanted


def test_numbers_may_be_big_endian(command: Command, host: Emulator, model: str, table: str, tmp_path: Path) -> None:
    output = {"values": "binary", "row_key": "{plurality}/{source_id}", "family": "q"}
    result = command("stream", "--max-messages", "50", *settings(tmp_path, model, table, output=output))
    assert result.code == 0, result
    wanted = outputs_model.predicted(model, 50)
    rows = host.rows(table)
    assert len(rows) == 50
    for key, row in rows.items():
        expected = wanted[row["q:source_id"].value.decode()]
        assert key == f"{expected['count'] // 3}/{expected['source_id']}"
        assert struct.unpack(">q", row["q:count"].value) == (expected["count"],)
        assert struct.unpack(">d", row["q:weight"].value) == (expected["weight"],)
        assert row["q:many"].value == str(expected["many"]).lower().encode()
        assert json.loads(row["q:parts"].value) == pytest.approx(expected["parts"], rel=1e-6)


@pytest.mark.parametrize("versions", [1, None])
def test_a_message_that_comes_again_overwrites_itself(
    command: Command,
    host: Emulator,
    pubsub: pubsub_emulator.Emulator,
    model: str,
    table: str,
    tmp_path: Path,
    versions: int | None,
) -> None:
    host.create(table, "p", versions)
    at = [{"at": f"2024-05-06T07:08:{n % 60:02d}.123456Z"} for n in range(100)]
    seen = []
    for _ in range(2):
        pubsub.publish(births(100), at)
        arguments = settings(tmp_path, model, table, source=PUBSUB)
        result = command("stream", "--max-messages", "100", *arguments)
        assert result.code == 0, result
        seen.append(host.rows(table))
    assert seen[0] == seen[1]
    assert set(seen[0]) == births_keys(100)
    assert {cell.versions for row in seen[0].values() for cell in row.values()} == {1}
    assert {cell.time_ms % 1000 for row in seen[0].values() for cell in row.values()} == {123}


def test_rows_that_cannot_be_written_become_dead_letters_alone(
    command: Command, host: Emulator, pubsub: pubsub_emulator.Emulator, model: str, table: str, tmp_path: Path
) -> None:
    races: dict[int, Any] = {n: f"r{n}" for n in range(200)}
    races |= {3: "x" * 4100, 90: None, 91: "", 150: "é" * 2048}
    payloads = [
        json.dumps({**json.loads(each), "mother_race": races[n]}).encode() for n, each in enumerate(births(200))
    ]
    attributes = [{"at": "2024-05-06T07:08:09Z"} for _ in payloads]
    # Bigtable itself refuses this one.
    attributes[120] = {"at": "1969-05-06T07:08:09Z"}
    pubsub.publish(payloads, attributes)
    output = {"row_key": "{mother_race}", "columns": ["source_id", "weight", "mother_race"]}
    changes = {"output": output, "source": PUBSUB, "batching__max_rows": 200, "batching__max_wait_ms": 2000}
    result = command("stream", "--max-messages", "200", *settings(tmp_path, model, table, **changes), "--json")
    assert result.code == 0, result
    assert set(host.rows(table)) == {races[n] for n in range(200) if n not in (3, 90, 91, 120)}
    found = {dead_letter["key"]: dead_letter["message"] for dead_letter in dead_letters(tmp_path)}
    assert set(found) == {f"b{n:09d}" for n in (3, 90, 91, 120)}
    assert "4,100 bytes" in found["b000000003"]
    assert "is null" in found["b000000090"]
    assert "empty" in found["b000000091"]
    assert result.summary["rows_dead_lettered"] == 4


class Answering:
    """Changes the status of some rows in Bigtable's answers, and does not pass these on."""

    def __init__(self, proxy: Proxy, codes: dict[bytes, list[int]]) -> None:
        self._codes = codes
        self._places: list[tuple[int, dict[int, int]]] = []
        self.sent: Counter[bytes] = Counter()
        proxy.on_request, proxy.on_answer = self._request, self._answer

    def _request(self, method: str, message: bytes) -> bytes:
        if not method.endswith("MutateRows"):
            return message
        request = MutateRowsRequest.deserialize(message)
        self.sent.update(entry.row_key for entry in request.entries)
        answers, kept = {}, []
        for index, entry in enumerate(request.entries):
            codes = self._codes.get(entry.row_key)
            if codes:
                answers[index] = codes.pop(0)
            else:
                kept.append(entry)
        self._places.append((len(request.entries), answers))
        if kept:
            request.entries = kept
        return MutateRowsRequest.serialize(request)

    def _answer(self, method: str, message: bytes) -> bytes:
        if not method.endswith("MutateRows"):
            return message
        given = iter(MutateRowsResponse.deserialize(message).entries)
        count, answers = self._places.pop(0)
        entries = []
        for index in range(count):
            status = {"code": answers[index], "message": "so it is"} if index in answers else next(given).status
            entries.append(MutateRowsResponse.Entry(index=index, status=status))
        return MutateRowsResponse.serialize(MutateRowsResponse(entries=entries))


def test_a_row_that_can_be_tried_again_is_tried_again_alone(
    command: Command, host: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path
) -> None:
    unavailable, exhausted, invalid = 14, 8, 3
    codes = {
        b"births#b000000007": [unavailable, exhausted, unavailable],
        b"births#b000000009": [unavailable],
        b"births#b000000011": [invalid],
        b"births#b000000013": [unavailable, invalid],
    }
    answering = Answering(proxy, codes)
    changes = {"batching__max_rows": 100, "batching__max_wait_ms": 2000}
    result = command("stream", "--max-messages", "100", *settings(tmp_path, model, table, **changes), "--json")
    assert result.code == 0, result
    refused = {"births#b000000011", "births#b000000013"}
    assert set(host.rows(table)) == births_keys(100) - refused
    found = dead_letters(tmp_path)
    assert {f"births#{dead_letter['key']}" for dead_letter in found} == refused
    assert {dead_letter["message"] for dead_letter in found} == {"INVALID_ARGUMENT: so it is"}
    times = {b"births#b000000007": 4, b"births#b000000009": 2, b"births#b000000011": 1, b"births#b000000013": 2}
    assert {key: count for key, count in answering.sent.items() if times.get(key, 1) != count} == {}


def test_a_service_that_is_away_for_a_while_loses_nothing(
    command: Command, host: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path
) -> None:
    host.create(table, "p")
    answers = 0

    def lose(method: str, message: bytes) -> bytes:
        nonlocal answers
        answers += 1
        if answers % 5 == 0:
            raise LostError
        return message

    def interrupt() -> None:
        wait_until(lambda: len(host.rows(table)) >= 300, "some rows are written")
        proxy.stop()
        time.sleep(1.5)
        proxy.start()

    thread = threading.Thread(target=interrupt)
    thread.start()
    proxy.on_answer = lose
    source = {"type": "simulated", "rate": 500, "key": "source_id"}
    result = command("stream", "--max-messages", "1500", *settings(tmp_path, model, table, source=source))
    thread.join()
    assert result.code == 0, result
    rows = host.rows(table)
    assert set(rows) == births_keys(1500)
    assert {cell.versions for row in rows.values() for cell in row.values()} == {1}


def test_what_is_not_written_is_not_acknowledged(
    command: Command, host: Emulator, pubsub: pubsub_emulator.Emulator, model: str, table: str, tmp_path: Path
) -> None:
    host.create(table, "p")
    pubsub.publish(births(300))
    seen: list[int] = []

    def watch() -> None:
        time.sleep(4)
        seen.append(pubsub.acknowledged())
        host.resume()

    thread = threading.Thread(target=watch)
    arguments = settings(tmp_path, model, table, source=PUBSUB)
    from pipelines.connectors.bigtable import sink as bigtable

    make = bigtable.make_transport

    def paused(*kind: str) -> Any:
        """The first time that rows are to be written, the emulator does not answer."""
        if not seen and not thread.ident:
            host.pause()
            thread.start()
        return make(*kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigtable, "make_transport", paused)
        result = command("stream", "--max-messages", "300", *arguments)
    thread.join()
    assert result.code == 0, result
    assert seen == [0]
    assert pubsub.acknowledged() == 300
    assert set(host.rows(table)) == births_keys(300)


def test_who_may_not_write_is_told(
    command: Command, host: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path
) -> None:
    def refuse(method: str, message: bytes) -> bytes:
        if method.endswith("MutateRows"):
            raise LostError(grpc.StatusCode.PERMISSION_DENIED, "no mutateRows for you")
        return message

    proxy.on_answer = refuse
    result = command("stream", "--max-messages", "10", *settings(tmp_path, model, table))
    assert result.code == 1, result
    [line] = result.errors
    assert "PERMISSION_DENIED" in line
    assert "no mutateRows for you" in line


# Mistakes ----------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no table": ({"create": False}, ["output.table", "there is no", "output.create"]),
    "no such column": ({"row_key": "{source_idd}"}, ["output.row_key", "'source_idd'", "did you mean 'source_id'"]),
    "a list": ({"row_key": "{parts}"}, ["output.row_key", "'parts'", "single values"]),
    "no column": ({"row_key": "births"}, ["output.row_key", "the same key"]),
    "no name": ({"row_key": "births#{}"}, ["output.row_key", "has no name"]),
    "a format": ({"row_key": "{source_id:09d}"}, ["output.row_key", "stands alone"]),
    "no end": ({"row_key": "{source_id"}, ["output.row_key"]),
    "malformed": ({"instance": "births"}, ["output.instance", "projects/"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(
    command: Command, host: Emulator, model: str, table: str, tmp_path: Path, what: str
) -> None:
    changes, words = WRONG[what]
    result = command("stream", "--max-messages", "10", *settings(tmp_path, model, table, output=changes))
    assert result.code == 2, result
    [line] = result.errors
    assert all(word in line for word in words), line


def test_a_family_that_is_not_there(command: Command, host: Emulator, model: str, table: str, tmp_path: Path) -> None:
    host.create(table, "predictions")
    changes = {"create": False, "family": "prediction"}
    result = command("stream", "--max-messages", "10", *settings(tmp_path, model, table, output=changes))
    assert result.code == 2, result
    [line] = result.errors
    assert all(word in line for word in ["output.family", "'prediction'", "did you mean 'predictions'"]), line
    changes["create"] = True
    result = command("stream", "--max-messages", "10", *settings(tmp_path, model, table, output=changes))
    assert result.code == 0, result
    assert sorted(host.families(table)) == ["prediction", "predictions"]
    assert len(host.rows(table)) == 10


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BIGTABLE_EMULATOR_HOST": "127.0.0.1:1"}, ["127.0.0.1:1", "cannot be reached"]),
        ({"BIGTABLE_EMULATOR_HOST": "", "GOOGLE_APPLICATION_CREDENTIALS": "", "NO_GCE_CHECK": "true"},
         ["no Google credentials"]),
    ],
)  # fmt: skip
def test_who_is_not_there_is_told_in_one_line(
    model: str, table: str, tmp_path: Path, variables: dict[str, str], words: list[str]
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), **variables}
    done = processes.run(
        [sys.executable, "-m", "pipelines.stream", *settings(tmp_path, model, table)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: output.table: ")
    assert all(word in line for word in words), line
