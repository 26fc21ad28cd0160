"""Does what both services share: reading what was submitted, and telling times."""

from __future__ import annotations

import re
import time
from typing import Any

from model.serving.errors import invalid

Json = dict[str, Any]
_BATCH_SIZE = 64
_NUMBER = re.compile(r"v?([0-9]{1,18})", re.ASCII)


def timestamp(seconds: float) -> str:
    """Returns a time as Google's APIs write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def version_number(name: str | None) -> int | None:
    """Returns the number that names a version, with or without a v; None for any other name, and for none."""
    found = _NUMBER.fullmatch(name or "")
    return int(found[1]) if found else None


def batch_size(body: Json, name: str) -> int:
    """Returns how many instances are in a call of the model; the services' default where the member is not there.

    Args:
      body: what was submitted.
      name: path of the member, which may be text, as 64-bit integers are in the JSON of Google's APIs.

    Raises:
      RequestError: it is no number of instances.
    """
    found = part(body, name, (int, str), _BATCH_SIZE)
    if not re.fullmatch(r"0*[1-9][0-9]{0,9}", str(found), re.ASCII):
        raise invalid(f"Field: {name}; Message: it is not a positive number of instances.")
    return int(found)


def part(body: Json, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """Returns a member of an object by its path, such as `inputConfig.gcsSource`.

    Raises:
      RequestError: it is not of its type, or is not there and has no default.
    """
    found: Any = body
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if found is None and default is not None:
        return default
    if not isinstance(found, kind):
        raise invalid(f"Field: {name}; Message: Required field is not set or has the wrong type.")
    return found
