"""Sources in BigQuery, against a stand-in: streams that break, differ, expire; every type; what is refused before."""

from __future__ import annotations

import base64
import datetime
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipelines.connectors.bigquery import read_api
from pipelines.connectors.bigquery.read_api import StreamRows
from pipelines.connectors.bigquery.silence import Patience
from pipelines.connectors.bigquery.source import _size
from pipelines.formats.bigquery_rows import row_json, row_of_json
from pipelines.formats.bigquery_types import type_name
from tests.servers.bigquery_read import StandIn, StoredTable, bigquery_stand_in
from tests.support import outputs_model
from tests.support.commands import ROOT, Command

BIRTHS = "p.d.births"
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return outputs_model.make(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with bigquery_stand_in(StandIn()) as made:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", made.rest)
        monkeypatch.setenv("BIGQUERY_STORAGE_EMULATOR_HOST", made.grpc)
        yield made


def births(count: int) -> pa.Table:
    numbers = np.arange(count)
    return pa.table(
        {
            "id": pa.array([f"b{n:06d}" for n in numbers], pa.string()),
            "mother_age": pa.array(numbers % 40 + 0.5),
            "plurality": pa.array(numbers % 3 + 1),
            "not_needed": pa.array(["x" * 50] * count, pa.string()),
        }
    )


def sets(folder: Path, model: str, source: dict[str, Any], **changes: Any) -> list[str]:
    config = {
        "source": {"type": "bigquery", "key": "id", **source},
        "model": {"type": "saved_model", "path": model},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out"), "columns": ["id", "weight", "count"]},
        "dead_letters": {"path": str(folder / "dead"), "max_fraction": 0.5},
        **changes,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return ["--config", str(path)]


def rows_of(folder: Path) -> dict[str, tuple[float, int]]:
    """The rows of all shards; a key that is there twice is a mistake."""
    tables = [pa.csv.read_csv(path) for path in sorted(folder.glob("out-*.csv"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert not [key for key, times in Counter(row["id"] for row in rows).items() if times > 1]
    return {row["id"]: (row["weight"], row["count"]) for row in rows}


def predicted(table: pa.Table) -> dict[str, tuple[float, int]]:
    return {
        row["id"]: (pytest.approx(row["mother_age"] / 7, rel=1e-5), row["plurality"] * 3) for row in table.to_pylist()
    }


@pytest.mark.parametrize("seed", range(4))
def test_streams_broken_anywhere_are_resumed_with_no_row_lost_or_doubled(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_STREAM_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source.split_bytes_for", lambda total: -(-total // 4))
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._LONGEST_WAIT_S", 0.01)
    chance = random.Random(seed)
    codes = [CODE.UNAVAILABLE, CODE.INTERNAL, CODE.ABORTED, CODE.UNKNOWN]
    planned = {(call, offset): chance.random() < 0.3 for call in range(300) for offset in range(0, 5000, 100)}

    def breaks(stream: str, call: int, offset: int) -> grpc.StatusCode | None:
        return codes[(call + offset // 100) % 4] if planned.get((call, offset)) else None

    rows = births(5000)
    service.tables[BIRTHS] = StoredTable(rows, [3000, 1500, 400, 100])
    service.breaks = breaks
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert result.code == 0, result
    assert result.summary["rows_read"] == result.summary["rows_written"] == 5000
    assert rows_of(tmp_path) == predicted(rows)
    assert sum(offset > 0 for _, offset in service.calls) > 5


def test_a_stream_that_says_nothing_any_more_is_read_on(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._LONGEST_SILENCE_S", 0.4)
    released = threading.Event()

    def stalls(stream: str, call: int, offset: int) -> None:
        if (call, offset) in ((0, 300), (1, 300), (2, 500)):
            released.wait(60)

    rows = births(1000)
    service.tables[BIRTHS] = StoredTable(rows, [1000])
    service.breaks = stalls
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    released.set()
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    assert [offset for _, offset in service.calls] == [0, 300, 300, 500]


def test_a_stream_that_never_says_anything_ends_the_run(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._LONGEST_SILENCE_S", 0.1)
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._ATTEMPTS", 2)
    released = threading.Event()
    service.tables[BIRTHS] = StoredTable(births(10), [10])

    def stalls(stream: str, call: int, offset: int) -> None:
        released.wait(60)

    service.breaks = stalls
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}))
    released.set()
    assert result.code == 1
    assert "BigQuery gives no more rows of a stream after" in result.err
    assert "no answer within 0.1 s" in result.err


def test_rows_may_be_worked_on_for_longer_than_an_answer_may_take() -> None:
    class Call(Iterator[int]):
        left = 3

        def __next__(self) -> int:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return self.left

        def cancel(self) -> None:
            raise AssertionError("nothing is late")

    answers = Patience(Call(), 0.05)
    worked = threading.Event()
    found = []
    for answer in answers:
        worked.wait(0.15)
        found.append(answer)
    assert (found, answers.ended) == ([2, 1, 0], False)


@pytest.mark.parametrize(
    ("shares", "size", "broken_off"),
    [
        ([], 0, False),
        ([(0.0, 1.0)], 7, False),
        ([(0.0, 0.5), (0.5, 1.0)], 14, True),
        ([(0.25, 0.5), (0.5, 1.0)], 28, True),
        ([(0.0, 1.0), (0.0, 1.0), (0.0, 1.0)], None, False),
        ([(0.0, 0.0), (0.0, 0.0)], None, True),
    ],
    ids=["empty", "one_answer", "half", "after_a_filter", "says_what_is_not_true", "says_nothing"],
)
def test_a_first_answer_tells_how_many_rows_a_stream_has(
    monkeypatch: pytest.MonkeyPatch, shares: list[tuple[float, float]], size: int | None, broken_off: bool
) -> None:
    ended = []

    def read(transport: Any, stream: Any) -> Iterator[StreamRows]:
        try:
            for number, (begin, end) in enumerate(shares):
                yield StreamRows(births(7).to_batches()[0], 7 * number, begin, end)
            ended.append("read to its end")
        finally:
            ended.append("closed")

    monkeypatch.setattr(read_api, "read", read)
    assert _size(None, None) == size  # type: ignore[arg-type]
    assert ended == (["closed"] if broken_off else ["read to its end", "closed"])


def test_only_the_columns_needed_are_asked_for_and_the_filter_is_bigquerys(
    command: Command, service: StandIn, model: str, tmp_path: Path
) -> None:
    service.tables[BIRTHS] = StoredTable(births(10), [10])
    source = {"table": BIRTHS, "filter": "plurality < 9", "snapshot_time": "2026-01-31T12:00:00Z", "project": "payer"}
    assert command("batch", *sets(tmp_path, model, source)).code == 0
    asked = service.sessions[-1]
    options = asked.read_session.read_options
    assert sorted(options.selected_fields) == ["id", "mother_age", "plurality"]
    assert options.row_restriction == "plurality < 9"
    assert asked.read_session.table_modifiers.snapshot_time.isoformat() == "2026-01-31T12:00:00+00:00"
    assert asked.parent == "projects/payer"


def test_wildly_uneven_streams_become_even_pieces(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_STREAM_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source.split_bytes_for", lambda total: -(-total // 16))
    rows = births(20_000)
    service.tables[BIRTHS] = StoredTable(rows, [19_000, 900, 70, 20, 0, 10])
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    served = {name: count for name, count in service.served.items() if "/s2/" in name}
    # Of streams that were split only first answers were read, and what was on its way by then.
    whole = {name: count for name, count in served.items() if f"{name}a" not in served and f"{name}b" not in served}
    read = [count for count in whole.values() if count > service.answer_rows]
    assert len(read) >= 12
    assert max(read) <= 2 * 20_000 / 16


def test_no_call_that_looked_at_a_stream_goes_on_when_the_reading_begins(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_STREAM_BYTES", 0)
    # More than what gRPC sends before somebody asks for it.
    rows = births(600_000)
    service.tables[BIRTHS] = StoredTable(rows, [500_000, 90_000, 10_000])
    service.answer_rows = 5_000
    left = []

    def look(stream: str, call: int) -> bool:
        return call == 0 and not stream.endswith(("a", "b"))

    def waits(stream: str, call: int, offset: int) -> None:
        if not offset and not look(stream, call):
            deadline = time.monotonic() + 20
            while (looks := [each for each in service.open_calls if look(*each)]) and time.monotonic() < deadline:
                time.sleep(0.01)
            left.extend(looks)

    service.breaks = waits
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 600_000
    assert left == []
    assert "0" in {stream.rpartition("/")[2] for stream, _ in service.broken_off}


def test_streams_that_do_not_tell_how_large_they_are_count_as_even(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_STREAM_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source.split_bytes_for", lambda total: -(-total // 4))
    rows = births(4_000)
    service.tables[BIRTHS] = StoredTable(rows, [1_000] * 4)
    service.tells_progress = False
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    # The first is looked at, all are read, none is broken off.
    assert sorted(Counter(stream.rpartition("/")[2] for stream, _ in service.calls).items()) == [
        ("0", 2),
        ("1", 1),
        ("2", 1),
        ("3", 1),
    ]
    assert service.broken_off == []


@pytest.mark.parametrize("sizes", [[4_000], [2_000, 1_500, 500]], ids=["one_stream", "small_streams"])
def test_streams_are_split_without_a_look_that_is_not_worth_it(
    command: Command,
    service: StandIn,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.source._SMALL_BYTES", 0)
    monkeypatch.setattr("pipelines.connectors.bigquery.source.split_bytes_for", lambda total: -(-total // 16))
    rows = births(4_000)
    service.tables[BIRTHS] = StoredTable(rows, sizes)
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    assert sum(service.served.values()) == 4_000
    assert len(service.served) >= 15
    assert service.broken_off == []


def test_an_empty_table_has_no_rows(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    service.tables[BIRTHS] = StoredTable(births(0), [0])
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}), "--json")
    assert (result.code, result.summary["rows_read"]) == (0, 0), result


def test_a_session_that_expired_is_explained(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    service.tables[BIRTHS] = StoredTable(births(500), [250, 250])
    service.expired = True
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}))
    assert result.code == 1
    [error] = result.errors
    assert "the read session has expired" in error
    assert "source.snapshot_time" in error
    assert "nothing was published" in error
    assert not list(tmp_path.glob("out-*"))


def test_a_stream_that_stays_broken_is_given_up(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.connectors.bigquery.read_api._LONGEST_WAIT_S", 0.01)
    service.tables[BIRTHS] = StoredTable(births(500), [500])
    service.breaks = lambda stream, call, offset: CODE.UNAVAILABLE if offset >= 200 else None
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}))
    assert result.code == 1
    [error] = result.errors
    assert "BigQuery gives no more rows of a stream after 8 attempts: UNAVAILABLE: the stream broke" in error


def test_a_query_runs_once_and_asks_for_what_is_needed(
    command: Command, service: StandIn, model: str, tmp_path: Path
) -> None:
    rows = births(300)
    service.tables["p._anonymous.result"] = StoredTable(rows, [300])
    service.query = "p._anonymous.result"
    source = {"query": "SELECT * FROM somewhere;", "filter": "plurality < 9", "project": "p"}
    result = command("batch", *sets(tmp_path, model, source), "--json")
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    [sql] = [sql for sql, dry in service.sql if not dry]
    columns, rest = sql.removeprefix("SELECT ").split(" FROM ", 1)
    assert sorted(columns.split(", ")) == ["`id`", "`mother_age`", "`plurality`"]
    assert rest == "(\nSELECT * FROM somewhere\n) WHERE (plurality < 9)"


def test_a_view_is_read_by_a_query(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    rows = births(30)
    service.tables |= {"p._anonymous.result": StoredTable(rows, [30]), "p.d.v": StoredTable(rows, [], "VIEW")}
    service.query = "p._anonymous.result"
    result = command("batch", *sets(tmp_path, model, {"table": "p.d.v"}), "--json")
    assert result.code == 0, result
    assert rows_of(tmp_path) == predicted(rows)
    assert [sql.rpartition(" FROM ")[2] for sql, _ in service.sql] == ["`p.d.v`"] * 2


def test_check_says_what_a_query_reads(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    service.tables["p.a.r"] = StoredTable(births(3), [3])
    service.query, service.query_bytes = "p.a.r", 12_345_678
    source = {"query": "SELECT 1", "project": "p", "max_bytes_billed": 20_000_000}
    result = command("check", *sets(tmp_path, model, source))
    assert result.code == 0, result
    assert "the query reads at most 12,345,678 bytes, by a dry run, of 20,000,000 that may be billed" in result.out
    assert not [sql for sql, dry in service.sql if not dry]


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no_permission_for_the_table": (
        {"rest_error": (403, "Access Denied: Table p.d.births: User does not have permission")},
        {},
        "Access Denied: Table p.d.births: User does not have permission; check the account and its roles",
    ),
    "no_permission_to_read": (
        {"refused": (CODE.PERMISSION_DENIED, "no bigquery.readsessions.create")},
        {},
        "no bigquery.readsessions.create; the account needs the roles roles/bigquery.readSessionUser in project p",
    ),
    "no_dataset": ({}, {"table": "p.nowhere.births"}, "there is no dataset p.nowhere; check the name"),
    "no_table": ({}, {"table": "p.d.birth"}, "there is no table p.d.birth; check the name"),
    "wrong_location": ({}, {"location": "EU"}, "source.location: p.d.births is in US, not in EU"),
    "wrong_location_of_a_query": (
        {"query": (404, "Not found: Dataset p:d was not found in location EU")},
        {"query": "SELECT 1", "location": "EU"},
        "set source.location to where the datasets are (source.location is EU)",
    ),
    "syntax_error": (
        {"query": (400, 'Syntax error: Unexpected identifier "SELEC" at [1:1]')},
        {"query": "SELEC 1"},
        'source.query: Syntax error: Unexpected identifier "SELEC" at [1:1]; correct the SQL',
    ),
    "view_over_nothing": (
        {"query": (404, "Not found: Table p:d.gone")},
        {"table": "p.d.v"},
        "source.table: the view reads what is not there: Not found: Table p:d.gone; check the names",
    ),
    "too_many_bytes": (
        {"query": BIRTHS, "query_bytes": 2000},
        {"query": "SELECT 1", "max_bytes_billed": 1999},
        "source.max_bytes_billed: query would read 2,000 bytes, and 1,999 may be billed",
    ),
    "wrong_filter": (
        {"refused": (CODE.INVALID_ARGUMENT, "request failed: Query error: Syntax error at [1:3]")},
        {"filter": "a ==="},
        "Syntax error at [1:3]; give a condition of GoogleSQL, without WHERE",
    ),
    "snapshot_of_a_view": (
        {"query": BIRTHS},
        {"table": "p.d.v", "snapshot_time": "2026-01-01T00:00:00Z"},
        "source.snapshot_time: p.d.v is a view; only tables can be read as they were",
    ),
    "selected_column_of_no_type": (
        {"tables": {BIRTHS: StoredTable(births(2).append_column("kids", pa.array([[{"age": 1}], []])), [2])}},
        {"select": ["id", "kids"]},
        "source.select: column kids (list<item: struct<age: int64>>) has a type that cannot be read; take out what",
    ),
    "unknown_selected_column": ({}, {"columns": ["id", "plurallity"]}, "source.select: no column 'plurallity'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_is_said_on_one_line_before_the_run(
    command: Command, service: StandIn, model: str, tmp_path: Path, case: str
) -> None:
    failures, source, said = REFUSALS[case]
    service.tables |= {BIRTHS: StoredTable(births(5), [5]), "p.d.v": StoredTable(births(0), [], "VIEW")}
    for name, value in failures.items():
        setattr(service, name, value)
    source = {"project": "p", **({} if "query" in source else {"table": BIRTHS}), **source}
    result = command("batch", *sets(tmp_path, model, source))
    assert result.code == 2, result
    [error] = result.errors
    assert said in error


def test_a_session_that_is_refused_in_the_run_is_told_on_one_line(
    command: Command, service: StandIn, model: str, tmp_path: Path
) -> None:
    """Before a run of a query no session is opened: its rows are not there yet."""
    service.tables |= {BIRTHS: StoredTable(births(5), [5])}
    service.query = BIRTHS
    service.refused = (CODE.PERMISSION_DENIED, "no bigquery.readsessions.create for you")
    result = command("batch", *sets(tmp_path, model, {"query": "SELECT 1", "project": "p"}))
    assert result.code == 1, result
    [error] = result.errors
    assert "error: PERMISSION_DENIED: no bigquery.readsessions.create for you (in step Source/Session" in error
    assert "nothing was published" in error
    assert "Traceback" not in result.err


def test_expired_credentials_are_refused_before_the_run(
    command: Command, service: StandIn, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key = {
        "type": "service_account",
        "client_email": "robot@p.example",
        "token_uri": f"http://{service.rest}/token",
        "private_key": private.private_bytes(*kinds).decode(),
    }
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(key))
    service.rest_error = (400, "invalid_grant: Token has been expired or revoked.")
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    monkeypatch.delenv("BIGQUERY_STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS, "project": "p"}))
    assert result.code == 2, result
    [error] = result.errors
    assert "refuses these credentials" in error
    assert not [line for line in key["private_key"].splitlines()[1:-1] if line in result.out + result.err]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no Google credentials: File {} was not found"),
        ("not json", "no Google credentials: File {} is not a valid json file"),
        ('{"a": 1}', "no Google credentials: The file {} does not have a valid type"),
        ('{"type": "service_account"}', "no Google credentials: Failed to load service account credentials from {}"),
    ],
    ids=["no file", "no JSON", "no type", "no fields"],
)
def test_credentials_that_are_none(
    command: Command, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, said: str
) -> None:
    file = tmp_path / "credentials.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS, "project": "p"}))
    assert result.code == 2, result
    [error] = result.errors
    assert said.format(file) in error
    assert "set GOOGLE_APPLICATION_CREDENTIALS to a key file" in error


TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "INT64": (pa.int64(), [25, -(2**63), 2**63 - 1, None]),
    "FLOAT64": (pa.float64(), [25.5, float("inf"), float("nan"), None]),
    "NUMERIC": (pa.decimal128(38, 9), [Decimal("25.5"), Decimal("-99999999999999999999999999999.999999999"), 0, None]),
    "BIGNUMERIC": (pa.decimal256(76, 38), [Decimal("25.5"), Decimal("1e37"), Decimal("1e-38"), None]),
    "BOOL": (pa.bool_(), [True, False, True, None]),
    "STRING": (pa.string(), ["25.5", 'é\n,"', "", None]),
    "BYTES": (pa.binary(), [b"25.5", b"\xff\x00", b"", None]),
    "DATE": (pa.date32(), [datetime.date(2020, 2, 29), datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None]),
    "DATETIME": (
        pa.timestamp("us"),
        [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31), None],
    ),
    "TIME": (pa.time64("us"), [datetime.time(1, 2, 3, 4), datetime.time(0), datetime.time(23, 59, 59, 999999), None]),
    "TIMESTAMP": (
        pa.timestamp("us", "UTC"),
        [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31), None],
    ),
    "ARRAY<INT64>": (pa.list_(pa.int64()), [[1, 2], [], [3], [4, 5, 6]]),
    "ARRAY<STRING>": (pa.list_(pa.string()), [["a", "b"], [], ["c"], [""]]),
}
"""Of each type of BigQuery: that of its Arrow batches, and values."""


def every_type() -> pa.Table:
    columns = {name: pa.array(values, type) for name, (type, values) in TYPES.items()}
    columns["JSON"] = pa.array(['{"k": [1]}', "null", '"x"', None])
    columns["GEOGRAPHY"] = pa.array(["POINT(1 2)", "POLYGON EMPTY", "POINT(0 0)", None])
    inner = pa.StructArray.from_arrays([pa.array([26.5, 27.5, 28.5, None]), columns["DATE"]], names=["age", "born"])
    columns["mother"] = pa.StructArray.from_arrays([pa.array([1, 2, 3, 4]), inner], names=["n", "deep"])
    named = {name.replace("<", "_").replace(">", ""): column for name, column in columns.items()}
    return pa.table({"id": pa.array(["a", "b", "c", "d"]), "plurality": pa.array([1, 2, 3, 1]), **named})


@pytest.mark.parametrize("fed", ["INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "STRING", "BOOL", "mother.deep.age"])
@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_every_type_comes_out_as_it_does_of_a_parquet_file(
    command: Command, service: StandIn, model: str, tmp_path: Path, fed: str, format: str
) -> None:
    rows = every_type()
    service.tables["p.d.t"] = StoredTable(rows, [3, 1])
    written = [name for name in rows.schema.names if name != "mother"]
    if format == "csv":
        written = [name for name in written if not name.startswith("ARRAY")]
    flat = rows.drop(["mother"])
    deep = rows["mother"].combine_chunks().field("deep")
    names = {"mother.deep.age": "mother_deep_age", "mother.deep.born": "mother_deep_born"}
    for name in names:
        flat = flat.append_column(names[name], deep.field(name.rpartition(".")[2]))
    pq.write_table(flat, tmp_path / "t.parquet")
    outcomes = []
    for source, path, field in (
        ({"table": "p.d.t"}, "bq", lambda name: name),
        (
            {"type": "file", "format": "parquet", "path": str(tmp_path / "t.parquet")},
            "file",
            lambda name: names.get(name, name),
        ),
    ):
        folder = tmp_path / path
        folder.mkdir()
        columns = [*written, field("mother.deep.born"), "weight"]
        output = {"type": "file", "format": format, "path": str(folder / "out"), "columns": columns}
        given = {**source, "columns": {"mother_age": field(fed)}}
        result = command(
            "batch", *sets(folder, model, given, output=output), "--json", "--set", "dead_letters.max_fraction=1"
        )
        outcomes.append((result.code, [error for error in result.errors if not path]))
        assert result.code == 0, result
        dead = [json.loads(line) for file in sorted(folder.glob("dead-*")) for line in file.read_bytes().splitlines()]
        content = [file.read_bytes() for file in sorted(folder.glob("out-*"))]
        if format == "parquet":
            tables = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("out-*"))])
            content = repr(
                sorted(tables.rename_columns([*written, "born", "weight"]).to_pylist(), key=lambda row: row["id"])
            )
        else:
            text = b"".join(content).replace(b"mother.deep.born", b"mother_deep_born")
            content = sorted(text.splitlines()) if format == "json" else text
        reasons = sorted(
            (each["key"], each["stage"], each["message"].replace("mother_deep_age", "mother.deep.age")) for each in dead
        )
        outcomes[-1] = (content, reasons)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("gone", [False, True], ids=["table_is_there", "table_is_gone"])
def test_a_dead_letter_holds_the_row_and_is_replayed(
    command: Command, service: StandIn, model: str, tmp_path: Path, gone: bool
) -> None:
    rows = births(40)
    ages = rows["mother_age"].to_pylist()
    ages[7] = None
    rows = rows.set_column(1, "mother_age", pa.array(ages, pa.float64()))
    rows = rows.append_column("raw", pa.array([bytes([n, 255]) for n in range(40)]))
    service.tables[BIRTHS] = StoredTable(rows, [20, 20])
    output = {"type": "file", "format": "parquet", "path": str(tmp_path / "out"), "columns": ["id", "weight", "raw"]}
    result = command("batch", *sets(tmp_path, model, {"table": BIRTHS}, output=output), "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (39, 1)
    [line] = [line for file in tmp_path.glob("dead-*") for line in file.read_bytes().splitlines()]
    dead = json.loads(line)
    assert dead["key"] == "b000007"
    assert dead["source"] == "p.d.births/0:7"
    assert dead["format"]["columns"] == {"mother_age": "FLOAT64", "plurality": "INT64", "id": "STRING", "raw": "BYTES"}
    payload = json.loads(base64.b64decode(dead["payload"]))
    assert payload == {"mother_age": None, "plurality": 2, "id": "b000007", "raw": "B/8="}
    if gone:
        service.tables.clear()
        output = {**output, "columns": ["id", "weight"]}
    source = {"table": BIRTHS, "defaults": {"mother_age": 14.0}}
    again = command("replay", *sets(tmp_path, model, source, output=output), "--json")
    assert again.code == 0, again
    assert again.summary["rows_written"] == 1
    found = [row for file in tmp_path.glob("out-replay-*") for row in pq.read_table(file).to_pylist()]
    raw = {} if gone else {"raw": bytes([7, 255])}
    assert found == [{"id": "b000007", "weight": pytest.approx(2.0), **raw}]


@pytest.mark.parametrize("type", TYPES)
def test_a_row_of_json_becomes_the_same_row(type: str) -> None:
    arrow, values = TYPES[type]
    assert type_name(arrow) == type
    for value in values:
        row = pa.record_batch({"c": pa.array([value], arrow)})
        again = row_of_json(row_json(row), {"c": type})
        assert again.schema == row.schema
        assert repr(again.to_pylist()) == repr(row.to_pylist())


def test_the_articles_job_passes_an_offline_check(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "somebodys-bucket")
    result = command("check", "--offline", "--config", str(ROOT / "configs" / "natality-bigquery.json"), "--json")
    assert result.code == 0, result
    assert result.summary["output_path"] == "gs://somebodys-bucket/natality/predictions"
    assert "the source was not looked at" in result.summary["notes"]


def test_a_dry_run_opens_no_session(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    result = command("batch", "--dry_run", *sets(tmp_path, model, {"table": BIRTHS}))
    assert result.code == 0, result
    assert (service.sessions, service.calls, service.sql) == ([], [], [])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "source: table: give either table or query"),
        ({"table": BIRTHS, "query": "SELECT 1"}, "source: table: give either table or query"),
        ({"query": "SELECT 1", "snapshot_time": "2026-01-01T00:00:00Z"}, "write FOR SYSTEM_TIME AS OF"),
        ({"table": BIRTHS, "snapshot_time": "2026-01-01T00:00:00"}, "source.snapshot_time"),
        ({"table": "births"}, "source.table"),
        ({"table": BIRTHS, "columns": ["a"], "select": ["b"]}, "columns: beside select, it maps model inputs"),
    ],
)
def test_mistakes_of_the_config_are_one_line(
    command: Command, model: str, tmp_path: Path, source: dict[str, Any], said: str
) -> None:
    result = command("batch", *sets(tmp_path, model, source))
    assert result.code == 2
    [error] = result.errors
    assert said in error


def test_a_stream_does_not_read_tables(command: Command, service: StandIn, model: str, tmp_path: Path) -> None:
    result = command("stream", *sets(tmp_path, model, {"table": BIRTHS}))
    assert result.code == 2
    assert result.errors == ["error: source.type: bigquery has an end: run python -m pipelines.batch"]
