"""Finds credentials of requests. `model.secrets` keeps them out of what people read."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from inference.errors import EndpointConfigError, TransientError
from model.secrets import Secret, keep

__all__ = ["FixedHeaders", "GoogleHeaders", "Headers", "Secret", "check_headers"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([!-~]([\t -~]*[!-~])?)?")


class Headers(Protocol):
    """Gives the headers that name the caller."""

    def __call__(self) -> Mapping[str, str]:
        """The headers of the next request; may fetch a new token."""


def check_headers(headers: Mapping[str, Secret]) -> None:
    """Raises ValueError if one cannot be sent. Libraries would say so too, and show it."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            # What follows a name by mistake may be the value.
            start = _NAME.match(name)
            raise ValueError(f"headers: a header's name begins with {start[0] if start else ''!r} and is not one")
        if not _VALUE.fullmatch(value.reveal()):
            raise ValueError(
                f"headers.{name}: its value cannot be sent: it ends in white space (is a variable in it empty?), or "
                "has a line break or a character that is not ASCII in it"
            )


class FixedHeaders:
    """Gives headers that do not change.

    Args:
      headers: name -> value.
    """

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = dict(headers)

    def __call__(self) -> Mapping[str, str]:
        return {name: value.reveal() for name, value in self._headers.items()}


class GoogleHeaders:
    """Gives a token of the credentials that google-auth finds, renewed before it ends; and further headers.

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
            keep(str(self._credentials.token), recent=True)
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
