"""Loads SavedModels in a worker, on demand or ahead of it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from inference.saved_model import files as model_files
from model.runtime.load import Model, Name, load

_LOG = logging.getLogger(__name__)

TAKEN_OVER: set[str] = set()
"""Models of this process that TensorFlow's Python runs because the native runtime could not."""


@dataclass(frozen=True)
class ModelLoader:
    """Loads SavedModels.

    Attributes:
      runtime: which runtime runs them; None: native where that can, else python.
      op_libraries: libraries of further operations.
    """

    runtime: Name | None = None
    op_libraries: tuple[str, ...] = ()

    def load(self, path: str, signature: str) -> Model:
        """Loads a model, from a copy if its folder is elsewhere, and calls it once; or takes the one loaded ahead."""
        ahead = _ahead.pop((self, path, signature), None)
        return self._load(path, signature) if ahead is None else ahead.result()

    @contextlib.contextmanager
    def loaded_ahead(self, path: str, signature: str) -> Iterator[None]:
        """Loads a model in a thread, for the first `load` of it within the block."""
        key, loaded = (self, path, signature), Future[Model]()

        def work() -> None:
            try:
                loaded.set_result(self._load(path, signature))
            except BaseException as error:
                loaded.set_exception(error)

        _ahead[key] = loaded
        threading.Thread(target=work, name="model loader", daemon=True).start()
        try:
            yield
        finally:
            _ahead.pop(key, None)

    def _load(self, path: str, signature: str) -> Model:
        local = model_files.local_copy(path)
        TAKEN_OVER.discard(path)

        def note(line: str) -> None:
            TAKEN_OVER.add(path)
            _LOG.warning(line)

        return load(local, signature, runtime=self.runtime, op_libraries=self.op_libraries, note=note)


_ahead: dict[tuple[ModelLoader, str, str], Future[Model]] = {}
