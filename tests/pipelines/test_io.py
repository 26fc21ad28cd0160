"""Transforms for pipelines of one's own: every row as it was, bad ones beside them, all files published or none."""

from __future__ import annotations

import glob
import pickle
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.transforms.window import FixedWindows, TimestampedValue

import pipelines
from inference import Predict, SavedModelHandler
from pipelines.io import DeadLetter, ReadRecordBatches, WriteRecordBatches
from tests.support import ledger
from tests.support.ledger import FORMATS_IN, FORMATS_OUT, KEY, Row, births, write_rows

THREADS = PipelineOptions(["--direct_num_workers=2", "--direct_running_mode=multi_threading"])


def pipeline() -> beam.Pipeline:
    return beam.Pipeline(runner="FnApiRunner", options=THREADS)


class Kept:
    """Keeps the elements of a PCollection in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / uuid.uuid4().hex
        self._folder.mkdir()

    def __call__(self, element: Any) -> None:
        (self._folder / uuid.uuid4().hex).write_bytes(pickle.dumps(element))

    def elements(self) -> list[Any]:
        return [pickle.loads(path.read_bytes()) for path in self._folder.iterdir()]

    def rows(self) -> list[Row]:
        return [row for batch in self.elements() for row in batch.to_pylist()]


def read(folder: Path, read: ReadRecordBatches) -> list[pa.RecordBatch]:
    kept = Kept(folder)
    with pipeline() as p:
        _ = p | read | beam.Map(kept)
    return kept.elements()


def read_apart(folder: Path, read: ReadRecordBatches) -> tuple[list[Row], list[DeadLetter]]:
    """The rows, and the dead letters."""
    good, dead = Kept(folder), Kept(folder)
    with pipeline() as p:
        batches, dead_letters = p | read.with_exception_handling()
        _ = batches | "Good" >> beam.Map(good)
        _ = dead_letters | "Dead" >> beam.Map(dead)
    return good.rows(), dead.elements()


def write(batches: Iterable[pa.RecordBatch], write: WriteRecordBatches) -> None:
    with pipeline() as p:
        _ = p | beam.Create(list(batches)) | beam.Reshuffle() | write


def counted(rows: Iterable[Row]) -> Counter[Any]:
    return Counter(tuple(sorted((name, repr(value)) for name, value in row.items())) for row in rows)


def as_read(row: Row, format: str) -> Row:
    """A row as the format gives it: CSV has text alone, in which nothing and the empty text are the same."""
    if format == "csv":
        return {name: None if value in (None, "") else str(value) for name, value in row.items()}
    return row


def as_written(row: Row, format: str) -> Row:
    """A row as another library reads it from the format."""
    if format == "csv":
        return {name: "" if value is None else str(value) for name, value in row.items()}
    return row


def test_public_names() -> None:
    assert sorted(pipelines.__all__) == ["DeadLetter", "ReadRecordBatches", "WriteRecordBatches"]
    assert pipelines.ReadRecordBatches is ReadRecordBatches
    with pytest.raises(AttributeError, match="no attribute 'ReadRecords'"):
        _ = pipelines.ReadRecords


@pytest.mark.parametrize("format", FORMATS_IN)
def test_every_row_is_read_as_it_is(format: str, tmp_path: Path, small_pieces: Callable[[int, int], None]) -> None:
    rows = [row | {"gestation_weeks": float(number) / 8} for number, row in enumerate(births(900, 1))]
    extension = ledger.EXTENSIONS[format]
    for number in range(3):
        write_rows(tmp_path / "in" / f"{number}.{extension}", format, rows[number * 300 : (number + 1) * 300])
    batches = read(tmp_path, ReadRecordBatches(tmp_path / "in" / f"*.{extension}"))
    assert counted(row for batch in batches for row in batch.to_pylist()) == counted(
        as_read(row, format) for row in rows
    )
    assert len({batch.schema for batch in batches}) == 1
    assert len(batches) > 3


@pytest.mark.parametrize("format", FORMATS_OUT)
def test_every_row_is_written_as_it_is(format: str, tmp_path: Path) -> None:
    rows = [row | {"cigarette_use": "x", "alcohol_use": "y", "gestation_weeks": 7.5} for row in births(500, 2)]
    batches = ledger.table(rows).to_batches(max_chunksize=64)
    write(batches, WriteRecordBatches(tmp_path / "out" / "p", format))
    shards = ledger.shards(tmp_path / "out" / "p")
    written = [row for path in shards for row in ledger.read_shard(path)]
    assert counted(written) == counted(as_written(row, format) for row in rows)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {p.name for p in shards} | {".p.manifest.json"}
    assert ledger.recounted(tmp_path / "out" / "p") == 500


@pytest.mark.parametrize("format", ["parquet", "avro", "json"])
def test_what_is_written_is_read_again(format: str, tmp_path: Path) -> None:
    rows = births(400, 3)
    write(ledger.table(rows).to_batches(max_chunksize=50), WriteRecordBatches(tmp_path / "p", format))
    batches = read(tmp_path, ReadRecordBatches(tmp_path / f"p-*.{ledger.EXTENSIONS[format]}"))
    assert counted(row for batch in batches for row in batch.to_pylist()) == counted(rows)


def test_predictions_are_those_of_the_model(tmp_path: Path) -> None:
    rows = births(700, 4)
    write_rows(tmp_path / "in.csv", "csv", rows)
    kept = Kept(tmp_path)
    with pipeline() as p:
        predicted = (
            p
            | ReadRecordBatches(tmp_path / "in.csv", columns=[KEY, *ledger.TEXTS, *ledger.NUMBERS])
            | Predict(SavedModelHandler(ledger.MODEL, defaults=ledger.DEFAULTS))
        )
        written = predicted | WriteRecordBatches(tmp_path / "out" / "p", "parquet", columns=[KEY, "predictions"])
        _ = written | beam.Map(kept)
    books = ledger.read_books(tmp_path / "out" / "p", tmp_path / "out" / "dead")
    assert books.keys == Counter(row[KEY] for row in rows)
    ledger.assert_predictions(books, rows)
    assert set(books.output[0]) == {KEY, "predictions"}
    assert sorted(kept.elements()) == [str(path) for path in ledger.shards(tmp_path / "out" / "p")]


def test_columns_have_the_types_asked_for_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b,c\n1,2.5,x\n,3,y\n")
    wanted = pa.schema([("c", pa.dictionary(pa.int32(), pa.string())), ("a", pa.int16()), ("b", pa.float32())])
    (batch,) = read(tmp_path, ReadRecordBatches(tmp_path / "in.csv", columns=wanted))
    assert batch.schema == wanted
    assert batch.to_pydict() == {"c": ["x", "y"], "a": [1, None], "b": [2.5, 3.0]}


def test_files_with_different_types_give_batches_of_one_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int32()), "s": ["a", "b"]}), tmp_path / "0.parquet")
    pq.write_table(
        pa.table({"n": pa.array([2**40], pa.int64()), "s": pa.array(["c"]).dictionary_encode()}),
        tmp_path / "1.parquet",
    )
    batches = read(tmp_path, ReadRecordBatches(tmp_path / "*.parquet"))
    assert {batch.schema for batch in batches} == {pa.schema([("n", pa.int64()), ("s", pa.string())])}
    assert sorted(row["n"] for batch in batches for row in batch.to_pylist()) == [1, 2, 2**40]


def test_folders_are_columns(tmp_path: Path) -> None:
    for year in (2001, 2002):
        write_rows(tmp_path / "in" / f"year={year}" / "x.csv", "csv", births(5, year))
    rows, dead_letters = read_apart(tmp_path, ReadRecordBatches(tmp_path / "in", "csv", columns=["year", KEY]))
    assert Counter(row["year"] for row in rows) == {2001: 5, 2002: 5}
    assert dead_letters == []


def test_rows_that_cannot_be_decoded_come_beside_the_others(
    tmp_path: Path, small_pieces: Callable[[int, int], None]
) -> None:
    rows = births(600, 5)
    good = [ledger.csv_row(row) for row in rows]
    bad = [b"bad%d,too,few" % number for number in range(150)]
    content = [line for pair in zip(good[:150], bad, strict=True) for line in pair] + good[150:]
    path = tmp_path / "in.csv"
    path.write_bytes(ledger.lines(content, ledger.HEADER))
    found, dead_letters = read_apart(tmp_path, ReadRecordBatches(path, key=KEY))
    assert counted(found) == counted(as_read(row, "csv") for row in rows)
    assert Counter(dead_letter.payload.rstrip(b"\n") for dead_letter in dead_letters) == Counter(bad)
    for dead_letter in dead_letters:
        assert dead_letter.stage == "decode"
        assert dead_letter.source.startswith(f"{path}:")
        assert "expected" in dead_letter.message.lower()
        assert DeadLetter.from_json(dead_letter.to_json()) == dead_letter


def test_values_that_are_none_of_the_type_asked_for(tmp_path: Path) -> None:
    """Of a format without types, and of one with types of its own."""
    (tmp_path / "in.csv").write_text("id,n\na,1\nb,many\n")
    pq.write_table(pa.table({"id": ["c", "d"], "n": [2.0, 2.5]}), tmp_path / "in.parquet")
    wanted = pa.schema([("id", pa.string()), ("n", pa.int64())])
    for name, good, bad in (("in.csv", {"id": "a", "n": 1}, "b"), ("in.parquet", {"id": "c", "n": 2}, "d")):
        rows, dead_letters = read_apart(tmp_path, ReadRecordBatches(tmp_path / name, columns=wanted, key="id"))
        assert rows == [good]
        assert [(dead_letter.key, dead_letter.stage) for dead_letter in dead_letters] == [(bad, "coerce")]


def test_a_row_that_cannot_be_decoded_fails_the_pipeline_unless_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n3\n")
    p = pipeline()
    _ = p | ReadRecordBatches(tmp_path / "in.csv")
    with pytest.raises(Exception, match=r"in.csv:8: .*with_exception_handling\(\) to go on without it"):
        p.run()


def test_a_file_without_rows_and_a_file_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "empty.csv").write_text("")
    for name in ("header.csv", "empty.csv"):
        assert read_apart(tmp_path, ReadRecordBatches(tmp_path / name)) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "nothing-*.csv"}, r"path: nothing matches nothing-\*\.csv"),
        ({"path": []}, "path: names no file"),
        ({"path": "in.unknown"}, "format: cannot be told from the name in.unknown; give it"),
        ({"path": "in.csv", "format": "parquett"}, "format: 'parquett' is not one of csv, .*did you mean 'parquet'"),
        ({"path": "in.csv", "format": "parquet"}, "no file can be read as parquet"),
        ({"path": "in.csv", "columns": "a"}, r"columns: give a list of names, \['a'\]"),
        ({"path": "in.csv", "columns": []}, "columns: names no column"),
        ({"path": "in.csv", "columns": ["a", "a"]}, "columns: 'a' is named twice"),
        (
            {"path": "in.csv", "columns": ["wieght"]},
            "columns: the files have no column 'wieght'; did you mean",
        ),
        ({"path": "in.csv", "key": "wieght"}, "key: no column 'wieght' in the source; did you mean 'weight'"),
        ({"path": "in.csv", "delimiter": ";;"}, "delimiter: "),
        ({"path": "in.csv", "encoding": "utf-9"}, "encoding: .*utf-9"),
        ({"path": "in.parquet", "encoding": "latin-1"}, "encoding: parquet files have none, only csv, json, text"),
    ],
    ids=str,
)
def test_mistakes_in_what_to_read(
    arguments: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show before anything runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("a,weight\n1,2\n")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match=said) as error:
        _ = pipeline() | ReadRecordBatches(**arguments)
    assert "source." not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "p", "format": "cvs"}, "format: 'cvs' is not one of csv, .*did you mean 'csv'"),
        ({"path": "p", "format": "orc"}, "format: 'orc' is not one of"),
        ({"path": "", "format": "csv"}, "path: "),
        ({"path": "p", "format": "csv", "delimiter": ""}, "delimiter: "),
        ({"path": "p", "format": "csv", "columns": []}, "columns: names no column"),
        (
            {"path": "p", "format": "avro", "columns": pa.schema([("a", pa.dense_union([pa.field("x", pa.int8())]))])},
            "columns: 'a': .*cannot hold columns of type dense_union",
        ),
    ],
    ids=str,
)
def test_mistakes_in_what_to_write(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WriteRecordBatches(**arguments)


def failure_of(folder: Path, batches: Iterable[Any], *arguments: Any, **options: Any) -> str:
    """What a pipeline says that fails to write; nothing must have been published."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(Exception, match=".") as error:
        write(batches, WriteRecordBatches(folder / "p", *arguments, **options))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    return str(error.value)


