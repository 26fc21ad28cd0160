"""Sources in BigQuery, against an emulator: a table, a view and a query come out as the same rows of a file do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.config.bigquery import BigQuerySource
from pipelines.connectors.bigquery.source import OpenSession, ReadStream, StreamPiece
from tests.servers.bigquery_emulator import DATASET, Emulator, bigquery_emulator
from tests.support.commands import ROOT, Command
from tests.support.job_server import job_server

BIRTHS = f"{DATASET}.all_births"
EVERY_TYPE = f"{DATASET}.every_type"
SOURCE = {
    "key": "source_id",
    "defaults": {"alcohol_use": "Unknown", "cigarette_use": "Unknown", "gestation_weeks": "NaN"},
}
FILE = ROOT / "data" / "births-nc-2001.csv"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigquery_emulator() as made:
        from google.cloud.bigquery import LoadJobConfig, SchemaField

        rows = pyarrow.csv.read_csv(FILE)
        content = io.BytesIO()
        pq.write_table(rows, content)
        content.seek(0)
        types = {"int64": "INT64", "double": "FLOAT64", "string": "STRING", "bool": "BOOL"}
        schema = [SchemaField(field.name, types[str(field.type)]) for field in rows.schema]
        with made.client() as client:
            config = LoadJobConfig(source_format="PARQUET", schema=schema)
            client.load_table_from_file(content, BIRTHS, job_config=config).result()
            client.query(f"CREATE VIEW `{BIRTHS}_view` AS SELECT * FROM `{BIRTHS}`").result()
        yield made


@pytest.fixture
def hosts(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", emulator.rest)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", emulator.grpc)
    return emulator


def sets(folder: Path, source: dict[str, Any]) -> list[str]:
    config = {
        "source": {**SOURCE, **source},
        "model": {"type": "saved_model", "path": str(ROOT / "model/trained/v1")},
        "output": {
            "type": "file",
            "format": "csv",
            "path": str(folder / "out"),
            "columns": ["source_id", "predictions"],
        },
        "dead_letters": {"path": str(folder / "dead")},
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return ["--config", str(folder / "config.json")]


def lines(folder: Path) -> list[bytes]:
    return sorted(line for file in folder.glob("out-*.csv") for line in file.read_bytes().splitlines()[1:])


SOURCES = {
    "table": {"table": BIRTHS},
    "view": {"table": f"{BIRTHS}_view", "temporary_dataset": DATASET},
    "query": {"query": f"SELECT * FROM `{BIRTHS}`;", "temporary_dataset": DATASET},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_rows_are_those_of_the_file(command: Command, hosts: Emulator, tmp_path: Path, kind: str) -> None:
    source = {"type": "bigquery", **SOURCES[kind]}
    result = command("batch", *sets(tmp_path / "bigquery", source), "--json")
    assert result.code == 0, result
    of_file = command("batch", *sets(tmp_path / "file", {"type": "file", "format": "csv", "path": str(FILE)}), "--json")
    assert of_file.code == 0, of_file
    assert result.summary["rows_read"] == of_file.summary["rows_read"] > 1000
    assert lines(tmp_path / "bigquery") == lines(tmp_path / "file")


@pytest.mark.parametrize("kind", SOURCES)
def test_a_filter_chooses_the_rows(command: Command, hosts: Emulator, tmp_path: Path, kind: str) -> None:
    source = {"type": "bigquery", "filter": "mother_age > 30 AND is_male", **SOURCES[kind]}
    result = command("batch", *sets(tmp_path, source), "--json")
    assert result.code == 0, result
    rows = pyarrow.csv.read_csv(FILE).to_pylist()
    wanted = {row["source_id"] for row in rows if row["mother_age"] > 30 and row["is_male"]}
    assert {line.split(b",")[0].decode() for line in lines(tmp_path)} == wanted
    assert 0 < len(wanted) == result.summary["rows_written"]


def test_check_shows_the_first_rows_of_a_table(command: Command, hosts: Emulator, tmp_path: Path) -> None:
    result = command("check", *sets(tmp_path, {"type": "bigquery", "table": BIRTHS}), "--json")
    assert result.code == 0, result
    first = pyarrow.csv.read_csv(FILE).to_pylist()[:3]
    assert [row["source_id"] for row in result.summary["sample"]] == [row["source_id"] for row in first]
    assert result.summary["sampled_rows"] == 1000
    assert not list(tmp_path.glob("out*"))


def test_columns_of_every_type_that_the_emulator_has(command: Command, hosts: Emulator, tmp_path: Path) -> None:
    with hosts.client() as client:
        client.query(
            f"CREATE TABLE `{EVERY_TYPE}` (source_id STRING, is_male BOOL, mother_race STRING, mother_age NUMERIC, "
            "plurality INT64, mother_married BOOL, f FLOAT64, y BYTES, d DATE, dt DATETIME, t TIME, ts TIMESTAMP, "
            "a ARRAY<INT64>, j JSON)"
        ).result()
        client.query(
            f"INSERT `{EVERY_TYPE}` VALUES ('a', true, 'White', NUMERIC '31', 1, true, 1.5, b'xyz', DATE '2020-01-02', "
            "DATETIME '2020-01-02 03:04:05.000006', TIME '01:02:03.000004', TIMESTAMP '2020-01-02 03:04:05.000006+00', "
            "[1, 2], JSON '{\"k\": 1}'), ('b', false, 'Black', NUMERIC '22', 2, false, NULL, NULL, NULL, NULL, NULL, "
            "NULL, [], NULL)"
        ).result()
    arguments = sets(tmp_path, {"type": "bigquery", "table": EVERY_TYPE})
    written = ["source_id", "mother_age", "f", "y", "d", "dt", "t", "ts", "a", "j"]
    output = {"type": "file", "format": "json", "path": str(tmp_path / "out"), "columns": written}
    result = command("batch", *arguments, "--set", f"output={json.dumps(output)}", "--json")
    assert result.code == 0, result
    found = [json.loads(line) for file in tmp_path.glob("out-*") for line in file.read_bytes().splitlines()]
    first, second = sorted(found, key=lambda row: str(row["source_id"]))
    assert {name: first[name] for name in ("f", "d", "a", "j")} == {
        "f": 1.5,
        "d": "2020-01-02",
        "a": [1, 2],
        "j": '{"k":1}',
    }
    assert first["dt"].replace(" ", "T").startswith("2020-01-02T03:04:05.000006")
    assert first["ts"].replace(" ", "T").startswith("2020-01-02T03:04:05.000006")
    assert first["t"].startswith("01:02:03.000004")
    assert second == {"source_id": "b", "mother_age": second["mother_age"], "a": []} | dict.fromkeys(
        ["f", "y", "d", "dt", "t", "ts", "j"]
    )


def test_sessions_of_a_large_table_hold_up_nobody(hosts: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is broken off takes one of the few threads of the emulator for ever, so no session may leave one."""
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_STREAM_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._LONGEST_SILENCE_S", 30.0)
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._ATTEMPTS", 1)
    rows, table = 3_000_000, f"{DATASET}.large"
    with hosts.client() as client:
        numbers = f"SELECT n AS id, CAST(n AS FLOAT64) AS x FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS n"
        client.query(f"CREATE TABLE `{table}` AS {numbers}").result()
    source = BigQuerySource(type="bigquery", table=table, key="id")
    for _ in range(8):
        found = list(OpenSession(source, ["id", "x"], 16, 0, "").process(None))
    step = ReadStream(["id", "x"], 16.0)
    step.setup()
    given = [each for piece in found if isinstance(piece, StreamPiece) for each in step.process(piece)]
    step.teardown()
    ids = pa.concat_arrays([each[1]["id"] for each in given if isinstance(each, tuple)])
    assert len(ids) == rows == len(pa.compute.unique(ids))


