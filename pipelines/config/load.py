"""Loads configs: the file, `--set`, environment variables."""

from __future__ import annotations

import copy
import difflib
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from inference.stores.errors import StoreError
from model import packaged
from pipelines import storage
from pipelines.config import environment, home
from pipelines.config.absolute import with_absolute_paths
from pipelines.config.base import Strict
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.errors import ConfigError
from pipelines.config.explain import KEY_START, explain
from pipelines.config.run import RunConfig

PACKAGED = "configs/natality.json"


_MOST_BYTES = 16 << 20
"""Holds the most bytes of a config that is read from a store."""

_OF_COMPARISONS = frozenset({"config", "ways", "sizes", "rates", "inputs"})
"""Holds keys of comparisons that nothing else has."""

_Part = TypeVar("_Part", bound=Strict)

PACKAGED_STREAM = "configs/natality-stream.json"


def load(path: str | None, overrides: Sequence[str] = (), absolute: bool = False) -> RunConfig:
    """Reads a config file, applies `--set` overrides and environment variables, and checks it.

    A packaged config reads packaged data, wherever it is run from, unless the working directory has files of that name.

    Args:
      path: the file, or the name of a packaged one such as configs/natality-stream.json; None for the packaged natality
        example.
      overrides: `KEY=VALUE` each, or an object of JSON that has several, as from `--set`.
      absolute: relative paths are completed, for workers that have another working directory.

    Raises:
      ConfigError: with every mistake found.
    """
    problems: list[str] = []
    file, config = _run(path or PACKAGED, overrides, problems)
    if problems or config is None:
        raise ConfigError([f"{file}: {problem}" for problem in problems])
    return with_absolute_paths(config) if absolute else config


def problems_with(path: str, overrides: Sequence[str]) -> list[str]:
    """Returns what is wrong with a run's config once `overrides` are applied: a line each, without the file's name.

    Raises:
      ConfigError: the file cannot be read, or is not a JSON object.
    """
    problems: list[str] = []
    _run(path, overrides, problems)
    return problems


def _run(path: str, overrides: Sequence[str], problems: list[str]) -> tuple[str, RunConfig | None]:
    """The file that a path names and the config in it, None if `problems` got some."""
    given = home.expanded(path)
    file = _packaged(given) or given
    content = _parse(file)
    _refuse_other_kinds(file, content)
    if "config" in content and "source" not in content:
        takes = "a comparison's config, which python -m pipelines.compare takes; the run that it is based on is"
        raise ConfigError([f"{file}: {takes} {content['config']}"])
    if file != given:
        _read_packaged_data(content)
    problems += [problem for override in overrides if (problem := _override(content, override))]
    written, content = content, environment.filled(content, problems)
    return file, _checked(content, written, RunConfig, problems)


def _checked(content: Any, written: Any, kind: type[_Part], problems: list[str]) -> _Part | None:
    """An object of a config; None if `problems` got a line for each mistake in it.

    Args:
      content: the object, with the values of the environment.
      written: the object as it stands in the file.
      kind: what it is to be.
      problems: gets the mistakes.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        details = error.errors()
    unknown = [each["loc"] for each in details if each["type"] == "extra_forbidden"]
    if unknown:
        # What goes together is only looked at where all keys are known.
        try:
            kind.model_validate(_without(content, unknown))
        except ValidationError as error:
            details += error.errors()
    explained = [explain(each, written, kind) for each in details]
    # A value that suits neither arm of a union is one mistake.
    problems += {explanation.split(":", 1)[0]: explanation for explanation in explained}.values()
    return None


def _without(content: Any, places: Sequence[tuple[int | str, ...]]) -> Any:
    """A copy of a config without the keys at some places, as pydantic tells them: with the types of variants."""
    left = copy.deepcopy(content)
    for *parents, key in places:
        holder = left
        for part in parents:
            # The type of a variant is no key.
            with suppress(LookupError, TypeError):
                holder = holder[part]
        if isinstance(holder, dict):
            holder.pop(key, None)
    return left


def content_of(path: str) -> dict[str, Any]:
    """Returns a run's config as it stands in its file, without what the environment gives.

    Raises:
      ConfigError: it cannot be read, or is not a JSON object.
    """
    given = home.expanded(path)
    return _parse(_packaged(given) or given)


def load_comparison(path: str, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Reads a comparison's config, or makes one around a run's config, and applies `--set` overrides to it.

    The environment's variables in its ways are left as they are: each run fills them in, and no command line has them.

    Args:
      path: of the comparison's config, or of a run's, or the name of a packaged one.
      overrides: of the comparison's keys, see `load`.

    Raises:
      ConfigError: with every mistake found.
    """
    content = content_of(path)
    _refuse_other_kinds(path, content)
    if "source" in content and "config" not in content:
        name = content.get("name")
        content = {"config": path, **({"name": name} if isinstance(name, str) else {})}
    problems = [problem for override in overrides if (problem := _override(content, override))]
    if not _OF_COMPARISONS & set(content):
        near = difflib.get_close_matches("source", content, n=1, cutoff=0.7)
        raise ConfigError(
            [
                f"{path}: neither a comparison nor a run's config: a comparison has 'config', which names a run's "
                f"config, and a run's config has 'source'{f'; is {near[0]!r} meant for it?' if near else ''}",
                *problems,
            ]
        )
    ways = {"ways": content.pop("ways")} if "ways" in content else {}
    filled = environment.filled(content, problems) | ways
    return _validated(path, content | ways, filled, ComparisonConfig, problems)