BATCH = pa.record_batch({"a": ["x", "y"], "n": [1, 2]})


def test_nothing_is_published_by_a_pipeline_that_fails(tmp_path: Path) -> None:
    write([BATCH], WriteRecordBatches(tmp_path / "p", "csv"))
    not_utf8 = pa.record_batch({"a": pa.array([b"x", b"\xff"]), "n": [1, 2]})
    said = failure_of(tmp_path, [not_utf8], "csv")
    assert "row 1 of a record batch" in said
    assert "has published nothing" in said
    assert "no column 'N'; did you mean 'n'" in failure_of(tmp_path, [BATCH], "csv", columns=["N"])
    other = pa.record_batch({"a": ["z"], "n": [2.5]})
    wanted = pa.schema([("n", pa.int64())])
    assert "2.5 would be changed by becoming a int64" in failure_of(tmp_path, [other], "csv", columns=wanted)
    assert "takes pyarrow.RecordBatch, not dict" in failure_of(tmp_path, [{"a": "x"}], "csv")


def test_batches_with_different_columns(tmp_path: Path) -> None:
    """Whether one worker sees both, or each sees one."""
    batches = [BATCH, pa.record_batch({"a": ["z"], "n": [2.5]})]
    assert "a int64" in (said := failure_of(tmp_path, batches, "parquet")) or "different columns" in said
    write(batches, WriteRecordBatches(tmp_path / "p", "parquet", columns=pa.schema([("n", pa.float64())])))
    found = [row["n"] for path in ledger.shards(tmp_path / "p") for row in ledger.read_shard(path)]
    assert sorted(found) == [1.0, 2.0, 2.5]


