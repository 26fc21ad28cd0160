"""Whole runs against a model server: the same rows and dead letters as with the model in the workers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.servers.faulty import HTTP_KINDS, Faults, faulty_http
from tests.servers.faulty_grpc import GRPC_KINDS, faulty_grpc
from tests.servers.stand_in import sevens, stand_in
from tests.support import ledger, processes
from tests.support.commands import ROOT, Command, Result
from tests.support.ledger import (
    DEFAULTS,
    KEY,
    MODEL,
    NUMBERS,
    TEXTS,
    Books,
    Row,
    assert_balanced,
    assert_predictions,
    births,
    books_of,
    shards,
    write_config,
    write_rows,
)
from tests.support.serving_process import Serving, serving

WAYS: dict[str, dict[str, Any]] = {
    "ai_platform": {"protocol": "ai_platform", "signature_from": MODEL},
    "vertex": {"protocol": "vertex", "signature_from": MODEL},
    "vertex raw": {"protocol": "vertex", "signature_from": MODEL, "body": "raw"},
    "tf_serving_rest": {"protocol": "tf_serving_rest"},
    "tf_serving_rest rows": {"protocol": "tf_serving_rest", "body": "rows"},
    "tf_serving_grpc": {"protocol": "tf_serving_grpc"},
    "kserve_v1": {"protocol": "kserve_v1", "signature_from": MODEL},
    "kserve_v2": {"protocol": "kserve_v2"},
    "kserve_v2 binary": {"protocol": "kserve_v2", "body": "binary"},
}
TELLING = ("tf_serving_rest", "tf_serving_grpc", "kserve_v2")
"""Protocols whose servers tell what the model takes."""


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(MODEL) as server:
        yield server


@pytest.fixture(scope="module")
def strict(strict_model: str) -> Iterator[Serving]:
    with serving(strict_model) as server:
        yield server


def endpoint(server: Serving, way: str = "tf_serving_rest", **settings: Any) -> dict[str, Any]:
    """The model of a config."""
    url = server.grpc if way == "tf_serving_grpc" else server.rest
    return {"type": "endpoint", "url": url, "timeout_s": 30, **WAYS[way], **settings}


def using(model: dict[str, Any]) -> str:
    """The argument that puts a model in the place of the config's."""
    return f"--set=model={json.dumps(model)}"


def run(command: Command, config: str, *arguments: str, module: str = "batch") -> Result:
    result = command(module, "--config", config, "--json", *arguments)
    assert result.code == 0, result
    return result


def lines_of(folder: Path) -> list[tuple[bytes, bytes]]:
    """The rows of the CSV files of a run: (all but the last column, the last one), sorted."""
    content = b"".join(path.read_bytes() for path in shards(folder / "out" / "p"))
    found = [line.rpartition(b",") for line in content.splitlines()]
    return sorted((row, last) for row, _, last in found)


def facts(books: Books) -> list[tuple[Any, ...]]:
    """Dead letters, but for the model, which differs."""
    names = ("key", "payload", "stage", "error", "message", "attempts", "source")
    return sorted(tuple(dead_letter[name] for name in names) for dead_letter in books.dead_letters)


# The same as without a server ---------------------------------------------------------------------------------------


def with_bad_rows(folder: Path) -> tuple[str, list[Row], list[str]]:
    """A file, its good rows, and the keys of those that cannot be decoded or miss a value."""
    rows = births(800, 5)
    for row in rows:
        row["note"] = "plain"
    missing = [{**row, "is_male": None} for row in rows[10:700:230]]
    broken = [b"x1,True", b'x2,"no end', b"x3,True,White,True,True,True,thirty,1,40,n"]
    good = [row for row in rows if row[KEY] not in {bad[KEY] for bad in missing}]
    encoded = [ledger.csv_row(row) for row in good]
    encoded[100:100] = broken[:1]
    encoded[300:300] = [ledger.csv_row(row) for row in missing]
    encoded[500:500] = broken[1:]
    path = folder / "births.csv"
    path.write_bytes(ledger.lines(encoded, ledger.HEADER))
    return str(path), good, [row[KEY] for row in missing]


