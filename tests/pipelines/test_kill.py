"""Runs that are killed or stopped: nothing half is published, what was there is there still, a rerun is right."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.cli import command as cli
from pipelines.formats.base import Split
from pipelines.formats.csv.reader import CsvReader
from pipelines.rows.origin import Block, RejectedRow
from tests.support import ledger, processes
from tests.support.commands import ROOT, Command, start
from tests.support.ledger import HEADER, births, lines, shards, write_config
from tests.support.waiting import wait_until

ROWS = 1_000_000
OLD = "source_id,predictions\nold,1.0\n"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million rows, some of them bad."""
    path = tmp_path_factory.mktemp("large") / "in.csv"
    rng = random.Random(1)
    tails = [ledger.csv_row({**row, ledger.KEY: "", "note": ""}) for row in births(1_000, 1)]
    bad = ledger.csv_row({**births(1, 2)[0], ledger.KEY: "", "mother_age": "old"})
    rows = (b"%d" % n + (bad if n % 10_000 == 7 else tails[rng.randrange(1_000)]) for n in range(ROWS))
    path.write_bytes(lines(rows, HEADER))
    return path


def temporary_bytes(folder: Path) -> int:
    """Bytes in the temporary shards of a run that goes on."""
    return sum(path.stat().st_size for path in folder.glob(".*.tmp/*") if path.exists())


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    wait_until(lambda: process.poll() is not None or reached(), "the run is so far", every_s=0.002)
    assert process.poll() is None, process.stderr and process.stderr.read()


def prepare(folder: Path, large: Path) -> str:
    config = write_config(folder, "csv", str(large))
    ledger.plant(folder / "out" / "p", {"-00000-of-00001.csv": OLD})
    ledger.plant(folder / "out" / "dead", {"-00000-of-00001.jsonl": "{}\n"})
    return config


def assert_old_output(folder: Path) -> None:
    (shard,) = shards(folder / "out" / "p")
    assert shard.read_text() == OLD
    (dead_letters,) = shards(folder / "out" / "dead")
    assert dead_letters.read_text() == "{}\n"


def assert_complete(folder: Path) -> None:
    keys: Counter[str] = Counter()
    for shard in shards(folder / "out" / "p"):
        with shard.open() as file:
            keys.update(row[0] for row in list(csv.reader(file))[1:])
    dead = Counter(dead_letter["key"] for dead_letter in ledger.dead_letters(folder / "out" / "dead"))
    assert dead == Counter(str(n) for n in range(7, ROWS, 10_000))
    assert max(keys.values()) == 1
    assert len(keys) == ROWS - len(dead)
    assert not dead.keys() & keys.keys()


