"""Runs whose source, model, output and dead letters are on Cloud Storage or S3: emulators on loopback."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger, processes
from tests.support.bucket import Bucket
from tests.support.cloud_storage import cloud_storage
from tests.support.commands import ROOT
from tests.support.lacking_columns import write_without
from tests.support.ledger import KEY, assert_balanced, births, write_config, write_rows
from tests.support.pythons import needs_streams
from tests.support.s3 import s3


@pytest.fixture(params=[cloud_storage, s3], ids=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    with request.param(tmp_path) as emulator:
        yield emulator


def run_python(bucket: Bucket, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, which uses the emulator."""
    return processes.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=bucket.env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


_RUNS = """
import json, sys
from pipelines import batch, replay
from pipelines.config.load import load
from pipelines.planning.planner import make_plan
for config, fixed, patterns, times in json.loads(sys.argv[1]):
    for pattern in patterns:
        plan = make_plan(load(config, [f"source.path={pattern}"]))
        found = sorted((file.path, dict(file.partition)) for file in plan.files)
        print(json.dumps([found, list(plan.notes)]))
    for module, arguments in [(batch, [])] * times + [(replay, [fixed])]:
        code = module.main(["--config", config, "--json", *arguments])
        if code:
            sys.exit(code)
"""

Job = tuple[str, str, list[str], int]
"""Path of a config; what makes its dead letters good rows; patterns to list; how often it runs before a replay."""
Check = Callable[[list[Any]], None]
"""Looks at what a job printed, and at what it left."""


def test_runs_on_a_store(bucket: Bucket, tmp_path: Path) -> None:
    """In one process: TensorFlow takes seconds to be imported."""
    jobs, checks = zip(twice(bucket, tmp_path / "twice"), folders(bucket, tmp_path / "folders"), strict=True)
    done = run_python(bucket, _RUNS, json.dumps(jobs))
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    for (_, _, patterns, times), check in zip(jobs, checks, strict=True):
        count = len(patterns) + times + 1
        check(printed[:count])
        printed = printed[count:]


def twice(bucket: Bucket, folder: Path) -> tuple[Job, Check]:
    """A run whose shards a second one replaces, then a replay of the dead letters."""
    folder.mkdir()
    rows = births(400, 1)
    bad = [{**row, "is_male": None} for row in rows[:3]]
    good = rows[3:]
    for number, part in enumerate((bad + good[:200], good[200:])):
        bucket.put(f"twice/in/births-{number}.csv", write_rows(folder / "in.csv", "csv", part).read_bytes())
    bucket.put_folder("twice/model/v1", Path(ledger.MODEL))
    bucket.put("twice/out/p-00001-of-00002.pdf", b"mine")
    bucket.put("twice/out/p-notes.txt", b"mine")
    config = write_config(
        folder,
        "csv",
        f"{bucket.root}/twice/in/births-*.csv",
        model={"path": f"{bucket.root}/twice/model", "version": "latest"},
        output={"path": f"{bucket.root}/twice/out/p"},
        dead_letters={"path": f"{bucket.root}/twice/out/dead"},
    )
    fixed = json.dumps({**ledger.DEFAULTS, "is_male": "True"})

    def check(printed: list[Any]) -> None:
        assert [(s["rows_read"], s["rows_written"], s["rows_dead_lettered"]) for s in printed] == [
            (400, 397, 3),
            (400, 397, 3),
            (3, 3, 0),
        ]
        names = [name for name in bucket.names() if name.startswith("twice/")]
        assert [name for name in names if "/." in name] == ["twice/out/.p.manifest.json"]
        assert "twice/out/p-notes.txt" in names
        assert "twice/out/p-00001-of-00002.pdf" in names
        assert not [name for name in names if name.startswith("twice/out/dead")]
        bucket.download("twice/out/p-", folder / "got")
        (folder / "got" / "twice" / "out" / "p-notes.txt").unlink()
        (folder / "got" / "twice" / "out" / "p-00001-of-00002.pdf").unlink()
        books = ledger.read_books(folder / "got" / "twice" / "out" / "p", folder / "got" / "twice" / "out" / "dead")
        assert_balanced(books, good + [{**row, "is_male": "True"} for row in bad], {})
        assert len({row[KEY] for row in books.output}) == 400

    return (config, f"--set=source.defaults={fixed}", [], 2), check