@pytest.mark.parametrize("way", WAYS)
def test_only_the_model_of_the_config_changes(
    command: Command, tmp_path: Path, server: Serving, way: str, small_pieces: Callable[[int, int], None]
) -> None:
    small_pieces(20_000, 9_000)
    path, good, missing = with_bad_rows(tmp_path)
    columns = [KEY, "mother_age", "predictions", "model_version"]
    config = write_config(tmp_path, "csv", path, batching={"max_rows": 100}, output={"columns": columns})
    run(command, config)
    direct, direct_letters = lines_of(tmp_path), facts(books_of(tmp_path))
    assert len(direct_letters) == 6
    assert set(missing) < {dead_letter[0] for dead_letter in direct_letters}
    assert {dead_letter[2] for dead_letter in direct_letters} == {"decode", "coerce"}

    summary = run(command, config, using(endpoint(server, way))).summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (806 - 3, 797, 6)
    assert summary["ok"] is True
    found = lines_of(tmp_path)
    assert [row for row, _ in found] == [row for row, _ in direct]
    assert {last for _, last in direct} == {b"model_version", b"v1"}
    assert {last for _, last in found} == {b"model_version", b"1"}
    books = books_of(tmp_path)
    assert facts(books) == direct_letters
    assert len({dead_letter["model"] for dead_letter in books.dead_letters}) == 1
    assert_predictions(books, good)


@pytest.mark.parametrize("way", ["tf_serving_rest", "tf_serving_grpc", "kserve_v2"])
def test_rows_that_the_server_refuses(
    command: Command, tmp_path: Path, strict: Serving, strict_model: str, way: str
) -> None:
    rows = births(400, 6)
    bad = [{**row, "mother_age": -1.0} for row in rows[7::101]]
    good = [row for row in rows if row[KEY] not in {row[KEY] for row in bad}]
    file = write_rows(tmp_path / "in.csv", "csv", good[:200] + bad + good[200:])
    config = write_config(
        tmp_path,
        "csv",
        str(file),
        source={"defaults": {}},
        model={"path": strict_model},
        batching={"max_rows": 64},
        output={"columns": [KEY, "predictions"]},
    )
    run(command, config)
    direct, direct_books = lines_of(tmp_path), books_of(tmp_path)
    run(command, config, using(endpoint(strict, way)))
    name = f"{way}:{strict.grpc if way == 'tf_serving_grpc' else f'{strict.rest}/default'}"
    assert lines_of(tmp_path) == direct
    books = books_of(tmp_path)
    assert books.letter_keys == direct_books.letter_keys == Counter(row[KEY] for row in bad)
    payloads = {row[KEY]: ledger.csv_row(row) for row in bad}
    for dead_letter in books.dead_letters:
        assert dead_letter["payload"] == payloads[dead_letter["key"]]
        assert (dead_letter["stage"], dead_letter["error"], dead_letter["attempts"]) == (
            "predict",
            "RequestRefusedError",
            1,
        )
        assert "a negative age" in dead_letter["message"]
        assert dead_letter["model"].startswith(name)
    assert {(dead_letter["stage"], dead_letter["attempts"]) for dead_letter in direct_books.dead_letters} == {
        ("predict", 1)
    }


def test_a_server_that_was_down_then_a_replay(command: Command, tmp_path: Path, server: Serving) -> None:
    rows = births(120, 7)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), batching={"max_rows": 50}, dead_letters={"max_fraction": 0.01})
    Path(config).write_text(json.dumps({**json.loads(Path(config).read_text()), "model": endpoint(server)}))
    with faulty_http(server.rest, Faults(rate=1.0, kinds=("unavailable",))) as proxy:
        away = (f"--set=model.url={proxy.url}", "--set=model.max_attempts=2")
        for module, attempts, code in (("batch", 2, 3), ("replay", 4, 0)):
            result = command(module, "--config", config, "--json", *away)
            assert result.code == code, result
            assert ["max_fraction" in line for line in result.errors] == [True] * (code == 3)
            assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (0, 120)
            books = books_of(tmp_path)
            assert books.output == []
            assert books.letter_keys == Counter(row[KEY] for row in rows)
            found = {(s["stage"], s["error"], s["message"], s["attempts"], s["model"]) for s in books.dead_letters}
            name = f"tf_serving_rest:{proxy.url}/default"
            assert found == {("predict", "TransientError", "503: no healthy upstream", attempts, name)}
        assert proxy.log["passed"] == 0
    summary = run(command, config, module="replay").summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (120, 120, 0)
    assert_balanced(books_of(tmp_path), rows, {})
    assert shards(tmp_path / "out" / "dead") == []


