"""Chooses the runtime of a model, and loads it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from model.errors import ModelLoadError
from model.quiet import swallowed_stderr
from model.runtime.arrays import Dense, Output
from model.runtime.errors import UnknownOperationError, UnsupportedModelError
from model.runtime.library import library_path
from model.runtime.suitable import reason_against
from model.specs import Signature

Name = Literal["native", "python"]

_LOG = logging.getLogger(__name__)


class Model(Protocol):
    """Calls a loaded SavedModel with arrays through one of its signatures, whatever runtime it is in."""

    @property
    def runtime(self) -> str:
        """Returns the runtime's name."""

    @property
    def signature(self) -> Signature:
        """Returns what the model takes and gives."""

    def with_signature(self, signature: str) -> Model:
        """Returns the same loaded model, called through another of its signatures."""

    def warm_up(self) -> None:
        """Calls the model once with neutral values."""

    def __call__(self, inputs: Mapping[str, Dense], *, any_shape: bool = False) -> dict[str, Output]:
        """Calls the signature with an array for each dense input, and for each component of another one.

        With `any_shape` values may have other shapes than the signature declares, and the graph decides.
        """


def load(
    path: str,
    signature: str,
    *,
    runtime: Name | None = None,
    op_libraries: tuple[str, ...] = (),
    note: Callable[[str], None] = _LOG.warning,
) -> Model:
    """Loads a SavedModel and calls it once.

    Args:
      path: the local folder that holds saved_model.pb.
      signature: the name of the signature.
      runtime: which one; None: native where it can run the model, else python.
      op_libraries: libraries of further operations that the graph uses.
      note: gets one line if the Python runtime takes over, and why.

    Raises:
      ModelError: the model is not there, or cannot be loaded.
    """
    unknown: UnknownOperationError | None = None
    if runtime != "python":
        from model.runtime.native import NativeModel

        try:
            native = NativeModel(path, signature, op_libraries=op_libraries)
            native.warm_up()
            return native
        except UnsupportedModelError as error:
            if runtime == "native":
                raise ModelLoadError(
                    f'the native runtime cannot run the model at {path}: {error}; runtime "python" may'
                ) from error
            unknown = error if isinstance(error, UnknownOperationError) else None
            note(takes_over(path, str(error)))
    from model.runtime.python import PythonModel

    _import_tensorflow()
    try:
        loaded = PythonModel(path, signature, op_libraries=op_libraries)
    except Exception as error:
        if unknown is None:
            raise
        # Of whatever class: that the operation is missing is what a person can mend.
        raise ModelLoadError(f"neither runtime can load the model at {path}: {unknown}") from error
    loaded.warm_up()
    return loaded


def _import_tensorflow() -> None:
    """Imports TensorFlow and makes its first tensor without what its libraries print then; errors are still shown."""
    if "tensorflow" not in sys.modules:
        with swallowed_stderr():
            importlib.import_module("tensorflow").zeros([])


def takes_over(path: str, reason: str) -> str:
    """Says in one line that the Python runtime takes over, and why."""
    return f"{path} is run by TensorFlow's Python, which starts and answers more slowly: {reason}"


def planned(meta_graph: Any, signature: Signature, folder: str, runtime: Name | None) -> tuple[Name, str]:
    """Tells which runtime a model will have, as far as its files and the installed TensorFlow tell; loads nothing.

    Args:
      meta_graph: a MetaGraphDef message.
      signature: the one that is called.
      folder: of the SavedModel.
      runtime: as for `load`.

    Returns:
      The runtime, and why it is not native though none is asked for; an empty string if that is not so.

    Raises:
      ModelLoadError: the native runtime is asked for and cannot run the model.
    """
    if runtime == "python":
        return "python", ""
    against = reason_against(meta_graph, signature, folder)
    if not against:
        try:
            library_path()
            return "native", ""
        except UnsupportedModelError as error:
            against = str(error)
    if runtime == "native":
        raise ModelLoadError(f'the native runtime cannot run {folder}: {against}; runtime "python" may')
    return "python", against
