"""Finds the modules that a row goes through by tracing small runs: `python -m tests.row_paths`.

A module is on a row's path if one of its functions runs, in any thread, while rows pass that are not the first ones:
what is done once, at the start of a run or for its first batch (binding columns, loading the model), does not count.
Beside the rows' own steps this includes the tally, receipts and coders, and leaves out what shows progress.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = tuple(f"{ROOT}/{package}/" for package in ("model", "inference", "pipelines"))
WAYS = ("csv", "kafka", "failing")
_SHOWS_PROGRESS = ("pipelines/engine/live_stream.py",)
_BIRTHS = ROOT / "data" / "births-nc-2001.csv"


class Trace:
    """Notes which modules' functions are called while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self._files: set[str] = set()

    @property
    def modules(self) -> list[str]:
        """The modules, relative to the root of the repository."""
        found = {str(Path(file).relative_to(ROOT)) for file in self._files}
        return sorted(found - set(_SHOWS_PROGRESS))

    def _profile(self, frame: Any, event: str, _: object) -> None:
        if self.on and event == "call":
            code = frame.f_code
            if code.co_filename.startswith(_PACKAGES) and code.co_name != "<module>":
                self._files.add(code.co_filename)

    @contextmanager
    def early(self) -> Iterator[None]:
        """Notes calls of what is done once, and belongs to the path."""
        before, self.on = self.on, True
        try:
            yield
        finally:
            self.on = before

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Traces this thread and those that start meanwhile."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]


def csv_row(folder: Path) -> list[str]:
    """Traces rows of a CSV file to a shard: from the second piece of the file until the shard is on the disk."""
    from pipelines.connectors.files import source
    from pipelines.connectors.files.publishing import shards
    from pipelines.connectors.writing.rows import WriteRows

    header, *rows = _BIRTHS.read_text("utf-8").splitlines(keepends=True)
    (folder / "births.csv").write_text(header + "".join(rows) * 250, "utf-8")
    trace = Trace()
    with (
        mock.patch.object(source, "split_bytes_for", return_value=2 << 20),
        _wrapped(source.ReadSplit, "process", _from_second(trace)),
        _wrapped(shards, "create", _once(trace)),
        _wrapped(WriteRows, "finish_bundle", _until_exhausted(trace)),
    ):
        _batch(trace, folder, "--set", f"source.path={folder / 'births.csv'}")
    return trace.modules


def failing_row(folder: Path, model: str) -> list[str]:
    """Traces rows on which a model fails: from the failed call until the dead letters are on the disk.

    Args:
      folder: for files.
      model: one that takes mother_age and plurality, and fails on negative ages.
    """
    from model.runtime.native import NativeModel
    from pipelines.connectors.files.source import ReadSplit
    from pipelines.dead_letters.step import RejectUnpredicted

    good, bad = folder / "1-good.csv", folder / "2-bad.csv"
    good.write_text("source_id,mother_age,plurality\n" + "".join(f"g{n},{n},1\n" for n in range(20, 40)), "utf-8")
    bad.write_text("source_id,mother_age,plurality\nb1,-1,1\nb2,-2,1\n", "utf-8")
    trace = Trace()
    with (
        mock.patch("pipelines.flows.batch._LARGE_FILE_BYTES", 0),
        _wrapped(NativeModel, "__call__", _from_failure(trace)),
        _wrapped(ReadSplit, "process", _off_when_resumed(trace)),
        _wrapped(RejectUnpredicted, "finish_bundle", _while_exhausted(trace)),
    ):
        _batch(
            trace, folder, "--set", f'source={{"format": "csv", "path": "{folder}/*-*.csv", "key": "source_id"}}',
            "--set", f'model={{"type": "saved_model", "path": "{model}"}}',
        )  # fmt: skip
    return trace.modules


def kafka_message(folder: Path, broker: Any) -> list[str]:
    """Traces messages from topic to topic: while 430 micro-batches pass and bundles end, so that they are committed.

    Args:
      folder: for files.
      broker: a tests.servers.kafka.Broker.
    """
    import numpy as np

    from pipelines.connectors.simulated.natality import births_at
    from pipelines.flows import stream as flow
    from pipelines.stream import main

    count, origin, target = 100_000, broker.create_topic(2), broker.create_topic(2)
    values = births_at(np.arange(count), 1, np.full(count, 1_700_000_000_000_000))
    broker.produce(origin, [(f"k{n}".encode(), value.as_py()) for n, value in enumerate(values)])
    trace = Trace()
    source = {
        "type": "kafka", "bootstrap_servers": broker.address, "topic": origin, "group": "paths", "key": "source_id"
    }  # fmt: skip
    output = {"type": "kafka", "bootstrap_servers": broker.address, "topic": target}
    with trace.everywhere(), _wrapped(flow.Decode, "process", _between(trace, 20, 450)):
        code = main(
            ["--config", str(ROOT / "configs" / "natality-kafka.json"), "--max-messages", str(count),
             "--set", f"source={json.dumps(source)}", "--set", f"output={json.dumps(output)}",
             "--set", f"dead_letters.path={folder}/dead", "--set", "batching.max_rows=200"]
        )  # fmt: skip
    assert code == 0
    return trace.modules