def folders(bucket: Bucket, folder: Path) -> tuple[Job, Check]:
    """A run over folders with values in their names, listed in several ways, then a replay."""
    folder.mkdir()
    rows = births(24, 1)
    bad = [{**row, "is_male": None} for row in rows[:3]]
    expected = {}
    for number, row in enumerate([*bad, *rows[3:]]):
        # The emulator takes no % in a name.
        name = f"folders/in/mother_race={row['mother_race']}/plurality={row['plurality']:.0f}/{number}.csv"
        names = ("mother_race", "plurality", *(["gestation_weeks"] if number == 7 else []))
        write_without(folder / "in.csv", "csv", [row], *names)
        bucket.put(name, (folder / "in.csv").read_bytes())
        expected[f"{bucket.root}/{name}"] = {"mother_race": row["mother_race"], "plurality": f"{row['plurality']:.0f}"}
    rows[7]["gestation_weeks"] = None
    for name in ("folders/in/_SUCCESS", "folders/in/mother_race=White/_temporary/0/a.tmp"):
        bucket.put(name, b"not read")
    config = write_config(
        folder,
        "csv",
        f"{bucket.root}/folders/in",
        output={"path": f"{bucket.root}/folders/out/p"},
        dead_letters={"path": f"{bucket.root}/folders/out/dead"},
    )
    patterns = [f"{bucket.root}/folders/in{end}" for end in ("", "/", "/*", "/*/*/*.csv", "/mother_race=*", "/**.csv")]
    fixed = json.dumps({**ledger.DEFAULTS, "is_male": "True"})

    def check(printed: list[Any]) -> None:
        *listed, ran, replayed = printed
        for pattern, (found, notes) in zip(patterns, listed, strict=True):
            found = dict(found)
            assert found == expected, pattern
            assert any("7.csv has no column 'gestation_weeks'" in note for note in notes)
        assert (ran["rows_read"], ran["rows_written"], ran["rows_dead_lettered"]) == (24, 21, 3)
        assert (replayed["rows_read"], replayed["rows_written"]) == (3, 3)
        bucket.download("folders/out/p-", folder / "got")
        books = ledger.read_books(folder / "got" / "folders" / "out" / "p", folder / "got" / "folders" / "out" / "dead")
        assert_balanced(books, rows[3:] + [{**row, "is_male": "True"} for row in bad], {})

    return (config, f"--set=source.defaults={fixed}", patterns, 1), check


_PUBLISHING = """
import json, sys
from apache_beam.io.gcp.gcsfilesystem import GCSFileSystem
from pipelines import storage as files
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import lock
from pipelines.connectors.files.publishing.commit_record import PublishError
from pipelines.connectors.files.publishing.completion import look_after
from pipelines.connectors.files.publishing.reservation import Reservation
from tests.support import publishing_run

class Killed(BaseException):
    pass

root = sys.argv[1]
if root.startswith("gs://"):
    # Beam makes a client for each call, out of all its options.
    client = GCSFileSystem({})._gcsIO()
    GCSFileSystem._gcsIO = lambda self: client

def interrupted(place, step):
    left = step
    def counted(call):
        def act(*arguments, **named):
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return call(*arguments, **named)
        return act
    before = files.delete, files.rename, files.write_whole
    files.delete, files.rename, files.write_whole = map(counted, before)
    # The lease of a killed run stays behind, and is over after a while.
    release, lock._Lease.release = lock._Lease.release, lambda self: self._ended.set()
    try:
        publishing_run.publish(place, "new")
        return False
    except Killed:
        return True
    finally:
        files.delete, files.rename, files.write_whole = before
        lock._Lease.release = release

def contents(place):
    found = []
    for each in publishing_run.places(place):
        shards = publishing_run.shards.published(each.prefix)
        lines = [files.read_range(shard.path, 0, 1000).decode().split() for shard in shards]
        found.append(sorted({line for some in lines for line in some}))
    return found

def hidden(place):
    return [e.name for p in publishing_run.places(place) for e in files.entries(p.prefix.rpartition("/")[0] + "/", ".")]

states = []
for step in range(60):
    place = f"{root}/{step}"
    assert publishing_run.publish(place, "old", 2) == []
    was_killed = interrupted(place, step)
    if any(".lock-" in name for name in hidden(place)):
        try:
            with Reservation(*publishing_run.places(place), "feedbeef", "next"):
                raise AssertionError("a lease that may be alive was passed over")
        except ConfigError as error:
            assert "in use by run 'new'" in str(error), error
    over, lock._OVER_S = lock._OVER_S, -60.0
    look_after(*publishing_run.places(place), "feedbeef", "check")
    with Reservation(*publishing_run.places(place), "feedbeef", "next") as reserved:
        reserved.claim()
    lock._OVER_S = over
    states.append(contents(place))
    assert set(hidden(place)) == {".p.manifest.json", ".d.manifest.json"}, step
    if not was_killed:
        break
with Reservation(*publishing_run.places(f"{root}/0"), "0123abcd", "first") as first:
    try:
        Reservation(*publishing_run.places(f"{root}/0"), "4567abcd", "second").__enter__()
        raise AssertionError("two runs in one place")
    except ConfigError as error:
        assert "first" in str(error) and "0123abcd" in str(error)
    # Another run takes a lease away that was not renewed in time: its first holder must not publish.
    over, lock._OVER_S = lock._OVER_S, -60.0
    with Reservation(*publishing_run.places(f"{root}/0"), "4567abcd", "second"):
        lock._OVER_S = over
        assert lock.holder_of(f"{root}/0/out/p", "0123abcd") == ""
        assert lock.holder_of(f"{root}/0/out/p", "4567abcd") == "4567abcd"
print(json.dumps(states))
"""