def load_part(path: str, kind: type[_Part]) -> _Part:
    """Reads a file that holds one object of a config alone, with environment variables as in configs.

    Raises:
      ConfigError: with every mistake found.
    """
    problems: list[str] = []
    written = _parse(path)
    return _validated(path, written, environment.filled(written, problems), kind, problems)


def _validated(
    path: str, written: dict[str, Any], content: dict[str, Any], kind: type[_Part], problems: list[str]
) -> _Part:
    """Checks the content of a file, as written and filled in; `problems` are those that were found before."""
    part = _checked(content, written, kind, problems)
    if problems or part is None:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return part


def _packaged(path: str) -> str | None:
    """Returns the packaged config that a path names; None if there is a file of this path, or no packaged one."""
    found = packaged.find(path) if path.startswith("configs/") and not os.path.exists(path) else None
    return found if found is not None and os.path.isfile(found) else None


def _refuse_other_kinds(file: str, content: dict[str, Any]) -> None:
    """Raises ConfigError for a file that holds something else than a config."""
    for is_other, words in (
        ("$defs" in content, "a schema, which editors read: give a config"),
        (isinstance(content.get("prices"), dict), "a file of prices: give it with --prices"),
        ("rankings" in content, "results of a comparison: give them to python -m pipelines.recommend --results"),
    ):
        if is_other:
            raise ConfigError([f"{file}: {words}"])


def _read_packaged_data(content: dict[str, Any]) -> None:
    """Replaces the source of a packaged config, where it is not in the working directory, with the packaged data."""
    source = content.get("source")
    if isinstance(source, dict) and isinstance(source.get("path"), str):
        source["path"] = packaged.located(source["path"])


def _parse(file: str) -> dict[str, Any]:
    try:
        text = _text_of(file)
    except FileNotFoundError:
        raise ConfigError([f"{file}: no such file{_near_file(file)}"]) from None
    except StoreError as error:
        raise ConfigError([f"--config: {error}"]) from None
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from None
    try:
        content = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([f"{file}: not JSON ({at}): {error.msg}"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{file}: {error}"]) from None
    if not isinstance(content, dict):
        raise ConfigError([f"{file}: a config is a JSON object, {{...}}"])
    return content


def _text_of(file: str) -> str:
    if not storage.is_remote(file):
        return Path(file).read_text("utf-8")
    storage.look_at_store(file)
    content = storage.read_small(file, _MOST_BYTES)
    if content is None:
        raise FileNotFoundError
    return content.decode("utf-8")


def _near_file(file: str) -> str:
    folder = os.path.dirname(file) or "."
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(os.path.basename(file), names, n=1)
    return f"; did you mean {os.path.join(os.path.dirname(file), near[0])}?" if near else ""


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twins:
        raise ValueError(f"key '{twins[0]}' appears twice in one object; remove one")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is not JSON; write "{name}" in quotes')


def _override(content: dict[str, Any], override: str) -> str | None:
    """Applies one KEY=VALUE, or an object of several; returns what is wrong with it."""
    if override.lstrip().startswith("{"):
        return _override_several(content, override)
    key, equals, text = override.partition("=")
    shown = f"--set {KEY_START.match(key)[0]}"  # type: ignore[index]
    if not equals or not all(key.split(".")):
        return f"{shown}: give KEY=VALUE, such as --set source.path=data/new.csv"
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return _put(content, key, value, shown)


def _override_several(content: dict[str, Any], text: str) -> str | None:
    """Applies an object of keys and values; returns what is wrong with it."""
    try:
        given = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"--set {{...}}: not JSON (column {error.colno}): {error.msg}"
    except (ValueError, RecursionError) as error:
        return f"--set {{...}}: {error}"
    for key, value in given.items():
        shown = f"--set {KEY_START.match(key)[0]}"  # type: ignore[index]
        if not all(key.split(".")):
            return f"{shown}: give keys such as source.path"
        if problem := _put(content, key, value, shown):
            return problem
    return None


def _put(content: dict[str, Any], key: str, value: Any, shown: str) -> str | None:
    """Puts a value where a key such as source.path says; returns what is wrong with it."""
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            return f"{shown}: '{parent}' is not an object"
    content[last] = value
    return None