def _batch(trace: Trace, folder: Path, *arguments: str) -> None:
    from pipelines.batch import main

    with trace.everywhere():
        code = main(
            ["--config", str(ROOT / "configs" / "natality.json"), "--direct_num_workers", "1",
             "--set", f"model.path={ROOT / 'model/trained/v1'}", "--set", f"output.path={folder}/out/p",
             "--set", f'dead_letters={{"path": "{folder}/dead/p", "max_fraction": 1}}',
             "--set", 'output.columns=["source_id", "predictions"]', *arguments]
        )  # fmt: skip
    assert code == 0


Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def _wrapped(owner: Any, name: str, wrap: Wrap) -> Any:
    method = getattr(owner, name)
    return mock.patch.object(owner, name, functools.wraps(method)(wrap(method)))


def _from_second(trace: Trace) -> Wrap:
    return _between(trace, 2, sys.maxsize)


def _between(trace: Trace, first: int, last: int) -> Wrap:
    """On from the beginning of one call of a generator to that of another."""
    calls = 0

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def process(*arguments: Any) -> Iterator[Any]:
            nonlocal calls
            calls += 1
            if calls in (first, last):
                trace.on = calls == first
            yield from method(*arguments)

        return process

    return wrap


def _once(trace: Trace) -> Wrap:
    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with trace.early():
                return method(*arguments)

        return call

    return wrap


def _until_exhausted(trace: Trace) -> Wrap:
    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def process(*arguments: Any) -> Iterator[Any]:
            yield from method(*arguments)
            trace.on = False

        return process

    return wrap


def _while_exhausted(trace: Trace) -> Wrap:
    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def process(*arguments: Any) -> Iterator[Any]:
            trace.on = True
            yield from method(*arguments)
            trace.on = False

        return process

    return wrap


def _off_when_resumed(trace: Trace) -> Wrap:
    """Off when a generator goes on, which its consumer has left it to."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def process(*arguments: Any) -> Iterator[Any]:
            found = method(*arguments)
            while True:
                trace.on = False
                try:
                    element = next(found)
                except StopIteration:
                    return
                yield element

        return process

    return wrap


def _from_failure(trace: Trace) -> Wrap:
    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return method(*arguments)
            except Exception:
                trace.on = True
                raise

        return call

    return wrap


def _strict_model(folder: Path) -> str:
    """Exports a model that fails on negative ages."""
    import tensorflow as tf

    class Strict(tf.Module):  # type: ignore[misc]
        @tf.function(  # type: ignore[misc]
            input_signature=[
                tf.TensorSpec([None], tf.float32, "mother_age"),
                tf.TensorSpec([None], tf.float32, "plurality"),
            ]
        )
        def __call__(self, mother_age: Any, plurality: Any) -> dict[str, Any]:
            with tf.control_dependencies([tf.debugging.assert_non_negative(mother_age, "a negative age")]):
                return {"predictions": tf.identity(mother_age) / 3 + plurality}

    model = Strict()
    tf.saved_model.save(model, str(folder), {"serving_default": model.__call__.get_concrete_function()})
    return str(folder)


def listed(modules: Sequence[str]) -> str:
    """Returns a markdown table of modules, a line for each folder."""
    folders: dict[str, list[str]] = {}
    for module in sorted(modules, key=lambda module: module.rpartition("/")):
        folder, _, name = module.rpartition("/")
        folders.setdefault(folder, []).append(name)
    lines = [f"| `{folder}/` | {', '.join(f'`{name}`' for name in names)} |" for folder, names in folders.items()]
    return "\n".join([f"| {len(modules)} files | |", "| --- | --- |", *lines])


def put(text: str, way: str, table: str) -> str:
    """Returns a document with a table in place of the one between its marks."""
    begin, end = f"<!-- row path: {way} -->\n", f"<!-- end of row path: {way} -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"no {begin.strip()} ... {end} to put the table between")
    return f"{before}{begin}\n{table}\n\n{end}{after}"


def traced(way: str) -> list[str]:
    """Traces one way in a process of its own: threads that an earlier run left would not be traced."""
    command = [sys.executable, "-m", "tests.row_paths", "--one", way]
    done = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def _one(way: str) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if way == "csv":
            return csv_row(folder)
        if way == "failing":
            return failing_row(folder, _strict_model(folder / "model"))
        from tests.servers.kafka import kafka_broker

        with kafka_broker() as broker:
            return kafka_message(folder, broker)


def main() -> int:
    """Traces the ways and prints their modules, or puts them into a document."""
    parser = argparse.ArgumentParser(prog="python -m tests.row_paths", description=__doc__)
    parser.add_argument("ways", nargs="*", help=f"{', '.join(WAYS)}; all by default")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables between the marks of a file")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one)))
        return 0
    for way in arguments.ways or WAYS:
        table = listed(traced(way))
        if arguments.markdown:
            document = Path(arguments.markdown)
            document.write_text(put(document.read_text("utf-8"), way, table), "utf-8")
        else:
            print(f"{way}:\n{table}\n", flush=True)
    return 0


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.exit(main())