def test_the_packaged_config(
    command: Command, tmp_path: Path, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """configs/natality-endpoint.json needs nothing but a server."""
    monkeypatch.chdir(ROOT)
    given = json.loads((ROOT / "configs" / "natality-endpoint.json").read_text())
    direct = json.loads((ROOT / "configs" / "natality.json").read_text())
    assert given["model"]["url"] == "http://127.0.0.1:8501"
    assert given["source"] == direct["source"]
    found = {}
    for name, more in (("natality-endpoint", [f"--set=model.url={server.rest}"]), ("natality", [])):
        to = [f"--set=output.path={tmp_path}/{name}", f"--set=dead_letters.path={tmp_path}/{name}-dead"]
        summary = run(command, f"configs/{name}.json", *to, *more).summary
        assert (summary["rows_read"], summary["rows_written"]) == (1450, 1450)
        found[name] = ledger.read_books(tmp_path / name, tmp_path / "dead")
    assert found["natality-endpoint"].keys == found["natality"].keys
    assert found["natality-endpoint"].predictions == found["natality"].predictions
    assert {row["model_version"] for row in found["natality-endpoint"].output} == {"1"}


# What is written, and what is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_model_version_as_a_column(command: Command, tmp_path: Path, server: Serving, format: str) -> None:
    rows = births(50, 8)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), format, output={"columns": ["model_version", KEY, "predictions"]})
    asked = [endpoint(server), endpoint(server, version=1), endpoint(server, "kserve_v2")]
    for arguments, version in ([], "v1"), *(([using(model)], "1") for model in asked):
        run(command, config, *arguments)
        books = books_of(tmp_path)
        assert [list(row) for row in books.output] == [["model_version", KEY, "predictions"]] * 50
        assert {row["model_version"] for row in books.output} == {version}
        assert_balanced(books, rows, {})
    if format == "parquet":
        [shard] = shards(tmp_path / "out" / "p")
        assert str(pq.read_schema(shard).field("model_version").type) in ("string", "large_string")


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_server_that_does_not_tell_its_version(command: Command, tmp_path: Path, format: str) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(5, 8))
    config = write_config(tmp_path, "csv", str(file), format, output={"columns": [KEY, "predictions", "model_version"]})
    with stand_in(sevens) as server:
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": MODEL}
        run(command, config, using(model))
    rows = books_of(tmp_path).output
    assert [(float(row["predictions"]), row["model_version"] or None) for row in rows] == [(7.5, None)] * 5


OBJECTS: dict[str, Any] = {
    **dict.fromkeys(TEXTS, "string"),
    **{name: {"dtype": "float32", "shape": [-1]} for name in NUMBERS},
}
DECLARED: dict[str, dict[str, Any]] = {
    "objects": {"inputs": OBJECTS},
    "objects and outputs": {"inputs": OBJECTS, "outputs": {"predictions": {"dtype": "float32", "shape": [-1, 1]}}},
    "lists": {
        "inputs": [
            *({"name": name, "dtype": "string"} for name in TEXTS),
            *({"name": name, "dtype": "float32", "shape": []} for name in NUMBERS),
        ],
        "outputs": [{"name": "predictions", "dtype": "float32"}],
    },
}


@pytest.mark.parametrize("how", DECLARED)
@pytest.mark.parametrize("way", ["tf_serving_rest", "kserve_v1", "kserve_v2 binary"])
def test_inputs_that_a_person_wrote_down(command: Command, tmp_path: Path, server: Serving, way: str, how: str) -> None:
    rows = births(60, 9)
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", rows)))
    model = {name: value for name, value in endpoint(server, way).items() if name != "signature_from"}
    run(command, config, using({**model, **DECLARED[how]}))
    assert_balanced(books_of(tmp_path), rows, {})


@pytest.mark.parametrize("way", [*TELLING, "vertex"])
def test_check_shows_the_endpoint(command: Command, tmp_path: Path, server: Serving, way: str) -> None:
    """Asked or told by the SavedModel, it is the same."""
    file = write_rows(tmp_path / "in.csv", "csv", births(5, 1))
    config = write_config(tmp_path, "csv", str(file), source={"columns": {"mother_race": "note"}})
    url = server.grpc if way == "tf_serving_grpc" else server.rest
    direct = command("check", "--config", config, "--json").summary
    for more in ({"signature_from": MODEL}, {}) if way in TELLING else ({"signature_from": MODEL},):
        model = using(endpoint(server, way, **more))
        result = command("check", "--config", config, model)
        assert result.code == 0, result
        assert result.err == ""
        assert f"model    {way}:{url}" in result.out
        assert ", signature serving_default\n" in result.out
        assert "note" in next(line for line in result.out.splitlines() if "mother_race" in line)
        found = command("check", "--config", config, model, "--json").summary
        assert found["model"].startswith(f"{way}:{url}")
        assert {**found, "model": "", "runtime": None} == {**direct, "model": "", "runtime": None}
    assert not (tmp_path / "out").exists()


