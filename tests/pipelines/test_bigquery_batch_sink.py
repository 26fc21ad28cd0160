"""Batch runs into BigQuery, against an emulator: every row in the table, once, all at once; mistakes before the run."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.auth.exceptions import RefreshError
from google.cloud.bigquery_storage_v1 import types

from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.errors import ConfigError
from pipelines.connectors.bigquery import batch_table, load_job, locations
from pipelines.connectors.bigquery.parquet import BigQueryParquetWriter
from pipelines.formats.base import FormatError
from tests.servers.bigquery_emulator import DATASET, Emulator, bigquery_emulator
from tests.servers.grpc_proxy import LostError, Proxy, proxy_to
from tests.servers.rest_proxy import RestProxy, refusal, rest_proxy_to
from tests.servers.stand_in import stand_in
from tests.support import ledger, outputs_model, processes
from tests.support.commands import ROOT, Command

METHODS = ("load", "stream")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigquery_emulator() as made:
        yield made


@pytest.fixture
def grpc_proxy(emulator: Emulator) -> Iterator[Proxy]:
    """Tells of a stream that is committed again what BigQuery tells, where the emulator has an error of its own."""
    with proxy_to(emulator.grpc) as proxy:
        proxy.on_answer = committed_once
        yield proxy


def committed_once(method: str, answer: bytes) -> bytes:
    if not method.endswith("BatchCommitWriteStreams"):
        return answer
    found = types.BatchCommitWriteStreamsResponse.deserialize(answer)
    for error in found.stream_errors:
        if "STATE=COMMITTED" in error.error_message.upper():
            error.code = types.StorageError.StorageErrorCode.STREAM_ALREADY_COMMITTED
    return bytes(types.BatchCommitWriteStreamsResponse.serialize(found))


@pytest.fixture
def rest(emulator: Emulator, grpc_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestProxy]:
    with rest_proxy_to(emulator.rest) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.host)
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", grpc_proxy.host)
        yield proxy


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)


def config_for(folder: Path, name: str, rows: list[ledger.Row], **output: Any) -> str:
    source = ledger.write_rows(folder / "in.csv", "csv", rows)
    path = ledger.write_config(folder, "csv", str(source))
    config = json.loads(Path(path).read_text())
    given = {"type": "bigquery", "table": f"{DATASET}.{name}", "staging": str(folder / "stage")}
    config["output"] = given | output
    Path(path).write_text(json.dumps(config))
    return path


def keys(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row[ledger.KEY] for row in rows)


def as_written(rows: list[ledger.Row], copies: int = 1) -> Counter[str]:
    return Counter({row[ledger.KEY]: copies for row in rows})


def left_in(folder: Path) -> set[str]:
    return {path.name.partition(".births.")[2] for path in (folder / "stage").rglob("*")}


@pytest.mark.parametrize("method", METHODS)
def test_the_table_has_the_predictions_and_the_dead_letters_are_files(
    command: Command, emulator: Emulator, rest: RestProxy, small_pieces: Any, table: str, tmp_path: Path, method: str
) -> None:
    """Of many shards, and of a run into files of the same rows."""
    good, bad = ledger.births(900, 1), [{**row, "is_male": None} for row in ledger.births(3, 2, "x")]
    config = config_for(tmp_path, table, good + bad, method=method)
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    summary = result.summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (903, 900, 3)
    assert summary["output"] == f"table {DATASET}.{table}"
    found = emulator.rows(table)
    assert keys(found) == as_written(good)
    (tmp_path / "files").mkdir()
    files = ledger.write_config(tmp_path / "files", "csv", str(tmp_path / "in.csv"), "parquet")
    assert command("batch", "--config", files).code == 0
    expected = pq.read_table(sorted((tmp_path / "files" / "out").glob("p-*.parquet"))).to_pylist()
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert Counter(dead_letter["key"] for dead_letter in ledger.dead_letters(tmp_path / "out" / "dead")) == Counter(
        row[ledger.KEY] for row in bad
    )
    assert left_in(tmp_path) == {f"{table}.manifest.json"}


@pytest.mark.parametrize("method", METHODS)
def test_a_row_that_lacks_a_required_value_is_a_dead_letter(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str
) -> None:
    """BigQuery would refuse all rows for it, after the whole run."""
    columns = [(ledger.KEY, "STRING", "REQUIRED"), ("Alcohol_Use", "STRING", "REQUIRED")]
    emulator.create(table, [*columns, ("predictions", "FLOAT64", "NULLABLE")])
    rows = ledger.births(60, 1)
    good = [row for row in rows if row["alcohol_use"] is not None]
    output = {"write": "append", "method": method, "columns": [ledger.KEY, "alcohol_use", "predictions"]}
    config = config_for(tmp_path, table, rows, **output)
    result = command("batch", "--config", config, "--set=dead_letters.max_fraction=1", "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (len(good), len(rows) - len(good))
    assert keys(emulator.rows(table)) == as_written(good)
    dead = ledger.dead_letters(tmp_path / "out" / "dead")
    assert {each["message"] for each in dead} == {
        "column 'alcohol_use': a value is missing, and the column of the table is REQUIRED"
    }
    assert {each["key"] for each in dead} == {row[ledger.KEY] for row in rows if row["alcohol_use"] is None}


@pytest.mark.parametrize("method", METHODS)
def test_a_list_that_lacks_a_value_is_a_dead_letter(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str
) -> None:
    lists: list[Any] = [[1, 2], [3, None], [], None, [None]]
    rows = [{**row, "marks": marks} for row, marks in zip(ledger.births(5, 1), lists, strict=True)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_for(tmp_path, table, [], method=method, columns=[ledger.KEY, "marks"])
    changed = {"source.format": "json", "source.path": str(source), "dead_letters.max_fraction": 1}
    result = command("batch", "--config", config, f"--set={json.dumps(changed)}")
    assert result.code == 0, result
    good = [rows[0], rows[2], rows[3]]
    found = {row[ledger.KEY]: list(row["marks"] or ()) for row in emulator.rows(table)}
    assert found == {row[ledger.KEY]: row["marks"] or [] for row in good}
    messages = [each["message"] for each in ledger.dead_letters(tmp_path / "out" / "dead")]
    assert messages == ["column 'marks': a value is missing in a list, which BigQuery does not take"] * 2


@pytest.mark.parametrize("method", METHODS)
def test_what_is_done_with_a_table_that_exists(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str
) -> None:
    rows = ledger.births(50, 1)
    config = config_for(tmp_path, table, rows, method=method)
    assert command("batch", "--config", config).code == 0
    for command_name in ("batch", "check"):
        result = command(command_name, "--config", config)
        assert result.code == 2, result
        [line] = result.errors
        assert f"{DATASET}.{table} exists" in line
        assert "append" in line
    for copies in (2, 3):
        # A second run of the same config over the same input is meant.
        result = command("batch", "--config", config, "--set", "output.write=append", "--json")
        assert result.code == 0, result
        assert result.summary["rows_written"] == 50
        assert keys(emulator.rows(table)) == as_written(rows, copies)
    if method == "load":
        assert command("batch", "--config", config, "--set", "output.write=truncate").code == 0
        assert keys(emulator.rows(table)) == as_written(rows)


def test_a_run_without_rows_makes_an_empty_table(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    assert command("batch", "--config", config_for(tmp_path, table, [])).code == 0
    assert emulator.rows(table) == []
    with emulator.client() as client:
        schema = client.get_table(f"{DATASET}.{table}").schema
    assert [(each.name, each.field_type) for each in schema] == [(ledger.KEY, "STRING"), ("predictions", "FLOAT64")]


LAYOUTS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "days": ({"column": "born"}, "timePartitioning", {"type": "DAY", "field": "born"}),
    "months": ({"column": "born", "unit": "month"}, "timePartitioning", {"type": "MONTH", "field": "born"}),
    "ranges": (
        {"column": "age", "start": 0, "end": 100, "interval": 10}, "rangePartitioning",
        {"field": "age", "range": {"start": 0, "end": 100, "interval": 10}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_new_table_is_partitioned_and_clustered(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, layout: str, method: str
) -> None:
    """As the request says that creates it: the emulator does not do so for all of them."""
    given, key, wanted = LAYOUTS[layout]
    rows = ledger.births(5, 1)
    columns = {name: [row[name] for row in rows] for name in (*ledger.TEXTS, *ledger.NUMBERS, ledger.KEY)}
    columns["born"] = [datetime.datetime(2001, 1, day + 1, tzinfo=datetime.timezone.utc) for day in range(5)]
    columns["age"] = list(range(5))
    output = {"partition_by": given, "cluster_by": ["age", ledger.KEY], "columns": [ledger.KEY, "born", "age"]}
    config = config_for(tmp_path, table, rows, method=method, **output)
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    changes = ["source.format=parquet", f"source.path={tmp_path}/in.parquet"]
    result = command("batch", "--config", config, *[word for change in changes for word in ("--set", change)])
    assert result.code == 0, result
    assert keys(emulator.rows(table)) == as_written(rows)
    bodies = [json.loads(body) for method, path, body in rest.seen if method == "POST" and body[:1] == b"{"]
    made = [body["configuration"]["load"] for body in bodies if "load" in body.get("configuration", {})]
    made += [body for body in bodies if body.get("tableReference")]
    [found] = made
    assert found["clustering"] == {"fields": ["age", ledger.KEY]}
    assert json.loads(json.dumps(found[key]), parse_int=str) == json.loads(json.dumps(wanted), parse_int=str)


TYPES = {
    "whole": (pa.int32(), [1, None, -3], "INT64", None),
    "real": (pa.float32(), [0.5, None, 1e30], "FLOAT64", None),
    "yes": (pa.bool_(), [True, None, False], "BOOL", None),
    "text": (pa.string(), ["é\n,\"", None, ""], "STRING", None),
    "raw": (pa.binary(), [b"\x00\xff", None, b""], "BYTES", None),
    "day": (pa.date32(), [datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], "DATE", None),
    "at": (
        pa.timestamp("ms", "UTC"), [datetime.datetime(2001, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), None, None],
        "TIMESTAMP", None,
    ),
    "local": (pa.timestamp("us"), [datetime.datetime(1969, 2, 3, 4, 5, 6, 7), None, None], "DATETIME", None),
    "time": (pa.time64("us"), [datetime.time(1, 2, 3, 4), None, None], "TIME", None),
    "money": (pa.decimal128(12, 3), [decimal.Decimal("1.250"), None, decimal.Decimal("-7")], "NUMERIC", None),
    "numbers": (pa.list_(pa.int64()), [[1, 2], [], [3]], "INT64", None),
    "texts": (pa.list_(pa.string()), [["a"], [], ["b", "c"]], "STRING", None),
    "nested": (pa.struct([("a", pa.int64())]), [{"a": 1}, None, {"a": 2}], "STRING", ['{"a":1}', None, '{"a":2}']),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_values_of_each_type(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str
) -> None:
    """Columns of the source, passed through, and outputs of a model."""
    model = outputs_model.make(tmp_path / "model")
    columns = {name: pa.array(values, type) for name, (type, values, _, _) in TYPES.items()}
    columns |= {"source_id": pa.array(["a", "b", "c"]), "mother_age": pa.array([21.0, 28.0, 35.5], pa.float32())}
    columns |= {"plurality": pa.array([1, 2, 3], pa.int64())}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    names = ["source_id", *TYPES, "weight", "count", "label", "parts", "many"]
    config = ledger.write_config(tmp_path, "parquet", str(tmp_path / "in.parquet"))
    found = json.loads(Path(config).read_text())
    found["model"]["path"] = model
    found["source"].pop("defaults")
    found["output"] = {"type": "bigquery", "table": f"{DATASET}.{table}", "columns": names, "method": method}
    found["output"]["staging"] = str(tmp_path / "stage")
    Path(config).write_text(json.dumps(found))
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 3, ledger.dead_letters(tmp_path / "out" / "dead")
    with emulator.client() as client:
        made = {each.name: each for each in client.get_table(f"{DATASET}.{table}").schema}
    rows = sorted(emulator.rows(table), key=lambda row: row["source_id"])
    for name, (type, values, wanted, texts) in TYPES.items():
        assert made[name].field_type == wanted, name
        assert (made[name].mode == "REPEATED") == pa.types.is_list(type), name
        given = [pa.scalar(value, type).as_py() for value in values]
        assert [row[name] for row in rows] == (texts or given), name
    assert [row["count"] for row in rows] == [3, 6, 9]
    assert [row["many"] for row in rows] == [False, True, True]
    assert [row["label"] for row in rows] == ["age é 21.0", "age é 28.0", "age é 35.5"]
    assert [row["weight"] for row in rows] == pytest.approx([3, 4, 35.5 / 7])
    assert [len(row["parts"]) for row in rows] == [2, 2, 2]


def test_a_time_that_bigquery_does_not_take_becomes_a_dead_letter_alone(tmp_path: Path) -> None:
    schema = pa.schema([("at", pa.timestamp("us")), ("many", pa.list_(pa.date32()))])
    with open(tmp_path / "a.parquet", "wb") as file:
        writer = BigQueryParquetWriter(file, schema, {})
        good = pa.record_batch(
            [pa.array([0, None], pa.timestamp("us")), pa.array([[0], None], schema.field(1).type)], schema=schema
        )
        writer.write(good)
        for at, day in ((-62_135_596_800_000_001, 0), (253_402_300_800_000_000, 0), (0, 2_932_897), (0, -719_163)):
            bad = pa.record_batch(
                [pa.array([at], pa.timestamp("us")), pa.array([[day]], schema.field(1).type)], schema=schema
            )
            with pytest.raises(FormatError, match="year 1 or after 9999"):
                writer.write(bad)
        writer.close()
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 2


# Crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["0", "1", "2"])
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_each_step_and_run_again(
    emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str, first: str
) -> None:
    """The table is right, exactly once; a third run of the same config appends again."""
    rows = ledger.births(20, 1)
    config = config_for(tmp_path, table, rows, method=method, write="append")
    script = [sys.executable, "-m", "tests.support.bigquery_kills", config, f"{DATASET}.{table}_", first, "3"]
    done = processes.run(script, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 5
    assert [each["killed"] for each in seen] == [True] * (len(seen) - 1) + [False]
    completed = ["an earlier run" in each["summary"]["runner"] for each in seen]
    copies = []
    for each, was_completed in zip(seen, completed, strict=True):
        assert each["code"] == 0, each
        assert each["summary"]["rows_written"] == 20, each
        # Killed when its account was given, a run is over, and the same command is another run.
        is_another = each["killed"] and each["reported"] and not was_completed
        copies.append(1 + is_another)
        assert keys(emulator.rows(f"{table}_{each['step']}")) == as_written(rows, copies[-1]), each
    # Until the record is written a run begins anew; from then on it is completed, also when only its account is due.
    assert completed[0] is False
    assert sum(completed) >= 3
    for index in (0, -2, -1):
        each = seen[index]
        again = [sys.executable, "-m", "pipelines.batch", "--config", config]
        again += ["--set", f"output.table={DATASET}.{table}_{each['step']}"]
        assert processes.run(again, cwd=ROOT, env=dict(os.environ), capture_output=True, check=False).returncode == 0
        assert keys(emulator.rows(f"{table}_{each['step']}")) == as_written(rows, copies[index] + 1), each


# Replays -----------------------------------------------------------------------------------------------------------

MEND = '--set=source.defaults={"is_male": "Unknown", ' + json.dumps(ledger.DEFAULTS)[1:]


def failing(reasons: list[tuple[str, str]]) -> Any:
    """Lets a load job fail for each reason, which is taken off the list: (reason, message)."""

    def fail(method: str, path: str, body: bytes) -> Any:
        if method != "PUT" or not reasons:
            return None
        reason, message = reasons.pop(0)
        job = {"jobId": f"any-{len(reasons)}", "projectId": "test-project", "location": "US"}
        error = {"reason": reason, "message": message}
        status = {"state": "DONE", "errorResult": error, "errors": [error]}
        load = {"destinationTable": {"projectId": "p", "datasetId": "d", "tableId": "t"}, "sourceFormat": "PARQUET"}
        return 200, {"jobReference": job, "status": status, "configuration": {"jobType": "LOAD", "load": load}}

    return fail


def births_with_bad_ones() -> tuple[list[ledger.Row], list[ledger.Row], list[ledger.Row]]:
    """Good rows, rows that MEND mends, and rows that it does not."""
    mended = [{**row, "is_male": None} for row in ledger.births(4, 2, "m")]
    bad = [{**row, "mother_age": None} for row in ledger.births(3, 3, "b")]
    return ledger.births(20, 1), mended, bad


def attempts(prefix: Path) -> dict[str, int]:
    return {dead_letter["key"]: dead_letter["attempts"] for dead_letter in ledger.dead_letters(prefix)}


@pytest.mark.parametrize(
    ("method", "write"), [("load", "fail_if_exists"), ("load", "append"), ("load", "truncate"), ("stream", "append")]
)
def test_a_replay_appends_to_the_table(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str, write: str
) -> None:
    """Whatever output.write says: what the run has written stays. What fails again stays a dead letter."""
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad, method=method, write=write)
    assert command("batch", "--config", config).code == 0
    dead = tmp_path / "out" / "dead"
    assert attempts(dead) == {row[ledger.KEY]: 1 for row in mended + bad}
    # A replay in which no row succeeds delivers nothing, and counts.
    before = len(rest.seen)
    result = command("replay", "--config", config, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_read"], result.summary["rows_written"]) == (7, 0)
    assert not [path for method, path, _ in rest.seen[before:] if "upload" in path]
    assert keys(emulator.rows(table)) == as_written(good)
    assert attempts(dead) == {row[ledger.KEY]: 2 for row in mended + bad}

    result = command("replay", "--config", config, "--json", MEND)
    assert result.code == 0, result
    summary = result.summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (7, 4, 3)
    assert summary["output"] == f"table {DATASET}.{table}"
    rows = emulator.rows(table)
    assert keys(rows) == as_written(good + mended)
    expected = [*good, *({**row, "is_male": "Unknown"} for row in mended)]
    ledger.assert_predictions(ledger.Books(rows, []), expected)
    assert attempts(dead) == {row[ledger.KEY]: 3 for row in bad}
    assert left_in(tmp_path) == {f"{table}.manifest.json"}

    fix = MEND.replace("{", '{"mother_age": 30, ')
    assert command("replay", "--config", config, fix).code == 0
    assert keys(emulator.rows(table)) == as_written(good + mended + bad)
    again = command("replay", "--config", config, "--json", fix)
    assert (again.code, again.out) == (0, "{}\n")
    assert "nothing to replay" in again.err
    assert keys(emulator.rows(table)) == as_written(good + mended + bad)


@pytest.mark.parametrize("first", ["0", "3"])
@pytest.mark.parametrize("method", METHODS)
def test_a_replay_killed_at_each_step_and_run_again(
    emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, method: str, first: str
) -> None:
    """Each row that is mended is in the table once, beside those of the run, and is no dead letter any more."""
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad, method=method)
    script = [sys.executable, "-m", "tests.support.bigquery_kills", config, f"{DATASET}.{table}_", first, "5", MEND]
    done = processes.run(script, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 5
    assert [each["killed"] for each in seen] == [True] * (len(seen) - 1) + [False]
    completed = ["an earlier run" in each["summary"]["runner"] for each in seen]
    for each, was_completed in zip(seen, completed, strict=True):
        assert each["code"] == 0, each
        summary = each["summary"]
        # Killed when its account was given, a replay is over, and the same command replays what is left.
        is_another = each["killed"] and each["reported"] and not was_completed
        account = (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"])
        assert account == ((3, 0, 3) if is_another else (7, 4, 3)), each
        assert keys(emulator.rows(f"{table}_{each['step']}")) == as_written(good + mended), each
        dead = attempts(tmp_path / "out" / f"dead{each['step']}")
        assert dead == {row[ledger.KEY]: 3 if is_another else 2 for row in bad}, each
    assert any(completed)


def test_a_replay_is_completed_by_the_same_command(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BigQuery was away when the replay was to be loaded."""

    def away(*_: object, **__: object) -> Any:
        raise ConnectionError("nobody there")

    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad)
    assert command("batch", "--config", config).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(load_job, "_find", away)
        result = command("replay", "--config", config, MEND)
    assert result.code == 1, result
    assert "run the same command again" in result.errors[0]
    assert keys(emulator.rows(table)) == as_written(good)
    result = command("replay", "--config", config, MEND, "--json")
    assert result.code == 0, result
    summary = result.summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (7, 4, 3)
    assert "to replay the dead letters that are left, run the same command again" in " ".join(summary["notes"])
    assert keys(emulator.rows(table)) == as_written(good + mended)
    assert attempts(tmp_path / "out" / "dead") == {row[ledger.KEY]: 2 for row in bad}
    result = command("replay", "--config", config, MEND, "--json")
    assert result.summary["rows_read"] == 3
    assert keys(emulator.rows(table)) == as_written(good + mended)
    # The run is over: its command is another run.
    assert command("batch", "--config", config, "--set", "output.write=append").code == 0
    assert keys(emulator.rows(table)) == as_written(good, 2) + as_written(mended)


