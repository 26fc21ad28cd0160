"""Replaces a SavedModel while it is used, when a newer version of it appears."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from inference.log_throttle import LogThrottle, first_line
from inference.saved_model import files as model_files
from inference.saved_model.loader import ModelLoader
from model.errors import ModelError
from model.runtime.load import Model
from model.specs import Signature

_LOG = logging.getLogger(__name__)
_WARN_EVERY_S = 60.0


@dataclass(frozen=True)
class LoadedVersion:
    """Holds a version of a model, loaded.

    Attributes:
      path: its folder.
      model: what it is.
    """

    path: str
    model: Model

    @property
    def name(self) -> str:
        """Returns the name of its folder."""
        return model_files.name(self.path)


class Followed:
    """Looks for the newest version in a folder of versions, again and again while somebody has this object.

    A new version is loaded and warmed up beside the one in use, which answers until then. A version that cannot be
    loaded, or that takes or gives something else, is not used: a warning says why, and it is looked at again, because
    its files may still be on their way. If the newest folder is removed, the newest of those left is used.

    Args:
      folder: of the versions.
      path: the version to begin with.
      signature: which one is called; versions in which it is another do not fit.
      every_s: how long to wait between looks.
      loader: loads a version.

    Attributes:
      now: the version in use; to be read once for each batch.
    """

    def __init__(
        self, folder: str, path: str, signature: Signature, every_s: float, loader: ModelLoader | None = None
    ) -> None:
        self._loader = loader or ModelLoader()
        self._folder = folder
        self._signature = signature
        self._warns = LogThrottle(_WARN_EVERY_S)
        self.now = LoadedVersion(path, self._loader.load(path, signature.name))
        weak = weakref.WeakMethod(self.look)
        threading.Thread(target=_look, args=(weak, every_s), name="model versions", daemon=True).start()

    def look(self) -> None:
        """Replaces the version in use, if another is the newest."""
        try:
            path = model_files.resolve(self._folder, model_files.LATEST)
            if path == self.now.path:
                return
            model = self._loader.load(path, self._signature.name)
            unlike = _difference(self._signature, model.signature)
            if unlike:
                raise ModelError(f"{path} does not fit: {unlike}")
        except Exception as error:  # of any file system and of TensorFlow: what answers now goes on
            self._warn(error)
            return
        before, self.now = self.now, LoadedVersion(path, model)
        _LOG.warning("%s: %s replaces %s", self._folder, self.now.name, before.name)
        model_files.forget_copy(before.path)

    def _warn(self, error: Exception) -> None:
        if self._warns.may_log():
            said = first_line(error)
            _LOG.warning("%s goes on answering; the newest version is not used: %s", self.now.name, said)


def _look(look: Callable[[], Callable[[], None] | None], every_s: float) -> None:
    """Looks until nobody has the object any more."""
    while True:
        time.sleep(every_s)
        found = look()
        if found is None:
            return
        found()
        del found


def _difference(wanted: Signature, found: Signature) -> str:
    """What of a signature is other than wanted, in words; empty if nothing is."""
    for what, before, after in (("inputs", wanted.inputs, found.inputs), ("outputs", wanted.outputs, found.outputs)):
        if before != after:
            names = sorted({spec.name for spec in {*before} ^ {*after}})
            return f"its {what} {', '.join(names)} are not those that the run was planned for"
    if wanted.examples_input != found.examples_input:
        return "one of them takes serialized tf.Examples, the other does not"
    return ""
