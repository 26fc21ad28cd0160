"""Reads ORC files by pyarrow in processes of their own: a damaged file can end its reader.

The processes are started when they are needed, one for each thread that reads at the same time, and serve one request
after the other. They end with this process, however it ends, as their input ends then.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pipelines.formats.orc.process import receive, send
from pipelines.formats.table import BATCH_BYTES, BATCH_ROWS
from pipelines.storage import is_remote, open_input, read_fully

CPU_S: float = 20
WITHIN_S: float = 600
"""Seconds of CPU time, and of time, in which a request must be answered; one more for each MiB that is to be read."""

MEMORY_BYTES = 4 << 30
"""Address space that a request may take, and 64 times what is to be read: a damaged length can ask for any."""

PROGRAM = str(Path(__file__).with_name("process.py"))
_START = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[2]); runpy.run_path(sys.argv[1], None, '__main__')"

_FILE_NUMBERS = itertools.count(1)

ReadBytes = Callable[[int, int], bytes]
"""Gives bytes of a file: from an offset, so many."""


class ReaderEnded(pa.ArrowInvalid):  # type: ignore[misc]
    """Raised when what was to be read ended the process that read it, and would do so again."""


class _Ended(Exception):
    """The process has ended instead of answering. `code` is its exit code, or less than 0 the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    @property
    def took_too_long(self) -> bool:
        return self.code in (-signal.SIGPROF, -signal.SIGALRM)

    def __str__(self) -> str:
        name = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        what = "did not come to an end" if self.took_too_long else f"crashed ({name})"
        return f"pyarrow's ORC reader {what} on it; it seems damaged: write the file again, or restore it from a copy"


