"""Paths that hold no SavedModel: each is told what it is and what to do, in one line, by every command."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from inference.saved_model.files import read_bytes
from model import deploy, serve, show
from model.errors import ModelNotFoundError
from model.signature import read_contents, read_signature
from tests.support.commands import Command
from tests.support.pythons import HAS_STREAMS


def _keras(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def _bytes(data: bytes):  # type: ignore[no-untyped-def]
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _folder(*names: str):  # type: ignore[no-untyped-def]
    def write(path: Path) -> None:
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(b"")

    return write


CASES = {
    "net.keras": (_keras, ["Keras model file", 'model.export("folder")']),
    "net.h5": (_bytes(b"\x89HDF\r\n\x1a\n"), ["Keras model file", 'model.export("folder")']),
    "weights": (_bytes(b"\x89HDF\r\n\x1a\n"), ["Keras model file"]),
    "net.tflite": (_bytes(b"\x1c\0\0\0TFL3"), ["TFLite", "converted from"]),
    "net.tar.gz": (_bytes(b"\x1f\x8b\x08\0"), ["archive", "unpack it"]),
    "frozen.pb": (_bytes(b"\n\x0bxxxxxxxxxxx"), ["frozen graph", "simple_save"]),
    "net.onnx": (_bytes(b"\x08\x07"), ["ONNX"]),
    "saved_model.pb": (_bytes(b"\n"), ["give its folder: "]),
    "checkpoints": (_folder("checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"), ["weights without a model"]),
    "versions": (_folder("1/saved_model.pb", "12/saved_model.pb", "9/x"), ["(1, 9, 12)", 'model.version: "latest"']),
    "outer": (_folder("export/saved_model.pb"), ["one level below", "outer/export"]),
    "rest": (_folder("variables/variables.index", "assets/x"), ["saved_model.pb is missing from the export"]),
    "mixed": (_folder("net.keras", "README.md"), ["holds net.keras, which is a Keras model file"]),
    "nothing": (_folder("a.txt"), ["does not exist; name the folder"]),
    "absent": (lambda path: None, ["there is no such folder"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_path_without_a_saved_model_says_what_it_holds(name: str, tmp_path: Path) -> None:
    write, said = CASES[name]
    write(tmp_path / name)
    messages = set()
    for read in (read_signature, lambda path: read_contents(path, read_bytes=read_bytes)):
        with pytest.raises(ModelNotFoundError) as raised:
            read(str(tmp_path / name))
        messages.add(str(raised.value))
    assert len(messages) == 1
    [message] = messages
    assert "\n" not in message
    assert f"no SavedModel at {tmp_path / name}" in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    "path", ["https://tfhub.dev/google/nnlm/2", "https://www.kaggle.com/models/a/b/tensorFlow2/c/1"]
)
def test_an_address_of_tensorflow_hub_is_to_be_downloaded(path: str) -> None:
    with pytest.raises(ModelNotFoundError, match="download it and give the folder"):
        read_signature(path)


def test_every_command_says_the_same(tmp_path: Path, command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.keras"
    _keras(model)
    said = "is a Keras model file, not a SavedModel folder; load it in Python and export it"
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n1\n")
    runs = {
        "init": ["--model", str(model), "--source", str(rows)],
        "check": ["--set", f"model.path={model}"],
        "batch": ["--set", f"model.path={model}"],
    } | ({"stream": ["--set", f"model.path={model}"]} if HAS_STREAMS else {})
    for module, arguments in runs.items():
        result = command(module, *arguments)
        assert result.code == 2, result
        assert len(result.errors) == 1
        assert said in result.errors[0]
    cloud = [
        "--name",
        "net",
        "--version",
        "v1",
        "--project",
        "test-project",
        "--bucket",
        "gs://bucket/models",
        "--dry-run",
    ]
    for main, arguments in (
        (show.main, [str(model)]),
        (serve.main, ["--model", str(model), "--port", "0"]),
        (deploy.main, ["ai_platform", "--model", str(model), *cloud]),
    ):
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
        err = capfd.readouterr().err
        assert (code, err.count("error: ")) == (2, 1), err
        assert said in err
