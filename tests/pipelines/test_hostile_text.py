"""Names and values that hold markup and escape sequences, through every command, on a terminal and in a pipe."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pty
import re
import shutil
import sys
import threading
import tty
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model.saved_model_proto import parse_saved_model
from tests.support.commands import ROOT, save
from tests.support.pythons import needs_streams

EVIL = "[/red]\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n:warning:[bold]"
RICH = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[hl]|[0-9]*[AK])")
"""What rich itself sends: colours, the cursor hidden and shown, a line gone up to and cleared."""

KEY, AGE, OUTPUT, SIGNATURE = (name + EVIL for name in ("id", "age", "out", "sig"))
ROWS = 40
BAD = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, and a model, a source and an output with hostile names and values."""
    root = tmp_path_factory.mktemp("hostile")
    # Its parts make [/red] of the path itself.
    folder = root / "[" / ("red]" + EVIL.replace("/", ""))
    folder.mkdir(parents=True)
    # TensorFlow takes a [ in a path for a pattern.
    model = save_model(root / "model\x1b]0;owned\x07\x9b\u202e")
    rows = [{KEY: f"{n}{EVIL}", AGE: EVIL if n % (ROWS // BAD) == 3 else n} for n in range(ROWS)]
    # A name that is not UTF-8, too.
    (folder / f"in{EVIL.replace('/', '')}\udcff.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "name": "hostile",
        "source": {
            "type": "file",
            "format": "json",
            "path": f"{root}/*/*/in*.json",
            "key": KEY,
            "columns": {"age": AGE},
        },
        "model": {"type": "saved_model", "path": model, "signature": SIGNATURE},
        "output": {"type": "file", "format": "json", "path": f"{folder}/out/p", "columns": [KEY, AGE, OUTPUT]},
        "dead_letters": {"path": f"{folder}/out/dead", "max_fraction": 0.5},
    }
    (root / "config.json").write_text(json.dumps(config))
    return root


def save_model(folder: Path) -> str:
    """A model whose signature and output have hostile names."""
    import tensorflow as tf

    class Doubles(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "age")])
        def __call__(self, age: Any) -> dict[str, Any]:
            return {OUTPUT: age * 2}

    module = Doubles()
    function = module.__call__.get_concrete_function()
    tf.saved_model.save(module, str(folder), {"serving_default": function, SIGNATURE: function})
    return str(folder)


class Screen:
    """What a command sent to its terminal, or into its pipes."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.text = ""


@contextmanager
def terminal(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pseudo-terminal of 500 columns as standard output and standard error."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    received = bytearray()

    def read() -> None:
        try:
            while data := os.read(master, 65_536):
                received.extend(data)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with (
            monkeypatch.context() as patch,
            open(slave, "w", encoding="utf-8", closefd=False) as out,
            open(slave, "w", encoding="utf-8", closefd=False) as err,
        ):
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("COLUMNS", "500")
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            yield
    finally:
        os.close(slave)
        reader.join(timeout=30)
        os.close(master)
    screen.text = received.decode("utf-8")


Run = Callable[..., Screen]


@pytest.fixture(params=["terminal", "pipe"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a module's command, and checks that only rich gave commands to the terminal."""

    def call(module: str, *arguments: str) -> Screen:
        screen = Screen()
        main = importlib.import_module(module).main
        if request.param == "terminal":
            with terminal(screen, monkeypatch):
                screen.code = ended(main, arguments)
            shown = RICH.sub("", screen.text).replace("\r", "")
        else:
            capfd.readouterr()
            screen.code = ended(main, arguments)
            screen.text = shown = "".join(capfd.readouterr())
        hostile = {c for c in shown if not c.isprintable()} - {"\n", "\t"}
        assert not hostile, (hostile, screen.text)
        assert shown.count("\n:warning:") == 0, screen.text
        return screen

    return call


def ended(main: Callable[[list[str]], int], arguments: tuple[str, ...]) -> int | None:
    try:
        return main(list(arguments))
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else 1


def test_check(run: Run, place: Path) -> None:
    screen = run("pipelines.check", "--config", f"{place}/config.json")
    assert screen.code == 0, screen.text
    assert ":warning:[bold]" in screen.text
    assert r"\x1b]0;owned\x07" in screen.text


def test_check_as_json(run: Run, place: Path) -> None:
    screen = run("pipelines.check", "--config", f"{place}/config.json", "--json")
    assert screen.code == 0, screen.text
    found = json.loads(screen.text)
    assert found["sample"][0] == {KEY: f"0{EVIL}", AGE: 0}
    assert found["signature"] == SIGNATURE


def test_batch_and_replay(run: Run, place: Path) -> None:
    screen = run("pipelines.batch", "--config", f"{place}/config.json")
    assert screen.code == 0, screen.text
    assert r"\x1b[2J" in screen.text
    for command in ("batch", "replay"):
        screen = run(f"pipelines.{command}", "--config", f"{place}/config.json", "--json")
        assert screen.code == 0, screen.text
        summary = json.loads(screen.text[screen.text.index('{"name"') :].splitlines()[0])
        assert summary["rows_dead_lettered"] == BAD
    screen = run("pipelines.batch", "--config", f"{place}/config.json", "--set", "dead_letters.max_fraction=0")
    assert screen.code == 3, screen.text
    assert "error: " in screen.text
    shutil.rmtree(next(place.glob("*/*/out")))
    assert run("pipelines.replay", "--config", f"{place}/config.json").code == 0


@needs_streams
def test_stream(run: Run, place: Path) -> None:
    """With rows on the console, which are JSON."""
    [source] = place.glob("*/*/in*.json")
    lines = place / "messages.json"
    shutil.copy(source, lines)
    output = source.parent / "streamed"
    changes = {
        "source": {"type": "simulated", "path": str(lines), "rate": 0, "messages": ROWS, "key": KEY},
        "output": {"type": "file", "format": "json", "path": f"{output}/p", "show": 3},
        "dead_letters": {"path": f"{output}/dead", "max_fraction": 0.5},
    }
    config = json.loads((place / "config.json").read_text())
    changes["source"]["columns"] = config["source"]["columns"]
    (place / "stream.json").write_text(json.dumps({**config, **changes}))
    screen = run("pipelines.stream", "--config", f"{place}/stream.json")
    assert screen.code == 0, screen.text
    shown = [json.loads(row) for row in re.findall(r'{"id.*?}', screen.text)]
    assert shown[:3] == [{KEY: f"{n}{EVIL}", OUTPUT: 2.0 * n} for n in range(3)]
    shutil.rmtree(output)


def test_init(run: Run, place: Path) -> None:
    [source] = place.glob("*/*/in*.json")
    wanted = ["--model", next(map(str, place.glob("model*"))), "--source", f"{place}/*/*/in*.json"]
    screen = run("pipelines.init", *wanted)
    assert screen.code == 2, screen.text
    assert "the closest is 'age" in screen.text
    screen = run("pipelines.init", *wanted, "--force")
    assert screen.code == 0, screen.text
    output = source.parent / f"config{EVIL.replace('/', '')}.json"
    screen = run("pipelines.init", *wanted, "--output", str(output), "--force")
    assert screen.code == 0, screen.text
    assert "wrote " in screen.text
    assert run("pipelines.init", *wanted, "--output", str(output)).code == 2
    output.unlink()


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
def test_show(run: Run, place: Path, arguments: list[str]) -> None:
    """Of a model with every name hostile, as only a hand can write it."""
    [model] = place.glob("model*")
    message = parse_saved_model((model / "saved_model.pb").read_bytes(), "")
    for signature in message.meta_graphs[0].signature_def:
        for tensor in (*signature.value.inputs, *signature.value.outputs):
            tensor.key = f"tensor{EVIL}"
    (place / "named").mkdir(exist_ok=True)
    (place / "named" / "saved_model.pb").write_bytes(message.SerializeToString())
    screen = run("model.show", str(place / "named"), *arguments)
    assert screen.code == 0, screen.text
    assert screen.text.count(":warning:[bold]") >= 3


def test_deploy_without_a_cloud(run: Run, place: Path) -> None:
    [model] = place.glob("model*")
    common = ["--model", str(model), "--bucket", "gs://bucket/x", "--project", "p-1", "--name", "n", "--dry-run"]
    screen = run("model.deploy", "vertex", *common, "--location", "us-central1", "--version", "v1")
    assert screen.code == 0, screen.text
    assert r"\x1b]0;owned" in screen.text


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("pipelines.check", ["--config", EVIL]),
        ("pipelines.check", [EVIL]),
        ("pipelines.check", ["--set", f"source.path={EVIL}"]),
        ("pipelines.check", ["--set", f"{EVIL}=1"]),
        ("pipelines.check", ["--set", f"model.path={EVIL}"]),
        ("pipelines.batch", [EVIL]),
        ("pipelines.batch", [f"--runner={EVIL}"]),
        ("pipelines.init", ["--model", EVIL, "--source", EVIL]),
        ("pipelines.simulate", ["--source", EVIL]),
        ("pipelines.simulate", ["--to", EVIL]),
        ("model.show", [EVIL]),
        ("model.serve", ["--model", EVIL, "--port", "0", "--grpc-port", "0"]),
        ("model.serve", ["--model", "x", EVIL]),
        ("model.train", ["--data", EVIL]),
        ("model.deploy", ["vertex", "--model", EVIL, "--bucket", EVIL, "--project", "p-1", "--name", "n"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_mistakes(run: Run, module: str, arguments: list[str]) -> None:
    screen = run(module, *arguments)
    assert screen.code == 2, screen.text
    assert "error: " in screen.text
    assert "Traceback" not in screen.text


def test_simulated_messages_on_a_terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's lines go through a pipe byte by byte; a terminal gets none of its commands from them."""
    (place / "lines").write_bytes(b"first \xff\x1b]0;owned\x07\n")
    screen = Screen()
    arguments = ("--source", f"{place}/lines", "--messages", "1", "--rate", "0")
    with terminal(screen, monkeypatch):
        screen.code = ended(importlib.import_module("pipelines.simulate").main, arguments)
    assert screen.code == 0, screen.text
    assert screen.text.splitlines()[0] == r"first \xff\x1b]0;owned\x07"


def test_a_mistake_of_this_project(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected: a traceback, and exit code 1."""

    def fails(*_: object) -> None:
        raise KeyError(EVIL)

    monkeypatch.setattr("pipelines.config.load.load", fails)
    screen = run("pipelines.check")
    assert screen.code == 1, screen.text
    assert "Traceback" in screen.text
    assert "error: KeyError: " in screen.text


def test_nothing_prints_past_it() -> None:
    """Neither print, nor rich's console, a log's handler or a parser of its own, but in the modules made for it."""
    direct = {"print", "logging.basicConfig", "logging.StreamHandler", "argparse.ArgumentParser"}
    makers = {ROOT / "model" / "terminal.py", ROOT / "model" / "console.py"}
    found = []
    for package in ("model", "inference", "pipelines"):
        for path in sorted(set((ROOT / package).rglob("*.py")) - makers):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in direct:
                    found.append((path, node.lineno, ast.unparse(node.func)))
                if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                    found.append((path, node.lineno, node.module))
    assert found == []


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of texts that refuses empty ones."""
    import tensorflow as tf

    class Lengths(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def __call__(self, text: Any) -> dict[str, Any]:
            with tf.control_dependencies([tf.debugging.assert_positive(tf.strings.length(text))]):
                return {"length": tf.strings.length(text)}

    return save(Lengths(), tmp_path_factory.mktemp("lengths"))


def test_files_and_lines_that_are_rows(run: Run, tmp_path: Path, lengths: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}{EVIL.replace('/', '')}\udcff").write_text(EVIL * number)
    for format, rows in (("bytes", 3), ("text", 4)):
        config = {
            "source": {"type": "file", "format": format, "path": str(folder)},
            "model": {"type": "saved_model", "path": lengths},
            "output": {"type": "file", "format": "json", "path": f"{tmp_path}/out/{format}"},
            "dead_letters": {"path": f"{tmp_path}/dead/{format}", "max_fraction": 1},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        for command in ("check", "batch", "replay"):
            arguments = ("--config", f"{tmp_path}/config.json", *(["--json"] if command == "batch" else []))
            screen = run(f"pipelines.{command}", *arguments)
            assert screen.code == 0, screen.text
            if command == "batch":
                assert json.loads(screen.text[screen.text.index('{"name"') :].splitlines()[0])["rows_read"] >= rows


def test_a_delimiter_that_is_evidently_wrong(run: Run, tmp_path: Path, lengths: str) -> None:
    (tmp_path / "in.csv").write_bytes(f"id;{EVIL};text".replace("\r\n", "").encode() + b"\n1;2;3\n")
    config = {
        "source": {"type": "file", "format": "csv", "path": f"{tmp_path}/in.csv"},
        "model": {"type": "saved_model", "path": lengths},
        "output": {"type": "file", "format": "json", "path": f"{tmp_path}/out/p"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    screen = run("pipelines.check", "--config", f"{tmp_path}/config.json")
    assert screen.code == 2, screen.text
    assert "is the delimiter a semicolon?" in screen.text.replace("\n", "")
