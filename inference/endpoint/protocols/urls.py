"""Finds where a model server's methods are: a host and perhaps a prefix, or the whole address of the prediction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from inference.endpoint.protocols.base import Target

VERBS = (":predict", ":rawPredict", "/infer")
"""What the whole address of a prediction ends with."""

_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Address:
    """Holds the parts of a checked url.

    Attributes:
      base: scheme, host, port and the path without the verb and without a slash at its end.
      verb: the verb that the path ends with, such as ":predict"; "" if it names no prediction.
      query: "?" and the query, of a whole address; "" otherwise.
    """

    base: str
    verb: str
    query: str

    @property
    def whole(self) -> str | None:
        """Returns the address of the prediction, if that is what the url is."""
        return f"{self.base}{self.verb}{self.query}" if self.verb else None


def http_address(target: Target, verbs: Sequence[str], default: str | None = None) -> Address:
    """Returns the target's url, checked. No message repeats what may hold a secret.

    Args:
      target: with the url.
      verbs: what the path of a whole address may end with.
      default: the url where the target has none.

    Raises:
      ValueError: the url is missing or wrong; the message says how to write it.
    """
    url = default if target.url is None else target.url
    if url is None:
        raise ValueError("url: it is missing; name the server, as in http://127.0.0.1:8501")
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"url: it starts with {_scheme(url)}; write http://HOST:PORT or https://HOST")
    if parts.fragment:
        raise ValueError("url: it has a fragment (#...), which is never sent; leave it out")
    path = parts.path.rstrip("/")
    verb = next((verb for verb in VERBS if path.endswith(verb)), "")
    if verb and verb not in verbs:
        known = " or ".join(verbs)
        raise ValueError(f"url: it ends with {verb}, which is another protocol's; this one's end with {known}")
    if verb and (target.version or target.label):
        raise ValueError(f"url: it is the whole address ({verb}); name the version there, or give the host only")
    if parts.query and not verb:
        raise ValueError("url: it has a query (?...) but is not the whole address of a prediction; leave it out")
    base = f"{parts.scheme}://{parts.netloc}{path.removesuffix(verb)}"
    return Address(base, verb, f"?{parts.query}" if parts.query else "")


def grpc_address(url: str | None) -> None:
    """Checks the url of a gRPC server: host:port, grpc://host:port, or grpcs://host:port for TLS; http, https too.

    Raises:
      ValueError: it is missing or wrong.
    """
    if url is None:
        raise ValueError("url: it is missing; name the server, as in 127.0.0.1:8500")
    parts = _split(url if "://" in url else f"grpc://{url}")
    if parts.scheme not in ("grpc", "grpcs", "http", "https"):
        raise ValueError(f"url: it starts with {_scheme(url)}; write HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("url: a gRPC server has no path; write HOST:PORT")
    if parts.port is None:
        raise ValueError("url: the port is missing; write HOST:PORT, as in 127.0.0.1:8500")


def model_path(target: Target) -> str:
    """Returns TensorFlow Serving's path of a model: /v1/models/MODEL[/versions/V|/labels/L].

    Raises:
      ValueError: both a version and a label, or a version that is no number.
    """
    if target.version and target.label:
        raise ValueError("version and label: they exclude each other; leave one out")
    path = f"/v1/models/{segment(target.model, 'model')}"
    if target.version:
        return f"{path}/versions/{version_number(target)}"
    return f"{path}/labels/{segment(target.label, 'label')}" if target.label else path


def version_number(target: Target) -> int | None:
    """Returns the version to ask for, as TensorFlow Serving counts them.

    Raises:
      ValueError: it is no number.
    """
    if target.version is None:
        return None
    if not (target.version.isascii() and target.version.isdigit() and int(target.version) < 2**63):
        raise ValueError(f"version: '{target.version}' is not a number, as TensorFlow Serving's versions are")
    return int(target.version)


def segment(name: str, what: str) -> str:
    """Returns a name as one segment of a path.

    Raises:
      ValueError: it is empty, or one that paths treat specially.
    """
    if not name or name in (".", ".."):
        raise ValueError(f"{what}: '{name}' is not a name that an address can hold")
    return quote(name, safe="")


def name_in(path: str, after: str) -> str | None:
    """Returns the segment that follows segment `after` in an address, decoded."""
    parts = path.split("/")
    following = parts[parts.index(after) + 1 :] if after in parts else []
    return unquote(following[0]) if following else None


def _split(url: str) -> SplitResult:
    if _UNSAFE.search(url):
        raise ValueError("url: it has white space or control characters in it")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # reading it is the check
    except ValueError:
        raise ValueError("url: it cannot be read; write http://HOST:PORT") from None
    if "@" in parts.netloc:
        raise ValueError("url: it has credentials in it (...@host); send them as a header instead")
    if "://" not in url:
        raise ValueError("url: it has no scheme; write http://HOST:PORT or https://HOST")
    if not parts.hostname:
        raise ValueError("url: it names no host; write http://HOST:PORT")
    return parts


def _scheme(url: str) -> str:
    return f"{url.split('://', 1)[0][:20]}://"
