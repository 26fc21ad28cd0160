"""Secrets of configs and of the environment: no error, dead letter, summary or log shows them."""

from __future__ import annotations

import base64
import json
import logging
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from model import quiet
from pipelines.cli import command
from pipelines.config import environment
from pipelines.config.errors import ConfigError
from pipelines.config.kafka import KafkaSecurity
from pipelines.config.load import load
from pipelines.connectors.kafka.client import Cluster
from pipelines.engine.failures import RunFailedError
from tests.servers.stand_in import Answer, Seen, sevens, stand_in
from tests.support.commands import Command
from tests.support.ledger import MODEL, births, books_of, write_config, write_rows

VALUE = "hunter2-pa55/word+9"


def config_of(folder: Path, changes: dict[str, Any] | None = None, rows: int = 3) -> str:
    file = write_rows(folder / "in.csv", "csv", births(rows, 1))
    path = Path(write_config(folder, "csv", str(file)))
    config = json.loads(path.read_text())
    for part, values in (changes or {}).items():
        whole = not isinstance(values, dict) or "protocol" in values or values.get("type") == "kafka"
        config[part] = values if whole else {**config[part], **values}
    path.write_text(json.dumps(config))
    return str(path)


def endpoint(url: str, **settings: Any) -> dict[str, Any]:
    chosen = {"type": "endpoint", "protocol": "tf_serving_rest", "url": url, "signature_from": MODEL, "max_attempts": 1}
    return {"model": {**chosen, **settings}}


KAFKA = {"type": "kafka", "bootstrap_servers": "h:1", "topic": "t", "group": "g"}
MISPLACED: dict[str, dict[str, Any]] = {
    "in place of an object": {"source": {**KAFKA, "security": VALUE}},
    "in place of a model": {"model": VALUE},
    "in place of a list": {"output": {"columns": VALUE}},
    "an object in place of text": {"source": {"path": {"password": VALUE}}},
    "a list in place of text": {"name": [VALUE]},
    "as a protocol": {"source": {**KAFKA, "security": {"protocol": VALUE}}},
    "as a number": {"source": {**KAFKA, "security": {"key_password": 1, "password": {"x": VALUE}}}},
    "under an unknown key": {"source": {"password": VALUE}, "batching": {"max_rows": VALUE}},
    "before a host": {"source": {**KAFKA, "bootstrap_servers": f"me:{VALUE.replace('/', '')}@h"}},
    "beside a header": endpoint("http://127.0.0.1:1", headers=f"Authorization: {VALUE}"),
    "in the name of a header": endpoint("http://127.0.0.1:1", headers={f"Authorization: {VALUE}": "x"}),
    "in the name of a header of a number": endpoint("http://127.0.0.1:1", headers={f"Authorization: {VALUE}": 1}),
}


@pytest.mark.parametrize("what", MISPLACED)
def test_a_value_that_stands_in_the_wrong_place(command: Command, tmp_path: Path, what: str) -> None:
    result = command("check", "--config", config_of(tmp_path, MISPLACED[what]))
    assert result.code == 2, result
    assert result.errors
    assert VALUE[:7] not in result.out + result.err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"source": {"format": "${ANY_NAME}"}}, ["source.format: '${ANY_NAME}' is not one of csv"]),
        ({"source": {"path": "/none/${ANY_NAME}"}}, ["nothing matches /none/${ANY_NAME}"]),
        ({"batching": {"max_rows": "${ANY_NAME}"}}, ["batching.max_rows", "not '${ANY_NAME}'"]),
        ({"model": {"signature": "${ANY_NAME}"}}, ["${ANY_NAME}"]),
        ({"model": {"type": "${ANY_NAME}"}}, ["model.type: '${ANY_NAME}' is not one of saved_model"]),
        ({"name": "x ${ANY_NAME}"}, ["name", "not 'x ${ANY_NAME}'"]),
    ],
)
@pytest.mark.parametrize("value", ["value-of-any-name", "h2?"])
def test_a_variable_is_named_in_place_of_its_value(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, words: list[str], value: str
) -> None:
    monkeypatch.setenv("ANY_NAME", value)
    result = command("check", "--config", config_of(tmp_path, place))
    assert result.code == 2, result
    # Three letters are not looked for in what the file system and the model say.
    if len(value) > 3 or not {"path", "signature"} & set(str(place).split("'")):
        assert value not in result.err
        assert all(word in result.err for word in words), result