def test_publishing_on_a_store_is_killed_at_each_step(bucket: Bucket) -> None:
    """Leases keep others out; afterwards all of it is of one run, and nothing else is left."""
    done = run_python(bucket, _PUBLISHING, bucket.root)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert all(state in ([["old"], ["old"]], [["new"], ["new"]]) for state in states), states
    tags = [output[0] for output, _ in states]
    assert tags == sorted(tags, reverse=True), "once the new set was there it stays"
    assert set(tags) == {"old", "new"}
    assert len(tags) > 10


_READING = """
import hashlib, json, sys
from pipelines.connectors.files import source_files
from pipelines.formats import ReadSpec, reader_class
found = source_files.find([sys.argv[1]]).files
reader = reader_class("bytes")(ReadSpec(reader_class("bytes").schema("", {}), {}, "path"))
groups = reader.groups(found, 1 << 20, 4)
pieces = [piece for group in groups for piece in reader.read(group)]
rows = [row for piece in pieces for row in piece.batch.to_pylist()]
print(json.dumps([len(groups), {row["path"]: hashlib.md5(row["bytes"]).hexdigest() for row in rows}]))
"""


def test_files_as_rows_on_a_store(bucket: Bucket) -> None:
    """Many to a piece of work, read at the same time."""
    contents = {f"images/{n % 3}/{n}.jpg": bytes([n]) * (n + 1) for n in range(20)}
    for name, content in contents.items():
        bucket.put(name, content)
    done = run_python(bucket, _READING, f"{bucket.root}/images/**/*.jpg")
    assert done.returncode == 0, done.stderr
    groups, found = json.loads(done.stdout)
    assert groups == 4
    assert found == {f"{bucket.root}/{name}": hashlib.md5(content).hexdigest() for name, content in contents.items()}


_TRANSFORMS = """
import sys

import apache_beam as beam
from pipelines.io import ReadRecordBatches, WriteRecordBatches

for _ in range(2):
    with beam.Pipeline(runner="FnApiRunner") as p:
        batches, dead = p | ReadRecordBatches(f"{sys.argv[1]}/own/in/*.csv", key="source_id").with_exception_handling()
        written = batches | WriteRecordBatches(f"{sys.argv[1]}/own/out/p", "csv")
        _ = written | "path" >> beam.Map(print)
        _ = dead | "key" >> beam.Map(lambda dead_letter: print("dead", dead_letter.payload))
"""


def test_transforms_read_and_publish_on_a_store(bucket: Bucket, tmp_path: Path) -> None:
    """Twice: the second run takes the place of the first."""
    rows = births(300, 9)
    for number, part in enumerate((rows[:100], rows[100:])):
        content = write_rows(tmp_path / "in.csv", "csv", part).read_bytes()
        bucket.put(f"own/in/{number}.csv", content + b"too,few\n" * number)
    bucket.put("own/out/p-notes.txt", b"mine")
    done = run_python(bucket, _TRANSFORMS, bucket.root)
    assert done.returncode == 0, done.stderr
    names = [name for name in bucket.names() if name.startswith("own/out/")]
    shards = [name for name in names if name.startswith("own/out/p-0")]
    assert names == ["own/out/.p.manifest.json", *shards, "own/out/p-notes.txt"]
    lines = done.stdout.splitlines()
    assert lines.count("dead b'too,few'") == 2
    assert set(lines) - {"dead b'too,few'"} >= {f"{bucket.root}/{name}" for name in shards}
    bucket.download("own/out/p-0", tmp_path / "got")
    found = [row for path in ledger.shards(tmp_path / "got" / "own" / "out" / "p") for row in ledger.read_shard(path)]
    assert sorted(row[KEY] for row in found) == sorted(row[KEY] for row in rows)


