from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.parquet.reader import ParquetReader
from pipelines.formats.parquet.writer import ParquetWriter
from pipelines.rows.origin import Block, RejectedRow

COLUMNS = pa.schema([("key", pa.int64()), ("name", pa.string()), ("v", pa.list_(pa.float32()))])


def rows(n: int) -> pa.Table:
    return pa.table(
        {
            "unused": [f"u{i}" for i in range(n)],
            "key": range(n),
            "name": [None if i % 7 == 0 else f"n{i % 5}" for i in range(n)],
            "v": pa.array([[float(i)] * (i % 3) for i in range(n)], pa.list_(pa.float32())),
        }
    )


def write(path: Path, table: pa.Table, group: int = 100) -> str:
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def run(reader: Reader, splits: list[Split]) -> tuple[list[Block], list[RejectedRow]]:
    found = [item for split in splits for item in reader.read(split)]
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


def everything(reader: Reader, file: str) -> tuple[list[Block], list[RejectedRow]]:
    return run(reader, reader.splits(file, Path(file).stat().st_size, 1 << 20))


def keys(blocks: list[Block]) -> list[int]:
    return [key for block in blocks for key in block.batch.column("key").to_pylist()]


def test_rows_come_out_as_they_were_written_with_the_columns_asked_for(tmp_path: Path) -> None:
    table = rows(1000)
    blocks, rejected = everything(ParquetReader(ReadSpec(COLUMNS)), write(tmp_path / "a.parquet", table))
    assert not rejected
    assert pa.Table.from_batches([b.batch for b in blocks]).equals(table.select(COLUMNS.names))
    assert np.concatenate([b.origin.positions() for b in blocks]).tolist() == list(range(1000))


def test_schema_and_sample(tmp_path: Path) -> None:
    table = rows(1000)
    file = write(tmp_path / "a.parquet", table)
    assert ParquetReader.schema(file, {}).equals(table.schema)
    assert ParquetReader.sample(file, {}, 7).to_pylist() == table.slice(0, 7).to_pylist()
    assert ParquetReader.sample(write(tmp_path / "b.parquet", rows(0)), {}, 7).num_rows == 0


@pytest.mark.parametrize("split_bytes", [1, 900, 5000, 1 << 30])
def test_splits_cover_the_file_once(tmp_path: Path, split_bytes: int) -> None:
    file = write(tmp_path / "a.parquet", rows(1000), group=30)
    reader = pickle.loads(pickle.dumps(ParquetReader(ReadSpec(COLUMNS))))
    splits = reader.splits(file, Path(file).stat().st_size, split_bytes)
    assert len(splits) == {1: 34, 1 << 30: 1}.get(split_bytes, len(splits))
    assert sorted(keys(run(reader, splits)[0])) == list(range(1000))


def test_a_dictionary_type_is_honoured_and_a_missing_column_is_null(tmp_path: Path) -> None:
    dictionary = pa.dictionary(pa.int32(), pa.string())
    spec = pa.schema([("missing", pa.float32()), ("name", dictionary)])
    blocks, _ = everything(ParquetReader(ReadSpec(spec)), write(tmp_path / "a.parquet", rows(50)))
    assert blocks[0].batch.schema.equals(spec)
    assert blocks[0].batch.column("missing").null_count == 50
    assert blocks[0].batch.column("name").to_pylist() == rows(50).column("name").to_pylist()


def test_only_missing_columns_still_give_every_row(tmp_path: Path) -> None:
    spec = ReadSpec(pa.schema([("missing", pa.float32())]))
    blocks, _ = everything(ParquetReader(spec), write(tmp_path / "a.parquet", rows(250)))
    assert sum(b.batch.num_rows for b in blocks) == 250


