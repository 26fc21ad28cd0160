"""Whole runs over small files that become large: the account balances, memory and dead letters stay small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import ledger
from tests.support.bombs import MIB
from tests.support.commands import Command
from tests.support.memory import measure

BASE_BYTES = 1 << 30
"""Memory of a process with TensorFlow and a model that has read nothing, generously."""


def parquet(path: Path, rows: int, text: pa.Array) -> Path:
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), text)
    ages = np.full(rows, 30, np.float32)
    table = pa.table({"mother_age": ages, "plurality": np.ones(rows, np.float32), "s": words})
    pq.write_table(table, path, row_group_size=rows, compression="zstd")
    return path


def config(folder: Path, model: str, source: Path, **output: Any) -> str:
    settings = {
        "name": "bomb",
        "source": {"type": "file", "format": "parquet", "path": str(source)},
        "model": {"type": "saved_model", "path": model},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p"), **output},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 1},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(settings))
    return str(path)


def test_a_text_that_is_repeated_in_the_output(tmp_path: Path, strict_model: str) -> None:
    # In JSON each of its bytes becomes six.
    source = parquet(tmp_path / "in.parquet", 20_000, pa.array(["\x01" * (4 * MIB)]))
    assert source.stat().st_size < MIB
    settings = config(tmp_path, strict_model, source, columns=["s", "predictions"], format="json")
    done = measure("pipelines.batch", "--config", settings, "--json")
    assert done.code == 0, done.err[-2000:]
    summary = json.loads(done.out)
    assert summary["rows_read"] == 20_000 == summary["rows_written"] + summary["rows_dead_lettered"]
    (dead_letter,) = ledger.dead_letters(tmp_path / "out" / "dead")
    assert dead_letter["rows"] == summary["rows_dead_lettered"]
    assert "1000 times" in dead_letter["message"]
    assert done.peak < BASE_BYTES + 2 * (1 << 30)


def test_rows_that_cannot_be_read_are_one_dead_letter_also_when_it_is_run_again(
    command: Command, tmp_path: Path, strict_model: str
) -> None:
    rows = 5_000_000
    source = parquet(tmp_path / "in.parquet", rows, pa.array(["a"]))
    column = pq.ParquetFile(source).metadata.row_group(0).column(0)
    content = bytearray(source.read_bytes())
    content[column.dictionary_page_offset : column.dictionary_page_offset + 20] = b"\xff" * 20
    source.write_bytes(content)
    settings = config(tmp_path, strict_model, source)
    result = command("batch", "--config", settings, "--json")
    assert result.code == 0, result
    assert result.summary["rows_read"] == rows == result.summary["rows_dead_lettered"]
    result = command("replay", "--config", settings, "--json")
    assert result.code == 0, result
    assert result.summary["rows_dead_lettered"] == rows
    (dead_letter,) = ledger.dead_letters(tmp_path / "out" / "dead")
    assert (dead_letter["rows"], dead_letter["attempts"], dead_letter["payload_truncated"]) == (rows, 2, True)
    assert f"{rows:,} rows" in dead_letter["message"]
