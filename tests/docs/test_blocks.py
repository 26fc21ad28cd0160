"""Every code block of the documents runs, or is checked as far as it can be and says why it does not run."""

from __future__ import annotations

import ast
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.base import Strict
from pipelines.config.load import PACKAGED, PACKAGED_STREAM, load, load_comparison
from pipelines.cost.prices import load as load_prices
from tests.docs.blocks import DOCUMENTS, LANGUAGES, Block, blocks_of, commands_of
from tests.docs.commands import Shell, differences, problem_of, python, settled
from tests.support.commands import ROOT
from tests.support.half_plus_two import make_half_plus_two
from tests.support.pythons import HAS_STREAMS

SECRETS = ("KAFKA_PASSWORD", "PREDICT_TOKEN")
STREAMS = ("pubsub", "kafka", "simulated", "bigquery", "bigtable", "console")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What documents presume to be there: the packaged files, a model and a table of one's own."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("configs", "data", "model/trained"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(ROOT / "model" / "trained" / "v1", folder / "exports" / "mymodel")
    table(folder / "data" / "births.parquet")
    return folder


def table(file: Path) -> None:
    """Writes the packaged births as a person may have them: complete, in Parquet."""
    import polars as pl

    births = pl.read_csv(ROOT / "data" / "births-nc-2001.csv", infer_schema_length=None)
    births.drop_nulls().with_columns(pl.lit("False").alias("alcohol_use")).write_parquet(file)


@pytest.fixture
def folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that, as the working directory."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        monkeypatch.setenv(name, "not-a-real-one")
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_have_a_language_and_marks_a_use(document: Path) -> None:
    for block in blocks_of(document):
        assert block.language in LANGUAGES, block.place
        assert block.mark != "run with" or block.language in ("bash", "console"), block.place
        assert block.mark != "file" or block.language == "json", block.place
        assert block.language != "text" or not block.mark, block.place


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document: Path, folder: Path) -> None:
    """All blocks of a document, one after the other, in one folder."""
    names: dict[str, Any] = {"__name__": "document"}
    with Shell() as shell:
        for block in blocks_of(document):
            if block.language == "json":
                check_json(block, folder)
            elif block.mark == "not run":
                check_commands(block)
            elif block.language == "python":
                python(block.text, names, block.place)
            elif block.language in ("bash", "console"):
                run_commands(block, shell, folder)
            elif block.language == "proto":
                check_model_config(block, folder)


def test_the_picture_shows_what_the_demo_prints(folder: Path) -> None:
    svg = (ROOT / "docs" / "images" / "demo.svg").read_text("utf-8")
    shown = " ".join(re.findall(r"<text class=\"demo-r\d\"[^>]*>([^<]*)</text>", svg))
    shown = html.unescape(shown).replace("\xa0", " ")
    with Shell() as shell:
        printed = [shell.run(line)[1] for line in ("make demo", "head -4 out/predictions-00000-of-00001.csv")]
    commands = ["$ make demo", "$ head -4 out/predictions-00000-of-00001.csv"]
    expected = " ".join(f"{command} {text}" for command, text in zip(commands, printed, strict=True))
    assert settled(shown) == settled(expected), "not up to date: run make picture"


def run_commands(block: Block, shell: Shell, folder: Path) -> None:
    if "half_plus_two" in block.text:
        make_half_plus_two(folder / "models" / "half_plus_two" / "123")
    commands = commands_of(block)
    for number, command in enumerate(commands):
        if not HAS_STREAMS and "pipelines.stream" in command.line:
            continue
        code, printed = shell.run(command.line, block.said if block.mark == "run with" else "")
        shows_code = [each.line for each in commands[number + 1 : number + 2]] == ["echo $?"]
        assert code == 0 or shows_code, f"{block.place}: {command.line}: exit code {code}\n{printed}"
        if command.output:
            missing = differences(command.output, printed)
            assert missing == [], f"{block.place}: {command.line} printed\n{printed}"


def check_commands(block: Block) -> None:
    """What is not run has targets, modules and options that are there, at least."""
    if block.language in ("bash", "console"):
        problems = [problem for command in commands_of(block) if (problem := problem_of(command.line))]
        assert problems == [], block.place
    elif block.language == "python":
        imports = [node for node in ast.parse(block.text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), block.place, "exec"), {})


def check_json(block: Block, folder: Path) -> None:
    """A config, or a part of one, is valid: parts stand in the packaged config."""
    content = json.loads(block.text)
    if block.mark == "file":
        (folder / block.said).write_text(block.text, "utf-8")
    path = folder / "example.json"
    if "config" in content:
        path.write_text(block.text, "utf-8")
        load_comparison(str(path))
        return
    if "prices" in content:
        path.write_text(block.text, "utf-8")
        load_prices(str(path))
        return
    path.write_text(json.dumps(merged(packaged_for(content), content)), "utf-8")
    assert isinstance(load(str(path)), Strict), block.place


def packaged_for(content: dict[str, Any]) -> dict[str, Any]:
    """The packaged config that an example belongs to: of a stream or of files."""
    kinds = [part["type"] for part in content.values() if isinstance(part, dict) and "type" in part]
    streams = "dedupe" in content or "latency_budget_ms" in content.get("batching", {})
    name = PACKAGED_STREAM if streams or any(kind in STREAMS for kind in kinds) else PACKAGED
    return dict(json.loads((ROOT / name).read_text("utf-8")))


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A part of a config in a whole one: an object that names its type is complete, another adds keys."""
    found = dict(whole)
    for key, value in part.items():
        adds = isinstance(value, dict) and "type" not in value and isinstance(found.get(key), dict)
        if adds and key == "dead_letters" and found[key].get("type", "file") != "file":
            adds = False
        found[key] = {**found[key], **value} if adds else value
    return found


def check_model_config(block: Block, folder: Path) -> None:
    from model.serving.model_config import read_model_config

    file = folder / "models.config"
    file.write_text(block.text, "utf-8")
    assert len(read_model_config(str(file))) == block.text.count("config {"), block.place