def test_a_run_replaces_what_an_earlier_one_wrote_and_nothing_else(tmp_path: Path) -> None:
    write([BATCH] * 40, WriteRecordBatches(tmp_path / "p", "csv"))
    (tmp_path / "notes.csv").write_text("mine")
    write([BATCH], WriteRecordBatches(tmp_path / "p", "json"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        ".p.manifest.json",
        "notes.csv",
        "p-00000-of-00001.jsonl",
    ]
    (tmp_path / "p-00000-of-00002.json").write_text("mine")
    (tmp_path / "q-00000-of-00001.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"path: .*q-00000-of-00001.csv would be replaced, but was not written by"):
        write([BATCH], WriteRecordBatches(tmp_path / "q", "csv"))
    assert (tmp_path / "q-00000-of-00001.csv").read_text() == "mine"


def test_what_a_failed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    failure_of(tmp_path, [BATCH, {"a": "x"}], "csv")
    assert glob.glob(f"{tmp_path}/.p-*.tmp")
    write([BATCH], WriteRecordBatches(tmp_path / "p", "csv"))
    assert glob.glob(f"{tmp_path}/.p-*.tmp") == []


def test_one_run_at_a_time_publishes(tmp_path: Path) -> None:
    from pipelines.connectors.files.publishing import lock

    held = lock.acquire(f"{tmp_path}/p", lock.Holder.this_process("01234567", "other"))
    try:
        assert "is in use by run 'other'" in failure_of(tmp_path, [BATCH], "csv")
    finally:
        held.release()


def test_an_input_without_rows(tmp_path: Path) -> None:
    """There is a file, if anything says what columns it has; else there is none, and none of an earlier run."""
    write([], WriteRecordBatches(tmp_path / "p", "csv", columns=pa.schema([("a", pa.string())])))
    assert (tmp_path / "p-00000-of-00001.csv").read_text() == "a\n"
    write([BATCH.slice(0, 0)], WriteRecordBatches(tmp_path / "p", "csv"))
    assert (tmp_path / "p-00000-of-00001.csv").read_text() == "a,n\n"
    write([], WriteRecordBatches(tmp_path / "p", "csv"))
    assert ledger.shards(tmp_path / "p") == []


def test_windows_make_no_difference(tmp_path: Path) -> None:
    with pipeline() as p:
        timed = p | beam.Create([0, 100, 200]) | beam.Map(lambda at: TimestampedValue(BATCH, at))
        _ = timed | beam.WindowInto(FixedWindows(10)) | WriteRecordBatches(tmp_path / "p", "csv")
    assert ledger.recounted(tmp_path / "p") == 6


def test_a_stream_is_refused(tmp_path: Path) -> None:
    p = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(["--streaming"]))
    with pytest.raises(ValueError, match="a stream has no end"):
        _ = p | test_stream.TestStream().add_elements([BATCH]) | WriteRecordBatches(tmp_path / "p", "csv")