_KEYS = """
import json, sys

from pipelines import batch, init, stream
from pipelines.config.errors import ConfigError
from pipelines.config.load import load
from pipelines.cost import prices
from pipelines.planning.planner import make_plan

root, kept = sys.argv[1:]
for name in ("schema", "descriptor", "signature_from"):
    print(json.dumps(make_plan(load(f"{root}/{name}.json"), offline=True).source_schema.names))
try:
    make_plan(load(f"{root}/schema.json", [f"source.schema={root}/none.avsc"]))
except ConfigError as error:
    print(json.dumps(error.problems))
print(json.dumps(sorted(prices.load(f"{root}/prices.json").model_dump()) == sorted(prices.load().model_dump())))
model, source = f"{root}/model/v1", f"{root}/in.csv"
assert init.main(["--model", model, "--source", source, "--output", f"{root}/mine.json", "--force"]) == 0
assert batch.main([f"--set=source.path={root}/none/*.csv", *json.loads(kept)]) == 2
assert batch.main([f"--set=model.path={root}/none", *json.loads(kept)]) == 2
assert batch.main([f"--config={root}/none.json"]) == 2
assert stream.main(["--config", f"{root}/stream.json", "--json"]) == 0
"""


@needs_streams
def test_every_key_that_holds_a_path(bucket: Bucket, tmp_path: Path) -> None:
    """Of those that the runs above do not have: each is read from the store."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

    texts, numbers = [ledger.KEY, *ledger.TEXTS], list(ledger.NUMBERS)
    fields = [{"name": name, "type": ["null", "double" if name in numbers else "string"]} for name in texts + numbers]
    bucket.put("births.avsc", json.dumps({"type": "record", "name": "Birth", "fields": fields}).encode())
    described = FileDescriptorSet()
    file = described.file.add(name="births.proto", package="births", syntax="proto3")
    message = file.message_type.add(name="Birth")
    for number, name in enumerate(texts + numbers, 1):
        kind = FieldDescriptorProto.TYPE_DOUBLE if name in numbers else FieldDescriptorProto.TYPE_STRING
        message.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    bucket.put("births.pb", described.SerializeToString())
    bucket.put_folder("model/v1", Path(ledger.MODEL))
    bucket.put("prices.json", (ROOT / "configs" / "prices.json").read_bytes())
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    rows = births(40, 5)
    bucket.put("in.jsonl", ledger.lines(map(ledger.json_row, rows)))
    kafka = {"type": "kafka", "bootstrap_servers": "127.0.0.1:1", "topic": "t", "group": "g", "key": ledger.KEY}
    output = {"type": "file", "format": "json", "path": f"{bucket.root}/out/p"}
    model = {"path": f"{bucket.root}/model/v1"}
    endpoint = {
        "type": "endpoint", "protocol": "kserve_v1", "url": "http://127.0.0.1:1", "signature_from": model["path"],
    }  # fmt: skip
    simulated = {
        "type": "simulated", "path": f"{bucket.root}/in.jsonl", "rate": 0, "messages": 40, "defaults": ledger.DEFAULTS,
    }  # fmt: skip
    avro = kafka | {"format": "avro", "schema": f"{bucket.root}/births.avsc"}
    protobuf = kafka | {"format": "protobuf", "descriptor": f"{bucket.root}/births.pb", "message": "births.Birth"}
    for name, parts in {
        "schema": (avro, model),
        "descriptor": (protobuf, model),
        "signature_from": ({"format": "csv", "path": f"{bucket.root}/in.csv"}, endpoint),
        "stream": (simulated, model),
    }.items():
        bucket.put(f"{name}.json", json.dumps({"source": parts[0], "model": parts[1], "output": output}).encode())
    kept = [f"--set=output.path={tmp_path}/p", f"--set=dead_letters.path={tmp_path}/d"]
    done = run_python(bucket, _KEYS, bucket.root, json.dumps(kept))
    assert done.returncode == 0, done.stderr
    columns, messages, _, missing, same_prices, summary = map(json.loads, done.stdout.splitlines())
    assert columns == messages == texts + numbers
    assert missing == [f"source.schema: {bucket.root}/none.avsc cannot be read: No such file or directory"]
    assert same_prices
    assert (summary["rows_read"], summary["rows_written"]) == (40, 40)
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"source.path: nothing matches {bucket.root}/none/*.csv; check the bucket and the name",
        f"model: no SavedModel at {bucket.root}/none: {bucket.root}/none/saved_model.pb does not exist; check the path",
        f"{bucket.root}/none.json: no such file",
    ]
    assert json.loads(bucket.read("mine.json"))["model"]["path"] == model["path"]
    bucket.download("out/", tmp_path / "got")
    written = [row for path in (tmp_path / "got" / "out").glob("p-*") for row in ledger.read_shard(path)]
    assert sorted(row[KEY] for row in written) == sorted(row[KEY] for row in rows)