REFUSALS = {
    "no_dataset": ({"table": "test-project.nowhere.t"}, "there is no dataset test-project.nowhere"),
    "no_table": ({"table": f"{DATASET}.nothing"}, f"there is no table {DATASET}.nothing"),
    "no_table_in_a_query": ({"query": f"SELECT * FROM `{DATASET}.nothing`"}, f"Table {DATASET}.nothing was not found"),
    "syntax_error": ({"query": "SELEC *"}, "source.query: Syntax error"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_there_is_said_before_the_run(command: Command, hosts: Emulator, tmp_path: Path, case: str) -> None:
    source, said = REFUSALS[case]
    result = command("batch", *sets(tmp_path, {"type": "bigquery", "project": "test-project", **source}))
    assert result.code == 2, result
    [error] = result.errors
    assert said in error


@pytest.mark.parametrize("kind", SOURCES)
def test_a_batch_prediction_job_over_rows_of_bigquery(
    command: Command, hosts: Emulator, tmp_path: Path, kind: str
) -> None:
    """From a table to a table: refused rows are dead letters as JSON. Of a query nobody knows when its rows change."""
    copy = f"CREATE OR REPLACE TABLE `{BIRTHS}_of_jobs` AS SELECT * FROM `{BIRTHS}`"
    with hosts.client() as client:
        client.query(copy).result()
    source = {"table": f"{BIRTHS}_of_jobs"} if kind == "table" else SOURCES[kind]
    arguments = sets(tmp_path, {"type": "bigquery", **source})
    table = f"{DATASET}.of_jobs"
    output = {"type": "bigquery", "table": table, "write": "truncate", "columns": ["source_id", "predictions"]}
    with job_server(tmp_path, row_error_rate=0.01) as server:
        arguments += [f"--set=model={json.dumps(server.model(tmp_path))}", f"--set=output={json.dumps(output)}"]
        arguments += [f"--set=output.staging={tmp_path}/staging/", "--set=dead_letters.max_fraction=0.1"]
        result = command("batch", *arguments, "--json")
        if kind != "table":
            assert result.code == 2, result
            assert "write them to a table first" in result.errors[0]
            return
        assert result.code == 0, result
        again = command("batch", *arguments, "--json")
        assert again.code == 0, again
        assert len(server.jobs()) == 1
        with hosts.client() as client:
            client.query(copy).result()
        assert command("batch", *arguments, "--detach").code == 0
        assert len(server.jobs()) == 2
    rows = hosts.rows("of_jobs")
    summary = result.summary
    assert summary["rows_read"] == len(rows) + summary["rows_dead_lettered"] == 1450
    assert summary["rows_dead_lettered"] > 3
    direct = command("batch", *sets(tmp_path / "direct", {"type": "file", "format": "csv", "path": str(FILE)}))
    assert direct.code == 0, direct
    expected = dict(line.decode().split(",") for line in lines(tmp_path / "direct"))
    for row in rows:
        assert abs(float(expected[row["source_id"]]) - row["predictions"]) < 1e-5
