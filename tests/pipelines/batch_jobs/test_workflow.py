"""The workflow in examples/workflows, held against its schema and the syntax that Google documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.dataflow_v1beta3 import LaunchFlexTemplateRequest
from google.protobuf import json_format

from tests.servers import tools
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.workflows import MOST_EXPRESSION, Workflows

FILE = ROOT / "examples" / "workflows" / "natality-job.yaml"
STEP_KEYS = {
    "assign", "call", "args", "result", "switch", "for", "parallel", "try", "retry", "except", "raise", "return",
    "next", "steps",
}  # fmt: skip
DATAFLOW = "googleapis.dataflow.v1b3.projects.locations"
CONNECTORS = {
    f"{DATAFLOW}.flexTemplates.launch": {"projectId", "location", "body"},
    f"{DATAFLOW}.jobs.get": {"projectId", "location", "jobId", "view"},
    f"{DATAFLOW}.jobs.list": {"projectId", "location", "filter", "pageSize"},
    "sys.sleep": {"seconds"},
}
"""What is called, with its arguments: https://cloud.google.com/workflows/docs/reference/googleapis"""
HTTP = {"http.get", "http.post", "http.delete"}
HTTP_ARGUMENTS = {"url", "query", "headers", "body", "auth", "timeout"}
WORDS = {"each", "http", "and", "or", "not", "in", "null"}
SERVER = ROOT / "tests" / "servers" / "workflows"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def steps_in(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """All steps below a value: (name, step)."""
    if isinstance(value, dict):
        for step in value.get("steps", ()):
            assert len(step) == 1, step
            [(name, body)] = step.items()
            yield name, body
        for each in value.values():
            yield from steps_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from steps_in(each)


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_in(each)


def test_subworkflows_and_steps(workflow: dict[str, Any]) -> None:
    assert "main" in workflow
    for name, body in workflow.items():
        assert set(body) == {"params", "steps"}, name
        found = list(steps_in(body))
        assert found
        for step, content in found:
            assert re.fullmatch(r"[a-z_]+", step)
            assert set(content) <= STEP_KEYS, (step, content)


def test_calls_are_of_what_there_is(workflow: dict[str, Any]) -> None:
    for body in workflow.values():
        for _, step in steps_in(body):
            inner = step.get("try", step)
            called = inner.get("call")
            if called is None:
                continue
            if called in HTTP:
                assert {"url", "auth"} <= set(inner["args"]) <= HTTP_ARGUMENTS
                continue
            wanted = set(workflow[called]["params"]) if called in workflow else CONNECTORS[called]
            assert set(inner["args"]) == wanted, called


def test_expressions_use_what_is_known(workflow: dict[str, Any]) -> None:
    functions = Workflows(workflow, {}, {}).functions
    for name, body in workflow.items():
        known = {*body["params"], *WORDS, *workflow}
        for _, step in steps_in(body):
            known |= {key for assigned in step.get("assign", ()) for key in assigned}
            inner = step.get("try", step)
            known |= {str(inner["result"])} if "result" in inner else set()
            known |= {step["except"]["as"]} if "except" in step else set()
        for text in texts_in(body):
            for expression in re.findall(r"\$\{(.*)\}", text):
                assert len(expression) <= MOST_EXPRESSION, expression
                plain = re.sub(r'"(\\.|[^"\\])*"', "", expression)
                assert plain.count("(") == plain.count(")")
                used = set(re.findall(r"[a-z_][\w.]*(?=\()", plain))
                assert used <= functions, (name, expression)
                names = {found.partition(".")[0] for found in re.findall(r"[a-z_][\w.]*(?!\w*[\w.(])", plain)}
                assert names <= known, (name, expression)


def test_what_dataflow_gets_is_in_the_template(workflow: dict[str, Any]) -> None:
    """Its parameters are known to the template, and those that it must have are there."""
    template = json.loads((ROOT / "flex" / "batch.json").read_text())
    known = {each["name"]: each for each in template["parameters"]}
    [launch] = [step for _, step in steps_in(workflow["started"]) if "flexTemplates" in step.get("call", "")]
    parameter = launch["args"]["body"]["launchParameter"]
    json_format.ParseDict({"launchParameter": parameter}, LaunchFlexTemplateRequest.pb(LaunchFlexTemplateRequest()))
    given = set(parameter["parameters"])
    assert {name for name, each in known.items() if not each.get("isOptional")} <= given <= set(known)
    on_dataflow = [step["args"]["name"] for _, step in steps_in(workflow["main"]) if step.get("call") == "on_dataflow"]
    assert on_dataflow == ["prepare", "join"]
    for name in on_dataflow:
        assert all(re.fullmatch(regex, name) for regex in known["step"]["regexes"])


def mistakes(folder: Path, workflow: dict[str, Any]) -> list[str]:
    """What the published schema says of a workflow."""
    place = tools.environment("workflows", SERVER / "requirements.txt", "40 MB")
    file = folder / "workflow.json"
    file.write_text(json.dumps(workflow))
    command = [str(place / "bin" / "python"), str(SERVER / "check.py"), str(file)]
    return processes.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_published_schema(tmp_path: Path, workflow: dict[str, Any]) -> None:
    assert mistakes(tmp_path, workflow) == []
    wrong = json.loads(json.dumps(workflow).replace('"max_retries": 20', '"max_tries": 20'))
    [line] = mistakes(tmp_path, wrong)
    assert "on_dataflow/steps/1/look/retry" in line
    assert "max_tries" in line
