"""Templates, updates and drains of Dataflow, against its jobs API on loopback."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import dataflow_v1beta3
from google.protobuf import json_format

from pipelines import batch
from pipelines.cli import command as command_lines
from pipelines.engine.options import options_from
from tests.servers.dataflow import Job, JobsApi, jobs_api
from tests.support.cloud_storage import StorageEmulator, cloud_storage
from tests.support.commands import ROOT, Command
from tests.support.dataflow_commands import errors, flags, launched, run
from tests.support.pythons import needs_streams
from tests.support.waiting import wait_until

TEMPLATES = {name: json.loads((ROOT / "flex" / f"{name}.json").read_text()) for name in ("batch", "stream")}
SOURCE = {"type": "pubsub", "topic": "projects/test-project/topics/births", "key_attribute": "source_id"}
OUTPUT = {"type": "file", "format": "json", "path": "gs://bucket/stream/p"}
STREAM = {"source": SOURCE, "output": OUTPUT, "dead_letters.path": "gs://bucket/stream/d"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEmulator]:
    with cloud_storage(tmp_path_factory.mktemp("storage")) as emulator:
        emulator.put("in/births.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
        for name in ("natality", "natality-stream"):
            emulator.put(f"configs/{name}.json", (ROOT / "configs" / f"{name}.json").read_bytes())
        for file in (ROOT / "model" / "trained" / "v1").rglob("*"):
            if file.is_file():
                emulator.put(f"models/v2/{file.relative_to(ROOT / 'model/trained/v1')}", file.read_bytes())
        yield emulator


@pytest.fixture(scope="module")
def api(storage: StorageEmulator) -> Iterator[JobsApi]:
    with jobs_api(storage.env) as server:
        yield server


def names_of(content: bytes) -> list[str]:
    """The names of the steps of a staged pipeline."""
    pipeline = beam_runner_api_pb2.Pipeline.FromString(content)
    return sorted(transform.unique_name for transform in pipeline.components.transforms.values())


def staged(storage: StorageEmulator, job: Job) -> bytes:
    return storage.read(job.pipeline.removeprefix("gs://bucket/"))


def test_a_batch_job_from_a_flex_template(storage: StorageEmulator, api: JobsApi) -> None:
    """The command writes the job and ends; the job publishes by itself."""
    places = {"output.path": "gs://bucket/flex/p", "dead_letters.path": "gs://bucket/flex/d"}
    changed = json.dumps({"source.path": "gs://bucket/in/*.csv", **places})
    parameters = ["--config=gs://bucket/configs/natality.json", f"--set={changed}", "--job_name=births"]
    done = launched(storage, api, "batch", *parameters)
    assert done.returncode == 0, done.stderr
    template = "staging/template_launches/batch/job_object"
    assert f"template written: gs://bucket/{template}" in done.stdout
    assert api.jobs == {}
    assert storage.names("flex/") == []
    written = storage.read(template)
    parsed = dataflow_v1beta3.Job.pb(dataflow_v1beta3.Job())
    json_format.Parse(written, parsed)
    assert parsed.name == "births"
    assert dict(parsed.labels) == {"goog-dataflow-provided-template-type": "flex", "app": "beam-tf-predict"}
    # The image has the project in it.
    assert not [name for name in storage.names("tmp/") if name.endswith((".tar.gz", ".whl"))]
    job = api.start_template(written)
    wait_until(lambda: job.state != 2, "the job's end")
    assert job.state == 3, job.message
    names = storage.names("flex/")
    manifest = json.loads(storage.read("flex/.p.manifest.json"))
    assert (manifest["rows_read"], manifest["rows_written"]) == (1_450, 1_450)
    [shard] = [name for name in names if name.endswith(".csv")]
    assert len(storage.read(shard).splitlines()) == 1_451
    # Neither a lock nor a temporary shard is left.
    assert [name for name in names if "lock" in name or ".tmp/" in name] == []


def test_a_job_that_no_command_waits_for(storage: StorageEmulator, api: JobsApi) -> None:
    """It publishes only where no other run is at work, and once, however often its template is started."""
    places = ["--set=output.path=gs://bucket/alone/p", "--set=dead_letters.path=gs://bucket/alone/d"]
    sets = ["--set=source.path=gs://bucket/in/*.csv", *places]
    done = run(storage, "batch", *sets, *flags(api, "--template_location", "gs://bucket/templates/batch"))
    assert done.returncode == 0, done.stderr
    template = storage.read("templates/batch")
    storage.put("alone/.p.lock-0badcafe", b"{}")
    refused = api.start_template(template)
    wait_until(lambda: refused.state != 2, "the job's end")
    assert refused.state == 4
    assert "in use" in refused.message
    assert storage.names("alone/p-") == storage.names("alone/.p.manifest") == []
    storage.delete("alone/.p.lock-0badcafe")
    for _ in range(2):
        job = api.start_template(template)
        wait_until(lambda started=job: started.state != 2, "the job's end")
        assert job.state == 3, job.message
        [shard] = storage.names("alone/p-")
        assert len(storage.read(shard).splitlines()) == 1_451


def test_a_classic_template(storage: StorageEmulator, api: JobsApi) -> None:
    sets = [f"--set={key}={json.dumps(value)}" for key, value in STREAM.items()]
    done = run(storage, "stream", *sets, *flags(api, "--template_location", "gs://bucket/templates/stream"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "template written: gs://bucket/templates/stream; nothing was started\n"
    job = api.start_template(storage.read("templates/stream"))
    assert job.proto["type"] == 2


@needs_streams
def test_a_stream_from_a_flex_template(storage: StorageEmulator, api: JobsApi) -> None:
    parameters = ["--config=gs://bucket/configs/natality-stream.json", f"--set={json.dumps(STREAM)}"]
    done = launched(storage, api, "stream", *parameters, "--resource_hints=min_ram=16GB")
    assert done.returncode == 0, done.stderr
    written = storage.read("staging/template_launches/stream/job_object")
    job = api.start_template(written)
    pipeline = beam_runner_api_pb2.Pipeline.FromString(staged(storage, job))
    hints = [environment.resource_hints for environment in pipeline.components.environments.values()]
    wanted = {"beam:resources:min_ram_bytes:v1": b"16000000000"}
    assert wanted in [dict(each) for each in hints]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([], "--config: missing"),
        (["--config=gs://bucket/configs/none.json"], "no such file"),
        (["--config=gs://bucket/configs/natality.json", '--set={"source.path": }'], "--set {...}: not JSON"),
        (["--config=gs://bucket/configs/natality.json", '--set={"a": 1, "a": 2}'], "key 'a' appears twice"),
        (["--config=gs://bucket/configs/natality.json", '--set={"source..path": 1}'], "give keys such as source.path"),
        (["--config=gs://bucket/configs/natality.json", '--set={"name.x": 1}'], "'name' is not an object"),
    ],
)
def test_mistakes_in_parameters(storage: StorageEmulator, api: JobsApi, parameters: list[str], words: str) -> None:
    done = launched(storage, api, "mistakes", *parameters)
    assert done.returncode == 2, done.stderr
    assert any(words in error for error in errors(done)), done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("batch", ("--template_location", "gs://b/t"), "only Dataflow starts templates"),
        ("stream", ("--template_location", "gs://b/t"), "only Dataflow starts templates"),
        ("replay", ("--runner", "DataflowRunner", "--template_location", "gs://b/t"), "a replay is run once"),
    ],
)
def test_templates_that_are_refused(command: Command, name: str, arguments: tuple[str, ...], words: str) -> None:
    result = command(name, *arguments)
    assert result.code == 2
    assert words in result.errors[0]


_NOT_THERE = "there is no bucket not-there; check the name, or create it"
_UNFIT = "give a gs:// path, or a file in a local folder that exists"


@pytest.mark.parametrize(
    ("option", "place", "words"),
    [
        ("--temp_location", "gs://not-there/tmp", _NOT_THERE),
        ("--staging_location", "gs://not-there/staging", _NOT_THERE),
        ("--template_location", "gs://not-there/templates/t", _NOT_THERE),
        ("--template_location", "s3://bucket/templates/t", _UNFIT),
        ("--template_location", "/not/there/t", _UNFIT),
    ],
)
@pytest.mark.parametrize("command", ["batch", "stream"])
def test_a_place_that_a_job_cannot_be_written_to(
    storage: StorageEmulator, api: JobsApi, command: str, option: str, place: str, words: str
) -> None:
    """Beam would try to write there for many minutes."""
    places = {"output.path": "gs://bucket/places/p", "dead_letters.path": "gs://bucket/places/d"}
    values = STREAM if command == "stream" else {"source.path": "gs://bucket/in/*.csv", **places}
    sets = [f"--set={json.dumps(values)}"]
    before = len(api.jobs)
    done = run(storage, command, *sets, *flags(api, option, place))
    assert done.returncode == 2, done.stderr
    [line] = errors(done)
    assert option in line
    assert words in line
    assert len(api.jobs) == before


def start_stream(storage: StorageEmulator, api: JobsApi, *more: str) -> subprocess.CompletedProcess[str]:
    sets = [f"--set={key}={json.dumps(value)}" for key, value in STREAM.items()]
    return run(storage, "stream", *sets, *flags(api, *more))


def test_a_stream_is_updated_and_drained(storage: StorageEmulator, api: JobsApi) -> None:
    """An update replaces the running job: its steps have the same names, also with another model."""
    none = start_stream(storage, api, "--update", "--job_name", "births-live")
    assert none.returncode == 2
    [error] = errors(none)
    assert "no job of the name births-live runs in us-central1" in error
    first = start_stream(storage, api, "--job_name", "births-live")
    assert first.returncode == 0, first.stderr
    old = list(api.jobs.values())[-1]
    model = "--set=model.path=gs://bucket/models/v2"
    done = start_stream(storage, api, "--update", "--job_name", "births-live", model)
    assert done.returncode == 0, done.stderr
    new = list(api.jobs.values())[-1]
    assert new.proto["replaceJobId"] == old.id
    assert new.proto["name"] == "births-live"
    assert f"runs the job {new.id}" in done.stdout
    assert names_of(staged(storage, new)) == names_of(staged(storage, old))
    body = json.dumps({"requestedState": "JOB_STATE_DRAINED"}).encode()
    where = f"{api.endpoint}/v1b3/projects/test-project/locations/us-central1/jobs/{new.id}"
    with urllib.request.urlopen(urllib.request.Request(where, body, method="PUT"), timeout=20) as answer:
        assert json.loads(answer.read())["currentState"] == dataflow_v1beta3.JobState.JOB_STATE_DRAINED
    # It has ended: there is nothing to update any more.
    assert start_stream(storage, api, "--update", "--job_name", "births-live").returncode == 2


def test_a_batch_job_cannot_be_updated(storage: StorageEmulator, api: JobsApi) -> None:
    places = ["--set=output.path=gs://bucket/update/p", "--set=dead_letters.path=gs://bucket/update/d"]
    done = run(storage, "batch", "--set=source.path=gs://bucket/in/*.csv", *places, *flags(api, "--update"))
    assert done.returncode == 2
    assert "--update: only a stream's job" in errors(done)[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_metadata_is_what_google_publishes(name: str) -> None:
    """Google's own message type has all of its fields; the rules that it does not hold are tried one by one."""
    metadata = TEMPLATES[name]
    parsed = dataflow_v1beta3.TemplateMetadata.pb(dataflow_v1beta3.TemplateMetadata())
    json_format.ParseDict(metadata, parsed)
    assert parsed.streaming == (name == "stream")
    if metadata.get("defaultStreamingMode"):
        assert parsed.supports_at_least_once
        assert parsed.supports_exactly_once
        assert parsed.default_streaming_mode in ("EXACTLY_ONCE", "AT_LEAST_ONCE")
    assert len({each.name for each in parsed.parameters}) == len(parsed.parameters)
    for each in parsed.parameters:
        assert each.label
        assert each.help_text
        for regex in each.regexes:
            re.compile(regex)