class _Process:
    """A process that reads ORC files, for one thread at a time."""

    def __init__(self) -> None:
        path = json.dumps([os.path.abspath(each) for each in sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, PROGRAM, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            # Its memory goes back to the system when it is idle.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            # Ctrl-C is for this process.
            start_new_session=True,
        )  # fmt: skip
        self.is_fresh = self.is_alive = True
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            try:
                self._receive()
            except _Ended as error:
                said = stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise RuntimeError(f"the process that reads ORC files did not start ({error.code}): {said}") from None
        with _LOCK:
            _ALL.add(self)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def exchange(self, request: dict[str, Any], read: ReadBytes) -> tuple[dict[str, Any], pa.Buffer]:
        """Sends a request and returns the answer.

        Raises:
          _Ended: the process ended instead.
          READ_ERRORS: the answer is an error.
        """
        try:
            self._send(request)
            head, body = self._receive()
            while "read" in head:
                self._send({}, read(*head["read"]))
                head, body = self._receive()
        except BaseException:
            self.end()
            raise
        self.is_fresh = False
        if "error" not in head:
            return head, body
        if head["errno"] is not None:
            raise OSError(head["errno"], head["error"])
        raise (OSError if head["io"] else pa.ArrowInvalid)(head["error"])

    def end(self) -> int:
        """Ends the process; returns its exit code."""
        self.is_alive = False
        self.close()
        self._process.kill()
        return self._process.wait()

    def close(self) -> None:
        """Closes the pipes to the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def _send(self, head: dict[str, Any], body: bytes = b"") -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin.fileno(), head, body)
        except BrokenPipeError:
            raise _Ended(self._process.wait()) from None

    def _receive(self) -> tuple[dict[str, Any], pa.Buffer]:
        assert self._process.stdout is not None
        try:
            return receive(self._process.stdout.fileno())
        except EOFError:
            raise _Ended(self._process.wait()) from None


# The garbage collector may close a reader, which gives its process back, wherever this is held.
_LOCK = threading.RLock()
_ALL: weakref.WeakSet[_Process] = weakref.WeakSet()
_IDLE: list[_Process] = []


def _take() -> _Process:
    """Takes a process that is idle, or a new one."""
    with _LOCK:
        found = _IDLE.pop() if _IDLE else None
    return found or _Process()


def _give(process: _Process) -> None:
    """Makes a process idle, if it still is of use."""
    with _LOCK:
        keep = process.is_alive and len(_IDLE) < (os.cpu_count() or 1)
        if keep:
            _IDLE.append(process)
    if not keep and process.is_alive:
        process.end()


def end_processes() -> None:
    """Ends the processes that read ORC files; the next file starts one again."""
    with _LOCK:
        found = list(_ALL)
        _IDLE.clear()
        _ALL.clear()
    for process in found:
        process.end()


def _forget() -> None:
    """Leaves the processes to the process that this one was forked from."""
    global _LOCK
    _LOCK = threading.RLock()
    for process in list(_ALL):
        process.is_alive = False
        process.close()
    _IDLE.clear()
    _ALL.clear()


atexit.register(end_processes)
os.register_at_fork(after_in_child=_forget)


class OrcFile:
    """Reads an ORC file, or its content. Each method raises READ_ERRORS.

    Attributes:
      schema: its columns, as pyarrow reads them.
      tail: what stands at its end, as the C++ reader gives it.
      compression: as pyarrow names it.
      nstripes: number of its stripes.
    """

    def __init__(self, name: str, content: bytes | None) -> None:
        self._name, self._content = name, content
        self._number = next(_FILE_NUMBERS)
        self._input: IO[bytes] | None = None
        self._path: str | None = None
        if content is not None:
            self._size = len(content)
        elif is_remote(name):
            self._input = open_input(name)
            self._size = self._input.seek(0, os.SEEK_END)
        else:
            self._path = os.path.abspath(name)
            self._size = os.path.getsize(name)
        try:
            process, head, body = self._start({"do": "open"}, 0)
        except BaseException:
            self.close()
            raise
        _give(process)
        found = body.to_pybytes()
        self.schema = pa.ipc.read_schema(pa.py_buffer(found[: head["schema"]]))
        self.tail = found[head["schema"] :]
        self.compression: str = head["compression"]
        self.nstripes: int = head["stripes"]

    def close(self) -> None:
        """Closes the file."""
        if self._input is not None:
            self._input.close()

    def read_stripe(self, index: int, nbytes: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Reads the rows of a stripe, in batches of at most 65,536 rows or 64 MiB.

        Args:
          index: number of the stripe.
          nbytes: its bytes in the file.
          columns: names of the columns to read.
        """
        return self._batches({"do": "stripe", "index": index, "columns": list(columns)}, min(nbytes, self._size))

    def read_rows(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Reads the rows of the file, which are decoded `rows` at a time."""
        with self._local_path() as path:
            request = {"do": "rows", "columns": list(columns), "rows": rows, "path": path}
            yield from self._batches(request, self._size)

    @contextmanager
    def _local_path(self) -> Iterator[str]:
        """A path of the file, or of a copy of it: what decodes some rows at a time reads it in other threads."""
        if self._path is not None:
            yield self._path
            return
        with tempfile.NamedTemporaryFile(suffix=".orc") as copy:
            if self._content is not None:
                copy.write(self._content)
            else:
                with open_input(self._name) as source:
                    shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            yield copy.name

    def _batches(self, request: dict[str, Any], nbytes: int) -> Iterator[pa.RecordBatch]:
        process, head, body = self._start(request, nbytes)
        try:
            while head["more"]:
                with pa.ipc.open_stream(body) as stream:
                    batch = stream.read_next_batch()
                batch.validate()
                yield batch
                # Only one batch is held at a time.
                del batch, stream, body
                head, body = self._exchange(process, {"do": "next"}, nbytes)
        except _Ended as error:
            raise ReaderEnded(str(error)) from None
        finally:
            if process.is_alive and head["more"]:
                with suppress(Exception):
                    self._exchange(process, {"do": "stop"}, 0)
            _give(process)

    def _start(self, request: dict[str, Any], nbytes: int) -> tuple[_Process, dict[str, Any], pa.Buffer]:
        """Sends a request to a process; returns it, too, with the answer."""
        process = _take()
        while True:
            is_fresh = process.is_fresh
            try:
                return process, *self._exchange(process, request, nbytes)
            except _Ended as error:
                # An earlier file, or somebody else, may have ended a process that was used before.
                if is_fresh or error.took_too_long:
                    raise ReaderEnded(str(error)) from None
                process = _Process()
            except BaseException:
                _give(process)
                raise

    def _exchange(self, process: _Process, request: dict[str, Any], nbytes: int) -> tuple[dict[str, Any], pa.Buffer]:
        limits = {
            "cpu_s": CPU_S + (nbytes >> 20),
            "within_s": WITHIN_S + (nbytes >> 20),
            "memory": MEMORY_BYTES + 64 * nbytes,
        }
        file = {"file": self._number, "path": self._path, "size": self._size}
        return process.exchange({**file, "rows": BATCH_ROWS, "bytes": BATCH_BYTES, **limits, **request}, self._bytes_at)

    def _bytes_at(self, offset: int, count: int) -> bytes:
        if self._content is not None:
            return self._content[offset : offset + count]
        assert self._input is not None
        self._input.seek(offset)
        return read_fully(self._input, count)
