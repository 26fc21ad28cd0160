"""Runs pyarrow's reading of ORC files as a program: damaged files can end it, so it is not the process of a run.

It imports nothing of this project. It answers requests on standard input, one after the other, until that input ends.
A message is two lengths of 8 bytes, a head of JSON, and a body of bytes. `do` names the request:

| request | answer |
|---|---|
| `open` | `schema` (bytes of it in the body; the file's tail follows), `compression`, `stripes` |
| `stripe` | the rows of a stripe: `more`, and in the body an Arrow IPC stream of at most `rows` rows |
| `rows` | the same for all rows of a file, which are decoded `rows` at a time |
| `next` | the next of these, if there was `more` |
| `stop` | nothing; what is left of them is forgotten |

Every request can be answered by `error`. While one is under way, `read` requests bytes of a file that has no path.
The operating system ends this process when a request takes more CPU time or time than it may (SIGPROF, SIGALRM).
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyarrow import orc

_LENGTHS = struct.Struct("<QQ")
_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)
"""Operation that sets the size of a pipe, where there is one: large answers take less time then."""

_READ_BYTES = 8 << 20
"""Maximum bytes asked for at a time of a file that has no path."""


def write_all(number: int, data: Any) -> None:
    """Writes bytes, or a buffer of them, to a file descriptor."""
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(number, left) :]


def read_buffer(number: int, count: int) -> pa.Buffer:
    """Reads `count` bytes of a file descriptor. Raises EOFError."""
    buffer = pa.allocate_buffer(count)
    left = memoryview(buffer).cast("B")
    while left:
        got = os.readv(number, [left])
        if not got:
            raise EOFError
        left = left[got:]
    return buffer


def send(number: int, head: dict[str, Any], body: bytes = b"") -> None:
    """Writes a message to a file descriptor."""
    text = json.dumps(head).encode()
    write_all(number, _LENGTHS.pack(len(text), len(body)) + text + body)


def _send_batch(number: int, head: dict[str, Any], batch: pa.RecordBatch, nbytes: int) -> None:
    """Writes a message whose body is a record batch, as an IPC stream of `nbytes`, without a copy of it."""
    text = json.dumps(head).encode()
    write_all(number, _LENGTHS.pack(len(text), nbytes) + text)
    _write_stream(pa.PythonFile(_Output(number), "w"), batch)


def _stream_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a record batch as an IPC stream."""
    sink = pa.MockOutputStream()
    _write_stream(sink, batch)
    return int(sink.size())


def _write_stream(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


class _Output:
    """A file descriptor, as pyarrow writes to it."""

    closed = False

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, data: Any) -> None:
        write_all(self._number, data)

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""


def receive(number: int) -> tuple[dict[str, Any], pa.Buffer]:
    """Reads a message from a file descriptor. Raises EOFError at its end."""
    head, body = _LENGTHS.unpack(read_buffer(number, _LENGTHS.size))
    found = json.loads(read_buffer(number, head).to_pybytes())
    return found, read_buffer(number, body)


class _Asked(io.RawIOBase):
    """A file whose bytes the other process reads."""

    def __init__(self, process: Process, size: int) -> None:
        self._process, self._size, self._at = process, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any) -> int:
        left = memoryview(into).cast("B")[: max(0, self._size - self._at)]
        total = len(left)
        while left:
            found = self._process.bytes_at(self._at, min(len(left), _READ_BYTES))
            if not len(found):
                break
            left[: len(found)] = found
            left, self._at = left[len(found) :], self._at + len(found)
        return total - len(left)


