"""Says what a path holds that is no SavedModel, and how a SavedModel is made of it: one place for every command."""

import os
import re

SAVED_MODEL_FILE = "saved_model.pb"

_EXPORT = 'load it in Python and export it: model.export("folder") of Keras 3, tf.saved_model.save(model, "folder")'
_KERAS = f"is a Keras model file, not a SavedModel folder; {_EXPORT}"
_HUB = (
    "is the address of a model, not a folder; download it and give the folder that holds saved_model.pb "
    '(kagglehub.model_download("..."), or unpack its .tar.gz)'
)
_ARCHIVE = "is an archive; unpack it and give the folder in it that holds saved_model.pb"
_LITE = (
    "is a TFLite model, which cannot be made a SavedModel again; give the SavedModel that it was converted from, or "
    "export the original model"
)
_FROZEN = (
    "is a file, and no SavedModel; if it is a frozen graph of TensorFlow 1, import it and write a SavedModel with "
    "tf.compat.v1.saved_model.simple_save(session, folder, inputs, outputs)"
)
_ONNX = "is an ONNX model; convert it (onnx2tf, or its original framework) and give the SavedModel folder"
_TORCH = "is a file of PyTorch or of pickled Python; this runs TensorFlow SavedModels only"
_CHECKPOINT = (
    "the folder holds a checkpoint: weights without a model; build the model in Python, load the weights with "
    'load_weights() or tf.train.Checkpoint, and export it with model.export("folder") or tf.saved_model.save'
)
_BY_NAME = (
    (".keras", _KERAS),
    (".h5", _KERAS),
    (".hdf5", _KERAS),
    (".tflite", _LITE),
    (".lite", _LITE),
    (".onnx", _ONNX),
    (".pt", _TORCH),
    (".pth", _TORCH),
    (".pkl", _TORCH),
    (".pickle", _TORCH),
    (".joblib", _TORCH),
    (".tar.gz", _ARCHIVE),
    (".tgz", _ARCHIVE),
    (".tar", _ARCHIVE),
    (".zip", _ARCHIVE),
    (".pb", _FROZEN),
    (".pbtxt", _FROZEN),
)
_VERSION_FOLDER = re.compile(r"v?([0-9]{1,18})", re.ASCII)
_MAX_LOOKED_AT = 1000
"""Names in a folder that are looked at, and folders that are looked into."""


def version_number(name: str) -> int | None:
    """Returns the number of a version's folder: `v` and a number, or a number; None if the name is another."""
    match = _VERSION_FOLDER.fullmatch(name)
    return int(match[1]) if match else None


def is_address(path: str) -> bool:
    """Tells whether a path is an address of the web, such as a handle of TensorFlow Hub."""
    return path.startswith(("http://", "https://", "hf://"))


def by_name(path: str) -> str | None:
    """Says what a path is by its name alone, for file systems that cannot be looked at; None if that does not show."""
    if is_address(path):
        return f"no SavedModel at {path}: it {_HUB}"
    name = path.rstrip("/").lower()
    if name.endswith("/" + SAVED_MODEL_FILE) or name == SAVED_MODEL_FILE:
        return _is_the_file(path)
    for ending, said in _BY_NAME:
        if name.endswith(ending):
            return f"no SavedModel at {path}: it {said}"
    return None


def why_none(path: str) -> str:
    """Says why there is no SavedModel at a local path, and what to do, on one line.

    Args:
      path: where somebody thought that a SavedModel is.
    """
    if is_address(path):
        return f"no SavedModel at {path}: it {_HUB}"
    if "://" in path:
        return f"no SavedModel at {path}: this command reads local folders only; copy it to this machine"
    if not os.path.exists(path):
        return f"no SavedModel at {path}: there is no such folder; check the path"
    if not os.path.isdir(path):
        if os.path.basename(path) == SAVED_MODEL_FILE:
            return _is_the_file(path)
        said = _by_content(path)
        if said is not None:
            return f"no SavedModel at {path}: it {said}"
        named = by_name(path)
        return named or f"no SavedModel at {path}: it is a file; name the folder that holds {SAVED_MODEL_FILE}"
    return f"no SavedModel at {path}: {_folder(path)}"


def _is_the_file(path: str) -> str:
    folder = os.path.dirname(path.rstrip("/")) or "."
    return (
        f"no SavedModel at {path}: that is the file of one, whose variables and assets lie beside it; "
        f"give its folder: {folder}"
    )


def _by_content(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError:
        return None
    if start.startswith(b"\x89HDF"):
        return _KERAS
    if start[4:8] == b"TFL3":
        return _LITE
    if start.startswith(b"PK"):
        return _KERAS if path.lower().endswith(".keras") else _TORCH if path.lower().endswith(".pt") else _ARCHIVE
    if start.startswith(b"\x1f\x8b"):
        return _ARCHIVE
    return None


def _folder(path: str) -> str:
    """Says what a folder holds that is no SavedModel."""
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry, _ in zip(entries, range(_MAX_LOOKED_AT), strict=False))
    folders = [name for name in names if os.path.isdir(os.path.join(path, name))]
    versions = sorted((number, name) for name in folders if (number := version_number(name)) is not None)
    if versions:
        newest = versions[-1][1]
        listed = ", ".join(name for _, name in versions[:10])
        return (
            f"the folder holds versions ({listed}); name one, as in {os.path.join(path, newest)}, or use version "
            '"latest" (in a config: model.version: "latest")'
        )
    for other in ("saved_model.pbtxt", "saved_model.cpb"):
        if other in names:
            return f"the folder has no {SAVED_MODEL_FILE}, only {other}; export the model in the binary format"
    inner = [name for name in folders if os.path.exists(os.path.join(path, name, SAVED_MODEL_FILE))]
    if inner:
        listed = ", ".join(os.path.join(path, name) for name in inner[:10])
        return f"the folder holds {'models' if len(inner) > 1 else 'a model'} one level below; give {listed}"
    if {"keras_metadata.pb", "variables", "assets"} & {*names} and "variables" in names:
        return f"{os.path.join(path, SAVED_MODEL_FILE)} is missing from the export; copy or export the model again"
    if "checkpoint" in names or any(name.endswith((".index", ".weights.h5")) for name in names):
        return _CHECKPOINT
    files = [name for name in names if name not in folders and (by_name(name) or "").startswith("no SavedModel at")]
    if files:
        first = by_name(os.path.join(path, files[0])) or ""
        return f"the folder holds {files[0]}, which {first.split(': it ', 1)[-1]}"
    return f"{os.path.join(path, SAVED_MODEL_FILE)} does not exist; name the folder that an export wrote"