@pytest.mark.parametrize("megabytes", [0.001, 8])
def test_kill_9(command: Command, tmp_path: Path, large: Path, megabytes: float) -> None:
    config = prepare(tmp_path, large)
    process = start("batch", "--config", config)
    wait_for(process, lambda: temporary_bytes(tmp_path / "out") >= megabytes * 1e6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -9
    assert_old_output(tmp_path)
    if megabytes == 8:
        result = command("batch", "--config", config, "--json")
        assert result.code == 0, result
        assert result.summary["rows_read"] == ROWS
        assert_complete(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_tidies_up(tmp_path: Path, large: Path, number: signal.Signals) -> None:
    process = start("batch", "--config", prepare(tmp_path, large))
    wait_for(process, lambda: temporary_bytes(tmp_path / "out") > 1e6)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert "stopped" in err
    assert_old_output(tmp_path)
    left = [Path(root, name) for root, folders, names in os.walk(tmp_path / "out") for name in folders + names]
    assert {path.name for path in left} == {
        *("p-00000-of-00001.csv", ".p.manifest.json"),
        *("dead-00000-of-00001.jsonl", ".dead.manifest.json"),
    }


def test_a_run_that_is_stopped_while_it_loads(tmp_path: Path, large: Path) -> None:
    process = start("batch", "--config", prepare(tmp_path, large))
    assert process.stderr is not None
    said = process.stderr.readline()
    while "loading Beam and TensorFlow" not in said:
        said = process.stderr.readline()
        assert said
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.split() == ["stopped:", "nothing", "was", "published"]
    assert_old_output(tmp_path)
    assert not list((tmp_path / "out").glob(".*.lock"))


def test_a_command_that_is_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    try:
        code = cli.guarded(stopped)
    except KeyboardInterrupt:
        pytest.fail("it ends with a traceback")
    assert code == 130
    assert capsys.readouterr().err.split() == ["stopped"]


def test_killed_while_publishing(command: Command, tmp_path: Path) -> None:
    """The output is new, and the dead letters are still the old ones: whatever comes next completes it first."""
    rows = births(2_000, 3)
    bad = {rows[0][ledger.KEY]: None}
    file = ledger.write_rows(tmp_path / "in.csv", "csv", [{**rows[0], "is_male": None}, *rows[1:]])
    config = prepare(tmp_path, file)
    patch = (
        "import os, signal, sys\n"
        "import pipelines.storage as files\n"
        "replace, left = os.replace, 3\n"  # the note, the record, the only shard of output
        "def counted(*paths):\n"
        "    global left\n"
        "    if not left:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left -= 1\n"
        "    replace(*paths)\n"
        "files.os.replace = counted\n"
        "from pipelines import batch\n"
        "sys.exit(batch.main(sys.argv[1:]))\n"
    )
    done = processes.run(
        [sys.executable, "-c", patch, "--config", config], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    (shard,) = shards(tmp_path / "out" / "p")
    assert shard.read_text() != OLD
    (tmp_path / "out").rename(tmp_path / "killed")
    fixed = "source.defaults.is_male=True"
    for module, arguments in (("check", []), ("batch", []), ("replay", ["--set", fixed]), ("replay", [])):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "killed", tmp_path / "out")
        result = command(module, "--config", config, *arguments)
        assert result.code == 0, result
        assert "was stopped while it published" in result.out + result.err, result
        good = [{**rows[0], "is_male": "True"}, *rows[1:]] if arguments else rows[1:]
        ledger.assert_balanced(ledger.books_of(tmp_path), good, {} if arguments else bad)
        assert ledger.recounted(tmp_path / "out" / "p") == len(good)
        hidden = {".p.manifest.json"} if arguments else {".p.manifest.json", ".dead.manifest.json"}
        assert {path.name for path in (tmp_path / "out").glob(".*")} == hidden


def test_a_second_run_into_the_same_place(command: Command, tmp_path: Path, large: Path) -> None:
    """It is refused while the first is held up, and the first then publishes all that it counted."""
    process = start("batch", "--config", prepare(tmp_path, large), "--json")
    wait_for(process, lambda: temporary_bytes(tmp_path / "out") > 1e6)
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "second").mkdir()
    small = ledger.write_rows(tmp_path / "small.csv", "csv", births(3, 1))
    for output, dead_letters in (("p", "dead"), ("p", "other"), ("other", "dead"), ("../out/./p", "other")):
        changes = {
            "output": {"path": f"{tmp_path}/out/{output}"},
            "dead_letters": {"path": f"{tmp_path}/out/{dead_letters}"},
        }
        config = write_config(tmp_path / "second", "csv", str(small), name="second", **changes)
        for module in ("batch", "replay"):
            result = command(module, "--config", config)
            assert result.code == (0 if module == "replay" and dead_letters == "other" else 2), result
            assert result.code == 0 or "'births' (" in result.errors[0]
    assert "is in use by run 'births'" in command("check", "--config", config).out
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["rows_written"] == ledger.recounted(tmp_path / "out" / "p")
    assert summary["rows_written"] + summary["rows_dead_lettered"] == ROWS
    assert_complete(tmp_path)


@pytest.mark.parametrize("what", ["out", "out/.p-*.tmp", "out/.p-*.tmp/*.csv", "out/.p.lock"])
def test_what_a_run_needs_is_removed(
    command: Command, tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The output folder, the temporary folder, one shard of it, or the lock, while the run goes on."""
    read, lock, removed = CsvReader.read, threading.Lock(), list[Path]()

    def read_and_remove(self: CsvReader, split: Split) -> Iterator[Block | RejectedRow]:
        for piece in read(self, split):
            yield piece
            with lock:
                if not removed and temporary_bytes(tmp_path / "out") > 1e6:
                    removed.append(next(tmp_path.glob(what)))
                    # Another worker may write into it meanwhile.
                    shutil.rmtree(removed[0], ignore_errors=True) if removed[0].is_dir() else removed[0].unlink()

    monkeypatch.setattr(CsvReader, "read", read_and_remove)
    result = command("batch", "--config", prepare(tmp_path, large), "--json")
    assert removed
    assert result.code in (1, 3), result
    assert result.out == ""
    assert "nothing was published" in result.err.splitlines()[-1], result
    if what != "out":
        assert_old_output(tmp_path)