def test_check_answers_soon_and_without_tensorflow(tmp_path: Path, server: Serving) -> None:
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", births(5, 1))))
    code = (
        "import json, sys\n"
        "from pipelines import check\n"
        "for model in map(json.loads, sys.argv[2:]):\n"
        "    assert check.main(['--config', sys.argv[1], '--set=model=' + json.dumps(model)]) == 0\n"
        "large = {'tensorflow', 'apache_beam', 'tfx_bsl', 'keras', 'grpc'} & set(sys.modules)\n"
        "assert not large, large\n"
    )
    models = [endpoint(server), endpoint(server, signature_from=MODEL), endpoint(server, "kserve_v2")]
    models.append(endpoint(server, "tf_serving_grpc", signature_from=MODEL))
    done = processes.run(
        [sys.executable, "-c", code, config, *map(json.dumps, models)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mother_age") >= 4


# Dataflow -----------------------------------------------------------------------------------------------------------

DATAFLOW = ["--runner", "DataflowRunner", "--project", "test-project", "--region", "us-central1"]
DATAFLOW += ["--temp_location", "gs://bucket/tmp"]
ELSEWHERE: dict[str, dict[str, Any]] = {
    "tf_serving_rest": {"protocol": "tf_serving_rest", "url": "https://models.example.com"},
    "tf_serving_grpc": {"protocol": "tf_serving_grpc", "url": "grpcs://models.example.com:443"},
    "vertex": {"protocol": "vertex", "resource": "projects/p/locations/us-central1/endpoints/e"},
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_dataflow_job_with_an_endpoint(command: Command, tmp_path: Path, what: str) -> None:
    """It is built without a connection, and without credentials."""
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", births(5, 1))))
    model = {"type": "endpoint", "signature_from": MODEL, **ELSEWHERE[what]}
    result = command("batch", "--config", config, using(model), *DATAFLOW, "--dry_run")
    assert result.code == 0, result
    assert "nothing was started" in result.out
    assert result.err.count("warning: ") == 3
    assert "model" not in "".join(line for line in result.err.splitlines() if "warning: " in line)


@pytest.mark.parametrize("way", ["tf_serving_rest", "tf_serving_grpc"])
def test_dataflow_cannot_reach_this_machine(command: Command, tmp_path: Path, server: Serving, way: str) -> None:
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", births(5, 1))))
    result = command("batch", "--config", config, using(endpoint(server, way)), *DATAFLOW)
    assert result.code == 2, result
    assert len(result.errors) == 4
    [line] = [line for line in result.errors if "model.url" in line]
    assert "127.0.0.1 is this machine" in line
    dry = command("batch", "--config", config, using(endpoint(server, way)), *DATAFLOW, "--dry_run")
    assert dry.code == 0, dry
    assert "warning: model.url" in dry.err


# Much, little, and one at a time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["tf_serving_rest", "tf_serving_grpc"])
def test_a_large_file_and_a_server_that_fails_in_every_way(
    command: Command, tmp_path: Path, server: Serving, way: str, small_pieces: Callable[[int, int], None]
) -> None:
    small_pieces(60_000, 8_000)
    rows = births(60_000 if way == "tf_serving_rest" else 20_000, 10)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), batching={"max_rows": 100})
    faults = Faults(seed=3, rate=0.05 if way == "tf_serving_rest" else 0.1, stall_seconds=1.0)
    remote = way == "tf_serving_grpc"
    with faulty_grpc(server.grpc, faults) if remote else faulty_http(server.rest, faults) as proxy:
        model = endpoint(server, way, url=proxy.url, max_in_flight=8, timeout_s=0.5, max_attempts=30)
        summary = run(command, config, using(model)).summary
    assert set(GRPC_KINDS if remote else HTTP_KINDS) <= set(proxy.log), proxy.log
    assert proxy.requests > len(rows) / 100
    assert proxy.most_at_once <= 8 + proxy.log["stall"]
    assert (summary["rows_read"], summary["rows_written"]) == (len(rows), len(rows))
    assert_balanced(books_of(tmp_path), rows, {})


@pytest.mark.parametrize(("max_rows", "requests"), [(1, 200), (20, 10)])
def test_requests_have_as_many_rows_as_allowed(
    command: Command, tmp_path: Path, server: Serving, max_rows: int, requests: int
) -> None:
    rows = births(200, 11)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), batching={"max_rows": max_rows})
    with faulty_http(server.rest, Faults(rate=0.0)) as proxy:
        run(command, config, using(endpoint(server, url=proxy.url, max_in_flight=4)))
    assert proxy.requests == requests
    assert proxy.most_at_once <= 4
    assert_balanced(books_of(tmp_path), rows, {})


def test_a_source_without_rows(command: Command, tmp_path: Path) -> None:
    """Nothing is asked."""
    (tmp_path / "in.csv").write_bytes(ledger.HEADER + b"\n")
    config = write_config(tmp_path, "csv", str(tmp_path / "in.csv"), source={"defaults": DEFAULTS})
    with stand_in(sevens) as server:
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": MODEL}
        summary = run(command, config, using(model)).summary
        assert server.seen == []
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (0, 0, 0)
    [shard] = shards(tmp_path / "out" / "p")
    assert shard.read_text() == "source_id,predictions\n"
