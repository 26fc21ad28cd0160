"""The article's grid, small: from emulators of Pub/Sub and BigQuery, as `make compare-article` runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import compare
from pipelines.comparison.results import Results
from tests.servers.article import emulators
from tests.servers.bigquery_emulator import DATASET


def arguments(kind: str, folder: Path, sets: dict[str, Any]) -> list[str]:
    config = f"configs/compare-article-{kind}.json"
    changes = json.dumps({"rounds": 1, **sets})
    return ["--config", config, "--output", str(folder), "--minutes", "1", "--json", "--set", changes]


def test_from_pubsub_to_bigquery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways = {
        "direct": {"model": {"type": "saved_model"}},
        "endpoint": {"model": {"type": "endpoint", "protocol": "ai_platform"}, "server": {"quota_qps": 100}},
    }
    sets = {"ways": ways, "rates": [100], "seconds": 1, "parity_rows": 100}
    with emulators("stream"):
        code = compare.main(arguments("stream", tmp_path, sets))
    results = Results.model_validate_json(capsys.readouterr().out)
    assert code in (0, 1)
    assert [(found.rows, found.agrees) for found in results.parity] == [(100, True), (100, True)]
    assert [(run.rows_read, run.rows_written) for run in results.runs] == [(100, 100)] * 4
    assert all(run.requests for run in results.runs if run.way == "endpoint")


def test_from_bigquery_to_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = {"500": {"source.table": f"{DATASET}.births_500"}}
    with emulators("batch", [500, 10_000]):
        code = compare.main(arguments("batch", tmp_path, {"inputs": inputs}))
    results = Results.model_validate_json(capsys.readouterr().out)
    assert code == 0
    assert [(found.rows, found.agrees) for found in results.parity] == [(500, True), (500, True)]
    assert results.loads == (500,)
    assert all(run.rows_written == 500 for run in results.runs)
    assert results.costs is not None
    assert (tmp_path / "article-batch" / "report.html").exists()