class Process:
    """Answers requests.

    Args:
      source: file descriptor of the requests.
      sink: file descriptor of the answers.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._opened: tuple[int, orc.ORCFile] | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._limits: tuple[int, int] = (0, 0)
        self._base = _address_space()
        self._most, _ = resource.getrlimit(resource.RLIMIT_AS)

    def answer(self) -> None:
        """Reads a request and answers it. Raises EOFError at the end of requests."""
        request, _ = receive(self._source)
        batch, nbytes, body = None, 0, b""
        try:
            self._limit(request)
            if request["do"] == "open":
                head, body = self._opened_file(request)
            else:
                batch = self._next_batch(request)
                nbytes = 0 if batch is None else _stream_bytes(batch)
                head = {"more": batch is not None}
        except Exception as error:
            self._batches, batch = iter(()), None
            head = _problem(error)
        self._clocks(0, 0)
        if batch is None:
            send(self._sink, head, body)
        else:
            _send_batch(self._sink, head, batch, nbytes)

    def bytes_at(self, offset: int, count: int) -> memoryview:
        """Asks for bytes of the file that is read. What it takes to get them is not counted."""
        self._clocks(0, 0)
        send(self._sink, {"read": [offset, count]})
        _, found = receive(self._source)
        self._clocks(*self._limits)
        return memoryview(found).cast("B")

    def _opened_file(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        file = self._file(request)
        schema = file.schema.serialize().to_pybytes()
        head = {"schema": len(schema), "compression": file.compression, "stripes": file.nstripes}
        return head, schema + bytes(file.reader.serialized_file_tail())

    def _next_batch(self, request: dict[str, Any]) -> pa.RecordBatch | None:
        do = request["do"]
        if do != "next":
            self._batches = iter(())
        if do == "stripe":
            self._batches = _cut(self._file(request).read_stripe(request["index"], request["columns"]), request)
        elif do == "rows":
            self._batches = _decoded(request)
        return next(self._batches, None)

    def _file(self, request: dict[str, Any]) -> orc.ORCFile:
        number, path = request["file"], request["path"]
        if self._opened is None or self._opened[0] != number:
            self._opened = None
            source = pa.PythonFile(_Asked(self, request["size"]), "r") if path is None else _local(path)
            self._opened = number, orc.ORCFile(source)
        return self._opened[1]

    def _limit(self, request: dict[str, Any]) -> None:
        self._limits = request["cpu_s"], request["within_s"]
        self._clocks(*self._limits)
        if self._base:
            wanted = self._base + request["memory"]
            if self._most != resource.RLIM_INFINITY:
                wanted = min(wanted, self._most)
            resource.setrlimit(resource.RLIMIT_AS, (wanted, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def _clocks(self, cpu_s: int, within_s: int) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, within_s)


def _problem(error: Exception) -> dict[str, Any]:
    """What went wrong, as an answer."""
    is_io = isinstance(error, OSError)
    if isinstance(error, OSError) and error.errno is not None:
        return {"error": error.strerror or str(error), "errno": error.errno, "io": is_io}
    return {"error": str(error) or type(error).__name__, "errno": None, "io": is_io}


def _local(path: str) -> pa.NativeFile:
    # Read, not mapped: a mapped file that is cut short meanwhile would kill the process.
    return pa.OSFile(os.fsencode(path), "r")


def _cut(stripe: pa.RecordBatch, request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """A stripe in batches of bounded size."""
    step = max(1, min(request["rows"], request["bytes"] * stripe.num_rows // max(stripe.nbytes, 1)))
    for begin in range(0, stripe.num_rows, step):
        yield stripe.slice(begin, step)


def _decoded(request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """The rows of a file, decoded some at a time."""
    from pyarrow import dataset

    with _local(request["path"]) as source:
        fragment = dataset.OrcFileFormat().make_fragment(source)
        yield from fragment.to_batches(
            columns=request["columns"],
            batch_size=request["rows"],
            use_threads=False,
            batch_readahead=0,
            fragment_readahead=0,
        )


def _address_space() -> int:
    """Bytes of address space of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def main() -> None:
    """Answers requests until there are no more."""
    sink = os.dup(sys.stdout.fileno())
    if _PIPE_SIZE is not None:
        with suppress(OSError):
            fcntl.fcntl(sink, _PIPE_SIZE, 1 << 20)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = Process(sys.stdin.fileno(), sink)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    send(sink, {"ready": True})
    # What goes wrong up to here is for people to read.
    os.dup2(nowhere, sys.stderr.fileno())
    try:
        while True:
            process.answer()
    except (EOFError, OSError):
        # The other process has ended.
        os._exit(0)


if __name__ == "__main__":
    main()
