"""The process that reads ORC files ends, hangs or is killed: rows are lost where they must be, and nothing else is."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import orc

from pipelines.formats.base import FormatError, ReadSpec, Split
from pipelines.formats.orc import file as orc_file
from pipelines.formats.orc.file import OrcFile, end_processes
from pipelines.formats.orc.reader import OrcReader
from pipelines.rows.origin import Block, RejectedRow
from tests.support import processes
from tests.support.commands import ROOT

SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string())])
ROWS = 9_000
STRIPE = 3_072

Found = tuple[list[int], list[RejectedRow]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of three stripes."""
    path = str(tmp_path_factory.mktemp("orc") / "a.orc")
    table = pa.table({"key": range(ROWS), "text": [f"{number * 7919 % 10007}" for number in range(ROWS)]})
    with orc.ORCWriter(path, stripe_size=1, batch_size=STRIPE) as writer:
        for start in range(0, ROWS, STRIPE):
            writer.write(table.slice(start, STRIPE))
    assert orc.ORCFile(path).nstripes == 3
    return path


@pytest.fixture(autouse=True)
def no_processes() -> Iterator[None]:
    end_processes()
    yield
    end_processes()


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lets every process of this test run code before it opens a file, and before it reads a stripe."""

    def fail(at_open: str, at_stripe: str) -> None:
        program = tmp_path / "program.py"
        program.write_text(f"""
import os, runpy, signal, time
from pyarrow import orc

class File(orc.ORCFile):
    count = 0

    def __init__(self, source):
        {at_open}
        super().__init__(source)

    def read_stripe(self, index, columns=None):
        File.count += 1
        {at_stripe}
        return super().read_stripe(index, columns)

orc.ORCFile = File
runpy.run_path({orc_file.PROGRAM!r}, None, "__main__")
""")
        monkeypatch.setattr(orc_file, "PROGRAM", str(program))

    return fail


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads each file as one of which much is made of little."""
    monkeypatch.setattr("pipelines.formats.orc.tail.MAX_STRIPES_BYTES", 0)
    monkeypatch.setattr("pipelines.formats.orc.tail.MAX_STRIPES_RATIO", 0)


