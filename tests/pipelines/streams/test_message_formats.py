"""Streams of Avro and protobuf messages, from a config to rows and back from dead letters."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.pubsub_emulator import SUBSCRIPTION, Emulator, pubsub_emulator
from tests.support.commands import Command
from tests.support.message_samples import AVRO_BIRTH, datum, message_class, written_files
from tests.support.pubsub_streams import CONFIG
from tests.support.streams import births, dead_letters, keys, sets, written


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def settings(folder: Path, format: str) -> dict[str, Any]:
    schema, descriptor = written_files(folder)
    if format == "avro":
        return {"source__format": "avro", "source__schema": schema}
    return {"source__format": "protobuf", "source__descriptor": descriptor, "source__message": "shop.v1.Birth"}


def encoded(format: str, birth: bytes) -> bytes:
    row = json.loads(birth)
    del row["timestamp"]
    encoded: bytes = datum(AVRO_BIRTH, row) if format == "avro" else message_class("Birth")(**row).SerializeToString()
    return encoded


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_predictions_are_those_of_json_and_bad_messages_are_replayed(
    command: Command, emulator: Emulator, tmp_path: Path, format: str
) -> None:
    (tmp_path / "json").mkdir()
    plain = births(1_200)
    emulator.publish(plain)
    result = command("stream", *CONFIG, "--max-messages", "1200", *sets(tmp_path / "json"), "--json")
    assert result.code == 0, result
    expected = {row["source_id"]: float(row["predictions"]) for row in written(tmp_path / "json")}

    payloads = [encoded(format, birth) for birth in plain]
    torn = range(7, 1_200, 200)
    for n in torn:
        payloads[n] = payloads[n][:-3]
    emulator.publish(payloads)
    changes = {**settings(tmp_path, format), "batching__max_rows": 300, "dead_letters__max_fraction": 1}
    result = command("stream", *CONFIG, "--max-messages", "1200", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    found = {row["source_id"]: float(row["predictions"]) for row in written(tmp_path)}
    wanted = keys(1_200) - {f"b{n:09d}" for n in torn}
    assert found == pytest.approx({key: expected[key] for key in wanted}, rel=1e-5)
    assert Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path)) == Counter(
        payloads[n] for n in torn
    )
    assert {dead_letter["format"]["type"] for dead_letter in dead_letters(tmp_path)} == {format}
    assert {dead_letter["stage"] for dead_letter in dead_letters(tmp_path)} == {"decode"}
    assert set(emulator.counts().values()) == {(1, 1)}

    result = command("replay", *CONFIG, *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (0, len(torn))
    assert {dead_letter["attempts"] for dead_letter in dead_letters(tmp_path)} == {2}


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_dead_letters_that_the_model_refused_are_mended_by_a_replay(
    command: Command, emulator: Emulator, tmp_path: Path, format: str
) -> None:
    """Text is no age."""
    emulator.publish([encoded(format, birth) for birth in births(50)])
    changes = {**settings(tmp_path, format), "dead_letters__max_fraction": 1}
    wrong = {**changes, "source__columns": {"mother_age": "mother_race"}}
    result = command("stream", *CONFIG, "--max-messages", "50", *sets(tmp_path, **wrong), "--json")
    assert result.code == 0, result
    assert len(dead_letters(tmp_path)) == 50
    result = command("replay", *CONFIG, *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 50


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_a_check_shows_the_columns_that_the_schema_has(command: Command, tmp_path: Path, format: str) -> None:
    changes = {**settings(tmp_path, format), "output__columns": ["source_id", "plurality", "predictions"]}
    result = command("check", *CONFIG, *sets(tmp_path, **changes))
    assert result.code == 0, result
    assert "presumed" not in result.out
    assert ["plurality", "int32", "source"] in [line.split() for line in result.out.splitlines()]


def spoilt(folder: Path) -> dict[str, dict[str, Any]]:
    schema, descriptor = written_files(folder)
    text, empty, wide = (str(folder / name) for name in ("text.avsc", "empty.desc", "enum.avsc"))
    Path(text).write_text("{")
    Path(empty).write_bytes(b"\xff")
    Path(wide).write_text('{"type": "enum", "name": "E", "symbols": ["A"]}')
    avro, protobuf = {"source__format": "avro"}, {"source__format": "protobuf"}
    described = {**protobuf, "source__descriptor": descriptor}
    return {
        "source.schema: /nowhere.avsc cannot be read: No such file": {**avro, "source__schema": "/nowhere.avsc"},
        "text.avsc: is not JSON": {**avro, "source__schema": text},
        "not a record with fields": {**avro, "source__schema": wide},
        "schema: messages of Avro need it": avro,
        "descriptor: messages of protobuf need it": protobuf,
        "message: messages of protobuf need it": described,
        "schema: messages of Avro need it, others have none": {"source__schema": schema},
        "source.descriptor: /nowhere.desc cannot be read": {
            **protobuf,
            "source__descriptor": "/nowhere.desc",
            "source__message": "a.B",
        },
        "is not a set of descriptors": {**protobuf, "source__descriptor": empty, "source__message": "a.B"},
        "did you mean 'shop.v1.Birth'?": {**described, "source__message": "shop.v1.Brith"},
        "framing: messages of protobuf have none or confluent": {
            **described,
            "source__message": "shop.v1.Birth",
            "source__framing": "single_object",
        },
        "framing: messages of json have none": {"source__framing": "confluent"},
        "'weight'": {**avro, "source__schema": schema, "source__columns": {"plurality": "weight"}},
        "source.key: no column 'id'": {**avro, "source__schema": schema, "source__key": "id"},
    }


@pytest.mark.parametrize("number", range(14))
def test_mistakes_are_one_clear_line(command: Command, tmp_path: Path, number: int) -> None:
    message, changes = list(spoilt(tmp_path).items())[number]
    result = command("stream", *CONFIG, *sets(tmp_path, source__subscription=SUBSCRIPTION, **changes))
    assert result.code == 2, result
    assert message in result.err
    assert "Traceback" not in result.err
    assert "source." in result.err or "source:" in result.err
