"""A stream goes over to a newer model while it runs; no message is lost, and each row says which version answered."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from tests.support.commands import ROOT
from tests.support.streams import sets, start, wait_for_rows, written


def test_a_newer_model_takes_over_during_a_stream(tmp_path: Path) -> None:
    versions = tmp_path / "models"
    shutil.copytree(ROOT / "model" / "trained" / "v1", versions / "v1")
    model = {"type": "saved_model", "path": str(versions), "version": "latest", "refresh_s": 0.2}
    process = start(
        tmp_path, *sets(tmp_path, model=model, source__rate=1000, output__columns=None), "--duration=12", "--json"
    )
    wait_for_rows(tmp_path, 1_000, process)
    shutil.copytree(versions / "v1", tmp_path / "making")
    (tmp_path / "making").rename(versions / "v2")
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "v2 replaces v1" in err
    summary = json.loads(out)
    rows = written(tmp_path)
    assert Counter(row["source_id"] for row in rows) == Counter(f"b{n:09d}" for n in range(summary["rows_read"]))
    assert set(rows[0]) == {"source_id", "predictions", "model_version"}
    in_order = [row["model_version"] for row in sorted(rows, key=lambda row: row["source_id"])]
    assert in_order == sorted(in_order)
    assert set(in_order) == {"v1", "v2"}