def read(file: str) -> Found:
    reader = OrcReader(ReadSpec(SCHEMA))
    found = [each for split in reader.splits(file, os.path.getsize(file), 1 << 30) for each in reader.read(split)]
    keys = [key for each in found if isinstance(each, Block) for key in each.batch["key"].to_pylist()]
    return keys, [each for each in found if isinstance(each, RejectedRow)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("os.abort()", "crashed (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed (SIGKILL)"),
        ("os._exit(3)", "crashed (exit code 3)"),
        ("while True: pass", "did not come to an end"),
        ("time.sleep(1000)", "did not come to an end"),
        ("raise MemoryError", "MemoryError"),
        ("bytearray(1 << 38)", "MemoryError"),
    ],
)
def test_a_stripe_that_ends_its_reader_is_one_dead_letter(
    file: str, failing: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    failing("pass", f"if index == 1: {fault}" if " True" not in fault else "while index == 1: pass")
    monkeypatch.setattr(orc_file, "CPU_S", 0.5)
    monkeypatch.setattr(orc_file, "WITHIN_S", 2)
    keys, (lost,) = read(file)
    assert keys == [*range(STRIPE), *range(2 * STRIPE, ROWS)]
    assert (lost.position, lost.rows, lost.payload, lost.truncated) == (STRIPE, STRIPE, b"", True)
    assert f"{file}: stripe 1 cannot be read: " in lost.message
    assert message in lost.message


def test_a_file_that_ends_reader_after_reader_is_given_up(
    file: str, failing: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("pass", "os.abort()")
    monkeypatch.setattr("pipelines.formats.orc.reader.MAX_ENDED", 1)
    keys, lost = read(file)
    assert not keys
    assert [(each.position, each.rows) for each in lost] == [(0, STRIPE), (STRIPE, ROWS - STRIPE)]
    assert "1 of its stripes ended pyarrow's ORC reader" in lost[1].message


def test_a_process_that_an_earlier_stripe_damaged_loses_no_row(file: str, failing: Callable[[str, str], None]) -> None:
    failing("pass", "if File.count > 1: os.abort()")
    assert read(file) == (list(range(ROWS)), [])


def test_a_process_that_is_killed_while_it_is_idle_loses_no_row(file: str) -> None:
    with_process = OrcFile(file, None)
    (process,) = orc_file._IDLE
    os.kill(process.pid, signal.SIGKILL)
    assert sum(batch.num_rows for batch in with_process.read_stripe(0, 1 << 20, ["key"])) == STRIPE
    assert read(file) == (list(range(ROWS)), [])


def test_a_process_that_is_killed_between_batches_loses_the_rest_of_its_stripe(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orc_file, "BATCH_ROWS", 1_000)
    pieces = OrcReader(ReadSpec(SCHEMA)).read(Split(file, 0, 3, 1))
    first = next(pieces)
    (process,) = orc_file._ALL
    os.kill(process.pid, signal.SIGKILL)
    found = [first, *pieces]
    (lost,) = (each for each in found if isinstance(each, RejectedRow))
    assert (lost.position, lost.rows) == (1_000, STRIPE - 1_000)
    assert "stripe 0 cannot be read from its row 1000 on" in lost.message
    assert sum(each.rows for each in found) == ROWS


def test_a_footer_that_ends_its_reader_is_a_file_that_cannot_be_read(
    file: str, failing: Callable[[str, str], None]
) -> None:
    failing("os.abort()", "pass")
    with pytest.raises(FormatError, match=r"a\.orc is not a readable ORC file: .* crashed \(SIGABRT\)"):
        OrcReader.schema(file, {})
    keys, (rejected,) = read(file)
    assert not keys
    assert rejected.payload == Path(file).read_bytes()
    assert "crashed (SIGABRT)" in rejected.message


def test_a_process_that_does_not_start_is_no_fault_of_the_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orc_file, "PROGRAM", "/nowhere/program.py")
    with pytest.raises(RuntimeError, match=r"did not start \(1\): .*No such file"):
        read(file)


def test_readers_at_the_same_time_have_a_process_each(file: str) -> None:
    splits = [Split(file, 0, 2, 1), Split(file, 2, 3, 1)]
    reader = OrcReader(ReadSpec(SCHEMA))
    both = [reader.read(split) for split in splits]
    found = [next(each) for each in both]
    assert len({process.pid for process in orc_file._ALL}) == 2
    assert sum(each.rows for each in (*found, *both[0], *both[1])) == ROWS
    assert len(orc_file._IDLE) == 2


def test_a_reader_that_is_given_up_gives_its_process_back(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orc_file, "BATCH_ROWS", 1_000)
    pieces = OrcReader(ReadSpec(SCHEMA)).read(Split(file, 0, 3, 1))
    next(pieces)
    assert not orc_file._IDLE
    del pieces
    assert len(orc_file._IDLE) == 1
    assert read(file)[0] == list(range(ROWS))
    assert len(orc_file._ALL) == 1


@pytest.mark.parametrize("where", ["path", "content", "elsewhere"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_without_a_path_of_its_own_is_read_too(
    file: str, monkeypatch: pytest.MonkeyPatch, where: str, whole: bool
) -> None:
    content = Path(file).read_bytes()
    if where == "elsewhere":
        monkeypatch.setattr(orc_file, "is_remote", lambda path: True)
        monkeypatch.setattr(orc_file, "open_input", lambda path: io.BytesIO(content))
    opened = OrcFile("gs://a.orc" if where == "elsewhere" else file, content if where == "content" else None)
    if whole:
        batches = [batch for stripe in range(3) for batch in opened.read_stripe(stripe, 1 << 20, ["key"])]
    else:
        batches = list(opened.read_rows(1_000, ["key"]))
    assert pa.Table.from_batches(batches)["key"].to_pylist() == list(range(ROWS))


def test_what_goes_wrong_with_reaching_a_file_is_raised_as_it_is(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("the store is gone")

    monkeypatch.setattr(orc_file, "is_remote", lambda path: True)
    monkeypatch.setattr(orc_file, "open_input", lambda path: Unreachable(Path(file).read_bytes()))
    with pytest.raises(ConnectionResetError, match="the store is gone"):
        OrcFile("gs://a.orc", None)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        OrcFile(f"{file}.gone", None)
    assert read(file) == (list(range(ROWS)), [])


@pytest.mark.parametrize("is_dense", [False, True])
def test_payloads_of_any_rows_hold_no_process(
    file: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, is_dense: bool
) -> None:
    if is_dense:
        request.getfixturevalue("dense")
    reader = OrcReader(ReadSpec(pa.schema([("text", pa.string())])))
    blocks = [each for each in reader.read(Split(file, 0, 3, 1)) if isinstance(each, Block)]
    assert sum(block.rows for block in blocks) == ROWS
    # A few rows are many here, so that they come in several pieces.
    monkeypatch.setattr("pipelines.formats.orc.reader.BATCH_BYTES", 10_000)
    monkeypatch.setattr(orc_file, "BATCH_ROWS", 500)
    for block in blocks:
        for row in (0, 1, 600, block.rows - 1, 2):
            row = min(row, block.rows - 1)
            table = orc.ORCFile(io.BytesIO(block.origin.payload(row))).read()
            assert table.column_names == ["key", "text"]
            assert table["key"].to_pylist() == block.origin.positions()[row : row + 1].tolist()
    assert len(orc_file._IDLE) == len(orc_file._ALL) == 1


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_processes_can_be_ended(file: str) -> None:
    read(file)
    (process,) = orc_file._ALL
    end_processes()
    assert not psutil.pid_exists(process.pid)
    assert read(file) == (list(range(ROWS)), [])


_FORKED = """
import os, signal, sys
from pipelines.formats.orc import file as orc_file
from pipelines.formats.orc.file import OrcFile

def rows():
    file = OrcFile(sys.argv[1], None)
    return sum(batch.num_rows for stripe in range(3) for batch in file.read_stripe(stripe, 1 << 20, ["key"]))

def process():
    (found,) = orc_file._ALL
    return found.pid

assert rows() == int(sys.argv[2])
own = process()
child = os.fork()
if not child:
    assert not orc_file._ALL
    assert rows() == int(sys.argv[2]) and process() != own
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert rows() == int(sys.argv[2]) and process() == own
print(own, flush=True)
if sys.argv[3] != "exit":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_processes_end_with_the_process_that_started_them(file: str, end: str) -> None:
    """Also when it is killed; one that was forked from it has its own."""
    arguments = [sys.executable, "-c", _FORKED, file, str(ROWS), end]
    done = processes.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (0 if end == "exit" else -signal.SIGKILL), done.stderr
    ends = time.monotonic() + 60
    while not is_gone(int(done.stdout)) and time.monotonic() < ends:
        time.sleep(0.01)
    assert is_gone(int(done.stdout))
