"""The command that puts a model online, against stand-ins of the services on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import deploy
from model.deployment import traffic
from model.deployment.credentials import GoogleAuth
from model.deployment.errors import SettingError
from tests.conftest import ROOT, Result
from tests.model.cloud_stand_in import CloudStandIn, Fault, StorageEmulator, storage_emulator

PACKAGED = ROOT / "model" / "trained" / "v1"
SERVICES = ("ai_platform", "vertex")


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def storage() -> Iterator[StorageEmulator]:
    with storage_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def served(storage: StorageEmulator) -> Iterator[tuple[CloudStandIn, str]]:
    cloud = CloudStandIn(storage.has_model)
    with cloud.serve() as url:
        yield cloud, url


class Cloud:
    """The stand-ins, and the command against them."""

    def __init__(self, stand_in: CloudStandIn, url: str, storage: StorageEmulator, prefix: str, model: Path) -> None:
        self.stand_in, self.url, self.storage, self.prefix = stand_in, url, storage, prefix
        self.models = model.parent
        self.clock = Clock()
        self._capture: Any = None

    @property
    def bucket(self) -> str:
        return f"gs://bucket/{self.prefix}"

    def objects(self) -> set[str]:
        return {name.removeprefix(f"{self.prefix}/") for name in self.storage.items(f"{self.prefix}/")}

    def arguments(self, service: str, version: str = "v1") -> list[str]:
        return [
            *(service, "--model", str(self.models / version), "--bucket", self.bucket, "--project", "test-project"),
            *(["--location", "us-central1"] if service == "vertex" else []),
            *("--name", "births", "--url", self.url),
        ]

    def run(self, service: str, *arguments: str, version: str = "v1") -> Result:
        """Runs the command; the log of the stand-in then holds its requests."""
        self.stand_in.log.clear()
        return self.main([*self.arguments(service, version), *arguments])

    def main(self, arguments: list[str]) -> Result:
        self._capture.readouterr()
        try:
            code = deploy.main(arguments, sleep=self.clock.sleep, clock=self.clock)
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = self._capture.readouterr()
        return Result(code, out, err)

    def done(self, service: str, *arguments: str, version: str = "v1") -> dict[str, Any]:
        """Runs the command, which succeeds; what --json prints, its steps as a dictionary."""
        result = self.run(service, *arguments, "--json", version=version)
        assert result.code == 0, result
        steps = {step["what"].replace(self.bucket, "files"): step["done"] for step in result.summary["steps"]}
        return {**result.summary, "steps": steps}


@pytest.fixture
def cloud(
    served: tuple[CloudStandIn, str],
    storage: StorageEmulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Cloud:
    stand_in, url = served
    stand_in.__init__(storage.has_model)  # type: ignore[misc]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
    no_credentials(monkeypatch, tmp_path)
    made = Cloud(stand_in, url, storage, tmp_path.name, copy_model(tmp_path / "models" / "v1"))
    copy_model(tmp_path / "models" / "v2", b"other content")
    copy_model(tmp_path / "models" / "v3", b"third content")
    made._capture = capsys
    return made


def copy_model(folder: Path, extra: bytes = b"") -> Path:
    shutil.copytree(PACKAGED, folder)
    (folder / "assets").mkdir(exist_ok=True)
    if extra:
        (folder / "assets" / "words.txt").write_bytes(extra)
    return folder


def no_credentials(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(empty))


@pytest.mark.parametrize("service", SERVICES)
def test_created_then_left_alone_then_deleted(cloud: Cloud, service: str) -> None:
    first = cloud.run(service)
    assert first.code == 0, first
    assert "serving_default: (alcohol_use: string [?], " in first.out
    assert "88,974 bytes" in first.out
    files = {p.relative_to(PACKAGED).as_posix() for p in PACKAGED.rglob("*") if p.is_file()}
    (folder,) = {name.split("/")[1] for name in cloud.objects()}
    assert re.fullmatch("v1-[0-9a-f]{8}", folder)
    assert cloud.objects() == {f"births/{folder}/{name}" for name in files}
    written = cloud.storage.read(f"{cloud.prefix}/births/{folder}/saved_model.pb")
    assert written == (PACKAGED / "saved_model.pb").read_bytes()
    assert all(seen.authorization is None for seen in cloud.stand_in.log)
    before = cloud.storage.items(cloud.prefix)

    again = cloud.done(service)
    assert cloud.stand_in.writes == []
    assert cloud.storage.items(cloud.prefix) == before
    assert json.dumps(again["config"], indent=2) in first.out
    assert again["steps"].pop(f"files/births/{folder}") == "0 file(s) uploaded, 4 were there"
    assert all(done.startswith("exists") for done in again["steps"].values())

    gone = cloud.done(service, "--delete")
    assert "deleted" in gone["steps"]["model births"]
    assert gone["steps"][f"files/births/{folder}"] == "4 file(s) deleted"
    assert cloud.objects() == set()
    assert cloud.stand_in.resources == []

    nothing = cloud.done(service, "--delete")
    assert cloud.stand_in.writes == []
    assert set(nothing["steps"].values()) == {"not there"}


def test_config_for_ai_platform(cloud: Cloud) -> None:
    made = cloud.done(
        "ai_platform", "--version", "summer", "--runtime-version", "2.9", "--machine-type", "n1-highmem-4"
    )
    assert made["resource"] == "projects/test-project/models/births/versions/summer"
    assert made["config"]["model"] == {
        "type": "endpoint",
        "protocol": "ai_platform",
        "resource": made["resource"],
        "url": cloud.url,
        "signature_from": str(cloud.models / "v1"),
    }
    version = cloud.stand_in.models["births"]["versions"]["summer"]
    assert version == {
        "name": made["resource"],
        "deploymentUri": made["artifacts"],
        "runtimeVersion": "2.9",
        "framework": "TENSORFLOW",
        "pythonVersion": "3.7",
        "machineType": "n1-highmem-4",
        "state": "READY",
        "isDefault": True,
    }
    assert cloud.stand_in.models["births"]["regions"] == ["us-central1"]


def test_config_for_vertex(cloud: Cloud) -> None:
    made = cloud.done("vertex", "--endpoint", "online", "--min-replicas", "2", "--max-replicas", "5")
    ((id, endpoint),) = cloud.stand_in.endpoints.items()
    assert made["resource"] == f"projects/test-project/locations/us-central1/endpoints/{id}"
    assert made["config"]["model"]["protocol"] == "vertex"
    assert endpoint["displayName"] == "online"
    (deployed,) = endpoint["deployedModels"]
    assert endpoint["trafficSplit"] == {deployed["id"]: 100}
    assert deployed["dedicatedResources"] == {
        "machineSpec": {"machineType": "n1-standard-2"},
        "minReplicaCount": 2,
        "maxReplicaCount": 5,
    }
    ((_, model),) = cloud.stand_in.vertex_models.items()
    assert model["versions"][1]["labels"] == {"saved-model-sha256": made["sha256"][:40]}
    assert model["versions"][1]["artifactUri"] == made["artifacts"]


def test_versions_and_default_on_ai_platform(cloud: Cloud) -> None:
    cloud.done("ai_platform")
    second = cloud.done("ai_platform", version="v2")
    words = next(name for name in cloud.storage.items(cloud.prefix) if name.endswith("/assets/words.txt"))
    assert cloud.storage.read(words) == b"other content"
    assert second["steps"]["model births"] == "exists"
    versions = cloud.stand_in.models["births"]["versions"]
    assert [name for name, state in versions.items() if state.get("isDefault")] == ["v1"]
    assert cloud.done("ai_platform", "--default", version="v2")["steps"]["version v2"] == "made the default"
    assert [seen.url for seen in cloud.stand_in.writes] == [
        "/v1/projects/test-project/models/births/versions/v2:setDefault"
    ]
    cloud.done("ai_platform", "--default", version="v2")
    assert cloud.stand_in.writes == []
    cloud.done("ai_platform", version="v3")

    refused = cloud.run("ai_platform", "--delete", version="v2")
    assert refused.code == 2
    assert refused.errors[0].endswith("which has others (v1, v3): deploy one of them with --default first")
    assert cloud.stand_in.writes == []
    kept = cloud.done("ai_platform", "--delete", version="v1")
    assert kept["steps"]["model births"] == "kept, it has 2 other version(s)"
    assert {name.split("/")[1][:2] for name in cloud.objects()} == {"v2", "v3"}


@pytest.mark.parametrize(
    ("arguments", "version", "message"),
    [
        (["--version", "v1"], "v2", "exists and is another one: its deploymentUri is gs://"),
        (["--version", "v1", "--delete"], "v2", "use another --version"),
        (["--machine-type", "n1-standard-8"], "v1", "exists with machineType n1-standard-2, not n1-standard-8: use "),
        (["--runtime-version", "2.9", "--python-version", "3.8"], "v1", "2.11, not 2.9; pythonVersion 3.7, not 3.8"),
        (["--region", "europe-west1"], "v1", "model births is in us-central1, not in europe-west1"),
    ],
)
def test_what_is_there_is_never_replaced(cloud: Cloud, arguments: list[str], version: str, message: str) -> None:
    cloud.done("ai_platform")
    before = cloud.objects()
    refused = cloud.run("ai_platform", *arguments, version=version)
    assert refused.code == 2
    assert message in refused.errors[0]
    assert cloud.stand_in.writes == []
    assert cloud.objects() == before


def shares(cloud: Cloud) -> dict[str, int]:
    """The traffic by the folder of the deployed version."""
    (endpoint,) = cloud.stand_in.endpoints.values()
    names = {item["id"]: item["displayName"].removeprefix("births-") for item in endpoint["deployedModels"]}
    return {**dict.fromkeys(names.values(), 0), **{names[id]: n for id, n in endpoint["trafficSplit"].items()}}


def test_versions_and_traffic_on_vertex(cloud: Cloud) -> None:
    cloud.done("vertex")
    cloud.done("vertex", "--traffic", "25", version="v2")
    assert shares(cloud) == {"v1": 75, "v2": 25}
    (model,) = cloud.stand_in.vertex_models.values()
    assert list(model["versions"]) == [1, 2]
    third = cloud.done("vertex", version="v3")
    assert shares(cloud) == {"v1": 0, "v2": 0, "v3": 100}
    assert third["steps"]["deployment to births"].endswith("; 2 other model(s) stay deployed, and paid for")
    # Back again: nothing but the traffic.
    cloud.done("vertex", "--traffic", "60", version="v1")
    assert [(seen.method, seen.url.split("?")[1]) for seen in cloud.stand_in.writes] == [
        ("PATCH", "updateMask=trafficSplit")
    ]
    assert shares(cloud) == {"v1": 60, "v2": 0, "v3": 40}
    cloud.done("vertex", "--delete", version="v1")
    assert shares(cloud) == {"v2": 0, "v3": 100}
    assert list(model["versions"]) == [2, 3]
    cloud.done("vertex", "--delete", version="v3")
    assert shares(cloud) == {"v2": 100}
    cloud.done("vertex", "--traffic", "0", version="v1")
    assert shares(cloud) == {"v1": 0, "v2": 100}


def test_the_newest_version_takes_over(cloud: Cloud) -> None:
    for version in ("v1", "v2", "v3"):
        cloud.done("vertex", version=version)
    cloud.done("vertex", "--delete", version="v3")
    assert shares(cloud) == {"v1": 0, "v2": 100}


def test_a_model_deployed_elsewhere_is_kept(cloud: Cloud) -> None:
    cloud.done("vertex")
    before = cloud.objects()
    second = cloud.done("vertex", "--endpoint", "other")
    assert second["steps"]["model births"].startswith("exists")
    ids = {endpoint["displayName"]: id for id, endpoint in cloud.stand_in.endpoints.items()}
    kept = cloud.done("vertex", "--delete")
    assert kept["steps"]["model births"] == f"kept, version 1 is deployed to {ids['other']}"
    assert kept["steps"]["endpoint births"] == "deleted"
    assert cloud.objects() == before
    cloud.done("vertex", "--delete", "--endpoint", "other")
    assert cloud.stand_in.resources == []
    assert cloud.objects() == set()


def test_what_vertex_cannot_do_is_known_before_anything_is_written(cloud: Cloud) -> None:
    alone = cloud.run("vertex", "--traffic", "30")
    assert (alone.code, cloud.stand_in.writes, cloud.objects()) == (2, [], set())
    assert "no other model to take the other 70%" in alone.err
    cloud.done("vertex")
    other = cloud.run("vertex", "--machine-type", "n1-standard-8")
    assert (other.code, cloud.stand_in.writes) == (2, [])
    assert "on 1 to 1 n1-standard-2, not 1 to 1 n1-standard-8" in other.err
    (endpoint,) = cloud.stand_in.endpoints.values()
    cloud.stand_in.endpoints["77"] = {**endpoint, "name": endpoint["name"].rsplit("/", 1)[0] + "/77"}
    twice = cloud.run("vertex", "--delete")
    assert (twice.code, cloud.stand_in.writes) == (2, [])
    assert "2 endpoints in projects/test-project/locations/us-central1 are called births" in twice.err


def test_another_image_is_another_version(cloud: Cloud) -> None:
    cloud.done("vertex")
    cloud.done("vertex", "--image", "eu-docker.pkg.dev/p/r/i:1")
    (model,) = cloud.stand_in.vertex_models.values()
    assert [v["containerSpec"]["imageUri"].split("-")[0] for v in model["versions"].values()] == ["us", "eu"]


CASES = [
    ("ai_platform", []),
    ("ai_platform", ["--default"]),
    ("vertex", []),
    ("vertex", ["--endpoint", "other", "--max-replicas", "3"]),
]


@pytest.mark.parametrize(("service", "arguments"), CASES)
def test_a_dry_run_prints_what_would_be_done(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, service: str, arguments: list[str]
) -> None:
    with monkeypatch.context() as offline:
        offline.delenv("STORAGE_EMULATOR_HOST")
        offline.setattr(socket.socket, "connect", lambda *_: pytest.fail("a dry run opened a connection"))
        offline.setattr("google.auth.default", lambda **_: pytest.fail("a dry run looked for credentials"))
        creation = cloud.run(service, *arguments, "--dry-run", "--json")
        deletion = cloud.run(service, *arguments, "--dry-run", "--json", "--delete")
        text = cloud.run(service, *arguments, "--dry-run")
    assert (creation.code, deletion.code, text.code) == (0, 0, 0)
    assert cloud.stand_in.log == []
    assert cloud.objects() == set()
    for call in creation.summary["calls"]:
        assert f"{call['method']} {call['url']}" in text.out
        assert call["body"] is None or json.dumps(call["body"]) in text.out

    cloud.done(service, *arguments)
    uploads = {call["url"] for call in creation.summary["calls"] if call["method"] == "UPLOAD"}
    assert uploads == {f"{cloud.bucket}/{name}" for name in cloud.objects()}
    assert said(cloud, creation, leave_out="if it is not the default yet") == really_done(cloud)
    cloud.done(service, *arguments, "--delete")
    assert said(cloud, deletion) == really_done(cloud)
    assert {call["url"] for call in deletion.summary["calls"] if call["url"].startswith("gs://")} == uploads


def said(cloud: Cloud, dry: Result, leave_out: str = "") -> list[tuple[str, str, Any]]:
    return [
        (call["method"], call["url"].removeprefix(cloud.url), call["body"])
        for call in dry.summary["calls"]
        if not call["url"].startswith("gs://") and call["when"] != (leave_out or None)
    ]


def really_done(cloud: Cloud) -> list[tuple[str, str, Any]]:
    """The calls in the log, with the words of the dry run in place of the service's numbers."""
    done = []
    for seen in cloud.stand_in.calls:
        text = json.dumps([seen.url, seen.body])
        text = re.sub(r"/models/\d+@\d+", "/models/{model}@{version}", text)
        text = re.sub(r"/(model|endpoint)s/\d+", r"/\1s/{\1}", text)
        text = re.sub(r'"deployedModelId": "\d+"', '"deployedModelId": "{deployed model}"', text)
        done.append((seen.method, *json.loads(text)))
    return done


