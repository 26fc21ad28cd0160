"""A batch prediction job in place of the model in the workers: the same rows, the same dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.commands import ROOT, Command, Result
from tests.support.job_server import VERTEX, JobServer, config_of, job_server
from tests.support.ledger import KEY, MODEL, Books, births, books_of, shards, write_config, write_rows


def run(command: Command, config: str, *arguments: str, code: int = 0) -> Result:
    result = command("batch", "--config", config, "--json", *arguments)
    assert result.code == code, result
    return result


def facts(books: Books) -> list[tuple[Any, ...]]:
    """Dead letters, but for what names the model and the class of its error."""
    return sorted((d["key"], d["payload"], d["stage"], d["attempts"], d["source"]) for d in books.dead_letters)


def lines_of(folder: Path) -> list[bytes]:
    """The lines of the output, sorted; the header of CSV once, however many shards have it."""
    found = [line for path in shards(folder / "out" / "p") for line in path.read_bytes().splitlines()]
    headers = [line for line in found if line.startswith(b"source_id,") or line == b"key,predictions"]
    return sorted([*(line for line in found if line not in headers), *headers[:1]])


@pytest.mark.parametrize("service", ["vertex", "ai_platform"])
def test_only_the_model_of_the_config_changes(
    command: Command, tmp_path: Path, keyed_model: str, service: str, small_pieces: Callable[[int, int], None]
) -> None:
    small_pieces(20_000, 9_000)
    rows = births(800, 5)
    encoded = [ledger.csv_row(row) for row in rows]
    encoded[100:100] = [b"x1,True", b"x3,True,White,True,True,True,thirty,1,40,n"]
    encoded[400:400] = [ledger.csv_row({**row, KEY: f"m{row[KEY]}", "is_male": None}) for row in rows[10:700:230]]
    path = tmp_path / "births.csv"
    path.write_bytes(ledger.lines(encoded, ledger.HEADER))
    output = {"columns": [KEY, "mother_age", "predictions"]}
    run(command, write_config(tmp_path, "csv", str(path), output=output))
    direct, direct_letters = lines_of(tmp_path), facts(books_of(tmp_path))
    assert {dead_letter[2] for dead_letter in direct_letters} == {"decode", "coerce"}

    keyed = service == "ai_platform"
    with job_server(tmp_path, keyed_model if keyed else MODEL) as server:
        model = server.model(tmp_path, service, **({"signature_from": keyed_model} if keyed else {}))
        summary = run(command, config_of(tmp_path, path, model, output=output)).summary
        [job] = server.jobs(service)
    counts = (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"])
    assert counts == (800 + len(direct_letters), 800, len(direct_letters))
    assert lines_of(tmp_path) == direct
    assert facts(books_of(tmp_path)) == direct_letters
    told = summary["batch_job"]
    assert told["succeeded"] == 800
    assert told["state"].endswith("SUCCEEDED")
    assert told["cost"] >= 0
    assert list(told["steps_s"]) == ["prepare", "submit", "wait", "join"]
    assert job["labels"]["run"] == "births"


@pytest.mark.parametrize("format", ledger.FORMATS_IN)
def test_rows_that_the_model_refuses_are_kept_as_they_came(
    command: Command, tmp_path: Path, strict_model: str, format: str
) -> None:
    """Whatever the format, the original bytes are in the dead letter, as with the model in the workers."""
    rows = births(400, 6)
    for row in rows[7::101]:
        row["mother_age"] = -1.0
    file = write_rows(tmp_path / f"in.{format}", format, rows)
    settings: dict[str, Any] = {"source": {"defaults": {}}, "output": {"columns": [KEY, "note", "predictions"]}}
    run(command, write_config(tmp_path, format, str(file), model={"path": strict_model}, **settings))
    direct, direct_letters = lines_of(tmp_path), facts(books_of(tmp_path))
    assert len(direct_letters) == 4
    with job_server(tmp_path, strict_model, errors="inline") as server:
        model = server.model(tmp_path, signature_from=strict_model)
        run(command, config_of(tmp_path, file, model, format, **settings))
    assert lines_of(tmp_path) == direct
    books = books_of(tmp_path)
    assert facts(books) == direct_letters
    for dead_letter in books.dead_letters:
        assert dead_letter["error"] == "INVALID_ARGUMENT"
        assert "a negative age" in dead_letter["message"]
        assert dead_letter["model"] == f"{VERTEX}/models/default"


@pytest.mark.parametrize("output", ["json", "parquet", "avro", "tfrecord"])
def test_every_output_format(command: Command, tmp_path: Path, server: JobServer, output: str) -> None:
    rows = births(60, 7)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    run(command, config_of(tmp_path, file, server.model(tmp_path), output={"format": output}))
    found = books_of(tmp_path)
    assert found.keys == {row[KEY]: 1 for row in rows}
    ledger.assert_predictions(found, rows)


def test_rows_without_a_key_column(command: Command, tmp_path: Path, server: JobServer) -> None:
    """Instances have keys of their own: rows need none, and may be repeated."""
    rows = births(30, 8) * 2
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = config_of(tmp_path, file, server.model(tmp_path), source={"key": None})
    run(command, config)
    direct = write_config(tmp_path, "csv", str(file), source={"key": None})
    found = lines_of(tmp_path)
    run(command, direct)
    assert lines_of(tmp_path) == found
    assert len(found) == 61


def test_several_outputs_texts_and_lists(command: Command, tmp_path: Path, outputs_model: str) -> None:
    rows = [json.dumps({"x": number, "s": f'"{number}",\n é'}) for number in range(200)]
    (tmp_path / "in.json").write_text("\n".join(rows) + "\n")
    source = {"key": None, "defaults": {}}
    output = {"format": "json"}
    direct = write_config(
        tmp_path, "json", str(tmp_path / "in.json"), source=source, output=output, model={"path": outputs_model}
    )
    run(command, direct)
    expected = lines_of(tmp_path)
    with job_server(tmp_path, outputs_model) as server:
        model = server.model(tmp_path, signature_from=outputs_model)
        run(command, config_of(tmp_path, tmp_path / "in.json", model, "json", source=source, output=output))
    assert lines_of(tmp_path) == expected
    assert len(expected) == 200


@pytest.fixture(scope="session")
def outputs_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with outputs of several kinds."""
    import tensorflow as tf

    from tests.support.commands import save

    class Several(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "x"), tf.TensorSpec([None], tf.string, "s")])
        def __call__(self, x: Any, s: Any) -> dict[str, Any]:
            numbers = tf.cast(x, tf.float32)
            return {
                "text": tf.strings.join([s, s]),
                "pair": tf.stack([numbers, numbers / 3], axis=1),
                "whole": x * 2**20,
                "even": tf.equal(x % 2, 0),
                "odd": tf.math.divide(numbers, tf.cast(x % 50, tf.float32)),
            }

    return save(Several(), tmp_path_factory.mktemp("several"))


