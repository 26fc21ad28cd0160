"""What can be shown of Dataflow without an account: the job is complete, and mistakes are named before it starts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import SetupOptions

from pipelines.engine.options import options_from
from tests.support import ledger, processes
from tests.support.commands import ROOT, Command
from tests.support.ledger import births, write_config, write_rows

DATAFLOW = ["--runner", "DataflowRunner"]
CLOUD = ["--project", "test-project", "--region", "us-central1", "--temp_location", "gs://bucket/tmp"]


def test_dry_run_of_the_default_config(tmp_path: Path) -> None:
    """Without credentials, and without the half minute that Beam takes to look for some."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("GOOGLE", "GCLOUD", "CLOUDSDK", "STORAGE", "NO_GCE"))
    }
    done = processes.run(
        [sys.executable, "-m", "pipelines.batch", *DATAFLOW, *CLOUD, "--dry_run"],
        cwd=ROOT,
        env={**env, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT / "setup.py") in done.stdout
    assert "nothing was started" in done.stdout
    assert "Traceback" not in done.stderr
    assert "error: " not in done.stderr


@pytest.mark.parametrize("missing", ["--project", "--region", "--temp_location"])
def test_what_dataflow_needs(command: Command, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    at = CLOUD.index(missing)
    result = command("batch", *DATAFLOW, *CLOUD[:at], *CLOUD[at + 2 :], "--dry_run")
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert missing in result.errors[0]


def test_all_that_is_missing_at_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = command("batch", *DATAFLOW, "--dry_run")
    assert result.code == 2, result
    assert len(result.errors) == 3, result


def test_a_local_temp_location(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = command("batch", *DATAFLOW, *CLOUD[:4], "--temp_location", str(tmp_path), "--dry_run")
    assert result.code == 2, result
    assert "gs://" in result.errors[0]


def test_local_paths_cannot_be_reached_by_workers(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(10, 1))
    model = shutil.copytree(ledger.MODEL, tmp_path / "model")
    config = write_config(tmp_path, "csv", str(file), model={"path": str(model)})
    result = command("batch", "--config", config, *DATAFLOW, *CLOUD)
    assert result.code == 2, result
    assert len(result.errors) == 4, result
    for where in ("source.path", "output.path", "dead_letters.path", "model.path"):
        assert sum(where in line for line in result.errors) == 1
    dry = command("batch", "--config", config, *DATAFLOW, *CLOUD, "--dry_run")
    assert dry.code == 0, dry
    assert dry.err.count("warning: ") == 4


def test_dry_run_here(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(10, 1))
    for flag in (["--dry_run"], ["--dry_run=True"], ["--dry_run", "--direct_num_workers", "1"]):
        result = command("batch", "--config", write_config(tmp_path, "csv", str(file)), *flag)
        assert result.code == 0, result
        assert "nothing was started" in result.out
        assert not (tmp_path / "out").exists()


def test_an_image_has_the_project_in_it() -> None:
    image = options_from([*DATAFLOW, *CLOUD, "--sdk_container_image", "example.com/image"]).view_as(SetupOptions)
    assert not image.setup_file
    assert not image.extra_packages
    assert options_from([*DATAFLOW, *CLOUD]).view_as(SetupOptions).setup_file == str(ROOT / "setup.py")
    both = [*DATAFLOW, *CLOUD, "--sdk_container_image", "example.com/image", "--setup_file", "mine.py"]
    assert options_from(both).view_as(SetupOptions).setup_file == "mine.py"
