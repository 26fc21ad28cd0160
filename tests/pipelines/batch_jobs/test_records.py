"""Jobs whose instances are TFRecords of tf.Examples: values, keys, refused rows, damaged files, models without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.job_server import JobServer, config_of, job_server
from tests.support.keyed_model import save_parsing
from tests.support.ledger import KEY, MODEL, births, books_of, write_rows

SERVICES = ("vertex", "ai_platform")
INSTANCES = {"tf_record": ".tfrecord", "tf_record_gzip": ".tfrecord.gz"}
"""Formats of instances, and the ends of their files' names."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models that parse tf.Examples, by the service that they are for."""
    return {name: save_parsing(tmp_path_factory.mktemp("parsing"), keyed=name == "ai_platform") for name in SERVICES}


def tf_records(path: Path, packing: str | None) -> Iterator[bytes]:
    """The records of a file, as TensorFlow reads them."""
    import tensorflow as tf

    return iter(tf.data.TFRecordDataset(str(path), packing).as_numpy_iterator())


def model_of(
    server: JobServer, folder: Path, service: str, saved: str, instances: str = "tf_record", **settings: Any
) -> dict[str, Any]:
    return server.model(folder, service, signature_from=saved, instances_format=instances, **settings)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("format", ["csv", "tfrecord"])
@pytest.mark.parametrize("instances", INSTANCES)
def test_predictions_are_those_of_the_model(
    command: Command, tmp_path: Path, models: dict[str, str], service: str, format: str, instances: str
) -> None:
    """Of columns an example is made; of a file of examples each is taken as it is."""
    rows = births(3_000, 91)
    file = write_rows(tmp_path / f"in.{format}", format, rows)
    with job_server(tmp_path, models[service], shards=3, order="reversed") as server:
        model = model_of(server, tmp_path, service, models[service], instances)
        config = config_of(tmp_path, file, model, format)
        result = command("batch", "--config", config, "--json")
        [job] = server.jobs(service)
    assert result.code == 0, result
    if service == "vertex":
        assert job["inputConfig"]["instancesFormat"] == instances.replace("_", "-")
        assert "instanceConfig" not in job
    else:
        assert job["predictionInput"]["dataFormat"] == instances.upper()
    for path in (tmp_path / "jobs").glob("*/instances/*"):
        assert path.name.partition(".")[2] == INSTANCES[instances][1:]
        packing = "GZIP" if instances == "tf_record_gzip" else None
        assert len(list(tf_records(path, packing))) == 3_000
    books = books_of(tmp_path)
    assert books.keys == {row[KEY]: 1 for row in rows}
    ledger.assert_predictions(books, rows)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("instances", INSTANCES)
def test_rows_that_are_refused(
    command: Command, tmp_path: Path, models: dict[str, str], service: str, instances: str
) -> None:
    rows = births(2_000, 92)
    rows[7]["mother_age"] = None
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path, models[service], row_error_rate=0.05, errors="inline", seed=3) as server:
        config = config_of(tmp_path, file, model_of(server, tmp_path, service, models[service], instances))
        result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    books = books_of(tmp_path)
    assert books.keys + books.letter_keys == {row[KEY]: 1 for row in rows}
    ledger.assert_predictions(books, [row for row in rows if row[KEY] in books.keys])
    errors = {letter["error"] for letter in books.dead_letters if letter["stage"] == "predict"}
    assert errors == {"INVALID_ARGUMENT" if service == "vertex" else "NoResultError"}
    assert rows[7][KEY] in {letter["key"] for letter in books.dead_letters if letter["stage"] == "coerce"}


@pytest.mark.parametrize("fault", ["duplicate_rate", "foreign_rate"])
@pytest.mark.parametrize("instances", INSTANCES)
def test_results_that_no_row_can_have(
    command: Command, tmp_path: Path, models: dict[str, str], fault: str, instances: str
) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(1_000, 93))
    with job_server(tmp_path, models["vertex"], **{fault: 0.02}) as server:
        config = config_of(tmp_path, file, model_of(server, tmp_path, "vertex", models["vertex"], instances))
        result = command("batch", "--config", config)
    assert result.code == 3, result
    assert ("a repeated key" if fault == "duplicate_rate" else "an unknown key") in result.errors[0]


