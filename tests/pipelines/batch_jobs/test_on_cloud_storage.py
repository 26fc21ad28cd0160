"""A job whose instances, rows and results are on Cloud Storage: an emulator on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ledger, processes
from tests.support.cloud_storage import cloud_storage
from tests.support.commands import ROOT
from tests.support.job_server import config_of, job_server
from tests.support.ledger import births, write_rows


def test_a_job_on_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = births(400, 61)
    rows[5]["is_male"] = None
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with cloud_storage(tmp_path) as storage:
        storage.put("in/births.csv", file.read_bytes())
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        with job_server(tmp_path, row_error_rate=0.05) as server:
            model = {**server.model(tmp_path), "folder": "gs://bucket/jobs"}
            places = {"output": {"path": "gs://bucket/out/p"}, "dead_letters": {"path": "gs://bucket/out/dead"}}
            config = config_of(tmp_path, tmp_path / "none", model, **places)
            results = []
            for arguments in (["--detach"], [], ["--set=model.folder=gs://nobody/jobs"]):
                source = "--set=source.path=gs://bucket/in/*.csv"
                done = processes.run(
                    [sys.executable, "-m", "pipelines.batch", "--config", config, "--json", source, *arguments],
                    cwd=ROOT,
                    env=storage.env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                results.append((done.returncode, done.stdout, done.stderr))
            [job] = server.jobs()
        storage.download("out/", tmp_path / "got")
        names = storage.names()
    (detached, _, _), (code, out, err), (_, _, refused) = results
    assert (detached, code) == (0, 0), (out, err)
    summary = json.loads(out)
    assert summary["rows_read"] == 400
    books = ledger.read_books(tmp_path / "got" / "out" / "p", tmp_path / "got" / "out" / "dead")
    assert books.keys + books.letter_keys == {row["source_id"]: 1 for row in rows}
    assert summary["rows_dead_lettered"] == len(books.dead_letters) > 1
    assert job["outputInfo"]["gcsOutputDirectory"].startswith("gs://bucket/jobs/")
    assert not [name for name in names if "/sorted-" in name or "/unfinished/" in name]
    [line] = [line for line in refused.splitlines() if line.startswith("error: ")]
    assert "nobody" in line


def test_a_command_that_is_stopped_leaves_the_folder_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does what it says at its end is not refused until its lease is over."""
    file = write_rows(tmp_path / "in.csv", "csv", births(30, 62))
    with cloud_storage(tmp_path) as storage:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        with job_server(tmp_path, run_s=600) as server:
            config = config_of(tmp_path, file, {**server.model(tmp_path), "folder": "gs://bucket/jobs"})
            command = [sys.executable, "-m", "pipelines.batch", "--config", config]
            process = processes.start(command, cwd=ROOT, env=storage.env, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            said = [process.stderr.readline()]
            while "step wait" not in said[-1]:
                said.append(process.stderr.readline())
                assert said[-1], said
            assert [name for name in storage.names("jobs/") if "/.lock-" in name]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
            assert process.returncode == 130
            assert "goes on: run the same command again" in err
            assert not [name for name in storage.names("jobs/") if "/.lock-" in name]
            again = processes.run(
                [*command, "--step", "wait", "--set=model.deadline_s=0.3"],
                cwd=ROOT,
                env=storage.env,
                capture_output=True,
                text=True,
            )
            assert again.returncode == 1
            assert "did not end within 0.3 s" in again.stderr
            assert len(server.jobs()) == 1
