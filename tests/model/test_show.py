"""The command that prints a model's signatures."""

import json
import sys
from pathlib import Path

from model.show import main
from tests.support import processes

ROOT = Path(__file__).parents[2]
PACKAGED = str(ROOT / "model" / "trained" / "v1")


def test_tables_in_a_pipe():
    command = [sys.executable, "-m", "model.show", PACKAGED]
    done = processes.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert any(line.split() == ["input", "mother_age", "float32", "[?]", "dense"] for line in done.stdout.splitlines())
    assert "serialized tf.Example" in done.stdout
    assert "has a default" in done.stdout


def test_json(capsys):
    assert main([PACKAGED, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["serving_default"]["outputs"] == [
        {"name": "predictions", "dtype": "float32", "shape": [None, 1], "kind": "dense", "components": []}
    ]
    assert shown["serving_examples"]["examples_input"] == "examples"


def test_errors_are_one_line_on_stderr(capsys, tmp_path):
    assert main([str(tmp_path / "nowhere")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: no SavedModel at ")
    assert output.err.count("\n") == 1


def test_a_model_on_a_store_is_to_be_copied_first(capsys):
    assert main(["s3://bucket/model"]) == 2
    assert capsys.readouterr().err == (
        "error: no SavedModel at s3://bucket/model: this command reads local folders only; copy it to this machine\n"
    )
