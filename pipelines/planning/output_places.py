"""Checks where a batch run writes to against what is there and what it reads; nothing is made or changed."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable

from pipelines import storage
from pipelines.config.files import DeadLetters, FileSource
from pipelines.config.model import SavedModelConfig
from pipelines.config.run import RunConfig
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.files.publishing.place import Place
from pipelines.formats import writer_class
from pipelines.plan import PlannedModel
from pipelines.rows.origin import text_of
from pipelines.storage import FileInfo


def places(config: RunConfig) -> tuple[Place, Place]:
    """Gives the places of the shards that a batch run of a config publishes: the output's, the dead letters'."""
    output = Place(config.output_path_key, config.output_path, writer_class(config.output.shard_format).extension)
    return output, Place("dead_letters.path", config.dead_letters_path, "jsonl")


def folder_mode(config: RunConfig) -> int:
    """Gives the access rights of the folders that hold a run's shards until they are published."""
    return config.dead_letters.folder_mode if isinstance(config.dead_letters, DeadLetters) else 0o700


def unwritable(config: RunConfig) -> list[str]:
    """Lists which folders to write to neither exist nor can be made, one line each, without making them."""
    problems = []
    for where, path in ((config.output_path_key, config.output_path), ("dead_letters.path", config.dead_letters_path)):
        if storage.is_remote(path) or not path:
            continue
        problems += unwritable_folder(where, path, path if path.endswith("/") else os.path.dirname(path))
    if config.output_path and shards.identity(config.output_path) == shards.identity(config.dead_letters_path):
        problems.append(
            f"dead_letters.path: {config.dead_letters_path} is the same place as {config.output_path_key}, "
            f"{config.output_path}; give them different prefixes"
        )
    return problems


def unwritable_folder(where: str, path: str, folder: str) -> list[str]:
    """Lists what is wrong with a local folder to write to, one line or none: it may be there, or be made later.

    Args:
      where: the place in the config, for the message.
      path: what the config says there.
      folder: the folder.
    """
    folder = folder or "."
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder.rstrip("/")) or "."
    if not os.path.isdir(folder):
        return [f"{where}: cannot write to {path}: {folder} is not a folder"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [f"{where}: cannot write to {path}: no permission to create files in {folder}"]
    return []


def replaces_what_is_read(config: RunConfig, found: list[FileInfo], model: PlannedModel | None) -> list[str]:
    """Lists where shards that a batch run publishes would take the place of what it reads, one line each."""
    if not isinstance(config.source, FileSource):
        return []
    problems = []
    real_paths = _real_paths(found)
    for where, prefix in (
        (config.output_path_key, config.output_path),
        ("dead_letters.path", config.dead_letters_path),
    ):
        if not prefix:
            continue
        folder, _ = shards.identity(prefix)
        for file, real_path in zip(found, real_paths, strict=True):
            read, _, name = real_path.rpartition("/")
            if read == folder and shards.is_shard(prefix, name):
                problems.append(
                    f"{where}: shards of {prefix} would replace {text_of(file.path)}, which source.path reads; choose "
                    f"another {where}, or a source.path that leaves its shards out"
                )
                break
        if model is not None and isinstance(model.config, SavedModelConfig):
            saved = storage.real_folder(model.path)
            if f"{folder}/".startswith(f"{saved}/"):
                problems.append(f"{where}: {prefix} is within the model's folder {model.path}; choose another {where}")
    return problems


def _real_paths(found: list[FileInfo]) -> list[str]:
    """Paths with links followed; a folder of many files is looked at once."""
    folders: dict[str, str] = {}
    paths = []
    for file in found:
        folder, name = os.path.split(file.path)
        if storage.is_remote(file.path):
            paths.append(file.path)
        elif os.path.islink(file.path):
            paths.append(os.path.realpath(file.path))
        else:
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            paths.append(os.path.join(folders[folder], name))
    return paths


def half_published(found: Iterable[FileInfo]) -> list[str]:
    """Lists folders to read from in which a run is publishing, or was stopped while it did, one line each."""
    folders = {file.path.rpartition("/")[0] + "/" for file in found if "-of-" in file.path}
    problems = []
    for folder in sorted(folders):
        records = [entry.name for entry in storage.entries(folder, ".") if entry.name.endswith(".commit.json")]
        if records:
            problems.append(
                f"source.path: {folder}{records[0]} says that a run publishes there, or was stopped while it did; wait "
                "until it has ended, or run python -m pipelines.check with its config, which completes it"
            )
    return problems


def reads_its_output(config: RunConfig) -> list[str]:
    """Notes that the next run would find this run's output in its source, and be refused."""
    source = config.source
    if not isinstance(source, FileSource):
        return []
    patterns = [source.path] if isinstance(source.path, str) else source.path
    output, _ = places(config)
    name = shards.shard_path(output.prefix, 0, 1, output.extension).rpartition("/")[2]
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        is_folder = os.path.isdir(pattern)
        read = storage.real_folder(pattern if is_folder else folder)
        if read == shards.identity(output.prefix)[0] and (is_folder or fnmatch.fnmatch(name, names)):
            return [
                f"source.path: {pattern} also matches this run's output; the next run will be refused because of it"
            ]
    return []