def test_a_replay_that_is_refused_leaves_the_dead_letters(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad)
    assert command("batch", "--config", config).code == 0
    rest.refuse = failing([("invalid", "the shard is bad")])
    result = command("replay", "--config", config, MEND)
    assert result.code == 1, result
    [line] = result.errors
    assert "the shard is bad" in line
    assert "nothing was published" in line
    assert keys(emulator.rows(table)) == as_written(good)
    assert attempts(tmp_path / "out" / "dead") == {row[ledger.KEY]: 1 for row in mended + bad}
    assert command("replay", "--config", config, MEND).code == 0
    assert keys(emulator.rows(table)) == as_written(good + mended)


def test_a_replay_gives_the_account_that_a_stopped_run_owes(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad)
    assert command("batch", "--config", config).code == 0
    [left] = (tmp_path / "stage").glob(".*.manifest.json")
    manifest = json.loads(left.read_text())
    manifest["delivered"]["is_reported"] = False
    left.write_text(json.dumps(manifest))
    result = command("replay", "--config", config, MEND)
    assert result.code == 0, result
    assert "was stopped before it gave its account: 27 rows read, 20 written, 7 dead-lettered" in result.err
    assert keys(emulator.rows(table)) == as_written(good + mended)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_replay_does_without_the_source(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, format: str
) -> None:
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad)
    source = ledger.write_rows(tmp_path / f"in.{format}", format, good + mended + bad)
    arguments = ["--config", config, "--set", f"source.format={format}", "--set", f"source.path={source}"]
    assert command("batch", *arguments).code == 0
    source.unlink()
    result = command("replay", *arguments, MEND)
    assert result.code == 0, result
    assert keys(emulator.rows(table)) == as_written(good + mended)


