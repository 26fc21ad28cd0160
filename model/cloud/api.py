"""Lets the steps of a deployment talk to a cloud service, or only writes down what would be said.

Reads say what a dry run takes for their answer (`dry`), so that one piece of code makes the calls and shows them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")
Json = dict[str, Any]

ABSENT = "if it is not there"
PRESENT = "if it is there"


@dataclass(frozen=True)
class Call:
    """Describes a call of a dry run.

    Attributes:
      method: HTTP method; UPLOAD for a file that goes to Cloud Storage.
      url: whole address; gs:// for an object.
      body: JSON to send, if there is any.
      when: condition under which it is made; empty for always.
      note: what else there is to say.
    """

    method: str
    url: str
    body: Json | None = None
    when: str = ""
    note: str = ""


class Api(ABC):
    """Calls a service that answers JSON over HTTP as Google's do: resources, pages, long-running operations.

    Args:
      root: scheme, host and version: https://ml.googleapis.com/v1
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """Returns the whole address of a path."""
        return f"{self._root}/{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    @abstractmethod
    def get(self, path: str, *, dry: Json | None = None) -> Json | None:
        """Returns a resource; None if it is not there."""

    @abstractmethod
    def list_all(self, path: str, key: str, query: Mapping[str, str], *, dry: Sequence[Json] = ()) -> list[Json]:
        """Returns the resources under `key` of all pages."""

    @abstractmethod
    def send(
        self,
        method: str,
        path: str,
        body: Json,
        *,
        query: Mapping[str, str] | None = None,
        repeatable: bool = False,
        when: str = ABSENT,
        dry: Json | None = None,
    ) -> Json:
        """Posts or patches.

        Args:
          method: POST or PATCH.
          path: below the root.
          body: what to send.
          query: parameters of the address.
          repeatable: doing it twice is as good as once.
          when: condition that a dry run prints.
          dry: what a dry run takes for the answer.

        Raises:
          UnclearError: it may have been done, or not; only if not repeatable.
          ServiceError: it was not done.
        """

    @abstractmethod
    def delete(self, path: str, *, when: str = PRESENT) -> Json | None:
        """Deletes; returns the operation, None if the resource is not there."""

    @abstractmethod
    def wait(self, operation: Json, doing: str) -> Json:
        """Waits for a long-running operation and returns its response. Raises ServiceError."""

    @abstractmethod
    def until(self, read: Callable[[], T], done: Callable[[T], bool], doing: str) -> T:
        """Reads again and again, more and more slowly, until it is done. Raises ServiceError."""

    @abstractmethod
    def ensure(self, found: T | None, find: Callable[[], T | None], make: Callable[[], T]) -> tuple[T, bool]:
        """Returns what was found, or else is made; when it is unclear whether that was done, looks before trying again.

        Returns:
          The thing, and whether it was made now.
        """


class DryApi(Api):
    """Makes no call: writes them down.

    Args:
      root: as for `Api`.
      calls: list that the calls are added to.
    """

    def __init__(self, root: str, calls: list[Call]) -> None:
        super().__init__(root)
        self._calls = calls

    def get(self, path: str, *, dry: Json | None = None) -> Json | None:
        self._calls.append(Call("GET", self.url(path)))
        return dry

    def list_all(self, path: str, key: str, query: Mapping[str, str], *, dry: Sequence[Json] = ()) -> list[Json]:
        self._calls.append(Call("GET", self.url(path, query)))
        return [*dry]

    def send(
        self,
        method: str,
        path: str,
        body: Json,
        *,
        query: Mapping[str, str] | None = None,
        repeatable: bool = False,
        when: str = ABSENT,
        dry: Json | None = None,
    ) -> Json:
        self._calls.append(Call(method, self.url(path, query), body, when))
        return dry or {}

    def delete(self, path: str, *, when: str = PRESENT) -> Json | None:
        self._calls.append(Call("DELETE", self.url(path), None, when))
        return {}

    def wait(self, operation: Json, doing: str) -> Json:
        return dict(operation.get("response") or {})

    def until(self, read: Callable[[], T], done: Callable[[T], bool], doing: str) -> T:
        return read()

    def ensure(self, found: T | None, find: Callable[[], T | None], make: Callable[[], T]) -> tuple[T, bool]:
        return (make(), True) if found is None else (found, False)