@pytest.mark.parametrize(
    ("service", "failing"),
    [("ai_platform", "POST v1"), ("vertex", "models:upload"), ("vertex", "POST endpoints"), ("vertex", "deployModel")],
)
def test_an_operation_that_fails(cloud: Cloud, service: str, failing: str) -> None:
    cloud.stand_in.failures[failing] = "Create Version failed. Model requires more memory than allowed."
    failed = cloud.run(service)
    assert failed.code == 1
    assert re.search(r"failed: .* requires more memory than allowed\. \(code 9\)$", failed.errors[0])
    if service == "ai_platform":
        again = cloud.run(service)
        assert again.code == 1
        assert "is there, but failed: Create Version failed." in again.errors[0]
        cloud.done(service, "--delete")
    cloud.done(service)
    assert cloud.done(service)["steps"]["model births"].startswith("exists")
    assert len(cloud.stand_in.vertex_models) + len(cloud.stand_in.models) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_refusal_is_not_repeated(cloud: Cloud, service: str) -> None:
    cloud.stand_in.faults = [Fault("POST", 403, "Permission 'x' denied on\nresource projects/test-project", times=9)]
    refused = cloud.run(service)
    assert refused.code == 1
    (error,) = refused.errors
    assert "403 Permission 'x' denied on resource projects/test-project (FAULT)" in error
    assert len(cloud.stand_in.writes) == 1
    assert cloud.clock.slept == []