def test_a_source_without_rows_needs_no_job(command: Command, tmp_path: Path, server: JobServer) -> None:
    (tmp_path / "in.csv").write_bytes(ledger.HEADER + b"\n")
    result = run(command, config_of(tmp_path, tmp_path / "in.csv", server.model(tmp_path)))
    assert result.summary["rows_read"] == 0
    assert server.jobs() == []
    [shard] = shards(tmp_path / "out" / "p")
    assert shard.read_text() == "source_id,predictions\n"


def test_the_packaged_config(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """configs/natality-job.json needs nothing but `make serve`."""
    monkeypatch.chdir(ROOT)
    given = json.loads((ROOT / "configs" / "natality-job.json").read_text())
    assert given["model"]["url"] == "http://127.0.0.1:8501"
    with job_server(tmp_path) as server:
        places = [f"--set=model.url={server.url}", f"--set=model.folder={tmp_path}/jobs"]
        places += [f"--set=output.path={tmp_path}/p", f"--set=dead_letters.path={tmp_path}/dead"]
        summary = run(command, "configs/natality-job.json", *places).summary
    assert (summary["rows_read"], summary["rows_written"]) == (1450, 1450)
    job = ledger.read_books(tmp_path / "p", tmp_path / "dead")
    run(command, "configs/natality.json", f"--set=output.path={tmp_path}/d", f"--set=dead_letters.path={tmp_path}/e")
    direct = ledger.read_books(tmp_path / "d", tmp_path / "e")
    assert job.predictions == direct.predictions