def test_a_source_that_is_gone_is_told_where_the_table_has_other_types(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    """What is only written is presumed to be text. Nothing is lost: the replay follows when the source is back."""
    rows = [{**row, "number": n, "is_male": row["is_male"] if n else None} for n, row in enumerate(ledger.births(5, 1))]
    names = [*ledger.TEXTS, *ledger.NUMBERS, ledger.KEY, "number"]
    content = pa.Table.from_pylist([{name: row[name] for name in names} for row in rows])
    config = config_for(tmp_path, table, [], columns=[ledger.KEY, "number", "predictions"])
    source = tmp_path / "in.parquet"
    arguments = ["--config", config, "--set", "source.format=parquet", "--set", f"source.path={source}"]
    pq.write_table(content, source)
    assert command("batch", *arguments).code == 0
    source.unlink()
    result = command("replay", *arguments, MEND)
    assert result.code == 2, result
    assert "the source cannot be read any more; its columns are presumed" in result.err
    [line] = result.errors
    assert f"'number' is STRING, but in {DATASET}.{table} it is INT64" in line
    pq.write_table(content, source)
    assert command("replay", *arguments, MEND).code == 0
    assert sorted(row["number"] for row in emulator.rows(table)) == [0, 1, 2, 3, 4]


NOT_REPLAYED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a key of streams": ({"output": {"mode": "exactly_once"}}, ["output.mode", "remove it"]),
    "a stream": ({"source": {"type": "simulated"}}, ["output.type", "rows of a stream"]),
    "a table that is gone": ({"output": {"table": f"{DATASET}.gone", "create": False}}, ["there is no table", "gone"]),
}