@pytest.mark.parametrize("service", SERVICES)
def test_too_often(cloud: Cloud, service: str) -> None:
    """The service's wish is respected, whatever the method."""
    cloud.stand_in.faults = [
        Fault("POST", 429, headers={"Retry-After": "47"}),
        Fault("GET .*operations", 429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ]
    made = cloud.run(service)
    assert made.code == 0
    assert 47 in [round(pause) for pause in cloud.clock.slept]
    assert "429 the service is busy" in made.err
    assert len(cloud.stand_in.vertex_models) + len(cloud.stand_in.models) == 1


@pytest.mark.parametrize("code", [500, 502, 503, 504, 0])
@pytest.mark.parametrize("service", SERVICES)
def test_a_busy_service(cloud: Cloud, service: str, code: int) -> None:
    """Reads are repeated; writes too, and what was done though the answer was lost is not done twice."""
    cloud.stand_in.polls = 0
    kinds = ["models$", "versions$"] if service == "ai_platform" else ["models:upload", "endpoints$", ":deployModel"]
    body = b"<html>" if code else b'{"done":'
    cloud.stand_in.faults = [Fault("GET", code, times=3, body=body)]
    cloud.stand_in.faults += [Fault(f"POST .*{kind}", code, after=True, body=body) for kind in kinds]
    made = cloud.done(service)
    assert len([seen for seen in cloud.stand_in.writes if seen.method == "POST"]) == len(kinds)
    assert not [fault for fault in cloud.stand_in.faults if fault.times]
    assert "created" in " ".join(made["steps"].values())
    cloud.stand_in.faults = [Fault("DELETE|undeploy", code, times=2, body=body)]
    cloud.done(service, "--delete")
    assert cloud.stand_in.resources == []


def test_a_service_that_stays_busy(cloud: Cloud) -> None:
    cloud.stand_in.faults = [Fault("GET", 503, times=1000)]
    failed = cloud.run("vertex")
    assert failed.code == 1
    assert "503 the service is busy (FAULT)" in failed.errors[0]
    assert 5 <= len(cloud.stand_in.log) <= 10
    # Longer and longer, but never in step with others.
    assert 1 < cloud.clock.now < 120
    assert len(set(cloud.clock.slept)) == len(cloud.clock.slept)


def test_nobody_there(cloud: Cloud) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        cloud.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    failed = cloud.run("ai_platform")
    assert failed.code == 1
    assert "no connection" in failed.errors[0]


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[1]", b'"text"', b'{"models": 7, "endpoints": {}}'])
def test_an_answer_that_is_none(cloud: Cloud, body: bytes) -> None:
    cloud.stand_in.faults = [Fault("GET", 200, times=1000, body=body)]
    failed = cloud.run("vertex")
    assert failed.code == 1
    assert len(failed.errors) == 1
    assert "Traceback" not in failed.err


@pytest.mark.parametrize("name", ["../../v2/projects", "projects?x=1", "projects#", "", "projects/a b"])
def test_names_of_the_service_stay_below_its_root(cloud: Cloud, name: str) -> None:
    answer = json.dumps({"name": name, "done": False}).encode()
    cloud.stand_in.faults = [Fault("POST .*versions", 200, body=answer)]
    failed = cloud.run("ai_platform")
    assert failed.code == 1
    assert "named a resource that is none" in failed.errors[0]


def test_a_slow_operation(cloud: Cloud) -> None:
    """The command gives up in time; later it finds what it began."""
    cloud.stand_in.polls = 10**6
    slow = cloud.run("ai_platform", "--timeout", "90")
    assert slow.code == 1
    assert "creating version v1 did not end within 90 s (--timeout)" in slow.errors[0]
    assert cloud.clock.now == pytest.approx(90)
    assert "creating version v1 ... 5 s" in slow.err
    assert sorted(cloud.clock.slept[:-1]) == cloud.clock.slept[:-1]
    assert max(cloud.clock.slept) <= 20
    version = cloud.stand_in.models["births"]["versions"]["v1"]
    cloud.clock.sleep = lambda seconds: version.update(state="READY")  # type: ignore[method-assign]
    found = cloud.run("ai_platform")
    assert found.code == 0
    assert "version v1: exists" in found.err
    assert version["state"] == "READY"
    assert cloud.stand_in.writes == []


def test_an_interruption(cloud: Cloud) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    cloud.clock.sleep = interrupt  # type: ignore[method-assign]
    result = cloud.run("ai_platform")
    assert result.code == 1
    assert result.errors == [
        "error: interrupted; what was begun goes on in the service: run the same command again later"
    ]


def test_only_what_is_missing_is_uploaded(cloud: Cloud) -> None:
    cloud.done("ai_platform")
    names = sorted(cloud.storage.items(cloud.prefix))
    index, model = next(n for n in names if n.endswith(".index")), next(n for n in names if n.endswith(".pb"))
    cloud.storage.delete(index)
    size = len(cloud.storage.read(model))
    cloud.storage.put(model, b"x" * size)
    kept = {name: item["generation"] for name, item in cloud.storage.items(cloud.prefix).items()}
    again = cloud.run("ai_platform")
    assert "2 file(s) uploaded, 2 were there" in again.err
    now = cloud.storage.items(cloud.prefix)
    assert {name for name in now if now[name]["generation"] != kept.get(name)} == {index, model}
    assert cloud.storage.read(model) != b"x" * size
    cloud.storage.put(f"{model}.mine", b"not ours")
    cloud.done("ai_platform", "--delete")
    assert [*cloud.storage.items(cloud.prefix)] == [f"{model}.mine"]


def test_bucket_errors(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = cloud.main([*cloud.arguments("ai_platform"), "--bucket", "gs://no-such-bucket/x"])
    assert absent.code == 2
    assert absent.errors == [
        "error: there is no bucket gs://no-such-bucket; create it with: gcloud storage buckets create gs://no-such-bucket"
    ]
    assert cloud.stand_in.models == {}
    refusing = CloudStandIn(lambda uri: True)
    refusing.faults = [Fault("storage", 403, "tests@x does not have storage.objects.list access", times=9)]
    with refusing.serve() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        denied = cloud.run("vertex")
    assert denied.code == 1
    assert "tests@x does not have storage.objects.list access" in denied.errors[0]
    assert cloud.stand_in.writes == []


def test_not_a_model_is_known_before_any_call(cloud: Cloud, tmp_path: Path) -> None:
    broken = tmp_path / "models" / "v9"
    broken.mkdir()
    for content, message in ((None, "no SavedModel at"), (b"\xff\xff", "saved_model.pb")):
        if content:
            (broken / "saved_model.pb").write_bytes(content)
        result = cloud.run("vertex", version="v9")
        assert (result.code, cloud.stand_in.log) == (2, [])
        assert message in result.errors[0]
        assert result.err.count("\n") == 1
    linked = copy_model(tmp_path / "models" / "v10")
    (linked / "assets.extra").symlink_to(PACKAGED / "variables")
    assert "is a link to a folder" in cloud.run("vertex", version="v10").err
    assert cloud.stand_in.log == []


@pytest.mark.parametrize(
    ("service", "arguments", "message"),
    [
        ("vertex", ["--bucket", "bucket"], "it looks like gs://bucket"),
        ("vertex", ["--bucket", "gs://bucket/../x"], "it looks like gs://bucket"),
        ("vertex", ["--name", 'x" OR display_name="y'], "--name"),
        ("vertex", ["--endpoint", "a/b"], "--endpoint"),
        ("vertex", ["--location", "us/central"], "is not a region"),
        ("vertex", ["--project", "a/b"], "is not the id of a project"),
        ("vertex", ["--min-replicas", "3"], "--max-replicas"),
        ("vertex", ["--traffic", "101"], "percentage"),
        ("vertex", ["--timeout", "never"], "--timeout"),
        ("vertex", ["--model", "gs://bucket/model"], "is not on this machine"),
        ("ai_platform", ["--name", "births-1"], "a letter, then letters, digits and _"),
        ("ai_platform", ["--version", "1.0"], "a letter, then letters, digits and _"),
        ("ai_platform", ["--url", "http://example.com"], "in the clear"),
        ("ai_platform", ["--url", "ml.googleapis.com"], "is not an address"),
        ("ai_platform", ["--url", "http://127.0.0.1:99999"], "is not an address"),
        ("ai_platform", ["--url", "https://europe-west1-ml.googleapis.com", "--region", "us-east1"], "of europe-west1"),
    ],
)
def test_wrong_command_lines(cloud: Cloud, service: str, arguments: list[str], message: str) -> None:
    result = cloud.run(service, *arguments)
    assert (result.code, cloud.stand_in.log) == (2, [])
    assert message in result.err.splitlines()[-1]
    assert cloud.objects() == set()


def test_passwords_in_addresses_are_not_repeated(cloud: Cloud) -> None:
    result = cloud.run("vertex", "--url", "https://me:hunter2@example.com")
    assert result.code == 2
    assert "hunter2" not in result.err + result.out


def test_names_that_follow_from_others(cloud: Cloud) -> None:
    copy_model(cloud.models / "1530000000")
    regional = "https://europe-west1-ml.googleapis.com"
    arguments = ["--dry-run", "--json", "--url", regional]
    calls = cloud.run("ai_platform", *arguments, version="1530000000").summary["calls"]
    assert {call["url"].split("/v1/")[0] for call in calls if call["method"] != "UPLOAD"} == {regional}
    bodies = [call["body"] for call in calls if call["body"]]
    assert [body["name"] for body in bodies] == ["births", "v1530000000"]
    assert bodies[0]["regions"] == ["europe-west1"]
    without_url = cloud.arguments("vertex")[:-2]
    hosts = {c["url"].split("/v1/")[0] for c in cloud.main([*without_url, "--dry-run", "--json"]).summary["calls"]}
    assert "https://us-central1-aiplatform.googleapis.com" in hosts


def test_no_credentials(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    for arguments in (cloud.arguments("vertex")[:-2], cloud.arguments("vertex")):
        result = cloud.main(arguments)
        assert result.code == 2
        assert result.err.count("error: ") == 1
        assert result.err.startswith("error: no Google credentials that can be used (DefaultCredentialsError): run ")


SECRETS = ("ya29.first-secret", "ya29.second-secret")


class _Tokens(BaseHTTPRequestHandler):
    """Gives the secrets one after the other."""

    given = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = SECRETS[min(_Tokens.given, len(SECRETS) - 1)]
        _Tokens.given += 1
        body = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def secure(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The stand-in behind TLS, which wants a token; an account that gets them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "key.pem").write_text(pem)
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _Tokens.given = 0
    with HTTPServer(("127.0.0.1", 0), _Tokens) as tokens:
        thread = threading.Thread(target=tokens.serve_forever, daemon=True)
        thread.start()
        account = {
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": "none",
            "private_key": pem,
            "client_email": "tests@test-project.iam.gserviceaccount.com",
            "token_uri": f"http://127.0.0.1:{tokens.server_port}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        files = {"ssl_keyfile": str(tmp_path / "key.pem"), "ssl_certfile": str(tmp_path / "cert.pem")}
        with cloud.stand_in.serve(**files) as url:
            cloud.url = url
            yield cloud
        tokens.shutdown()
        thread.join(timeout=10)


def test_tokens_are_sent_and_never_shown(secure: Cloud) -> None:
    """The first one is refused; the second one is good, until a server answers with it in an error."""
    secure.stand_in.token = SECRETS[1]
    made = secure.run("vertex")
    assert made.code == 0, made
    assert {seen.authorization for seen in secure.stand_in.log} == {f"Bearer {secret}" for secret in SECRETS}
    assert secure.stand_in.log[1].authorization == f"Bearer {SECRETS[1]}"
    secure.stand_in.token = "another"
    refused = secure.run("vertex")
    assert refused.code == 1
    assert "401 not good: Bearer ***" in refused.errors[0]
    for text in (made.out, made.err, refused.out, refused.err):
        assert not [secret for secret in SECRETS if secret in text]
    auth = GoogleAuth()
    auth.credentials().token = SECRETS[0]
    assert repr(auth) == "GoogleAuth()"


def test_credentials_that_are_refused(secure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        b'{"error": "invalid_grant", "error_description": "account not found", "access_token": "ya29.first-secret"}'
    )

    def refuse(self: _Tokens) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    monkeypatch.setattr(_Tokens, "do_POST", refuse)
    refused = secure.run("vertex")
    assert refused.code == 1
    assert "no access token for the Google credentials: invalid_grant: account not found" in refused.errors[0]
    assert SECRETS[0] not in refused.err


def test_bodies_are_those_of_the_published_api(cloud: Cloud) -> None:
    """Google's own message types read what is sent to Vertex AI, and refuse unknown fields."""
    from google.cloud.aiplatform_v1.types import endpoint_service, model_service

    cloud.done("vertex")
    sent = [*cloud.stand_in.writes]
    cloud.done("vertex", "--traffic", "40", version="v2")
    sent += cloud.stand_in.writes
    cloud.done("vertex", "--traffic", "80", version="v2")
    sent += cloud.stand_in.writes
    cloud.done("vertex", "--delete", version="v2")
    sent += cloud.stand_in.writes
    read: list[Any] = []
    types: dict[str, Callable[[dict[str, Any]], Any]] = {
        "models:upload": lambda body: model_service.UploadModelRequest.from_json(json.dumps(body)),
        "endpoints": lambda body: endpoint_service.CreateEndpointRequest.from_json(json.dumps({"endpoint": body})),
        ":deployModel": lambda body: endpoint_service.DeployModelRequest.from_json(json.dumps(body)),
        ":undeployModel": lambda body: endpoint_service.UndeployModelRequest.from_json(json.dumps(body)),
        "updateMask=trafficSplit": lambda body: endpoint_service.UpdateEndpointRequest.from_json(
            json.dumps({"endpoint": body})
        ),
    }
    for seen in sent:
        kind = next((kind for kind in types if seen.url.endswith(kind)), None)
        if kind is not None:
            assert seen.body is not None
            read.append(types[kind](seen.body))
    assert {type(message).__name__ for message in read} == {
        "UploadModelRequest",
        "CreateEndpointRequest",
        "DeployModelRequest",
        "UpdateEndpointRequest",
        "UndeployModelRequest",
    }
    uploads = [message for message in read if isinstance(message, model_service.UploadModelRequest)]
    assert uploads[1].parent_model.startswith("projects/test-project/locations/us-central1/models/")
    assert next(seen.url for seen in sent if seen.method == "DELETE").endswith("@2:deleteVersion")


def test_shares_are_rounded_by_the_largest_remainder() -> None:
    assert traffic.add({"7": 70, "8": 30}, "0", 5, "e") == {"7": 67, "8": 28, "0": 5}
    assert traffic.add({"7": 30, "8": 70}, "0", 1, "e") == {"7": 30, "8": 69, "0": 1}
    assert traffic.remove({"7": 20, "8": 10, "9": 70}, "9", ["7", "8"]) == {"7": 67, "8": 33}


SPLITS = st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any)


@given(SPLITS, st.integers(0, 100))
def test_shares_sum_up(weights: list[int], share: int) -> None:
    split = traffic._scaled({str(i + 1): weight for i, weight in enumerate(weights)}, 100)
    for id in ("0", "1"):
        rest = {other: old for other, old in split.items() if other != id}
        if share < 100 and not any(rest.values()):
            if share:
                with pytest.raises(SettingError):
                    traffic.add(split, id, share, "e")
            continue
        new = traffic.add(split, id, share, "e")
        assert sum(new.values()) == 100
        assert new[id] == share
        assert all(new[a] <= new[b] + 1 for a in rest for b in rest if rest[a] <= rest[b])
    left = [id for id in split if id != "1"]
    after = traffic.remove(split, "1", left)
    assert sum(after.values()) == (100 if left else 0)
    assert set(after) <= set(left)


def test_help_is_quick_and_says_what_is_not_tested() -> None:
    code = (
        "import sys; from model import deploy\n"
        "try: deploy.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'apache_beam', 'google.cloud.storage', 'google.auth'} & set(sys.modules)\n"
        "sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Not tested without the cloud" in done.stdout
