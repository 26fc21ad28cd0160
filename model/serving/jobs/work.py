"""Does the work of a job: reads instances, predicts them by several threads, writes results to several files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import orjson

from model.serving.errors import RequestError, invalid, note
from model.serving.jobs.files import AnyFiles, InputFiles, InputPiece
from model.serving.jobs.job import Job, State
from model.serving.jobs.options import JobOptions
from model.serving.jobs.records import DamagedRecordsError, record_pieces, records_in
from model.serving.jobs.unpacked import UnpackedFiles
from model.serving.limits import Limits
from model.serving.servable import Servable
from model.serving.tensors import row_count
from model.serving.tf_json import read_inputs, write_rows

_UNTRIED_SHARE = 0.3
_PAUSE_S = 0.05


def run(job: Job, options: JobOptions, limits: Limits, files: AnyFiles) -> None:
    """Takes a job through its states to its end."""
    try:
        for state in (State.QUEUED, State.PREPARING):
            job.move(state)
            job.stop.wait(options.state_s)
        if not job.stop.is_set():
            job.move(State.RUNNING)
            _Work(job, options, limits, files).do()
    except Exception as error:  # the job fails, and the server goes on
        if not isinstance(error, RequestError):
            note(f"job {job.name} failed: {type(error).__name__}: {error}")
        job.move(State.FAILED, str(error) or type(error).__name__)
    if job.stop.is_set():
        job.move(State.CANCELLED)


class _Work:
    def __init__(self, job: Job, options: JobOptions, limits: Limits, files: AnyFiles) -> None:
        self._job = job
        self._options = options
        self._limits = limits
        self._files = files
        self._inputs: InputFiles = files
        self._errors: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._problem: Exception | None = None

    def do(self) -> None:
        job, options = self._job, self._options
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            self._shards = [_Shard(os.path.join(folder, f"{index}")) for index in range(options.shards)]
            if job.task.are_packed:
                self._inputs = UnpackedFiles(self._files, folder)
            pieces = self._pieces()
            threads = [
                threading.Thread(target=self._predict, args=(pieces,), daemon=True) for _ in range(options.workers)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if self._problem is not None:
                raise self._problem
            while not job.stop.is_set() and time.monotonic() - begun < options.run_s:
                time.sleep(_PAUSE_S)
            if job.stop.is_set():
                return
            if options.outcome == "failed":
                raise invalid(options.message)
            self._publish(folder)
        untried = options.outcome == "partial" and job.untried
        job.move(State.PARTIAL if untried else State.SUCCEEDED)

    def _pieces(self) -> Iterator[tuple[int, InputPiece]]:
        """The work, numbered; from several threads."""
        options = self._options
        found = [file for pattern in self._job.task.inputs for file in self._files.matching(pattern)]
        if not found:
            raise invalid(f"The input patterns match no files: {', '.join(self._job.task.inputs)}")
        rate = options.shard_error_rate
        self._lost_files = {file for index, file in enumerate(found) if self._drawn("shard", b"%d" % index, rate)}
        pieces = (piece for file in found for piece in self._pieces_of(file))
        ordered = reversed(list(pieces)) if options.order == "reversed" else pieces
        return _shared(enumerate(ordered))

    def _pieces_of(self, file: str) -> Iterator[InputPiece]:
        """The pieces of a file; of one that is damaged, those before the damage, which is an error of the job."""
        if not self._job.task.are_records:
            yield from self._files.pieces(file)
            return
        try:
            yield from record_pieces(self._inputs, file)
        except DamagedRecordsError as error:
            self._note(str(error), 1)
            self._job.count(failed=1)

    def _predict(self, pieces: Iterator[tuple[int, InputPiece]]) -> None:
        try:
            for number, piece in pieces:
                if self._job.stop.is_set() or self._problem is not None:
                    return
                content = self._inputs.read(piece.file, piece.start, piece.end)
                if self._job.task.are_records:
                    texts = records_in(content)
                else:
                    texts = [line for line in content.split(b"\n") if line.strip()]
                self._predict_texts(number, piece.file, texts)
        except Exception as error:  # it ends the job, not only this thread
            self._problem = error

    def _predict_texts(self, number: int, file: str, texts: list[bytes]) -> None:
        """Predicts instances as they stand in a file: lines, or records."""
        job, options = self._job, self._options
        if file in self._lost_files:
            self._note("the worker was lost, on purpose", len(texts))
            job.count(failed=len(texts))
            return
        if options.outcome == "partial":
            tried = [text for text in texts if not self._drawn("untried", text, _UNTRIED_SHARE)]
            job.count(untried=len(texts) - len(tried))
            texts = tried
        if options.order == "reversed":
            texts.reverse()
        results: list[bytes] = []
        refused: list[tuple[Any, str]] = []
        instances: list[Any] = []
        for text in texts:
            try:
                instance = {"b64": base64.b64encode(text).decode()} if job.task.are_records else _read(text)
            except (ValueError, TypeError, RecursionError) as error:
                refused.append((text.decode("utf-8", "replace"), f"the line is not JSON: {error}"))
                continue
            if options.row_error_rate and self._drawn("row", self._without_key(instance), options.row_error_rate):
                refused.append((instance, "refused on purpose"))
            else:
                instances.append(instance)
        for low in range(0, len(instances), job.task.batch_size):
            self._call(instances[low : low + job.task.batch_size], results, refused)
        for _, message in refused:
            self._note(message, 1)
        if options.errors != "beside":
            results += [
                _line({**self._named(i), "error": {"status": "INVALID_ARGUMENT", "message": m}}) for i, m in refused
            ]
        results += self._spoiled(number, results)
        self._shards[number % len(self._shards)].write(results)
        job.count(succeeded=len(texts) - len(refused), failed=len(refused))

    def _without_key(self, instance: Any) -> bytes:
        """An instance as bytes, the same whatever its key is."""
        key = self._job.task.key_field
        if isinstance(instance, dict) and key in instance:
            instance = {name: value for name, value in instance.items() if name != key}
        return orjson.dumps(instance)

    def _call(self, instances: list[Any], results: list[bytes], refused: list[tuple[Any, str]]) -> None:
        """Predicts instances together; those that the model refuses are found by halves."""
        task = self._job.task
        key = task.key_field
        shown = instances
        if key is not None and all(isinstance(instance, dict) for instance in instances):
            shown = [{name: value for name, value in instance.items() if name != key} for instance in instances]
        try:
            found = _predicted(task.servable, shown, self._limits)
        except RequestError as error:
            if len(instances) == 1:
                refused.append((instances[0], str(error)))
                return
            half = len(instances) // 2
            self._call(instances[:half], results, refused)
            self._call(instances[half:], results, refused)
            return
        if task.names_outputs:
            outputs = [spec.name for spec in task.servable.signature.outputs]
            results += [_line(each if len(outputs) > 1 else {outputs[0]: each}) for each in found]
        else:
            pairs = zip(instances, found, strict=True)
            results += [_line({**self._named(instance), "prediction": each}) for instance, each in pairs]

    def _named(self, instance: Any) -> dict[str, Any]:
        """Returns what a result line says of its instance."""
        key = self._job.task.key_field
        if key is not None and isinstance(instance, dict) and key in instance:
            return {"key": instance[key]}
        return {"instance": instance}

    def _spoiled(self, number: int, results: list[bytes]) -> list[bytes]:
        """Results that should not be there, where they are wanted."""
        options = self._options
        draw = random.Random(f"{options.seed}/{number}")
        more = [line for line in results if options.duplicate_rate and draw.random() < options.duplicate_rate]
        foreign = [line for line in results if options.foreign_rate and draw.random() < options.foreign_rate]
        return more + [_with_foreign_key(line, draw) for line in foreign]

    def _drawn(self, what: str, content: bytes, rate: float) -> bool:
        """Decides by chance, but always alike for the same content."""
        if rate <= 0:
            return False
        digest = hashlib.blake2b(content, digest_size=8, key=f"{what}/{self._options.seed}".encode()).digest()
        return int.from_bytes(digest, "big") < rate * 2**64

    def _note(self, message: str, rows: int) -> None:
        with self._lock:
            self._errors[message] += rows

    def _publish(self, folder: str) -> None:
        names = self._options.file_names
        output = self._job.task.output.rstrip("/")
        count = len(self._shards)
        for index, shard in enumerate(self._shards):
            shard.close()
            numbered = f"prediction.results-{index:05d}-of-{count:05d}"
            self._files.put(
                shard.path, f"{output}/{numbered if names == 'results' else f'predictions_{index + 1:04d}.jsonl'}"
            )
        errors = os.path.join(folder, "errors")
        with open(errors, "wb") as file:
            if self._options.errors != "inline":
                file.writelines(orjson.dumps([message, rows]) + b"\n" for message, rows in self._errors.items())
        numbered = "prediction.errors_stats-00000-of-00001"
        self._files.put(errors, f"{output}/{numbered if names == 'results' else 'errors_0001.jsonl'}")


class _Shard:
    """Collects results, from several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 - closed by close()

    def write(self, lines: list[bytes]) -> None:
        with self._lock:
            self._file.writelines(lines)

    def close(self) -> None:
        self._file.close()