@pytest.mark.parametrize("type", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_invalid_text_rejects_its_row_alone(tmp_path: Path, type: pa.DataType) -> None:
    names = [b"\xff" if i in (3, 4, 77) else b"n%d" % i for i in range(100)]
    table = rows(100).set_column(2, "name", pa.array(names).view(pa.string()))
    file = write(tmp_path / "a.parquet", table, group=40)
    spec = ReadSpec(pa.schema([("key", pa.int64()), ("name", type)]))
    blocks, rejected = everything(ParquetReader(spec), file)
    assert sorted(keys(blocks)) == [i for i in range(100) if i not in (3, 4, 77)]
    assert [r.position for r in rejected] == [3, 4, 77]
    assert 'column "name"' in rejected[0].message
    for block in blocks:
        block.batch.validate(full=True)
        assert block.origin.positions().tolist() == block.batch.column("key").to_pylist()
    document = pq.read_table(io.BytesIO(rejected[2].payload))
    assert document.column_names == ["unused", "key", "name", "v"]
    assert document.column("key").to_pylist() == [77]
    assert document.column("name").cast(pa.binary()).to_pylist() == [b"\xff"]


def test_invalid_text_in_a_list_rejects_its_row_alone(tmp_path: Path) -> None:
    values = pa.ListArray.from_arrays([0, 2, 2, 3], pa.array([b"a", b"\xff", b"c"]).view(pa.string()))
    file = write(tmp_path / "a.parquet", pa.table({"key": range(3), "l": values}))
    spec = ReadSpec(pa.schema([("key", pa.int64()), ("l", values.type)]))
    blocks, rejected = everything(ParquetReader(spec), file)
    assert keys(blocks) == [1, 2]
    assert [r.position for r in rejected] == [0]


def test_a_payload_is_a_document_of_one_row_that_replays(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", rows(250))
    reader = ParquetReader(ReadSpec(COLUMNS))
    blocks, _ = everything(reader, file)
    origin = pickle.loads(pickle.dumps(blocks[1].origin))
    payload = origin.payload(11)
    assert pq.read_table(io.BytesIO(payload)).to_pylist() == rows(250).slice(111, 1).to_pylist()
    (again,) = reader.replay(payload, origin.format, "dead letter")
    assert isinstance(again, Block)
    assert again.batch.to_pylist() == blocks[1].batch.slice(11, 1).to_pylist()
    assert again.origin.payload(0) == payload
    Path(file).unlink()
    (gone,) = reader.replay(blocks[2].origin.payload(0), origin.format, "dead letter")
    assert isinstance(gone, Block)
    assert gone.batch.to_pylist() == blocks[2].batch.slice(0, 1).to_pylist()


def test_a_file_without_bytes_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    file = str(tmp_path / "a.parquet")
    assert everything(ParquetReader(ReadSpec(COLUMNS)), file) == ([], [])
    assert ParquetReader.schema(file, {}) == pa.schema([])
    assert ParquetReader.sample(file, {}, 3).num_rows == 0


@pytest.mark.parametrize("keep", [1, 11, 2000])
def test_a_truncated_file_is_one_dead_letter_with_its_bytes(tmp_path: Path, keep: int) -> None:
    file = write(tmp_path / "a.parquet", rows(1000))
    Path(file).write_bytes(Path(file).read_bytes()[:keep])
    reader = ParquetReader(ReadSpec(COLUMNS))
    blocks, (rejected,) = everything(reader, file)
    assert not blocks
    assert rejected.payload == Path(file).read_bytes()
    assert file in rejected.message
    assert [type(r) for r in reader.replay(rejected.payload, {}, "again")] == [RejectedRow]
    with pytest.raises(FormatError, match="a.parquet"):
        ParquetReader.schema(file, {})


def test_a_corrupt_row_group_loses_only_its_own_rows_and_all_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", rows(1000))
    column = pq.ParquetFile(file).metadata.row_group(4).column(1)
    content = bytearray(Path(file).read_bytes())
    content[column.dictionary_page_offset : column.dictionary_page_offset + 60] = b"\xff" * 60
    Path(file).write_bytes(content)
    blocks, rejected = everything(ParquetReader(ReadSpec(COLUMNS)), file)
    assert sorted([*keys(blocks), *range(400, 500)]) == list(range(1000))
    assert [(r.position, r.rows, r.truncated, r.payload) for r in rejected] == [(400, 100, True, b"")]
    assert "row group 4" in rejected[0].message
    assert "100 rows" in rejected[0].message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_corruption_raises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    sink = io.BytesIO()
    pq.write_table(rows(60), sink, row_group_size=20)
    content = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = list(ParquetReader(ReadSpec(COLUMNS)).replay(bytes(content), {}, "x"))
    assert all(isinstance(item, (Block, RejectedRow)) for item in found)


def test_wide_rows_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("parquet.reader", "parquet.size"):
        monkeypatch.setattr(f"pipelines.formats.{module}.BATCH_BYTES", 100_000)
    table = pa.table({"key": range(500), "name": [f"{i:05}" * 1000 for i in range(500)]})
    blocks, _ = everything(ParquetReader(ReadSpec(COLUMNS)), write(tmp_path / "a.parquet", table, 500))
    assert max(b.batch.num_rows for b in blocks) <= 30
    assert keys(blocks) == list(range(500))


def batches(n: int, size: int) -> Iterator[pa.RecordBatch]:
    return iter(rows(n).to_batches(max_chunksize=size))


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_writer_round_trip(compression: str) -> None:
    sink = io.BytesIO()
    writer = ParquetWriter(sink, rows(9).schema, {"compression": compression})
    for batch in batches(1000, 77):
        writer.write(batch)
    writer.close()
    assert not sink.closed
    assert pq.read_table(io.BytesIO(sink.getvalue())).equals(rows(1000))


def test_writer_refuses_a_bad_batch_before_anything_is_in_the_file() -> None:
    sink = io.BytesIO()
    schema = pa.schema([("s", pa.string())])
    writer = ParquetWriter(sink, schema, {})
    writer.write(pa.record_batch({"s": ["a"]}))
    with pytest.raises(pa.ArrowInvalid):
        writer.write(pa.record_batch({"s": pa.array([b"\xff"]).view(pa.string())}))
    with pytest.raises(FormatError):
        writer.write(pa.record_batch({"t": ["a"]}))
    writer.write(pa.record_batch({"s": ["b"]}))
    writer.close()
    assert pq.read_table(io.BytesIO(sink.getvalue())).column("s").to_pylist() == ["a", "b"]


def test_writer_takes_dictionaries_and_names_types_that_it_cannot_hold() -> None:
    dictionary = pa.dictionary(pa.int32(), pa.string())
    assert ParquetWriter.output_type(dictionary) == pa.string()
    assert ParquetWriter.output_type(pa.list_(pa.float32())) == pa.list_(pa.float32())
    with pytest.raises(FormatError, match="union"):
        ParquetWriter.output_type(pa.sparse_union([pa.field("a", pa.int32())]))
    sink = io.BytesIO()
    writer = ParquetWriter(sink, pa.schema([("d", dictionary)]), {})
    for values in (["a", "b"], ["c", None]):
        writer.write(pa.record_batch({"d": pa.array(values).dictionary_encode()}))
    writer.close()
    assert pq.read_table(io.BytesIO(sink.getvalue())).column("d").to_pylist() == ["a", "b", "c", None]