@pytest.mark.parametrize("what", list(NOT_REPLAYED))
def test_what_is_not_replayed_into_a_table(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, what: str
) -> None:
    """Nothing is lost of the dead letters."""
    changes, wanted = NOT_REPLAYED[what]
    good, mended, bad = births_with_bad_ones()
    config = config_for(tmp_path, table, good + mended + bad)
    assert command("batch", "--config", config).code == 0
    content = json.loads(Path(config).read_text())
    content["output"] |= changes.get("output", {})
    content["source"] = changes.get("source", content["source"])
    Path(config).write_text(json.dumps(content))
    result = command("replay", "--config", config)
    assert result.code == 2, result
    [line] = result.errors
    assert [word for word in wanted if word not in line] == []
    assert attempts(tmp_path / "out" / "dead") == {row[ledger.KEY]: 1 for row in mended + bad}


# Faults and mistakes -----------------------------------------------------------------------------------------------


def test_a_lost_answer_loads_nothing_twice(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    """The job is there, but nobody was told: it is found by its id."""
    lost: list[str] = []

    def lose(method: str, path: str) -> Any:
        if method == "PUT" and not lost:
            lost.append(path)
            return refusal(403, "accessDenied", "a gateway has lost it")
        return None

    rest.lose = lose
    rows = ledger.births(30, 1)
    result = command("batch", "--config", config_for(tmp_path, table, rows), "--json")
    assert result.code == 0, result
    assert keys(emulator.rows(table)) == as_written(rows)


def test_a_job_that_fails_loads_nothing_and_another_one_may(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_job, "_AGAIN_AFTER_S", 0.0)
    failures = [("backendError", "try later"), ("invalid", "the shard is bad")]
    reasons = list(failures)
    rest.refuse = failing(reasons)
    rows = ledger.births(30, 1)
    config = config_for(tmp_path, table, rows, write="append")
    result = command("batch", "--config", config)
    assert result.code == 1, result
    [line] = result.errors
    assert "the shard is bad" in line
    assert "nothing was published" in line
    assert left_in(tmp_path) <= {f"{table}.manifest.json"}
    assert command("batch", "--config", config).code == 0
    assert keys(emulator.rows(table)) == as_written(rows)
    reasons[:] = failures[:1]
    assert command("batch", "--config", config).code == 0
    assert keys(emulator.rows(table)) == as_written(rows, 2)
    ids = [json.loads(body)["jobReference"]["jobId"] for m, p, body in rest.seen if m == "POST" and "upload" in p]
    assert len({*ids}) == len(ids)


def test_a_service_that_is_away_is_asked_again_by_the_next_run(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Any:
        raise ConnectionError("nobody there")

    rows = ledger.births(30, 1)
    config = config_for(tmp_path, table, rows)
    with monkeypatch.context() as patch:
        patch.setattr(load_job, "_find", away)
        result = command("batch", "--config", config)
    assert result.code == 1, result
    [line] = result.errors
    assert "run the same command again" in line
    # What the run has balanced is delivered, even where its input is no more.
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 30
    assert "nothing was done again" in " ".join(result.summary["notes"])
    assert keys(emulator.rows(table)) == as_written(rows)
    assert command("batch", "--config", config).code == 2
    assert command("batch", "--config", config, "--set", "output.write=append").code == 0
    assert keys(emulator.rows(table)) == as_written(rows, 2)


def test_pending_rows_are_refused_or_lost_on_the_way(
    command: Command, emulator: Emulator, rest: RestProxy, grpc_proxy: Proxy, table: str, tmp_path: Path
) -> None:
    """A request whose answer is lost is not written twice; one that is refused leaves no row."""
    rows = ledger.births(40, 1)
    config = config_for(tmp_path, table, rows, method="stream", write="append")
    lost: list[str] = []

    def lose(method: str, answer: bytes) -> bytes:
        name = method.rpartition("/")[2]
        if name in ("AppendRows", "BatchCommitWriteStreams") and name not in lost:
            lost.append(name)
            raise LostError
        return committed_once(method, answer)

    grpc_proxy.on_answer = lose
    assert command("batch", "--config", config).code == 0
    assert len(lost) == 2
    assert keys(emulator.rows(table)) == as_written(rows)

    def refuse(method: str, message: bytes) -> bytes:
        if method.endswith("AppendRows"):
            raise LostError(grpc.StatusCode.PERMISSION_DENIED, "no updateData for you")
        return message

    grpc_proxy.on_answer = refuse
    result = command("batch", "--config", config)
    assert result.code == 1, result
    [line] = result.errors
    assert "no updateData for you" in line
    assert "nothing was published" in line
    assert keys(emulator.rows(table)) == as_written(rows)


COLUMNS = [(ledger.KEY, "STRING", "NULLABLE"), ("predictions", "FLOAT64", "NULLABLE")]
WRONG: dict[str, tuple[list[tuple[str, str, str]] | None, dict[str, Any], list[str]]] = {
    "dataset": (None, {"table": "test-project.none.t"}, ["output.table", "no dataset test-project.none", "create it"]),
    "form": (None, {"table": "births.t"}, ["output.table: 'births.t'", "<project>.<dataset>.<table>"]),
    "no table": (None, {"create": False}, ["output.table", "there is no table", "output.create"]),
    "type": (
        [COLUMNS[0], ("predictions", "STRING", "NULLABLE")], {"write": "append"},
        ["output.columns", "'predictions' is FLOAT64", "it is STRING"],
    ),
    "column": ([COLUMNS[0]], {"write": "truncate"}, ["no column 'predictions'"]),
    "required": ([*COLUMNS, ("who", "STRING", "REQUIRED")], {"write": "append"}, ["'who'", "REQUIRED"]),
    "partition": (COLUMNS, {"write": "append", "partition_by": {"column": "predictions"}}, ["output.partition_by"]),
    "no such cluster": (None, {"cluster_by": ["born"]}, ["output.cluster_by", "'born'", "output.columns"]),
    "other cluster": (COLUMNS, {"write": "append", "cluster_by": [ledger.KEY]}, ["output.cluster_by", "not clustered"]),
    "cluster twice": (None, {"cluster_by": [ledger.KEY, ledger.KEY.upper()]}, ["output.cluster_by", "appears twice"]),
    "range backwards": (
        None, {"partition_by": {"column": "a", "start": 10, "end": 5, "interval": 1}},
        ["output.partition_by", "end: must be more than start, 10"],
    ),
    "truncate by stream": (None, {"write": "truncate", "method": "stream"}, ["output.write", "load job"]),
    "of streams": (None, {"event_time": "at"}, ["output.event_time", "streams"]),
    "range and unit": (
        None, {"partition_by": {"column": "a", "unit": "day", "start": 1, "end": 2, "interval": 1}},
        ["output.partition_by", "start, end and interval"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_before_the_run(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, what: str
) -> None:
    columns, output, wanted = WRONG[what]
    if columns:
        emulator.create(table, columns)
    result = command("batch", "--config", config_for(tmp_path, table, ledger.births(3, 1), **output))
    assert result.code == 2, result
    [line] = result.errors
    assert [word for word in wanted if word not in line] == []
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_date_has_no_hours() -> None:
    output = BigQueryOutput(
        type="bigquery",
        table="p.d.t",
        partition_by={"column": "born", "unit": "hour"},  # type: ignore[arg-type]
    )
    with pytest.raises(ConfigError, match=r"output\.partition_by\.unit: 'born' is DATE, .* give day, month or year"):
        batch_table.check(output, pa.schema([("born", pa.date32())]))


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a", "A"], "'a' and 'A' are one name"), (["_PARTITIONTIME"], "no column named"), (["a.b"], "a.b")],
)
def test_names_that_bigquery_does_not_take(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        batch_table.check(BigQueryOutput(type="bigquery", table="p.d.t"), pa.schema([(n, pa.int64()) for n in names]))


REFUSED = {
    "no dataset for you": ("/datasets/", refusal(403, "accessDenied", "no get"), ["refuses these credentials"]),
    "no jobs": ("/jobs", refusal(403, "accessDenied", "no bigquery.jobs.create"), ["may not run jobs", "Job User"]),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_permissions_are_looked_at_before_the_run(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path, what: str
) -> None:
    part, answer, wanted = REFUSED[what]
    rest.refuse = lambda method, path, body: answer if part in path else None
    result = command("batch", "--config", config_for(tmp_path, table, ledger.births(3, 1)))
    assert result.code == 2, result
    [line] = result.errors
    assert [word for word in wanted if word not in line] == []


def test_credentials_that_have_expired_are_told(
    command: Command, rest: RestProxy, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(project: str) -> Any:
        raise RefreshError("Reauthentication is needed. Please run `gcloud auth application-default login`")

    monkeypatch.setattr(batch_table, "make_client", expired)
    result = command("batch", "--config", config_for(tmp_path, table, ledger.births(3, 1)))
    assert result.code == 2, result
    [line] = result.errors
    assert "refuses these credentials: Reauthentication is needed" in line


def test_who_may_not_write_to_a_table_is_told(
    command: Command, emulator: Emulator, rest: RestProxy, table: str, tmp_path: Path
) -> None:
    emulator.create(table, COLUMNS)
    rest.refuse = lambda method, path, body: (200, {"permissions": []}) if "testIamPermissions" in path else None
    result = command("batch", "--config", config_for(tmp_path, table, ledger.births(3, 1), write="append"))
    assert result.code == 2, result
    assert "may not write to" in result.errors[0]


@pytest.mark.parametrize(
    ("bucket", "parts", "dataset", "is_near"),
    [
        ("US-EAST1", (), "US", True),
        ("EUROPE-WEST1", (), "US", True),
        ("EUROPE-WEST1", (), "EU", True),
        ("US-EAST1", (), "EU", False),
        ("EU", (), "europe-west3", True),
        ("EUR4", (), "europe-west4", True),
        ("EUR4", (), "europe-west1", False),
        ("EUR4", ("EUROPE-NORTH1", "EUROPE-WEST4"), "EU", True),
        ("asia-east1", (), "us-central1", False),
    ],
)
def test_buckets_are_near_their_datasets(bucket: str, parts: tuple[str, ...], dataset: str, is_near: bool) -> None:
    assert locations.is_near(bucket, parts, dataset) is is_near


@pytest.mark.parametrize(
    ("found", "said"), [(("US-EAST1", ()), "the bucket far is in US-EAST1"), (None, "there is no bucket far")]
)
def test_a_bucket_that_is_far_or_missing_is_told(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, tuple[str, ...]] | None, said: str
) -> None:
    monkeypatch.setattr(locations, "_bucket", lambda name: found)
    [line] = locations.problems("gs://far/staging/t", "p.d", "europe-west1")
    assert said in line
    assert "europe-west1" in line
    with pytest.raises(ValueError, match="does not load from s3://"):
        BigQueryOutput(type="bigquery", table="p.d.t", staging="s3://far/staging/t")


def test_a_bucket_whose_location_may_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights to read and write objects do not contain that, and are all that a run needs."""
    answer = b'{"error": {"code": 403, "message": "no storage.buckets.get for you"}}'
    with stand_in(lambda seen: (403, answer)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        assert locations.problems("gs://mine/staging/t", "p.d", "EU") == []
        assert locations.serves(*locations.of_bucket("mine", "output.path"), "us-central1")
        with pytest.raises(ConfigError, match=r"--temp_location: .* no storage\.buckets\.get for you"):
            locations.of_bucket("mine", "--temp_location", strict=True)


def test_a_stream_has_no_keys_of_batch_runs(command: Command, tmp_path: Path) -> None:
    output = {"type": "bigquery", "table": f"{DATASET}.t", "write": "append"}
    result = command("stream", "--set", f"output={json.dumps(output)}")
    assert result.code == 2
    assert result.errors == ["error: output.write: is for batch runs: remove it"]
    assert BigQueryOutput(type="bigquery", table="p.d.t").unfit(is_batch=False) == []