@pytest.mark.parametrize("place", [4, 14, -20])
def test_a_damaged_file_is_an_error_of_its_own(
    command: Command, tmp_path: Path, models: dict[str, str], place: int
) -> None:
    """The length of the first record, its data, the data of the last record."""
    rows = births(500, 94)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path, models["vertex"]) as server:
        config = config_of(tmp_path, file, model_of(server, tmp_path, "vertex", models["vertex"]))
        assert command("batch", "--config", config, "--step", "prepare").code == 0
        [instances] = (tmp_path / "jobs").glob("*/instances/*")
        content = bytearray(instances.read_bytes())
        content[place] ^= 1
        instances.write_bytes(content)
        result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_dead_lettered"] == (500 if place > 0 else 1)
    for letter in books_of(tmp_path).dead_letters:
        assert letter["error"] == "NoResultError"
        assert "has a wrong checksum (byte " in letter["message"]


@pytest.mark.parametrize("damage", ["changed", "cut short", "no gzip"])
def test_a_damaged_file_that_is_packed(command: Command, tmp_path: Path, models: dict[str, str], damage: str) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(500, 94))
    with job_server(tmp_path, models["vertex"]) as server:
        model = model_of(server, tmp_path, "vertex", models["vertex"], "tf_record_gzip")
        config = config_of(tmp_path, file, model)
        assert command("batch", "--config", config, "--step", "prepare").code == 0
        [instances] = (tmp_path / "jobs").glob("*/instances/*")
        content = instances.read_bytes()
        changed = bytes([content[-6] ^ 1])
        instances.write_bytes(
            {"changed": content[:-6] + changed + content[-5:], "cut short": content[:-9], "no gzip": b"0123"}[damage]
        )
        result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_dead_lettered"] == 500
    assert all("unpacking it failed: " in letter["message"] for letter in books_of(tmp_path).dead_letters)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "columns": ("vertex", {"signature_from": MODEL}, "tf_record keeps the key of a row in a tf.Example, and the model"),
    "columns, too": ("ai_platform", {"signature_from": MODEL}, "use jsonl, where the key is beside the inputs"),
    "a feature": ("vertex", {"key_field": "plurality"}, "the model parses a feature 'plurality'; choose a name"),
    "a long name": ("vertex", {"key_field": "k" * 61}, "has more than 60 bytes; give the key a shorter name"),
    "no feature": ("ai_platform", {"key_input": "id"}, "model.key_input: the model parses no feature 'id' (it parses "),
    "no text": ("ai_platform", {"key_input": "plurality"}, "is float32, and keys are text; parse it as a string"),
    "no output": ("ai_platform", {"key_output": "id"}, "model.key_output: the model has no output 'id'"),
    "inputs": ("vertex", {"signature_from": None, "inputs": {"examples": "string"}}, "give signature_from in place of"),
    "packed columns": (
        "vertex",
        {"signature_from": MODEL, "instances_format": "tf_record_gzip"},
        "tf_record_gzip keeps the key of a row in a tf.Example",
    ),
    "packed lines": ("vertex", {"instances_format": "jsonl_gzip"}, "instances_format"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_has_no_place_for_a_key(command: Command, tmp_path: Path, models: dict[str, str], what: str) -> None:
    service, settings, said = WRONG[what]
    file = write_rows(tmp_path / "in.csv", "csv", births(20, 95))
    with job_server(tmp_path, models[service]) as server:
        wanted = {**model_of(server, tmp_path, service, models[service]), **settings}
        config = config_of(tmp_path, file, {name: value for name, value in wanted.items() if value is not None})
        result = command("batch", "--config", config)
        assert result.code == 2, result
        assert server.jobs(service) == []
    [line] = result.errors
    assert said in line


def test_an_example_that_has_the_name_of_the_key(command: Command, tmp_path: Path, models: dict[str, str]) -> None:
    """The last feature of a name counts, and that is the key."""
    rows = [{**row, "note": "mine"} for row in births(50, 96)]
    file = write_rows(tmp_path / "in.tfrecord", "tfrecord", rows)
    with job_server(tmp_path, models["vertex"]) as server:
        model = model_of(server, tmp_path, "vertex", models["vertex"], key_field="note")
        config = config_of(tmp_path, file, model, "tfrecord")
        result = command("batch", "--config", config, "--json")
    assert result.code == 0, json.dumps(result.summary)
    ledger.assert_predictions(books_of(tmp_path), rows)
