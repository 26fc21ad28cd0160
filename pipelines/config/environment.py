"""Fills in ${VARIABLES} of a config from the environment, and keeps their values from being shown again.

What stands under the key of a secret, and what comes from a variable whose name says that it is one, is masked
wherever texts are shown or stored (`model.secrets`). Errors of a config show no value of the environment: they name
the variable.
"""

from __future__ import annotations

import os
import re
from typing import Any

from model.secrets import is_secret_name, keep, masked

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Bytes of a command line or a variable that are not UTF-8, as Python has them; no text may hold them."""
_SHORTEST = 4
"""Characters of a value that is looked for in texts."""
_NO_SECRETS = frozenset({"key", "ordering_key", "row_key", "credentials", "signature", "signature_from"})
"""Keys of a config whose names look like those of secrets."""
_NAMES_OF_MODELS = frozenset({"columns", "defaults", "inputs"})
"""Objects of a config whose keys are names of a model's inputs, such as `tokens`."""

_filled: dict[str, str] = {}
"""Values that were filled in -> their variables, as a config writes them."""


def is_secret_key(key: str) -> bool:
    """Tells whether a config keeps secrets under a key of this name."""
    return key == "headers" or (key not in _NO_SECRETS and is_secret_name(key))


def is_variable(text: str) -> bool:
    """Tells whether a variable stands in a text."""
    return bool(_VARIABLE.search(text))


def filled(content: Any, problems: list[str]) -> Any:
    """Returns a config with ${NAME} and ${NAME:-default} replaced in all strings; its secrets are masked from then on.

    Args:
      content: the config, as JSON has it.
      problems: gets a line for each variable that is not set.
    """
    return _filled_in(content, "", False, problems)


def hidden(text: str) -> str:
    """Returns the text of an error without secrets, and with ${NAME} in place of the values that were filled in."""
    text = masked(text)
    for value in sorted(_filled, key=len, reverse=True):
        text = text.replace(value, _filled[value])
    return text


def _filled_in(value: Any, path: str, secret: bool, problems: list[str]) -> Any:
    if isinstance(value, dict):
        named = path.rpartition(".")[2] in _NAMES_OF_MODELS
        return {
            key: _filled_in(item, f"{path}.{key}".lstrip("."), secret or (not named and is_secret_key(key)), problems)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_filled_in(item, f"{path}.{i}", secret, problems) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name)
        if found is None:
            if default is None:
                problems.append(
                    f"{path}: environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                )
            return default or ""
        if is_secret_name(name) or (path.endswith("url") and _is_behind_host(value[: match.start()])):
            keep(found)
        if len(found) >= _SHORTEST:
            _filled[found] = f"${{{name}}}"
        return found

    text = _VARIABLE.sub(replace, value)
    if _NOT_UTF8.search(text):
        problems.append(f"{path}: a character of it is not UTF-8; in the path of a source, write ? in its place")
        return _NOT_UTF8.sub("?", text)
    if secret:
        keep(text)
    return text


def _is_behind_host(before: str) -> bool:
    """Tells whether what follows this beginning of an address is in its path or query."""
    return "/" in before.partition("://")[2]
