"""Loads a SavedModel with TensorFlow: as TensorFlow 2 does, and where that fails, into a session of TensorFlow 1.

`tf.saved_model.load` makes Python objects of all that was saved, also of what predictions do not need: models that
Keras 2 saved with the state of their optimizer fail there. A session needs the graph and its variables only.
"""

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from model.errors import ModelLoadError
from model.session import SessionModel

_ERRORS = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError, RuntimeError)
_OF_PYTHON = (AttributeError, KeyError, TypeError, NotImplementedError)
"""What restoring Python objects fails with; the graph may be in order nevertheless."""

_MISSING_OP = re.compile(r"Op type not registered '([^']+)'")
_NOT_SAID = re.compile(
    r"^(Graph execution error:|Detected at node|<stack traces unavailable>|You may be trying to load on a different"
    r"|File \"|Original stack trace|Node: |\(most recent call last\)|\d+ root error|\(\d+\) )"
)
_MAX_CHARACTERS = 1000


class Loaded:
    """Represents a loaded model, whatever loaded it.

    Args:
      path: the SavedModel's folder.

    Raises:
      ModelLoadError: TensorFlow cannot load it.
    """

    def __init__(self, path: str) -> None:
        tf = importlib.import_module("tensorflow")
        self._path = path
        self._objects: Any = None
        self._session: SessionModel | None = None
        with quiet_tensorflow():
            try:
                self._objects = tf.saved_model.load(path)
            except (*_ERRORS, tf.errors.OpError) as error:
                first = error
            else:
                return
            try:
                self._session = SessionModel(path)
            except (*_ERRORS, tf.errors.OpError) as error:
                told = error if isinstance(first, _OF_PYTHON) else first
                raise ModelLoadError(f"TensorFlow cannot load the model at {path}: {said(told, path)}") from told

    def function(self, signature: str) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Returns what calls a signature, and the tf.TensorSpecs of its keywords.

        Args:
          signature: the signature's name.

        Raises:
          ModelLoadError: TensorFlow finds no such signature.
        """
        try:
            if self._session is not None:
                with quiet_tensorflow():
                    return self._session.function(signature)
            found = self._objects.signatures[signature]
            return found, dict(found.structured_input_signature[1])
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"TensorFlow finds no signature '{signature}' in {self._path}") from error


def said(error: BaseException, path: str = "") -> str:
    """Returns what an error of TensorFlow's says of a model, on one line, with what to do where that is known.

    Args:
      error: of loading or calling the model.
      path: the SavedModel's folder, to look at what is missing there.
    """
    text = str(error).strip() or type(error).__name__
    missing = _MISSING_OP.search(text)
    if missing is not None:
        return (
            f"it uses the operation '{missing[1]}', which this TensorFlow does not have: it is a custom operation, or "
            "one of another package or release; export the model without it"
        )
    lines = [line.split("[[{{")[0].strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not _NOT_SAID.match(line)]
    told = "; ".join(dict.fromkeys(kept)) or text.splitlines()[0]
    told = told if len(told) <= _MAX_CHARACTERS else told[: _MAX_CHARACTERS - 3] + "..."
    if path and "variables" in text and not os.path.exists(os.path.join(path, "variables", "variables.index")):
        return f"{told}; its folder has no variables/variables.index: copy the whole folder that the export wrote"
    if "Read less bytes than requested" in text or "out of range" in text.lower() or "DataLoss" in text:
        return f"{told}; a file of its variables is cut off or damaged: copy or export the model again"
    return told


def is_missing_operation(error: BaseException) -> bool:
    """Tells whether a call failed because TensorFlow does not have an operation of the graph."""
    return _MISSING_OP.search(str(error)) is not None


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's Python from warning, variable by variable, of how old a model is; errors are still logged."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
