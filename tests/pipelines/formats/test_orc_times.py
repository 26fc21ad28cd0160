"""Timestamps of ORC that nanoseconds do not hold: read beside the others, whatever the run lengths are."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.formats.base import ReadSpec
from pipelines.formats.orc.reader import OrcReader
from pipelines.rows.origin import Block, RejectedRow

YEAR_2500 = 16_725_225_600_000_000
YEAR_1000 = -30_610_224_000_000_000
_RANDOM = random.Random(5)

SERIES = {
    "alone": [YEAR_2500],
    "the same": [YEAR_2500] * 300,
    "steps": [YEAR_2500 + n * 1_000_000 for n in range(600)],
    "steps back": [YEAR_2500 - n * 7_654_321 for n in range(600)],
    "uneven steps": [YEAR_2500 + n * n * 1_000_003 for n in range(600)],
    "anything": [_RANDOM.randrange(YEAR_1000, YEAR_2500) for _ in range(2000)] + [YEAR_2500, YEAR_1000],
    "some far away": [n % 97 * 1_000_000 + (YEAR_2500 if n % 100 == 7 else 0) for n in range(1500)],
    "before 1970": [YEAR_2500, -1, -1_000, -999_999, -1_000_000, -1_000_001, YEAR_1000 + 1],
    "nulls": [None if n % 3 else YEAR_2500 + n for n in range(100)],
    "short nanoseconds": [YEAR_2500 + n for n in (0, 1, 10, 100, 1_000, 10_000, 100_000, 123_000, 999_999)],
}


def read(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch], list[RejectedRow]]:
    reader = OrcReader(ReadSpec(OrcReader.schema(str(path), {})))
    (split,) = reader.splits(str(path), path.stat().st_size, 1 << 30)
    found = list(reader.read(split))
    batches = [each.batch for each in found if isinstance(each, Block)]
    return reader.spec.columns, batches, [each for each in found if isinstance(each, RejectedRow)]


@pytest.mark.parametrize("compression", ["uncompressed", "zlib", "zstd", "snappy"])
@pytest.mark.parametrize("what", SERIES)
def test_times_of_any_year_are_read(tmp_path: Path, what: str, compression: str) -> None:
    times = pa.array(SERIES[what], pa.timestamp("us"))
    table = pa.table({"id": pa.array(range(len(times))), "t": times, "u": times.cast(pa.timestamp("us", "UTC"))})
    orc.write_table(table, str(tmp_path / "a.orc"), compression=compression, compression_block_size=65_536)
    schema, batches, rejected = read(tmp_path / "a.orc")
    assert not rejected
    assert schema.field("t").type == pa.timestamp("us")
    for name in table.column_names:
        got = pa.concat_arrays([batch[name] for batch in batches])
        assert got.to_pylist() == table[name].to_pylist()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.integers(YEAR_1000, YEAR_2500), st.integers(-(10**7), 10**7)), max_size=40))
def test_any_times_are_read(tmp_path: Path, times: list[int | None]) -> None:
    given = pa.array([YEAR_2500, *times], pa.timestamp("us"))
    orc.write_table(pa.table({"t": given}), str(tmp_path / "a.orc"))
    _, batches, rejected = read(tmp_path / "a.orc")
    assert not rejected
    assert pa.concat_arrays([batch["t"] for batch in batches]).equals(given)


def test_damage_is_a_dead_letter(tmp_path: Path) -> None:
    """Not an exception, and no more rows than there were."""
    times = pa.array(SERIES["anything"], pa.timestamp("us"))
    orc.write_table(pa.table({"id": pa.array(range(len(times))), "t": times}), str(tmp_path / "a.orc"))
    good = (tmp_path / "a.orc").read_bytes()
    random_places = np.random.default_rng(3).integers(3, len(good) - 400, 60)
    for place in random_places.tolist():
        (tmp_path / "b.orc").write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        _, batches, rejected = read(tmp_path / "b.orc")
        assert sum(batch.num_rows for batch in batches) + sum(row.rows for row in rejected) == len(times)
