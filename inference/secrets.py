"""Credentials of requests: where they come from, and how they stay out of what people read."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from inference.errors import EndpointConfigError, TransientError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_MASK = "***"


class Headers(Protocol):
    """Gives the headers that say who asks."""

    def __call__(self) -> Mapping[str, str]:
        """The headers of the next request; may fetch a new token."""

    def values(self) -> Iterable[str]:
        """What must not be shown."""


class Secret:
    """A text that is not shown by accident."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class FixedHeaders:
    """Headers that do not change.

    Args:
      headers: name -> value.
    """

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = dict(headers)

    def __call__(self) -> Mapping[str, str]:
        return {name: value.reveal() for name, value in self._headers.items()}

    def values(self) -> Iterable[str]:
        return [value.reveal() for value in self._headers.values()]


class GoogleHeaders:
    """A token of the credentials that google-auth finds, renewed before it ends; and further headers.

    Args:
      further: name -> value.

    Raises:
      EndpointConfigError: there are none.
    """

    def __init__(self, further: Mapping[str, Secret]) -> None:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError

        self._further = FixedHeaders(further)
        self._lock = threading.Lock()
        try:
            self._credentials: Any = google.auth.default(scopes=[_SCOPE])[0]
        except DefaultCredentialsError:
            raise EndpointConfigError(
                "no Google credentials found: run `gcloud auth application-default login`, or set "
                "GOOGLE_APPLICATION_CREDENTIALS to a service account's file"
            ) from None

    def __call__(self) -> Mapping[str, str]:
        with self._lock:
            if not self._credentials.valid:
                self._refresh()
            return {"Authorization": f"Bearer {self._credentials.token}", **self._further()}

    def _refresh(self) -> None:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        try:
            self._credentials.refresh(Request())
        except TransportError:
            raise TransientError("the server that gives tokens cannot be reached") from None
        except GoogleAuthError as error:
            raise EndpointConfigError(f"the Google credentials give no token ({type(error).__name__})") from None

    def values(self) -> Iterable[str]:
        token = self._credentials.token
        return [*([token] if token else []), *self._further.values()]


def masked(text: str, headers: Headers) -> str:
    """`text` without the credentials that a server may have repeated."""
    for value in headers.values():
        for part in {value, value.rpartition(" ")[2]}:
            if len(part) > 3:
                text = text.replace(part, _MASK)
    return text
