"""What runs the model, as a person sees it: in the summary, in `check`, in the config, and in what a start imports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes, runtime_models
from tests.support.commands import ROOT, Command
from tests.support.pythons import needs_streams

tf = pytest.importorskip("tensorflow")


def config(folder: Path, model: dict[str, Any], **more: Any) -> str:
    """A config of a run that gives a model its input x from a CSV file."""
    (folder / "in.csv").write_text("x\n1\n4\n-9\n")
    content = {
        "name": "runtime",
        "source": {"type": "file", "format": "csv", "path": str(folder / "in.csv")},
        "model": {"path": model.pop("path"), **model},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out")},
        "dead_letters": {"path": str(folder / "dead"), "max_fraction": 0.5},
        **more,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> str:
    return runtime_models.strict(tmp_path_factory.mktemp("strict"))


@pytest.fixture(scope="module")
def with_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return runtime_models.with_python(tmp_path_factory.mktemp("with_python"))


def test_a_run_tells_what_ran_its_model(command: Command, tmp_path: Path, strict: str) -> None:
    dead_letters = []
    for given, runs in (({}, "native"), ({"runtime": "native"}, "native"), ({"runtime": "python"}, "python")):
        path = config(tmp_path, {"path": strict, **given})
        checked = command("check", "--config", path)
        assert f"signature serving_default, {runs} runtime\n" in checked.out
        assert command("check", "--config", path, "--json").summary["runtime"] == runs
        result = command("batch", "--config", path, "--json")
        assert result.code == 0, result
        summary = result.summary
        assert summary["runtime"] == runs
        assert (summary["rows_written"], summary["rows_dead_lettered"]) == (2, 1)
        dead_letter = json.loads((tmp_path / "dead-00000-of-00001.jsonl").read_text())
        dead_letters.append((dead_letter["error"], dead_letter["message"], dead_letter["stage"]))
    assert dead_letters[0] == dead_letters[1] == dead_letters[2]
    assert "a negative age" in dead_letters[0][1]
    assert dead_letters[0][0] == "InvalidArgumentError"


def test_python_takes_over_with_one_line(command: Command, tmp_path: Path, with_python: str) -> None:
    path = config(tmp_path, {"path": with_python})
    line = f"{with_python} is run by TensorFlow's Python, which starts and answers more slowly: its graph runs Python"
    checked = command("check", "--config", path)
    assert f"note     model: {line} (PyFunc)" in checked.out
    assert "signature serving_default, python runtime\n" in checked.out
    result = command("batch", "--config", path, "--json")
    assert (result.code, result.summary["runtime"]) == (0, "python"), result
    assert result.err.count(line) == 1


def test_what_only_the_load_shows_is_in_the_summary(
    command: Command, tmp_path: Path, strict: str, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The plan says native; the library turns out to be unlike those that are known."""
    monkeypatch.setattr("model.runtime.small_graphs.self_test", lambda: "it is another one")
    result = command("batch", "--config", config(tmp_path, {"path": strict}), "--json")
    assert (result.code, result.summary["runtime"]) == (0, "python"), result
    assert caplog.text.count("slowly: the installed tensorflow is unlike those it knows: it is another one") == 1


def test_the_native_runtime_by_hand_where_it_cannot(command: Command, tmp_path: Path, with_python: str) -> None:
    result = command("batch", "--config", config(tmp_path, {"path": with_python, "runtime": "native"}))
    assert result.code == 2
    [error] = result.errors
    assert "model: the native runtime cannot run" in error
    assert 'its graph runs Python (PyFunc); runtime "python" may' in error


def test_a_library_of_operations_that_is_not_there(command: Command, tmp_path: Path, strict: str) -> None:
    path = config(tmp_path, {"path": strict, "op_libraries": [str(tmp_path / "ops.so")]})
    assert f"op_libraries: there is no file {tmp_path}/ops.so on this machine" in command("check", "--config", path).out
    result = command("batch", "--config", path)
    assert result.code == 2
    assert f"op_libraries: there is no file {tmp_path}/ops.so" in result.errors[-1]


@needs_streams
def test_a_run_imports_neither_tensorflow_nor_pandas(tmp_path: Path) -> None:
    """Batch with plain columns, with columns that become tf.Examples, and a stream, in one process."""
    places = ["--set", f"output.path={tmp_path}/p", "--set", f"dead_letters.path={tmp_path}/d"]
    code = f"""
import sys
from pipelines import batch, stream
places = {places!r}
assert batch.main(["--json", *places]) == 0
assert batch.main(["--json", *places, "--set", "model.signature=serving_examples"]) == 0
assert stream.main(["--json", *places, "--max-messages", "20"]) == 0
found = {{"tensorflow", "keras", "pandas", "pymongo", "tfx_bsl.public.tfxio"}} & set(sys.modules)
assert not found, found
import pandas
assert pandas.Series([1]).sum() == 1
"""
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [summary["runtime"] for summary in summaries] == ["native"] * 3
    assert [summary["rows_written"] for summary in summaries] == [1450, 1450, 20]
