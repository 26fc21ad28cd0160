from __future__ import annotations

import io
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import orc

from pipelines.formats.base import FormatError, ReadSpec, Split
from pipelines.formats.orc.reader import OrcReader
from pipelines.rows.origin import Block, RejectedRow

COLUMNS = pa.schema([("name", pa.string()), ("key", pa.int64()), ("missing", pa.float32())])
ROWS = 90_000


def rows(n: int) -> pa.Table:
    return pa.table(
        {
            "unused": [f"u{i * 7919 % 10007}" for i in range(n)],
            "key": range(n),
            "name": [None if i % 7 == 0 else f"n{i % 5}" for i in range(n)],
            "v": pa.array([[float(i)] * (i % 3) for i in range(n)], pa.list_(pa.float32())),
        }
    )


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("orc") / "a.orc"
    orc.write_table(rows(ROWS), str(path), compression="zlib", stripe_size=1 << 16, batch_size=1024)
    assert orc.ORCFile(str(path)).nstripes > 3
    return str(path)


def run(reader: OrcReader, splits: list[Split]) -> tuple[list[Block], list[RejectedRow]]:
    found = [item for split in splits for item in reader.read(split)]
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


def everything(reader: OrcReader, file: str) -> tuple[list[Block], list[RejectedRow]]:
    return run(reader, reader.splits(file, Path(file).stat().st_size, 1 << 20))


def keys(blocks: list[Block]) -> list[int]:
    return [key for block in blocks for key in block.batch.column("key").to_pylist()]


def test_schema_and_sample(striped: str) -> None:
    assert OrcReader.schema(striped, {}).equals(rows(9).schema)
    assert OrcReader.sample(striped, {}, 7).to_pylist() == rows(7).to_pylist()


@pytest.mark.parametrize("split_bytes", [1, 100_000, 1 << 30])
def test_splits_cover_the_file_once(striped: str, split_bytes: int) -> None:
    reader = pickle.loads(pickle.dumps(OrcReader(ReadSpec(COLUMNS))))
    splits = reader.splits(striped, Path(striped).stat().st_size, split_bytes)
    assert 0 < sum(s.nbytes for s in splits) <= Path(striped).stat().st_size
    blocks, rejected = run(reader, splits)
    assert not rejected
    assert all(block.batch.schema.equals(COLUMNS) for block in blocks)
    assert sorted(keys(blocks)) == list(range(ROWS))
    for block in blocks:
        assert block.origin.positions().tolist() == block.batch.column("key").to_pylist()


def test_only_missing_columns_still_give_every_row(striped: str) -> None:
    blocks, _ = everything(OrcReader(ReadSpec(pa.schema([("missing", pa.float32())]))), striped)
    assert sum(block.batch.num_rows for block in blocks) == ROWS


def test_invalid_text_rejects_its_row_alone(tmp_path: Path) -> None:
    names = [b"\xff" if i in (3, 77) else b"n%d" % i for i in range(100)]
    table = rows(100).set_column(2, "name", pa.array(names).view(pa.string()))
    orc.write_table(table, str(tmp_path / "a.orc"))
    blocks, rejected = everything(OrcReader(ReadSpec(COLUMNS)), str(tmp_path / "a.orc"))
    assert keys(blocks) == [i for i in range(100) if i not in (3, 77)]
    assert [r.position for r in rejected] == [3, 77]
    document = orc.ORCFile(io.BytesIO(rejected[1].payload)).read()
    assert document.column_names == ["unused", "key", "name", "v"]
    assert document.column("name").cast(pa.binary()).to_pylist() == [b"\xff"]


def test_a_payload_is_a_document_of_one_row_that_replays(striped: str) -> None:
    reader = OrcReader(ReadSpec(COLUMNS))
    block = everything(reader, striped)[0][2]
    payload = pickle.loads(pickle.dumps(block.origin)).payload(11)
    key = block.batch.column("key")[11].as_py()
    assert orc.ORCFile(io.BytesIO(payload)).read().to_pylist() == rows(ROWS).slice(key, 1).to_pylist()
    (again,) = reader.replay(payload, block.origin.format, "dead letter")
    assert isinstance(again, Block)
    assert again.batch.to_pylist() == block.batch.slice(11, 1).to_pylist()


def test_a_file_without_bytes_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.orc").touch()
    file = str(tmp_path / "a.orc")
    assert everything(OrcReader(ReadSpec(COLUMNS)), file) == ([], [])
    assert OrcReader.schema(file, {}) == pa.schema([])


@pytest.mark.parametrize("keep", [1, 11, 20_000])
def test_a_truncated_file_is_one_dead_letter_with_its_bytes(striped: str, tmp_path: Path, keep: int) -> None:
    file = str(tmp_path / "a.orc")
    Path(file).write_bytes(Path(striped).read_bytes()[:keep])
    blocks, (rejected,) = everything(OrcReader(ReadSpec(COLUMNS)), file)
    assert not blocks
    assert rejected.payload == Path(file).read_bytes()
    assert file in rejected.message
    with pytest.raises(FormatError, match="a.orc"):
        OrcReader.schema(file, {})


def test_a_corrupt_stripe_loses_only_its_own_rows_and_all_are_counted(striped: str, tmp_path: Path) -> None:
    content = bytearray(Path(striped).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    (tmp_path / "a.orc").write_bytes(content)
    # Every column is read, so that the damage is seen wherever it is.
    blocks, rejected = everything(OrcReader(ReadSpec(rows(9).schema)), str(tmp_path / "a.orc"))
    lost = [position for r in rejected for position in range(r.position, r.position + r.rows)]
    assert 0 < len(rejected) < 3 < len(lost) < ROWS / 2
    assert sorted(keys(blocks) + lost) == list(range(ROWS))
    assert all(r.truncated and "stripe" in r.message for r in rejected)


@settings(max_examples=60)
@given(st.data())
def test_no_corruption_raises(data: st.DataObject) -> None:
    sink = io.BytesIO()
    orc.write_table(rows(60), sink, compression="zlib")
    content = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = list(OrcReader(ReadSpec(COLUMNS)).replay(bytes(content), {}, "x"))
    assert all(isinstance(item, (Block, RejectedRow)) for item in found)