def test_the_default_of_a_variable_is_no_secret(command: Command, tmp_path: Path) -> None:
    result = command("check", "--config", config_of(tmp_path, {"source": {"format": "${NO_SUCH_NAME:-cvs}"}}))
    assert result.code == 2, result
    assert "did you mean 'csv'" in result.err


@pytest.mark.parametrize("module", ["check", "batch"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", f"model.headers.Authorization: Bearer {VALUE}"],
        ["--set", f"model.headers.Authorization: Bearer {VALUE}="],
        ["--set", f"model.headers.Authorization Bearer {VALUE}=="],
        ["--set", "model.headers.Authorization=Bearer", VALUE],
        ["--set", f"source.path.password={VALUE}"],
        ["--set", f"source.security={VALUE}"],
        ["--set", f'model={{"type": "endpoint", "headers": {{"x": "{VALUE}"}}'],
        ["--set", f"model.headers={VALUE}"],
        [f"--sett=model.headers.Authorization={VALUE}"],
    ],
)
def test_a_malformed_option(command: Command, tmp_path: Path, module: str, arguments: list[str]) -> None:
    result = command(module, "--config", config_of(tmp_path), *arguments)
    assert result.code == 2, result
    assert VALUE[:7] not in result.out + result.err


def echo(status: int, form: str) -> Any:
    """Repeats the path, or the password of the credentials, in a message."""

    def answer(seen: Seen) -> Answer:
        coded = seen.headers.get("authorization", "Basic ").partition(" ")[2]
        password = base64.b64decode(coded).decode().partition(":")[2]
        said = {
            "path": f"no handler for POST {seen.path}",
            "path, quoted": f"no handler for {urllib.parse.quote(seen.path, safe='')}",
            "credentials": f"Authorization: Basic {coded}",
            "password": f"wrong password {password}",
        }[form]
        return status, json.dumps({"error": said}).encode()

    return answer


@pytest.mark.parametrize("form", ["path", "path, quoted", "credentials", "password"])
@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_server_that_repeats_what_it_got(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, form: str
) -> None:
    caplog.set_level(logging.INFO)
    key = "k3y/with+signs="
    headers = {"Authorization": f"Basic {base64.b64encode(f'me:{VALUE}'.encode()).decode()}"}
    with stand_in(echo(status, form)) as server:
        url = f"{server.url}/v1/models/m:predict?key={urllib.parse.quote(key, safe='')}&alt=json"
        result = command("batch", "--json", "--config", config_of(tmp_path, endpoint(url, headers=headers)))
    dead_letters = books_of(tmp_path).dead_letters
    assert len(dead_letters) == (0 if status == 401 else 3)
    text = "\n".join([result.out, result.err, caplog.text, *(str(dead_letter) for dead_letter in dead_letters)])
    for secret in (key, urllib.parse.quote(key, safe=""), VALUE, headers["Authorization"][6:], "alt=json"):
        assert secret not in text
    assert "***" in text


