"""Configs that init writes for tables of BigQuery, against an emulator: each passes check, and runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.bigquery_storage_v1 import types

from pipelines.connectors.bigquery import source_connector, tables
from tests.servers.bigquery_emulator import DATASET, PROJECT, Emulator, bigquery_emulator
from tests.servers.grpc_proxy import LostError, Proxy, proxy_to
from tests.servers.rest_proxy import RestProxy, refusal, rest_proxy_to
from tests.support import ledger, outputs_model
from tests.support.commands import Command, save

BIRTHS = f"{DATASET}.births"
COLUMNS = "source_id STRING, is_male STRING, mother_race STRING, plurality FLOAT64, gestation_weeks FLOAT64, \
mother_married STRING, cigarette_use STRING, alcohol_use STRING"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigquery_emulator() as made:
        with made.client() as client:
            client.query(f"CREATE TABLE `{BIRTHS}` ({COLUMNS}, mother STRUCT<age FLOAT64, born DATE>)").result()
            values = ", ".join(
                f"('s{n}', 'true', 'White', 1, 39, 'true', 'false', 'false', STRUCT({20 + n}, DATE '1980-01-02'))"
                for n in range(30)
            )
            client.query(f"INSERT `{BIRTHS}` VALUES {values}").result()
            client.query(f"CREATE VIEW `{BIRTHS}_view` AS SELECT * FROM `{BIRTHS}`").result()
            client.query(f"CREATE TABLE `{BIRTHS}_none` AS SELECT * FROM `{BIRTHS}` WHERE false").result()
        yield made


@pytest.fixture
def grpc_proxy(emulator: Emulator) -> Iterator[Proxy]:
    with proxy_to(emulator.grpc) as proxy:
        proxy.on_request = whole_structs
        yield proxy


@pytest.fixture
def rest(emulator: Emulator, grpc_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RestProxy]:
    """The commands run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    with rest_proxy_to(emulator.rest) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.host)
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", grpc_proxy.host)
        yield proxy


def whole_structs(method: str, request: bytes) -> bytes:
    """Asks for structs where fields of them are asked for: BigQuery knows those, the emulator does not."""
    if not method.endswith("CreateReadSession"):
        return request
    asked = types.CreateReadSessionRequest.deserialize(request)
    options = asked.read_session.read_options
    options.selected_fields = list(dict.fromkeys(name.partition(".")[0] for name in options.selected_fields))
    return bytes(types.CreateReadSessionRequest.serialize(asked))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Takes mother_age and plurality."""
    return str(outputs_model.make(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def vector_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Takes three features."""
    import tensorflow as tf

    class Sum(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "features")])
        def __call__(self, features: Any) -> dict[str, Any]:
            return {"total": tf.reduce_sum(features, axis=1)}

    return save(Sum(), tmp_path_factory.mktemp("vector"))


def make(emulator: Emulator, table: str, columns: str, *rows: str) -> str:
    """Makes a table of the dataset; returns what init takes for it."""
    with emulator.client() as client:
        client.query(f"CREATE TABLE `{DATASET}.{table}` ({columns})").result()
        if rows:
            client.query(f"INSERT `{DATASET}.{table}` VALUES {', '.join(rows)}").result()
    return f"bigquery:{DATASET}.{table}"


def written(command: Command, model: str, source: str, *arguments: str) -> dict[str, Any]:
    """Returns the config that init writes to mine.json, which passes check."""
    result = command("init", "--model", model, "--source", source, "--output", "mine.json")
    assert result.code == 0, result
    result = command("check", "--config", "mine.json", *arguments)
    assert result.code == 0, result
    config: dict[str, Any] = json.loads(Path("mine.json").read_text())
    return config


