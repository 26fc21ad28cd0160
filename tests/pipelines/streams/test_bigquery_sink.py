"""Streams into BigQuery, against an emulator: every row in the table, once where that is promised, or a dead letter."""

from __future__ import annotations

import base64
import datetime
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import types
from google.rpc import status_pb2

from pipelines.connectors.bigquery.appender import Appender
from pipelines.connectors.bigquery.tables import Table, column_of, table_type
from pipelines.telemetry.tally import TALLY
from tests.servers.bigquery_emulator import DATASET, Emulator, bigquery_emulator
from tests.servers.grpc_proxy import LostError, Proxy, proxy_to
from tests.servers.pubsub_emulator import SUBSCRIPTION, pubsub_emulator
from tests.support import outputs_model, processes
from tests.support.commands import ROOT, Command
from tests.support.streams import births, dead_letters, sets
from tests.support.waiting import wait_until

COLUMNS = [
    ("source_id", "STRING", "NULLABLE"),
    ("weight", "FLOAT64", "NULLABLE"),
    ("count", "INT64", "NULLABLE"),
    ("label", "STRING", "NULLABLE"),
    ("parts", "FLOAT64", "REPEATED"),
    ("many", "BOOL", "NULLABLE"),
]
NAMES = [name for name, _, _ in COLUMNS]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigquery_emulator() as made:
        yield made


