"""The configs in docs/endpoints.md are configs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from pipelines.config.load import PACKAGED, load
from pipelines.config.model import EndpointConfig
from pipelines.planning.model import endpoint
from tests.support.commands import ROOT

GUIDE = ROOT / "docs" / "endpoints.md"
BLOCKS = re.findall(r"^```json\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
EXAMPLES = [found for block in BLOCKS if "model" in (found := json.loads(block))]
PROTOCOLS = get_args(EndpointConfig.model_fields["protocol"].annotation)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["model"]["protocol"])
def test_an_example_is_a_config(example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICT_TOKEN", "not-a-real-one")
    packaged = json.loads((ROOT / PACKAGED).read_text("utf-8"))
    path = tmp_path / "example.json"
    path.write_text(json.dumps({**packaged, **example}))
    model = load(str(path)).model
    assert isinstance(model, EndpointConfig)
    # The address, too, is one that the protocol takes.
    assert endpoint(model).make_protocol().name == model.protocol


def test_there_is_an_example_for_each_protocol() -> None:
    assert {example["model"]["protocol"] for example in EXAMPLES} == set(PROTOCOLS)


def test_every_example_stands_alone_or_shows_its_model_only() -> None:
    assert all("source" in example or set(example) == {"model"} for example in EXAMPLES)
