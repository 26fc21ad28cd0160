"""Tells whether two comparisons measure the same: config, data, models and machine."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from inference.saved_model import files as model_files
from model.errors import ModelNotFoundError
from model.other_formats import SAVED_MODEL_FILE
from pipelines import storage
from pipelines.comparison.manifest import hash_of, hash_of_model, machine
from pipelines.comparison.ways import CompleteWay
from pipelines.config import load as configs
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.errors import ConfigError
from pipelines.plan import Plan
from pipelines.planning.planner import make_plan

_NOT_MEASURED = {"minutes", "rounds", "precision", "prices", "volume"}
"""Keys of a comparison that may change while it goes on."""


def identity_of(
    config: ComparisonConfig, content: dict[str, Any], plan: Plan, ways: Sequence[CompleteWay]
) -> dict[str, str]:
    """Returns a text for what a comparison is told by, in words, which is another one once that has changed.

    Args:
      config: of the comparison.
      content: the run's config, as it stands in its file.
      plan: of the run.
      ways: the ways, complete.

    Raises:
      ConfigError: an input of the comparison cannot be read.
    """
    data = [_data_of(each) for each in (plan, *_plans_of_inputs(config))]
    files = _files([config.publish_rows, getattr(plan.config.source, "path", None)])
    return {
        "the comparison's config": hash_of(config.model_dump(exclude=_NOT_MEASURED)),
        "the run's config": hash_of(content),
        "the data": hash_of([data, files]),
        "a model": hash_of([_model(path) for path in _models(plan, ways)]),
        "the machine": hash_of(machine().model_dump()),
    }


def _data_of(plan: Plan) -> list[Any]:
    """Lists what is another once the rows of a source have changed: its files, or the extent of its table."""
    files = sorted((file.path, file.size, file.modified) for file in plan.files)
    extent = plan.extent
    return [files, None if extent is None else (extent.rows, extent.nbytes, extent.state)]


def _plans_of_inputs(config: ComparisonConfig) -> list[Plan]:
    plans, problems = [], list[str]()
    for size, changes in config.inputs.items():
        wrong = configs.problems_with(config.config, [json.dumps(changes)])
        try:
            plans += [] if wrong else [make_plan(configs.load(config.config, [json.dumps(changes)]))]
        except ConfigError as error:
            wrong = error.problems
        problems += [f"inputs.{size}: {problem}" for problem in wrong]
    if problems:
        raise ConfigError(problems)
    return plans


def _files(paths: Iterable[Any]) -> list[Any]:
    """Lists what is another once single files have changed, such as those that messages are made of."""
    found: list[Any] = []
    for path in paths:
        if isinstance(path, str) and os.path.isfile(path):
            file = storage.describe(path)
            found.append((file.path, file.size, file.modified))
    return found


def _models(plan: Plan, ways: Sequence[CompleteWay]) -> list[str]:
    """The models that are called or served, each once."""
    found = [plan.model.path]
    for way in ways:
        found += [way.server.model] if way.server is not None and way.server.model is not None else []
        if way.kind == "direct":
            with contextlib.suppress(ModelNotFoundError):
                found.append(model_files.resolve(str(way.model["path"]), way.model.get("version")))
    return list(dict.fromkeys(found))


def _model(path: str) -> str:
    """The path of a model, and the hash of its files if it is a SavedModel of this machine."""
    folder = path if "://" in path else model_files.resolve(path)
    return f"{path} {hash_of_model(folder)}" if os.path.isfile(f"{folder}/{SAVED_MODEL_FILE}") else path
