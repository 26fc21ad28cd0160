"""The command that puts a model online, while the services fail."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.model.deploy.cloud import SERVICES, Cloud
from tests.model.deploy.cloud_stand_in import CloudStandIn, Fault


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
