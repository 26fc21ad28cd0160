"""Reads results of a comparison from a file that anybody may have written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from pydantic import ValidationError

from pipelines import storage
from pipelines.comparison.amounts import written
from pipelines.comparison.results import Results
from pipelines.config.errors import ConfigError

_MOST_BYTES = 64 << 20
_MOST_PROBLEMS = 20
_MOST_PARTS = 100
_MOST = 1e15
"""The largest load or figure with which costs can be computed."""
_FORMAT = Results.model_fields["format"].default
_AGAIN = f"this version reads format {_FORMAT}: measure again with python -m pipelines.compare of this version"


def read_results(path: str) -> Results:
    """Reads a file of results.

    Args:
      path: of results.json, or of the folder that a comparison has written it to.

    Raises:
      ConfigError: it is not there, is too large, or does not hold results; a line for each mistake, with its place.
    """
    path = _in_folder(path)
    try:
        content = storage.read_small(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    if content is None:
        raise ConfigError([f"{path}: there is no such file; python -m pipelines.compare writes one"])
    try:
        results = Results.model_validate_json(content)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        if any(each["loc"] == ("format",) for each in details):
            raise ConfigError([f"{path}: format: it is of another version of this project; {_AGAIN}"]) from None
        raise ConfigError(
            _few([f"{path}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in details])
        ) from None
    if "format" not in results.model_fields_set:
        raise ConfigError([f"{path}: format is missing, so it is not known how to read it; {_AGAIN}"])
    if problems := [f"{path}: {problem}" for problem in _contradictions(results)]:
        raise ConfigError(_few(problems))
    return results


def _in_folder(path: str) -> str:
    """The results.json of a comparison's folder; any other path as it is."""
    if storage.is_remote(path) or not os.path.isdir(path):
        return path
    here = os.path.join(path, "results.json")
    if os.path.exists(here):
        return here
    below = sorted(
        os.path.join(path, name)
        for name in os.listdir(path)
        if os.path.exists(os.path.join(path, name, "results.json"))
    )
    there = f"give one of its folders: {', '.join(below[:5])}" if below else "python -m pipelines.compare writes one"
    raise ConfigError([f"{path}: this folder has no results.json; {there}"])


def _few(problems: list[str]) -> list[str]:
    left_out = len(problems) - _MOST_PROBLEMS
    return problems if left_out <= 0 else [*problems[:_MOST_PROBLEMS], f"and {left_out:,} more mistakes"]


def _contradictions(results: Results) -> Iterator[str]:
    """What is wrong with parts that are right one by one."""
    names = [way.name for way in results.ways]
    if len(set(names)) < len(names):
        yield "ways: a name is there twice"
    if not results.rankings:
        yield "rankings: there are none, so no way can be recommended"
    if len(set(results.loads)) < len(results.loads):
        yield "loads: a load is there twice"
    for part, count in {"loads": len(results.loads), "ways": len(names)}.items():
        if count > _MOST_PARTS:
            yield f"{part}: there are {count:,}, and at most {_MOST_PARTS} can be weighed"
    for index, load in enumerate(results.loads):
        if not 0 < load <= _MOST:
            yield f"loads.{index}: {written(load)} is not above 0 and up to {written(_MOST)}"
    for index, cell in enumerate(results.cells):
        if cell.way not in names:
            yield f"cells.{index}.way: no way of this name is in ways"
        if cell.load not in results.loads:
            yield f"cells.{index}.load: it is not in loads"
        for name, figure in cell.figures.items():
            if not all(
                value is None or math.fabs(value) <= _MOST for value in (figure.median, figure.low, figure.high)
            ):
                yield f"cells.{index}.figures.{name}: more than {written(_MOST)}"
    for index, ranking in enumerate(results.rankings):
        if ranking.load not in results.loads:
            yield f"rankings.{index}.load: it is not in loads"
        for place in (*(each.way for each in ranking.places), *ranking.not_ranked):
            if place not in names:
                yield f"rankings.{index}: a way that is not in ways has a place"
