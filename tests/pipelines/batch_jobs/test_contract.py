"""What every way of calling a model is held to, for jobs: values of every kind, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.commands import Command
from tests.support.job_server import config_of, job_server
from tests.support.ledger import dead_letters, shards, write_config
from tests.support.many_kinds import kinds, save_many_kinds

ROWS = 60


@pytest.fixture(scope="module")
def many_kinds_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_many_kinds(tmp_path_factory.mktemp("many_kinds"))


def output_of(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in shards(folder / "out" / "p")]).sort_by("id")


def test_values_of_every_kind(command: Command, tmp_path: Path, many_kinds_model: str) -> None:
    """All but integers that the service would round; NaN and infinities too, which JSON does not have."""
    batch = kinds(ROWS).append_column("id", pa.array([f"r{number:03d}" for number in range(ROWS)]))
    halves = batch.schema.get_field_index("half")
    batch = batch.set_column(halves, "half", batch["half"].cast(pa.float32()))
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "in.parquet", row_group_size=25)
    settings: dict[str, Any] = {"source": {"key": "id", "defaults": {}}, "output": {"format": "parquet"}}
    direct = write_config(
        tmp_path, "parquet", str(tmp_path / "in.parquet"), model={"path": many_kinds_model}, **settings
    )
    assert command("batch", "--config", direct).code == 0
    wanted = output_of(tmp_path)
    with job_server(tmp_path, many_kinds_model, shards=5) as server:
        model = server.model(tmp_path, signature_from=many_kinds_model)
        job = config_of(tmp_path, tmp_path / "in.parquet", model, "parquet", **settings)
        result = command("batch", "--config", job, "--json")
    assert result.code == 0, result
    found = output_of(tmp_path)
    refused = [i for i, n in enumerate(batch["long"].to_pylist()) if abs(n) > 2**53]
    assert {letter["key"] for letter in dead_letters(tmp_path / "out" / "dead")} == {f"r{i:03d}" for i in refused}
    kept = pa.array(np.setdiff1d(np.arange(ROWS), refused))
    assert found.schema == wanted.schema
    for name in wanted.schema.names:
        assert _texts(found[name]) == _texts(wanted[name].take(kept)), name


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Values as text, in which NaN is equal to NaN."""
    return [json.dumps(value) for value in column.to_pylist()]
