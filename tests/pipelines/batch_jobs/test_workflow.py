"""The workflow in examples/workflows, held against the syntax that Google documents; nothing here can run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipelines.batch import main
from tests.support.commands import ROOT

FILE = ROOT / "examples" / "workflows" / "natality-job.yaml"
STEP_KEYS = {
    "assign", "call", "args", "result", "switch", "for", "parallel", "try", "retry", "except", "raise", "return",
    "next", "steps",
}  # fmt: skip
CONNECTORS = {"googleapis.run.v2.projects.locations.jobs.run"}
FUNCTIONS = {"default", "map.get", "list.concat", "sys.get_env"}


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
            assert called in CONNECTORS | set(workflow), called
            if called in workflow:
                assert set(inner["args"]) == set(workflow[called]["params"])


def test_expressions_use_what_is_known(workflow: dict[str, Any]) -> None:
    for name, body in workflow.items():
        known = {*body["params"], "each", "execution", "http"}
        for _, step in steps_in(body):
            known |= {key for assigned in step.get("assign", ()) for key in assigned}
            known |= {str(step["result"])} if "result" in step else set()
        for text in texts_in(body):
            for expression in re.findall(r"\$\{(.*)\}", text):
                plain = re.sub(r'"[^"]*"', "", expression)
                assert plain.count("(") == plain.count(")")
                used = set(re.findall(r"[a-z_][\w.]*(?=\()", plain))
                assert used <= FUNCTIONS, (name, expression)
                names = {found.partition(".")[0] for found in re.findall(r"[a-z_][\w.]*(?!\w*[\w.(])", plain)}
                assert names <= known, (name, expression)


def test_the_steps_are_those_of_the_command(workflow: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    steps = [step["args"]["name"] for _, step in steps_in(workflow["main"]) if step.get("call") == "step"]
    assert f"--step {{{','.join(steps)}}}" in capsys.readouterr().out
