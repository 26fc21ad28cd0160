"""Does what both services share: reading what was submitted, and telling times."""

from __future__ import annotations

import re
import time
from typing import Any

from model.serving.errors import invalid

Json = dict[str, Any]
_NUMBER = re.compile(r"v?([0-9]{1,18})", re.ASCII)


def timestamp(seconds: float) -> str:
    """Returns a time as Google's APIs write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def version_number(name: str | None) -> int | None:
    """Returns the number that names a version, with or without a v; None for any other name, and for none."""
    found = _NUMBER.fullmatch(name or "")
    return int(found[1]) if found else None


def part(body: Json, name: str, kind: type, default: Any = None) -> Any:
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