def _read(line: bytes) -> Any:
    """A value of JSON, which may have NaN, as TensorFlow Serving takes it. Raises ValueError, TypeError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        found = json.loads(line)
        # Half of a surrogate pair is no text, and could not be written again.
        orjson.dumps(found)
        return found


def _predicted(servable: Servable, instances: list[Any], limits: Limits) -> list[Any]:
    arrays, _ = read_inputs({"instances": instances}, servable, limits, columns=False)
    rows = row_count(arrays, servable.signature.inputs)
    # Which may have NaN, as TensorFlow Serving writes it.
    found: list[Any] = _read(write_rows(servable(arrays)))
    if len(found) != rows or rows != len(instances):
        raise invalid(f"{len(instances)} instances gave {len(found)} predictions")
    return found


def _line(value: Any) -> bytes:
    """A line of JSON; NaN and the infinities are tokens in it, for which orjson would write null."""
    line = orjson.dumps(value)
    return (json.dumps(value).encode() if b"null" in line else line) + b"\n"


def _with_foreign_key(line: bytes, draw: random.Random) -> bytes:
    """A result whose key nobody has sent: its hexadecimal digits are others."""
    found = _read(line)
    for name, value in found.items():
        if isinstance(value, str) and len(value) > 12:
            found[name] = f"{draw.getrandbits(48):012x}{value[12:]}"
        elif isinstance(value, dict) and value.keys() == {"b64"}:
            found[name] = {"b64": base64.b64encode(draw.randbytes(60)).decode()}
    return _line(found)


def _shared(work: Iterator[tuple[int, InputPiece]] | Any) -> Iterator[tuple[int, InputPiece]]:
    """An iterator that several threads may use."""
    lock = threading.Lock()

    class _Shared:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> tuple[int, InputPiece]:
            with lock:
                found: tuple[int, InputPiece] = next(work)
                return found

    return iter(_Shared())