def test_a_key_in_the_path_of_an_address(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY", "gw-7fa31b")
    with stand_in(lambda seen: (400, f'{{"error": "at {seen.path}"}}'.encode())) as server:
        config = config_of(tmp_path, endpoint(f"{server.url}/${{GATEWAY}}"))
        results = [command(module, "--json", "--config", config) for module in ("check", "batch")]
        assert {seen.path.split("/")[1] for seen in server.seen} == {"gw-7fa31b"}
    dead_letters = books_of(tmp_path).dead_letters
    assert len(dead_letters) == 3
    assert "gw-7fa31b" not in "".join(str(each) for each in [*results, *dead_letters])
    assert json.loads(results[0].out)["model"].endswith("/***/default")


@pytest.mark.parametrize(
    ("model", "warns"),
    [
        (endpoint("http://models.example.com:8501", headers={"X-Key": VALUE}), True),
        (endpoint("http://models.example.com:8501/v1/models/m:predict?key=abc"), True),
        (endpoint("models.example.com:8500", protocol="tf_serving_grpc", headers={"X-Key": VALUE}), True),
        (endpoint("https://models.example.com", headers={"X-Key": VALUE}), False),
        (endpoint("grpcs://models.example.com:1", protocol="tf_serving_grpc", headers={"X-Key": VALUE}), False),
        (endpoint("http://models.example.com:8501"), False),
        (endpoint("http://127.0.0.1:8501", headers={"X-Key": VALUE}), False),
        (endpoint("http://[::1]:8501", headers={"X-Key": VALUE}), False),
    ],
)
def test_credentials_that_travel_in_the_clear_are_warned_of(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], warns: bool
) -> None:
    monkeypatch.setattr("pipelines.planning.model._unreachable", lambda found: [])
    config = config_of(tmp_path, model)
    results = [
        command("check", "--config", config),
        command("check", "--json", "--config", config),
        command("batch", "--dry_run", "--config", config),
    ]
    for result in results:
        assert result.code == 0, result
        assert (result.out + result.err).count("can be read by others on the way") == warns
        assert VALUE not in result.out + result.err


def test_a_password_for_kafka_that_travels_in_the_clear_is_warned_of() -> None:
    login = {"username": "me", "password": VALUE}
    assert KafkaSecurity(protocol="sasl_plaintext", **login).exposes("localhost:9092,kafka.example.com:9092")
    assert not KafkaSecurity(protocol="sasl_plaintext", **login).exposes("localhost:9092,[::1]:9092")
    assert not KafkaSecurity(protocol="sasl_ssl", **login).exposes("kafka.example.com:9092")


def test_what_is_learnt_by_a_worker_is_masked_there() -> None:
    Cluster("h:1", KafkaSecurity(protocol="sasl_plaintext", username="me", password="pw-of-worker")).settings()
    error = RunFailedError("refused: pw-of-worker", "Traceback: pw-of-worker")
    assert (str(error), error.details) == ("refused: ***", "Traceback: ***")
    assert ConfigError(["no pw-of-worker"]).problems == ["no ***"]


def test_a_traceback_and_a_log_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "tok-in-traceback")
    load(config_of(tmp_path, {"source": {"null_values": ["${SOME_TOKEN}"]}}))

    def fails() -> int:
        raise RuntimeError("no tok-in-traceback")

    assert command.guarded(fails) == 1
    assert "RuntimeError: no ***" in capsys.readouterr().err
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "not %s", ("tok-in-traceback",), None)
    assert quiet._without_secrets(record)
    assert record.getMessage() == "not ***"


def test_good_runs_are_as_before(command: Command, tmp_path: Path) -> None:
    with stand_in(sevens) as server:
        result = command("batch", "--json", "--config", config_of(tmp_path, endpoint(server.url)))
    assert result.code == 0, result
    assert result.summary["rows_written"] == 3


def test_names_of_columns_are_no_secrets() -> None:
    """Keys that identify rows, and inputs of a model that are called like secrets."""
    config = {
        "source": {"key": "row_number", "columns": {"tokens": "words_of_text"}, "defaults": {"password": "unknown"}},
        "output": {"ordering_key": "colour", "row_key": "births#{row_number}"},
        "model": {"headers": {"X": "hidden-value"}},
    }
    problems: list[str] = []
    assert environment.filled(config, problems) == config
    assert problems == []
    assert environment.hidden("row_number words_of_text unknown colour hidden-value") == (
        "row_number words_of_text unknown colour ***"
    )
