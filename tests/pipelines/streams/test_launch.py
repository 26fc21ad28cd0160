"""Streams whose workers are elsewhere: the job is complete, mistakes are named; nothing here has an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PortableOptions, SetupOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.utils.timestamp import Timestamp

from pipelines.cli.hand_over_stream import is_elsewhere
from pipelines.config.files import FileSource
from pipelines.config.load import load
from pipelines.config.model import SavedModelConfig
from pipelines.config.pubsub import PubSubSource
from pipelines.connectors.pubsub.dataflow_source import Form, Note, ReadPubSubNative
from pipelines.engine.options import options_from
from tests.servers.pubsub_emulator import SUBSCRIPTION
from tests.support.commands import ROOT, Command

DATAFLOW = [
    "--config", "configs/natality-pubsub.json", "--runner", "DataflowRunner", "--project", "test-project",
    "--region", "us-central1", "--temp_location", "gs://bucket/tmp",
]  # fmt: skip
REMOTE = ["--set", "output.path=gs://bucket/p", "--set", "dead_letters.path=gs://bucket/d"]


def test_a_dry_run_builds_the_whole_job(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    built: list[beam_runner_api_pb2.Pipeline] = []
    to_proto = beam.Pipeline.to_runner_api

    def seen(self: beam.Pipeline, *arguments: Any, **named: Any) -> Any:
        made = to_proto(self, *arguments, **named)
        built.append(made[0] if isinstance(made, tuple) else made)
        return made

    monkeypatch.setattr(beam.Pipeline, "to_runner_api", seen)
    changes = ["--set", 'dedupe={"window_s": 600}', "--set", "source.key_attribute=order", "--set", "source.key=null"]
    changes += ["--set", "source.timestamp_attribute=at", "--set", 'output.columns=["predictions"]']
    result = command("stream", *DATAFLOW, *REMOTE, *changes, "--dry_run")
    assert result.code == 0, result
    assert "nothing was started" in result.out
    assert "warning" not in result.err
    steps = built[-1].components.transforms.values()
    [read] = [each for each in steps if each.spec.urn == common_urns.composites.PUBSUB_READ.urn]
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(read.spec.payload)
    assert payload.subscription == SUBSCRIPTION
    assert (payload.id_attribute, payload.timestamp_attribute, payload.with_attributes) == ("order", "at", True)
    names = {each.unique_name.partition("/")[0] for each in steps}
    assert {"Source", "Decode", "Predict", "Sink", "DeadLetters"} <= names


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "paths of this machine": ([], ["output.path", "dead_letters.path"]),
    "an end": ([*REMOTE, "--max-messages", "5"], ["without end"]),
    "not from pubsub": ([*REMOTE, "--set", 'source={"type": "simulated"}'], ["not from simulated"]),
    "no attribute to tell repeats by": ([*REMOTE, "--set", 'dedupe={"window_s": 600}'], ["source.key_attribute"]),
    "the console": (["--set", 'output={"type": "console"}', *REMOTE[2:]], ["output.type"]),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_dataflow_cannot_do(command: Command, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipelines.connectors.pubsub.connector._check", lambda name: None)
    flags, words = WRONG[what]
    result = command("stream", *DATAFLOW, *flags)
    assert result.code == 2, result
    assert len(result.errors) == len(words), result
    assert all(word in line for word, line in zip(words, result.errors, strict=True)), result


def test_what_a_job_server_elsewhere_needs(command: Command, tmp_path: Path) -> None:
    paths = ["--set", f"output.path={tmp_path}/p", "--set", f"dead_letters.path={tmp_path}/d"]
    for flags, words in (
        (["--runner", "PortableRunner"], "--job_endpoint: missing"),
        (["--runner", "PortableRunner", "--environment_type", "DOCKER"], "--job_endpoint: missing"),
    ):
        result = command("stream", *flags, *paths)
        assert result.code == 2, result
        assert [words in line for line in result.errors] == [True], result


def test_flags_that_send_a_stream_elsewhere() -> None:
    assert is_elsewhere(["--runner=DataflowRunner"])
    assert is_elsewhere(["--runner", "PortableRunner", "--environment_type", "DOCKER"])
    assert not is_elsewhere([])
    assert not is_elsewhere(["--runner", "FlinkRunner", "--environment_type=LOOPBACK"])


def test_workers_of_other_processes_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    changes = ["output.path=out/", "model.path=own", "source.path=gs://bucket/births.csv", 'dead_letters={"path": "d"}']
    found = load(None, changes, absolute=True)
    assert isinstance(found.model, SavedModelConfig)
    assert isinstance(found.source, FileSource)
    paths = (found.output_path, found.model.path, found.source.path, found.dead_letters_path)
    assert paths == (f"{tmp_path}/out/", f"{tmp_path}/own", "gs://bucket/births.csv", f"{tmp_path}/d")
    packaged = load(None, ["source.columns={}", "output.path=/o/p"], absolute=True)
    assert isinstance(packaged.model, SavedModelConfig)
    assert packaged.model.path == str(ROOT / "model" / "trained" / "v1")
    assert load(None, ["output.path=out/"]).output_path == "out/"


@pytest.mark.parametrize(
    ("environment", "is_staged"), [("EXTERNAL", False), ("PROCESS", False), ("DOCKER", True), ("LOOPBACK", False)]
)
def test_only_workers_without_the_project_are_sent_it(environment: str, is_staged: bool) -> None:
    flags = ["--runner", "FlinkRunner", "--job_endpoint", "localhost:8099", "--environment_type", environment]
    found = options_from(flags)
    assert bool(found.view_as(SetupOptions).setup_file) == is_staged
    # Flink would start a worker for each stage; those of this process are threads.
    assert bool(found.view_as(PortableOptions).environment_cache_millis) == (environment != "LOOPBACK")
    assert (
        options_from([*flags, "--environment_cache_millis=7"]).view_as(PortableOptions).environment_cache_millis == "7"
    )


def test_messages_keep_ids_times_and_attributes() -> None:
    came = [
        (PubsubMessage(json.dumps({"n": n}).encode(), {"order": f"o{n}"} if n else {}, f"{100 + n}"), 10.5 + n)
        for n in range(3)
    ]
    note = Note("order")
    noted = [each for message, time in came for each in note.process(message, Timestamp.of(time))]
    [messages] = Form("a/subscription", True, True).process(noted)
    assert messages.payloads.to_pylist() == [message.data for message, _ in came]
    assert messages.keys is not None
    assert messages.keys.to_pylist() == ["100", "o1", "o2"]
    assert messages.positions.tolist() == [100, 101, 102]
    assert messages.event_us.tolist() == [10_500_000, 11_500_000, 12_500_000]
    assert messages.attributes is not None
    assert messages.attributes.to_pylist()[2] == [("order", b"o2")]
    [plain] = Form("a/subscription", False, False).process(noted)
    assert (plain.keys, plain.attributes) == (None, None)
    assert np.all(plain.pulled_us >= plain.received_us)


@pytest.mark.parametrize("rows", [1, 100])
def test_the_native_read_gives_messages(rows: int) -> None:
    pipeline = beam.Pipeline()
    source = PubSubSource(type="pubsub", subscription=SUBSCRIPTION)
    made = pipeline | ReadPubSubNative(source, rows, 20)
    assert made.element_type.__name__ == "Messages"
