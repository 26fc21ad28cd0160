"""Rows that are kept until their results come: each origin comes back as it was, and nothing else does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.connectors.batch_job.stored_rows import CLASSES, StoredRowsError, restored, stored
from pipelines.formats import reader_class
from pipelines.formats.base import ReadSpec
from pipelines.rows.origin import Block, Origin
from tests.support.ledger import FORMATS_IN, KEY, births, write_rows

COLUMNS = pa.schema([(KEY, pa.string()), ("mother_age", pa.float64()), ("note", pa.string())])


def blocks(path: Path, format: str) -> list[Block]:
    reader = reader_class(format)(ReadSpec(COLUMNS, key=KEY))
    splits = reader.splits(str(path), path.stat().st_size, 1 << 20)
    return [piece for split in splits for piece in reader.read(split) if isinstance(piece, Block)]


@pytest.mark.parametrize("format", FORMATS_IN)
@pytest.mark.parametrize("asked_before", [False, True])
def test_an_origin_comes_back(tmp_path: Path, format: str, asked_before: bool) -> None:
    path = write_rows(tmp_path / f"in.{format}", format, births(700, 51))
    found = blocks(path, format)
    assert found
    for block in found:
        if asked_before:
            block.origin.payload(0)
        kept = restored(stored(block.origin, block.batch, 3))
        assert kept.first == 3
        assert type(kept.origin) is type(block.origin)
        assert kept.batch.equals(block.batch, check_metadata=True)
        assert kept.origin.file == block.origin.file
        assert kept.origin.format == block.origin.format
        assert (kept.origin.positions() == block.origin.positions()).all()
        rows = np.arange(block.rows)
        assert kept.origin.names(rows).equals(block.origin.names(rows))
        for row in (0, block.rows // 2, block.rows - 1):
            assert kept.origin.payload(row) == block.origin.payload(row)


def test_whole_files_come_back(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * 100)
    from pipelines.formats.whole_files import WholeFileOrigin

    paths = [str(tmp_path / f"{number}.bin") for number in range(3)]
    contents = pa.array([Path(path).read_bytes() for path in paths], pa.binary())
    origin = WholeFileOrigin(paths[0], {"type": "bytes"}, paths, contents)
    kept = restored(stored(origin, pa.record_batch([contents], ["bytes"]), 0)).origin
    assert [kept.payload(row) for row in range(3)] == contents.to_pylist()
    assert kept.source(2) == f"{paths[2]}:0"


def test_all_origins_of_batch_runs_are_known() -> None:
    """A format whose origin is not listed could not be predicted by a job."""
    import importlib
    import pkgutil

    import pipelines.formats

    for module in pkgutil.walk_packages(pipelines.formats.__path__, "pipelines.formats."):
        importlib.import_module(module.name)

    def below(kind: type[Any]) -> set[type[Any]]:
        return {each for child in kind.__subclasses__() for each in (child, *below(child))}

    made = {each for each in below(Origin) if each.__module__.startswith("pipelines.formats.")}
    whole = {f"{each.__module__}.{each.__qualname__}" for each in made if not each.__abstractmethods__}
    assert whole <= set(CLASSES.values())


def test_what_was_not_written_here_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.csv", "csv", births(20, 52))
    [block] = blocks(path, "csv")
    good = stored(block.origin, block.batch, 0)
    rng = random.Random(7)
    for _ in range(300):
        broken = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        cut = bytes(broken[: rng.randrange(len(broken))]) if rng.random() < 0.3 else bytes(broken)
        try:
            restored(cut)
        except StoredRowsError:
            continue
    for bad in (b"", b"\x00" * 8, good[:-1], good + b"x", good.replace(b'"text"', b'"os.s"')):
        with pytest.raises(StoredRowsError):
            restored(bad)


def test_a_batch_that_comes_twice_is_written_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.parquet", "parquet", births(150, 53))
    [block] = blocks(path, "parquet")
    alone = len(stored(block.origin, block.batch.select([]), 0))
    assert len(stored(block.origin, block.batch, 0)) < 1.5 * alone


def test_rows_of_bigquery_come_back() -> None:
    from pipelines.formats.bigquery_rows import BigQueryOrigin

    batch = pa.record_batch({"a": [1, 2, None], "b": ["x", "y", "z"]})
    origin = BigQueryOrigin("p.d.t/3", 40, batch)
    kept = restored(stored(origin, batch, 0)).origin
    assert [kept.payload(row) for row in range(3)] == [origin.payload(row) for row in range(3)]
    assert (kept.source(2), kept.format) == (origin.source(2), origin.format)