@pytest.mark.parametrize("kind", ["", "_view"])
def test_a_table_and_a_view_to_predictions(command: Command, rest: RestProxy, kind: str) -> None:
    """Fields of structs have dotted names. The emulator keeps results of queries only where it is told to."""
    more, named = (["--set", f"source.temporary_dataset={DATASET}"], "-view") if kind else ([], "")
    config = written(command, ledger.MODEL, f"bigquery:{BIRTHS}{kind}", *more)
    assert config["source"] == {
        "type": "bigquery",
        "table": BIRTHS + kind,
        "key": "source_id",
        "columns": {"mother_age": "mother.age"},
    }
    assert config["output"] == {"type": "file", "format": "json", "path": f"out/trained-births-births{named}"}
    assert config["dead_letters"]["path"] == f"{config['output']['path']}-dead_letters"
    result = command("batch", "--config", "mine.json", "--json", *more)
    assert result.code == 0, result
    assert result.summary["rows_written"] == 30
    rows = [row for path in ledger.shards(config["output"]["path"]) for row in ledger.read_shard(path)]
    assert Counter(row["source_id"] for row in rows) == Counter(f"s{n}" for n in range(30))


@pytest.mark.parametrize("kind", ["_none", "_view"])
def test_what_no_row_was_seen_of_is_said(command: Command, rest: RestProxy, kind: str) -> None:
    """The rows of a view would cost what its query costs: none is read."""
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}{kind}")
    assert result.code == 0, result
    assert result.summary["source"]["columns"] == {"mother_age": "mother.age"}
    assert result.summary["source"]["key"] == "source_id"
    assert "no row was looked at" in result.err
    bodies = [json.loads(body) for method, path, body in rest.seen if method == "POST" and "/jobs" in path]
    assert all(body["configuration"]["dryRun"] for body in bodies)
    assert bool(bodies) == (kind == "_view")


def test_a_table_without_rows_runs(command: Command, rest: RestProxy) -> None:
    written(command, ledger.MODEL, f"bigquery:{BIRTHS}_none")
    result = command("batch", "--config", "mine.json", "--json")
    assert result.code == 0, result
    assert (result.summary["rows_read"], result.summary["rows_written"]) == (0, 0)


def test_rows_that_no_column_identifies_are_written_whole(
    command: Command, emulator: Emulator, rest: RestProxy, small_model: str
) -> None:
    """A column that is named like a key has a value twice."""
    source = make(emulator, "whole", "row_id INT64, mother_age INT64, plurality INT64", "(1, 30, 1)", "(1, 31, 2)")
    config = written(command, small_model, source)
    assert "key" not in config["source"]
    assert config["output"]["columns"] == ["*"]
    assert command("batch", "--config", "mine.json").code == 0
    [path] = ledger.shards(config["output"]["path"])
    assert sorted((row["row_id"], row["mother_age"]) for row in ledger.read_shard(path)) == [(1, 30), (1, 31)]