@pytest.fixture
def hosts(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", emulator.rest)
    monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", emulator.grpc)
    return emulator


@pytest.fixture
def proxy(hosts: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_to(hosts.grpc) as made:
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", made.host)
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return outputs_model.make(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)


def settings(folder: Path, model: str, table: str, **changes: Any) -> list[str]:
    output = {"type": "bigquery", "table": f"{DATASET}.{table}", "columns": NAMES, **changes.pop("output", {})}
    source = {"type": "simulated", "rate": 2000, "key": "source_id"}
    model_config = {"type": "saved_model", "path": model}
    given = {"source": source, "model": model_config, "dead_letters__max_fraction": 0.1, **changes}
    return ["--config", "configs/natality-stream.json", *sets(folder, output=output, **given)]


def keys(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["source_id"] for row in rows)


def births_keys(count: int) -> Counter[str]:
    return Counter(f"b{n:09d}" for n in range(count))


@pytest.mark.parametrize("mode", ["default", "exactly_once"])
def test_the_rows_of_a_new_table_are_the_predictions(
    command: Command, hosts: Emulator, model: str, table: str, tmp_path: Path, mode: str
) -> None:
    began = datetime.datetime.now(datetime.timezone.utc)
    output = {"create": True, "mode": mode, "event_time": "born", "columns": None}
    result = command("stream", "--max-messages", "700", *settings(tmp_path, model, table, output=output), "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["output"]) == (700, f"table {DATASET}.{table}")
    with hosts.client() as client:
        schema = client.get_table(f"{DATASET}.{table}").schema
    assert {(each.name, each.field_type, each.mode) for each in schema} == {*COLUMNS, ("born", "TIMESTAMP", "NULLABLE")}
    assert schema[0].name == "source_id"
    rows = hosts.rows(table)
    ended = datetime.datetime.now(datetime.timezone.utc)
    assert all(began < row.pop("born") < ended for row in rows)
    assert keys(rows) == births_keys(700)
    assert {row["source_id"]: row for row in rows} == outputs_model.predicted(model, 700)


def test_a_table_that_is_there_may_have_other_columns_too(
    command: Command, hosts: Emulator, model: str, table: str, tmp_path: Path
) -> None:
    hosts.create(table, [("note", "STRING", "NULLABLE"), *reversed(COLUMNS)])
    result = command("stream", "--max-messages", "50", *settings(tmp_path, model, table))
    assert result.code == 0, result
    rows = hosts.rows(table)
    assert {row.pop("note") for row in rows} == {None}
    assert {row["source_id"]: row for row in rows} == outputs_model.predicted(model, 50)


# Faults ------------------------------------------------------------------------------------------------------------


def losing_answers(every: int) -> Callable[[str, bytes], bytes]:
    """Loses some of the answers to appends, whose rows have been written."""
    seen = 0

    def lose(method: str, answer: bytes) -> bytes:
        nonlocal seen
        if method.endswith("AppendRows"):
            seen += 1
            if seen % every == 0:
                raise LostError
        return answer

    return lose


def test_exactly_once_repeats_an_append_without_writing_it_twice(
    command: Command, hosts: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path
) -> None:
    proxy.on_answer = losing_answers(3)
    output = {"create": True, "mode": "exactly_once"}
    changes = {"output": output, "batching__max_rows": 50}
    result = command("stream", "--max-messages", "1000", *settings(tmp_path, model, table, **changes))
    assert result.code == 0, result
    assert keys(hosts.rows(table)) == births_keys(1000)


@pytest.mark.parametrize(("exactly_once", "written"), [(True, 1), (False, 2)])
def test_a_lost_answer(hosts: Emulator, proxy: Proxy, table: str, exactly_once: bool, written: int) -> None:
    hosts.create(table, [("n", "INT64", "NULLABLE")])
    proxy.on_answer = losing_answers(2)
    appender = Appender(Table.parse(f"{DATASET}.{table}"), pa.schema([("n", pa.int64())]), exactly_once)
    for n in (1, 2):
        assert appender.append(pa.record_batch({"n": pa.array([n], pa.int64())})) == {}
    appender.close()
    assert Counter(row["n"] for row in hosts.rows(table)) == {1: 1, 2: written}


class Refusing:
    """What BigQuery does with rows of a certain key: it writes nothing of their request, and may say which they are."""

    def __init__(self, proxy: Proxy, bad: set[str], tells_rows: bool) -> None:
        self._bad = bad
        self._tells_rows = tells_rows
        self._schema = b""
        self._found: list[list[int]] = []
        self.requests = 0
        proxy.on_request, proxy.on_answer = self._request, self._answer

    def _request(self, method: str, message: bytes) -> bytes:
        if not method.endswith("AppendRows"):
            return message
        self.requests += 1
        request = types.AppendRowsRequest.deserialize(message)
        self._schema = request.arrow_rows.writer_schema.serialized_schema or self._schema
        rows = request.arrow_rows.rows
        schema = pa.ipc.read_schema(pa.py_buffer(self._schema))
        batch = pa.ipc.read_record_batch(pa.py_buffer(rows.serialized_record_batch), schema)
        self._found.append([n for n, key in enumerate(batch["source_id"].to_pylist()) if key in self._bad])
        if self._found[-1]:
            rows.serialized_record_batch = batch[:0].serialize().to_pybytes()
        return types.AppendRowsRequest.serialize(request)

    def _answer(self, method: str, message: bytes) -> bytes:
        if not method.endswith("AppendRows") or not (found := self._found.pop(0)):
            return message
        refusal = types.AppendRowsResponse(error=status_pb2.Status(code=3, message="Errors found"))
        if self._tells_rows:
            refusal.row_errors = [types.RowError(index=n, code=1, message=f"row {n}\nis bad") for n in found]
        return types.AppendRowsResponse.serialize(refusal)


@pytest.mark.parametrize("tells_rows", [True, False])
@pytest.mark.parametrize("mode", ["default", "exactly_once"])
def test_a_row_that_the_table_refuses_becomes_a_dead_letter_alone(
    command: Command, hosts: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path, mode: str, tells_rows: bool
) -> None:
    bad = {f"b{n:09d}" for n in (0, 17, 63, 64, 199)}
    refusing = Refusing(proxy, bad, tells_rows)
    changes = {"output": {"create": True, "mode": mode}, "batching__max_rows": 100, "batching__max_wait_ms": 1000}
    result = command("stream", "--max-messages", "200", *settings(tmp_path, model, table, **changes), "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (195, 5)
    assert keys(hosts.rows(table)) == births_keys(200) - Counter(bad)
    found = dead_letters(tmp_path)
    assert Counter(dead_letter["key"] for dead_letter in found) == Counter(bad)
    assert {dead_letter["stage"] for dead_letter in found} == {"write"}
    assert {json.loads(base64.b64decode(dead_letter["payload"]))["source_id"] for dead_letter in found} == bad
    assert all(("is bad" if tells_rows else "Errors found") in dead_letter["message"] for dead_letter in found)
    # One request for each batch, and one for what is good of it.
    assert not tells_rows or refusing.requests == 4


def test_a_service_that_stops_and_starts_again_loses_nothing(
    command: Command,
    hosts: Emulator,
    model: str,
    table: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt() -> None:
        # The emulator may hang for good if a table is read while rows are appended.
        wait_until(lambda: 300 < TALLY.rows_written < 1900, "some rows are written")
        hosts.stop()
        time.sleep(1)
        hosts.start()

    thread = threading.Thread(target=interrupt)
    thread.start()
    changes = {"output": {"create": True}, "source": {"type": "simulated", "rate": 400, "key": "source_id"}}
    result = command("stream", "--max-messages", "2000", *settings(tmp_path, model, table, **changes), "--json")
    thread.join()
    assert result.code == 0, result
    assert f"{DATASET}.{table} does not take rows, trying again" in caplog.text
    # What was not answered when it stopped may be there twice.
    rows = keys(hosts.rows(table))
    assert set(rows) == set(births_keys(2000))
    assert rows.total() < 2000 + 100


def test_what_is_not_written_is_not_acknowledged(
    command: Command, hosts: Emulator, model: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.create(table, COLUMNS)
    seen: list[int] = []
    with pubsub_emulator() as pubsub:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
        pubsub.publish(births(300))

        def stall(method: str, message: bytes) -> bytes:
            if method.endswith("AppendRows") and not seen:
                time.sleep(3)
                seen.append(pubsub.acknowledged())
            return message

        with proxy_to(hosts.grpc) as proxy:
            proxy.on_answer = stall
            monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", proxy.host)
            source = {"type": "pubsub", "subscription": SUBSCRIPTION, "key": "source_id"}
            arguments = settings(tmp_path, model, table, source=source)
            result = command("stream", "--max-messages", "300", *arguments)
        assert result.code == 0, result
        assert seen == [0]
        assert pubsub.acknowledged() == 300
    assert keys(hosts.rows(table)) == births_keys(300)


def test_who_may_not_write_is_told(
    command: Command, hosts: Emulator, proxy: Proxy, model: str, table: str, tmp_path: Path
) -> None:
    def refuse(method: str, message: bytes) -> bytes:
        if method.endswith("AppendRows"):
            raise LostError(grpc.StatusCode.PERMISSION_DENIED, "no updateData for you")
        return message

    proxy.on_answer = refuse
    arguments = settings(tmp_path, model, table, output={"create": True})
    result = command("stream", "--max-messages", "10", *arguments)
    assert result.code == 1, result
    [line] = result.errors
    assert "PERMISSION_DENIED" in line
    assert "no updateData for you" in line


def test_a_large_batch_is_cut_into_requests(hosts: Emulator, proxy: Proxy, table: str) -> None:
    hosts.create(table, [("n", "INT64", "NULLABLE"), ("text", "STRING", "NULLABLE")])
    sizes: list[int] = []

    def note(method: str, message: bytes) -> bytes:
        sizes.append(len(message))
        return message

    proxy.on_request = note
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    appender = Appender(Table.parse(f"{DATASET}.{table}"), schema, exactly_once=True)
    texts = ["x" * 1_000_000] * 25
    texts[3] = "x" * 11_000_000
    refused = appender.append(pa.record_batch([pa.array(range(25)), pa.array(texts)], schema=schema))
    appender.close()
    assert list(refused) == [3]
    assert "more than BigQuery takes" in refused[3]
    assert max(sizes) < 10_000_000
    assert sorted(row["n"] for row in hosts.rows(table)) == [n for n in range(25) if n != 3]


# Mistakes ----------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[list[tuple[str, str, str]] | None, dict[str, Any], list[list[str]]]] = {
    "no table": (None, {}, [["output.table", "there is no table", "output.create"]]),
    "no dataset": (None, {"table": "test-project.none.t"}, [["output.table", "there is no dataset test-project.none"]]),
    "no dataset to create in": (
        None, {"table": "test-project.none.t", "create": True}, [["there is no dataset", "create it"]],
    ),
    "malformed": (None, {"table": "births"}, [["output.table"]]),
    "column missing": (
        [("wieght", *c[1:]) if c[0] == "weight" else c for c in COLUMNS], {},
        [["output.columns", "no column 'weight'", "did you mean 'wieght'", "FLOAT64"]],
    ),
    "types": (
        [("source_id", "INTEGER", "REQUIRED"), *COLUMNS[1:4], ("parts", "FLOAT", "NULLABLE"), COLUMNS[5]], {},
        [["'source_id' is STRING", "it is INT64"], ["'parts' is REPEATED FLOAT64", "it is FLOAT64"]],
    ),
    "required": (
        [*COLUMNS, ("who", "STRING", "REQUIRED")], {}, [["output.table", "'who'", "REQUIRED", "output.columns"]],
    ),
    "event time twice": (COLUMNS, {"event_time": "weight"}, [["output.event_time", "'weight'"]]),
    "no such mode": (COLUMNS, {"mode": "once"}, [["output.mode", "exactly_once"]]),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(
    command: Command, hosts: Emulator, model: str, table: str, tmp_path: Path, what: str
) -> None:
    columns, changes, wanted = WRONG[what]
    if columns:
        hosts.create(table, columns)
    result = command("stream", "--max-messages", "10", *settings(tmp_path, model, table, output=changes))
    assert result.code == 2, result
    assert len(result.errors) == len(wanted), result
    for line, words in zip(result.errors, wanted, strict=True):
        assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BIGQUERY_EMULATOR_HOST": "127.0.0.1:1", "BIGQUERY_STORAGE_EMULATOR_HOST": "127.0.0.1:1"}, ["127.0.0.1:1"]),
        ({"BIGQUERY_STORAGE_EMULATOR_HOST": "127.0.0.1:1"}, ["127.0.0.1:1", "cannot be reached"]),
        ({"BIGQUERY_STORAGE_EMULATOR_HOST": ""}, ["BIGQUERY_STORAGE_EMULATOR_HOST", "set both"]),
        ({"BIGQUERY_EMULATOR_HOST": "", "BIGQUERY_STORAGE_EMULATOR_HOST": "", "GOOGLE_APPLICATION_CREDENTIALS": "",
          "NO_GCE_CHECK": "true"}, ["no Google credentials"]),
    ],
)  # fmt: skip
def test_who_is_not_there_is_told_in_one_line(
    hosts: Emulator, model: str, table: str, tmp_path: Path, variables: dict[str, str], words: list[str]
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), **variables}
    done = processes.run(
        [sys.executable, "-m", "pipelines.stream", *settings(tmp_path, model, table, output={"create": True})],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: output.table: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("type", "column"),
    [
        (pa.int8(), "INT64"),
        (pa.uint64(), "INT64"),
        (pa.float16(), "FLOAT64"),
        (pa.dictionary(pa.int32(), pa.string()), "STRING"),
        (pa.large_binary(), "BYTES"),
        (pa.timestamp("ns", "Europe/Paris"), "TIMESTAMP"),
        (pa.timestamp("ms"), "DATETIME"),
        (pa.date32(), "DATE"),
        (pa.time32("s"), "TIME"),
        (pa.decimal128(20, 4), "NUMERIC"),
        (pa.decimal128(38, 20), "STRING"),
        (pa.list_(pa.float32()), "REPEATED FLOAT64"),
        (pa.large_list(pa.string()), "REPEATED STRING"),
        (pa.list_(pa.list_(pa.int64())), "STRING"),
        (pa.struct([("a", pa.int64())]), "STRING"),
    ],
)
def test_types(type: pa.DataType, column: str) -> None:
    assert str(column_of(pa.field("x", table_type(type)))) == column
