"""Asks Google's services before a run: an answer, or one line about why there is none, within seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from inference.log_throttle import first_line
from pipelines.config.errors import ConfigError

ANSWER_WITHIN_S = 8.0
_Answer = TypeVar("_Answer")


def answer_of(where: str, service: str, variable: str, call: Callable[[], _Answer]) -> _Answer:
    """Returns what a service answers; looking for credentials and hosts, its client can take minutes.

    Args:
      where: the path in the config of what the call is about.
      service: its name, as a person would write it.
      variable: the environment variable with the address of an emulator.
      call: calls the service.

    Raises:
      ConfigError: it does not answer, or not to us; what `call` raised of that class.
    """
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((call(), None))
        except Exception as error:  # of gRPC, of HTTP, of the client, of its credentials
            found.append((None, error))

    emulator = os.environ.get(variable)
    host = f"the {service} emulator at {emulator}" if emulator else service
    thread = threading.Thread(target=run, name=f"{service} check", daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    if not found:
        raise ConfigError([f"{where}: {host} does not answer; check the network, or {variable}"])
    answer, error = found[0]
    if isinstance(error, ConfigError):
        raise error
    if error is not None:
        raise ConfigError([f"{where}: {_meaning(host, variable, error)}"])
    return answer  # type: ignore[no-any-return]


def _meaning(host: str, variable: str, error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("DefaultCredentialsError", "MalformedError"):
        said = first_line(error.args[0] if error.args else error)
        # Google's own words, where there is nothing wrong, but nothing at all.
        why = " were found" if "not found. To set up" in said else f": {said}"
        return (
            f"no Google credentials{why}; run gcloud auth application-default login, set "
            f"GOOGLE_APPLICATION_CREDENTIALS to a key file, or {variable} for an emulator"
        )
    if kind in ("ServiceUnavailable", "DeadlineExceeded", "ConnectionError", "TransportError", "RetryError", "Timeout"):
        return f"{host} cannot be reached; check the network, or {variable}"
    if kind in ("PermissionDenied", "Forbidden", "Unauthenticated", "Unauthorized", "RefreshError"):
        return f"{host} refuses these credentials: {first_line(error)}; check the account and its roles"
    return f"{host}: {kind}: {first_line(error)}"
