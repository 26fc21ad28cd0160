"""Files of a stream: published by windows, durable before that, recovered after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.internal import pickler
from apache_beam.runners.common import DoFnSignature
from apache_beam.transforms.userstate import get_dofn_specs

from pipelines.connectors.files import rolling
from pipelines.connectors.files.dead_letters import RollingDeadLetters
from pipelines.connectors.files.rolling import RollingFile
from pipelines.dead_letters.step import RejectUnpredicted
from pipelines.rows.origin import DeadLetter
from tests.support import processes
from tests.support.commands import ROOT


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def shown(folder: Path) -> dict[str, str]:
    """Published files and their content."""
    return {path.name: path.read_text() for path in sorted(folder.glob("p-*"))}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.part"))


def test_a_window_is_published_when_it_is_over(tmp_path: Path) -> None:
    clock = Clock()
    file = RollingFile(str(tmp_path / "p"), "csv", 60, clock)
    file.open().write(b"a\n")
    file.flush()
    assert shown(tmp_path) == {}
    assert (tmp_path / hidden(tmp_path)[0]).read_text() == "a\n", "durable at the end of the bundle"
    file.open().write(b"b\n")
    clock.now += 61
    file.flush()
    assert list(shown(tmp_path).values()) == ["a\nb\n"]
    assert hidden(tmp_path) == []
    assert not file.is_open
    file.open().write(b"c\n")
    file.close()
    assert sorted(shown(tmp_path).values()) == ["a\nb\n", "c\n"]


def test_names_tell_the_window(tmp_path: Path) -> None:
    file = RollingFile(str(tmp_path / "p"), "jsonl", 60, Clock())
    file.open().write(b"{}\n")
    file.close()
    [name] = shown(tmp_path)
    assert name.startswith("p-19700112T134600Z-")
    assert name.endswith(".jsonl")
    assert rolling.pattern(str(tmp_path / "p"), "jsonl") == str(tmp_path / "p-*.jsonl")


def test_a_folder_as_prefix(tmp_path: Path) -> None:
    file = RollingFile(f"{tmp_path}/new/", "csv", 60, Clock())
    file.open().write(b"a\n")
    file.close()
    assert [path.read_text() for path in (tmp_path / "new").iterdir()] == ["a\n"]


def test_close_all_publishes_what_is_open(tmp_path: Path) -> None:
    for _ in range(2):
        RollingFile(str(tmp_path / "p"), "csv", 60).open().write(b"x\n")
    rolling.close_all()
    assert list(shown(tmp_path).values()) == ["x\n", "x\n"]


def test_close_all_publishes_what_was_closed_and_is_open_again(tmp_path: Path) -> None:
    file = RollingFile(str(tmp_path / "p"), "csv", 60)
    for text in (b"x\n", b"y\n"):
        file.open().write(text)
        file.close()
    file.open().write(b"z\n")
    rolling.close_all()
    assert sorted(shown(tmp_path).values()) == ["x\n", "y\n", "z\n"]


def test_close_all_publishes_what_a_step_has_written_that_a_worker_has_unpickled(tmp_path: Path) -> None:
    """Before any worker does, which may be too late on Flink; Beam looks at a step before it pickles it."""
    place = RollingDeadLetters(f"{tmp_path}/p", 60, 0o600)
    sent = RejectUnpredicted(place, "a-model", None)
    DoFnSignature(sent)
    step = pickler.loads(pickler.dumps(sent))
    step.start_bundle()
    step.put(DeadLetter("k", b"payload", "decode", "ValueError", "is wrong", 1, "a-model", "s", {}, False))
    assert list(step.finish_bundle()) == []
    assert shown(tmp_path) == {}
    rolling.close_all()
    [content] = shown(tmp_path).values()
    assert json.loads(content)["key"] == "k"


def test_a_step_that_beam_looks_at_opens_nothing(tmp_path: Path) -> None:
    step = RejectUnpredicted(RollingDeadLetters(f"{tmp_path}/p", 60, 0o600), "a-model", None)
    DoFnSignature(step)
    get_dofn_specs(step)
    assert step._dead_letter_writer is None


@pytest.mark.parametrize("torn", [b"", b"half a ro", b"x" * 200_000])
def test_what_a_killed_run_left_is_published_without_its_torn_line(tmp_path: Path, torn: bytes) -> None:
    code = (
        "import sys, time; from pipelines.connectors.files.rolling import RollingFile\n"
        "file = RollingFile(sys.argv[1], 'csv', 60); file.open().write(b'head\\nrow\\n'); file.flush()\n"
        "file.open().write(bytes.fromhex(sys.argv[2])); file.open().flush(); print('ready', flush=True); time.sleep(60)"
    )
    prefix = str(tmp_path / "p")
    arguments = [sys.executable, "-c", code, prefix, torn[:50_000].hex()]
    with processes.start(arguments, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert rolling.recover(prefix, "csv") == 0, "another run has it open"
        os.kill(process.pid, signal.SIGKILL)
    assert shown(tmp_path) == {}
    assert rolling.recover(prefix, "csv") == 1
    assert list(shown(tmp_path).values()) == ["head\nrow\n"]
    assert rolling.recover(prefix, "csv") == 0


@pytest.mark.parametrize("rows", [1, 200_000])
@pytest.mark.parametrize(
    "torn", [b"", b'k2,"a\n', b'k2,"a\nb', b'k2,"a ""\n""', b'"', b'k2,"' + b"\n" * 2_000_000, b'"\n","\n",']
)
def test_what_is_torn_within_quotes_goes_with_its_row(tmp_path: Path, rows: int, torn: bytes) -> None:
    whole = b'k,"a ""word"",\nand another"\n' * rows
    (tmp_path / ".p-20240501T000000Z-01234567.csv.part").write_bytes(whole + torn)
    assert rolling.recover(str(tmp_path / "p"), "csv") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [whole]


def test_quotes_mean_nothing_in_lines_of_json(tmp_path: Path) -> None:
    whole = b'{"inches": "7\\""}\n{"inches": "8"}\n'
    (tmp_path / ".p-20240501T000000Z-01234567.jsonl.part").write_bytes(whole + b'{"inc')
    assert rolling.recover(str(tmp_path / "p"), "jsonl") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [whole]


def test_what_a_failed_write_left_of_a_row_is_not_published(tmp_path: Path) -> None:
    """The disk takes no more in the middle of a row."""
    code = (
        "import resource, signal, sys\n"
        "from pipelines.connectors.files.rolling import RollingFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_003, 100_003))\n"
        "file = RollingFile(sys.argv[1], 'csv', 1e9)\n"
        "file.open().write(b'k1832,7.5\\n' * 1_000)\n"
        "file.flush()\n"
        "try:\n"
        "    file.open().write(b'k1832,7.5\\n' * 20_000)\n"
        "except OSError as error:\n"
        "    print(error)\n"
        "file.close()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p")]
    result = processes.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "File too large" in result.stdout
    assert list(shown(tmp_path).values()) == ["k1832,7.5\n" * 10_000]


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "fifo", "other name", "taken"])
def test_what_no_stream_left_is_not_touched(tmp_path: Path, kind: str) -> None:
    """Names like those of a stream's files, which lead to a person's, or whose place is taken."""
    out = tmp_path / "out"
    out.mkdir()
    mine = tmp_path / "mine"
    mine.write_text("whole\nwithout an end")
    name = "20240501T000000Z-01234567.csv"
    part = out / f".p-{name}.part"
    if kind == "link":
        part.symlink_to(mine)
    elif kind == "hard link":
        part.hardlink_to(mine)
    elif kind == "folder":
        part.mkdir()
    elif kind == "fifo":
        os.mkfifo(part)
    elif kind == "other name":
        mine.rename(out / ".p-notes.csv.part")
        mine = out / ".p-notes.csv.part"
    else:
        part.write_text("row\n")
        mine.rename(out / f"p-{name}")
        mine = out / f"p-{name}"
    assert rolling.recover(str(out / "p"), "csv") == 0
    assert mine.read_text() == "whole\nwithout an end"
    assert len(list(out.iterdir())) == (2 if kind == "taken" else 1)


def test_a_file_that_exists_is_never_opened_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    monkeypatch.setattr("uuid.UUID.hex", "0123456789abcdef" * 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".p-19700112T134600Z-01234567.csv.part").symlink_to(mine)
    file = RollingFile(str(tmp_path / "out" / "p"), "csv", 60, Clock())
    with pytest.raises(FileExistsError):
        file.open()
    assert mine.read_text() == "mine"
    file.close()


@pytest.mark.parametrize("removed", ["file", "folder"])
@pytest.mark.parametrize("ends", ["bundle", "window", "stream"])
def test_a_file_that_is_removed_while_it_is_written(tmp_path: Path, removed: str, ends: str) -> None:
    """What a bundle wrote is not there, so the bundle must not be acknowledged."""
    clock = Clock()
    out = tmp_path / "out"
    file = RollingFile(str(out / "p"), "csv", 60, clock)
    file.open().write(b"a\n")
    file.flush()
    file.open().write(b"b\n")
    (out / hidden(out)[0]).unlink() if removed == "file" else shutil.rmtree(out)
    clock.now += 61 if ends == "window" else 0
    with pytest.raises(OSError, match="removed"):
        file.close() if ends == "stream" else file.flush()
    file.open().write(b"c\n")
    file.close()
    assert list(shown(out).values()) == ["c\n"]


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_access_rights(tmp_path: Path, mode: int) -> None:
    file = RollingFile(str(tmp_path / "p"), "jsonl", 60, mode=mode)
    file.open().write(b"{}\n")
    [part] = tmp_path.iterdir()
    assert part.stat().st_mode & 0o777 == mode
    file.close()
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == mode
