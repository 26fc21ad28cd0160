"""The command that puts a model online: what it does, and what it leaves alone."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.model.deploy.cloud import PACKAGED, SERVICES, Cloud
from tests.support.commands import Result


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
