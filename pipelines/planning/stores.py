"""Asks the stores that a config's paths are on before anything else: each refusal is one line, with its key."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from inference.stores.errors import StoreError
from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.paths import paths_in
from pipelines.config.run import RunConfig
from pipelines.storage import FileInfo

_AT_A_TIME = 8
_WRITTEN = ("output.", "dead_letters.", "model.folder")


def require(config: RunConfig, *, but: Sequence[str] = ()) -> None:
    """Makes sure that stores let this process see the paths of a config, as `refusals` does.

    Raises:
      ConfigError: they do not.
    """
    found = refusals(config, but=but)
    if found:
        raise ConfigError(found)


def refusals(config: RunConfig, *, but: Sequence[str] = ()) -> list[str]:
    """Lists which paths of a config a store does not let this process see, one line each.

    Args:
      config: the config.
      but: parts of it whose paths are not looked at.
    """
    keys: dict[str, list[str]] = {}
    for key, path in paths_in(config):
        if storage.is_remote(path) and key.partition(".")[0] not in but:
            keys.setdefault(path, []).append(key)
    if not keys:
        return []
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        answers = list(pool.map(_refusal, keys, keys.values()))
    # Several paths are often refused for one reason, such as credentials that there are not.
    said: dict[str, tuple[list[str], str]] = {}
    for path, answer in zip(keys, answers, strict=True):
        if answer:
            said.setdefault(answer.replace(path, ""), ([], answer))[0].extend(keys[path])
    return [f"{', '.join(where)}: {answer}" for where, answer in said.values()]


def unreadable(found: Sequence[FileInfo], where: str = "source.path") -> list[str]:
    """Tells why the first file of a source cannot be read, on one line, if a store refuses it though it is listed.

    Args:
      found: the files.
      where: the key, or the option, that they come from.
    """
    if not found or not storage.is_remote(found[0].path):
        return []
    try:
        storage.open_input(found[0].path).close()
    except StoreError as error:
        return [f"{where}: {error}"]
    return []


def _refusal(path: str, keys: Sequence[str]) -> str:
    try:
        storage.look_at_store(path, to_write=any(key.startswith(_WRITTEN) for key in keys))
    except StoreError as error:
        return str(error)
    return ""