@pytest.mark.parametrize("name", TEMPLATES)
def test_parameters_are_options(name: str) -> None:
    """Each is an option of our command line, or one that Beam takes: both are asked."""
    parser = command_lines.parser(name, "")
    if name == "batch":
        batch._add_job_arguments(parser)
    known = {action.dest for action in parser._actions}
    for each in TEMPLATES[name]["parameters"]:
        if each["name"] not in known:
            assert isinstance(options_from([f"--{each['name']}=a=b"]), PipelineOptions)


@pytest.mark.parametrize(
    ("parameter", "value", "fits"),
    [
        ("config", "gs://my-bucket/configs/births.json", True),
        ("config", "configs/births.json", False),
        ("set", "source.path=gs://b/in/*.csv", True),
        ("set", '{"source.path": "gs://b/in/*.csv"}', True),
        ("set", "source.path", False),
        ("sdk_container_image", "us-central1-docker.pkg.dev/p/r/predict:1.0", True),
        ("sdk_container_image", "us-docker.pkg.dev/p/r/predict@sha256:" + "0" * 64, True),
        ("sdk_container_image", "not an image", False),
        ("resource_hints", "min_ram=16GB", True),
        ("resource_hints", "16GB", False),
    ],
)
def test_regexes(parameter: str, value: str, fits: bool) -> None:
    for template in TEMPLATES.values():
        [found] = [each for each in template["parameters"] if each["name"] == parameter]
        assert all(re.fullmatch(regex, value) for regex in found["regexes"]) == fits


def test_the_image_runs_what_is_tested_here() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "COPY flex/launch.py ./" in dockerfile
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py" in dockerfile
