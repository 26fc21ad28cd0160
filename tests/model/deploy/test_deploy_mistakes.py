"""The command that puts a model online: what it says of wrong command lines and models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.model.deploy.cloud import PACKAGED, Cloud, copy_model
from tests.support import processes
from tests.support.commands import ROOT


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


def test_help_is_quick_and_says_what_is_not_tested() -> None:
    code = (
        "import sys; from model import deploy\n"
        "try: deploy.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'apache_beam', 'google.cloud.storage', 'google.auth'} & set(sys.modules)\n"
        "sys.exit(bool(heavy))"
    )
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Not tested without the cloud" in done.stdout
