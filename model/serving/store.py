"""Keeps the versions of a model: found in a folder, loaded, replaced while the server runs."""

import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import ModelError, ModelLoadError, ModelNotFoundError
from model.other_formats import SAVED_MODEL_FILE
from model.serving.errors import RequestError, Status, brief, invalid, note
from model.serving.options import ServedModel
from model.serving.servable import LoadSettings, Version, reason_of
from model.signature import read_signatures

_VERSION = re.compile(r"v?([0-9]{1,18})", re.ASCII)


class Store:
    """Holds the versions of a model that are served.

    Served are the newest ones and those that have a label, or the ones that were chosen. A version that cannot be
    loaded is tried again when its files have changed; a version that appears is loaded when its files have stayed the
    same between two looks, as one that is being copied may load without all of its vocabulary. One whose folder is
    removed is let go, unless it is the last.

    Args:
      model: what is served.
      signature: the default signature.
      loading: what runs them.

    Attributes:
      model: as given.
      name: the model's name.
    """

    def __init__(self, model: ServedModel, signature: str, loading: LoadSettings | None = None) -> None:
        self._load = loading or LoadSettings()
        self.model = model
        self.name = model.name
        self._path = model.path
        self._signature = signature
        self._keep = math.inf if model.keep is None else model.keep
        self._chosen = model.versions
        self._labels = model.labels
        self._seen: dict[int, Any] = {}
        self._failed: dict[int, tuple[Any, str]] = {}
        # Replaced as a whole, never changed: requests read it while a version is loaded.
        self._versions: dict[int, Version] = {}

    def load(self, before: "Store | None" = None) -> None:
        """Loads what is there.

        Args:
          before: the versions as they were served; those of the same path are taken over.

        Raises:
          ModelError: no version can be loaded.
        """
        found = find_versions(self._path)
        if not found:
            read_signatures(self._path)
        problem: ModelError | None = None
        if before is not None and before._path == self._path:
            wanted = self._wanted(found)
            self._versions = {number: version for number, version in before._versions.items() if number in wanted}
        for number in sorted(found, reverse=True):
            if number in self._wanted(found) and number not in self._versions:
                error = self._try(number, found[number], _files(found[number]))
                problem = problem or error
        for number in self._chosen or ():
            if number not in found:
                problem = problem or ModelNotFoundError(f"model {self.name}: no version {number} at {self._path}")
                note(f"{self._named(number)} is not at {self._path} yet")
        if not self._versions and problem is not None:
            raise problem
        for label, number in self._labels.items():
            if number not in self._versions:
                note(f"label {label}: there is no {self._named(number)} yet")

    def refresh(self) -> None:
        """Looks for versions that appeared, changed or are gone."""
        try:
            found = find_versions(self._path)
        except OSError as error:
            note(f"cannot look for versions: {error}")
            return
        seen = self._seen
        wanted = self._wanted(found)
        self._seen = {number: _files(found[number]) for number in wanted if number not in self._versions}
        for number, files in self._seen.items():
            failed = self._failed.get(number)
            if files == seen.get(number) and (failed is None or failed[0] != files):
                self._try(number, found[number], files)
        self._failed = {number: failed for number, failed in self._failed.items() if number in found}
        self._let_go(found)

    @property
    def versions(self) -> list[int]:
        """Returns the versions that are served, the newest first."""
        return sorted(self._versions, reverse=True)

    @property
    def failures(self) -> dict[int, str]:
        """Returns the versions that cannot be loaded, and why."""
        return {number: reason for number, (_, reason) in self._failed.items()}

    @property
    def labels(self) -> dict[str, int]:
        """Returns the versions by label."""
        return dict(self._labels)

    def find(self, version: int | None = None, label: str | None = None) -> Version:
        """Returns a version: the newest, or the one with that number or label.

        Raises:
          RequestError: there is none.
        """
        versions = self._versions
        if label is not None:
            version = self._labelled(label)
        number = max(versions) if version is None else version
        if number not in versions:
            raise RequestError(Status.NOT_FOUND, f"Servable not found for request: Specific({self.name}, {number})")
        return versions[number]

    def states(self, version: int | None = None, label: str | None = None) -> dict[int, str | None]:
        """Returns the versions that are served or cannot be loaded, the newest first, each with the reason why it
        cannot.

        Args:
          version: the only one to tell about.
          label: of the only one to tell about.

        Raises:
          RequestError: there is no such version.
        """
        states: dict[int, str | None] = {**self.failures, **dict.fromkeys(self._versions)}
        if label is not None:
            version = self._labelled(label)
        if version is None:
            return dict(sorted(states.items(), reverse=True))
        if version not in states:
            raise RequestError(Status.NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return {version: states[version]}

    def _labelled(self, label: str) -> int:
        if label not in self._labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return self._labels[label]

    def _named(self, number: int) -> str:
        """A version in what is told to whoever runs the server."""
        return f"version {number} of {self.name}"

    def _wanted(self, found: Mapping[int, str]) -> list[int]:
        """The chosen versions, or the newest and the labelled ones; one that does not load does not count."""
        if self._chosen:
            return sorted(self._chosen & found.keys(), reverse=True)
        wanted = []
        good = 0
        for number in sorted(found, reverse=True):
            if good < self._keep or number in self._labels.values():
                wanted.append(number)
            good += number not in self._failed
        return wanted

    def _try(self, number: int, path: str, files: Any) -> ModelError | None:
        started = time.perf_counter()
        try:
            version = Version(self.name, number, path, self._signature, self._load)
        except ModelError as error:
            self._fail(number, files, str(error))
            return error
        except Exception as error:  # whatever half a model makes TensorFlow say: the server goes on
            self._fail(number, files, f"{type(error).__name__}: {reason_of(error)}")
            return ModelLoadError(f"the model at {path} cannot be loaded: {reason_of(error)}")
        self._failed.pop(number, None)
        self._versions = {**self._versions, number: version}
        seconds = time.perf_counter() - started
        note(f"{self._named(number)} loaded from {path} in {seconds:.1f} s, {version.runtime} runtime")
        return None

    def _fail(self, number: int, files: Any, reason: str) -> None:
        reason = brief(reason)
        self._failed[number] = (files, reason)
        note(f"{self._named(number)} does not load: {reason}")

    def _let_go(self, found: Mapping[int, str]) -> None:
        """Unloads what is gone or too old, once enough newer versions are loaded."""
        present = {number: path for number, path in found.items() if number in self._versions}
        keep = set(self._wanted(present)) or {max(self._versions)}
        for number in self._versions.keys() - keep:
            note(f"{self._named(number)} unloaded")
        self._versions = {number: version for number, version in self._versions.items() if number in keep}


def find_versions(path: str) -> dict[int, str]:
    """Finds the versions of a model.

    Args:
      path: a SavedModel's folder, or a folder of versions: v1, v2, ... or 1, 2, ...

    Returns:
      The folders by version; a SavedModel that is not in a folder of that kind is version 1.
    """
    folder = Path(path)
    if (folder / SAVED_MODEL_FILE).exists():
        match = _VERSION.fullmatch(folder.resolve().name)
        return {int(match[1]) if match else 1: path}
    if not folder.is_dir():
        return {}
    named = {entry.name: str(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    return {int(match[1]): path for name, path in named.items() if (match := _VERSION.fullmatch(name))}


def _files(path: str) -> list[tuple[str, int, int]]:
    """What tells whether a folder's files have changed."""
    files = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            try:
                status = os.stat(file)
            except OSError:
                continue
            files.append((file, status.st_size, status.st_mtime_ns))
    return sorted(files)
