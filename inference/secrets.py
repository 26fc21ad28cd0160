"""Credentials of requests: where they come from, and how they stay out of what people read."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from inference.errors import EndpointConfigError, TransientError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_MASK = "***"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([!-~]([\t -~]*[!-~])?)?")


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


def check_headers(headers: Mapping[str, Secret]) -> None:
    """Raises ValueError if one cannot be sent. Libraries would say so too, and show it."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is not a header's name")
        if not _VALUE.fullmatch(value.reveal()):
            raise ValueError(
                f"headers.{name}: its value cannot be sent: it ends in white space (is a variable in it empty?), or "
                "has a line break or a character that is not ASCII in it"
            )


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
    for part in _parts(headers):
        text = text.replace(part, _MASK)
    return text


def masked_bytes(body: bytes, headers: Headers) -> bytes:
    """The same for bytes, to be done before a text is cut: what is left of a credential would not be recognised."""
    for part in _parts(headers):
        body = body.replace(part.encode(), _MASK.encode())
    return body


def _parts(headers: Headers) -> list[str]:
    """What to look for: whole values, longest first, and what follows words such as Bearer."""
    found = {part for value in headers.values() for part in (value, value.rpartition(" ")[2]) if len(part) > 3}
    return sorted(found, key=len, reverse=True)
