"""Signatures of every shape: one row in a call, exactly so many, outputs without rows, other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command

ROWS = 11


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, each with the shapes that its name says."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("shapes")
    f32 = tf.float32

    def export(name: str, **signatures: Any) -> None:
        module = tf.Module()
        concrete = {}
        for key, (function, *specs) in signatures.items():
            concrete[key] = tf.function(function).get_concrete_function(*specs)
        tf.saved_model.save(module, str(folder / name), concrete)

    def spec(shape: list[int | None], name: str) -> Any:
        return tf.TensorSpec(shape, f32, name)

    export(
        "loss",
        serving_default=(
            lambda n: {"y": n * 2, "loss": tf.reduce_sum(n), "weights": tf.constant([1.0, 2.0, 3.0])},
            spec([None], "n"),
        ),
    )
    export("scalar", serving_default=(lambda n, m: {"y": n + m}, spec([], "n"), spec([], "m")))
    export("vector", serving_default=(lambda v: {"y": tf.reduce_sum(v), "r": v[:2]}, spec([3], "v")))
    export("eight", serving_default=(lambda v: {"y": tf.reduce_sum(v, 1, keepdims=True)}, spec([8, 3], "v")))
    export("one", serving_default=(lambda v: {"y": tf.reduce_sum(v, 1)}, spec([1, 3], "v")))
    export("named", predict=(lambda n: {"y": n * 2}, spec([None], "n")))
    export(
        "several",
        first=(lambda n: {"y": n * 2}, spec([None], "n")),
        second=(lambda n: {"y": n * 3}, spec([None], "n")),
    )
    export("constant", serving_default=(lambda: {"y": tf.constant([1.0])},))
    rows = [{"id": i, "n": i, "m": 10 * i, "v": [i, 1, 1]} for i in range(ROWS)]
    (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(command: Command, module: str, shapes: Path, tmp_path: Path, folder: str, **parts: Any) -> Any:
    output = {name: part for name, part in parts.items() if name != "model"}
    config = {
        "source": {"type": "file", "format": "json", "path": str(shapes / "rows.json"), "key": "id"},
        "model": {"type": "saved_model", "path": str(shapes / folder), **parts.get("model", {})},
        "output": {
            "type": "file",
            "format": "json",
            "path": str(tmp_path / "p"),
            **output,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return command(module, "--config", str(tmp_path / "config.json"), "--json")


def written(tmp_path: Path) -> list[dict[str, Any]]:
    lines = [line for file in sorted(tmp_path.glob("p-0*.json*")) for line in file.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda row: row.get("id", 0))


RUNS = {
    "a scalar and a vector left out": ("loss", {"columns": ["id", "y"]}, [{"id": i, "y": i * 2} for i in range(ROWS)]),
    "all columns, all outputs with rows": (
        "loss",
        {"columns": ["*"]},
        [{"id": i, "n": i, "m": 10 * i, "v": [i, 1, 1], "y": i * 2} for i in range(ROWS)],
    ),
    "the output first, then all others": (
        "named",
        {"columns": ["y", "*"]},
        [{"y": i * 2, "id": i, "n": i, "m": 10 * i, "v": [i, 1, 1]} for i in range(ROWS)],
    ),
    "scalars, called row by row": ("scalar", {}, [{"id": i, "y": 11 * i} for i in range(ROWS)]),
    "one vector, called row by row": ("vector", {}, [{"id": i, "r": [i, 1], "y": i + 2} for i in range(ROWS)]),
    "eight rows a call": ("eight", {}, [{"id": i, "y": i + 2} for i in range(ROWS)]),
    "one row a call": ("one", {}, [{"id": i, "y": i + 2} for i in range(ROWS)]),
    "the only signature": ("named", {}, [{"id": i, "y": i * 2} for i in range(ROWS)]),
    "one of several": ("several", {"model": {"signature": "second"}}, [{"id": i, "y": i * 3} for i in range(ROWS)]),
}


@pytest.mark.parametrize("case", RUNS)
def test_every_shape_of_signature_predicts(case: str, shapes: Path, tmp_path: Path, command: Command) -> None:
    model, parts, expected = RUNS[case]
    result = run(command, "batch", shapes, tmp_path, model, **parts)
    assert result.code == 0, result
    found = written(tmp_path)
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]
    costs = "thousand calls a second" in result.err
    assert costs == (model in ("scalar", "vector", "eight", "one"))


REFUSED = {
    "outputs without rows": ("loss", {}, "output 'loss' has no value for each row (its shape is [], "),
    "what to write instead": ("loss", {}, 'leave it out: output.columns ["id", "y"]'),
    "a vector that is no batch": ("loss", {"columns": ["id", "weights"]}, "'weights' has no value for each row"),
    "no inputs": ("constant", {}, "signature 'serving_default' has no inputs"),
    "several signatures": ("several", {}, "name one of 'first', 'second'"),
    "another signature": ("named", {"model": {"signature": "serving_default"}}, "available: 'predict'"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("module", ["check", "batch"])
def test_what_cannot_run_is_refused_when_planned(
    module: str, case: str, shapes: Path, tmp_path: Path, command: Command
) -> None:
    model, parts, said = REFUSED[case]
    result = run(command, module, shapes, tmp_path, model, **parts)
    assert result.code == 2, result
    assert said in result.err
    assert "Traceback" not in result.err


def test_init_knows_them_too(shapes: Path, tmp_path: Path, command: Command) -> None:
    def init(model: str) -> Any:
        return command("init", "--model", str(shapes / model), "--source", str(shapes / "rows.json"))

    assert json.loads(init("named").out)["model"]["signature"] == "predict"
    assert "name one of 'first', 'second'" in init("several").err
    refused = init("constant")
    assert (refused.code, "has no inputs" in refused.err) == (2, True)
