"""INT96 timestamps: the unit that holds a time, wherever a batch ends."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.formats.base import FormatError, ReadSpec, Split
from pipelines.formats.parquet.reader import ParquetReader
from pipelines.formats.parquet.times import FineTimes
from pipelines.rows.origin import Block

YEAR_2500 = 16_725_225_600_000_000
FINE = 1_700_000_000_123_456_789


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1)), min_size=1, max_size=40))
def test_any_nanoseconds_come_back(tmp_path: Path, times: list[int | None]) -> None:
    path = str(tmp_path / "a.parquet")
    given = pa.array(times, pa.timestamp("ns"))
    pq.write_table(pa.table({"t": given}), path, use_deprecated_int96_timestamps=True, row_group_size=7)
    reader = ParquetReader(ReadSpec(ParquetReader.schema(path, {})))
    blocks = list(reader.read(Split(path, 0, 99, 0)))
    found = [block.batch["t"].cast(pa.timestamp("ns")) for block in blocks if isinstance(block, Block)]
    assert len(found) == len(blocks)
    assert pa.concat_arrays(found).equals(given)


def test_times_of_both_kinds_come_in_batches_of_their_own() -> None:
    coarse = pa.array([YEAR_2500, FINE // 1000, None, YEAR_2500], pa.timestamp("us"))
    wrapped = (YEAR_2500 * 1000 + 2**63) % 2**64 - 2**63
    fine = pa.array([wrapped, FINE, None, wrapped], pa.timestamp("ns"))
    times = FineTimes(iter(pa.table({"t": fine}).to_batches(max_chunksize=3)))
    parts = list(times.beside(pa.record_batch({"t": coarse})))
    assert [str(part["t"].type) for part in parts] == ["timestamp[us]", "timestamp[ns]", "timestamp[us]"]
    values = [value for part in parts for value in part["t"].cast(pa.int64()).to_pylist()]
    assert values == [YEAR_2500, FINE, None, YEAR_2500]


def test_a_time_that_no_unit_holds_is_not_another_time() -> None:
    wrapped = (YEAR_2500 * 1000 + 2**63) % 2**64 - 2**63
    times = FineTimes(iter([pa.record_batch({"t": pa.array([wrapped + 1], pa.timestamp("ns"))})]))
    with pytest.raises(FormatError, match="column 't'"):
        list(times.beside(pa.record_batch({"t": pa.array([YEAR_2500], pa.timestamp("us"))})))