def test_columns_that_cannot_be_read_are_left_out(
    command: Command, emulator: Emulator, rest: RestProxy, small_model: str
) -> None:
    """Nor do those of other types hinder: keys are places of rows then."""
    columns = "mother_age NUMERIC, plurality INT64, born TIMESTAMP, children ARRAY<STRUCT<age INT64>>"
    source = make(emulator, "odd", columns, "(NUMERIC '30.5', 1, TIMESTAMP '2020-01-02 03:04:05+00', [STRUCT(1)])")
    result = command("init", "--model", small_model, "--source", source)
    assert result.code == 0, result
    assert "columns of types that cannot be read are left out: children (" in result.err
    assert "keys are <table>/<piece>:<row>" in result.err
    config = written(command, small_model, source)
    assert "columns" not in config["output"]
    result = command("batch", "--config", "mine.json", "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 1


VECTORS = {
    "columns": ("note STRING, a FLOAT64, b INT64, c NUMERIC, d DATE", ["a", "b", "c"]),
    "a list": ("note STRING, a FLOAT64, numbers ARRAY<FLOAT64>, texts ARRAY<DATE>", "numbers"),
}


@pytest.mark.parametrize("kind", ["", "_view"])
@pytest.mark.parametrize("what", VECTORS)
def test_a_vector_of_a_table_without_rows_and_of_a_view(
    command: Command, emulator: Emulator, rest: RestProxy, vector_model: str, what: str, kind: str
) -> None:
    """Of columns whose types are those of numbers, or of the one with lists of them."""
    columns, expected = VECTORS[what]
    table = f"vector_{list(VECTORS).index(what)}{kind}_table"
    source = make(emulator, table, columns)
    if kind:
        with emulator.client() as client:
            client.query(f"CREATE VIEW `{DATASET}.{table}_view` AS SELECT * FROM `{DATASET}.{table}`").result()
        source += "_view"
    config = written(command, vector_model, source)
    assert config["source"]["columns"] == {"features": expected}


MISFITS = {
    "no column": ("id STRING, weeks INT64", ["no column for input 'mother_age'", "no column for input 'plurality'"]),
    "a type that is no input": (
        "mother_age TIMESTAMP, plurality INT64", ["mother_age"],
    ),
    "left out": (
        "mother_age ARRAY<STRUCT<a INT64>>, plurality INT64",
        ["left out: mother_age", "no column for input 'mother_age'"],
    ),
    "a near name": ("age_of_mother_age INT64, plurality INT64", ["the closest is 'age_of_mother_age' (int64)"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_columns_that_do_not_fit_the_model(
    command: Command, emulator: Emulator, rest: RestProxy, small_model: str, what: str
) -> None:
    columns, wanted = MISFITS[what]
    source = make(emulator, f"misfit_{list(MISFITS).index(what)}", columns)
    result = command("init", "--model", small_model, "--source", source, "--output", "mine.json")
    assert result.code == 2, result
    assert [words for words in wanted if words not in result.err] == []
    assert "nothing was written" in result.errors[-1]
    assert not Path("mine.json").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"{PROJECT}.nowhere.t", ["there is no dataset test-project.nowhere"]),
        (f"{DATASET}.nothing", [f"there is no table {DATASET}.nothing"]),
        ("births", ["'bigquery:births' names no table", "bigquery:<project>.<dataset>.<table>"]),
    ],
)
def test_what_is_not_there_is_one_line(command: Command, rest: RestProxy, source: str, words: list[str]) -> None:
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{source}")
    assert result.code == 2, result
    [line] = result.errors
    assert line.startswith("error: --source: ")
    assert [word for word in words if word not in line] == []


def test_a_format_is_for_files(command: Command, rest: RestProxy) -> None:
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}", "--format", "csv")
    assert result.code == 2
    assert result.errors == ["error: --format: is for files; a table's columns have their types: remove it"]


def test_who_may_not_read_is_told(command: Command, rest: RestProxy) -> None:
    rest.refuse = lambda method, path, body: refusal(403, "accessDenied", "no bigquery.tables.get")
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}")
    assert result.code == 2, result
    [line] = result.errors
    assert line.startswith("error: --source: ")
    assert "refuses these credentials" in line
    assert "no bigquery.tables.get" in line


@pytest.mark.parametrize("method", ["CreateReadSession", "ReadRows"])
def test_who_may_describe_a_table_and_not_read_it_is_told(
    command: Command, rest: RestProxy, grpc_proxy: Proxy, method: str
) -> None:
    def refuse(called: str, answer: bytes) -> bytes:
        if called.endswith(method):
            raise LostError(grpc.StatusCode.PERMISSION_DENIED, "no bigquery.tables.getData")
        return answer

    grpc_proxy.on_answer = refuse
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}")
    assert result.code == 2, result
    [line] = result.errors
    assert line.startswith("error: --source: ")
    assert "no bigquery.tables.getData" in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DefaultCredentialsError("none"), "no Google credentials: none"),
        (OSError("Project was not passed and could not be determined"), "GOOGLE_CLOUD_PROJECT"),
    ],
)
def test_without_credentials_or_a_project_one_line_says_so(
    command: Command, rest: RestProxy, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(project: str | None) -> Any:
        raise error

    monkeypatch.setattr(tables, "make_client", fail)
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}")
    assert result.code == 2, result
    [line] = result.errors
    assert line.startswith("error: --source: ")
    assert said in line


def test_one_emulator_alone_is_refused(command: Command, rest: RestProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(source_connector.GRPC_EMULATOR)
    result = command("init", "--model", ledger.MODEL, "--source", f"bigquery:{BIRTHS}")
    assert result.code == 2
    assert "belong together" in result.errors[0]
