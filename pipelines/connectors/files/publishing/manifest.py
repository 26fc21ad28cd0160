"""Lists which shards there are under a prefix, with the account of the run that wrote the last of them.

A manifest is what allows a later run to remove shards: a file that it does not list, with just this size, is not ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.files.publishing.delivery import Delivered

_MOST_BYTES = 64 << 20


class Shard(BaseModel):
    """Describes a published file.

    Attributes:
      name: without the folder.
      size: bytes.
      rows: rows in it.
      run: id of the run that wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    rows: int
    run: str


class Manifest(BaseModel):
    """Lists all shards of a prefix.

    Attributes:
      version: of this format.
      run: id of the last run that published here.
      name: its name, from its config.
      rows_read: rows that this run read.
      rows_written: of these, in the output.
      rows_dead_lettered: of these, in the dead letters.
      shards: of this run, and those of earlier ones that it left (a replay adds to what is there).
      notes: what a person should know of what the last run wrote, one line each.
      delivered: what was delivered to a service in place of shards.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    run: str
    name: str
    rows_read: int
    rows_written: int
    rows_dead_lettered: int
    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    delivered: Delivered | None = None

    def of_run(self, run: str) -> list[Shard]:
        """Lists the shards that a run wrote."""
        return [shard for shard in self.shards if shard.run == run]


def path_of(prefix: str) -> str:
    """Gives the path of a prefix's manifest."""
    return shards.hidden_path(prefix, "manifest.json")


def read(prefix: str) -> Manifest | None:
    """Reads the manifest of a prefix; None if there is none.

    Raises:
      ConfigError: there is one, and it cannot be used.
    """
    path = path_of(prefix)
    try:
        content = storage.read_small(path, _MOST_BYTES)
        return None if content is None else Manifest.model_validate_json(content)
    except (ValidationError, ValueError, OSError) as error:
        why = "it is not a manifest of this project" if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            [f"{path}: cannot be used: {why}; move it and the shards beside it away, or choose another path"]
        ) from None


def write(prefix: str, manifest: Manifest) -> None:
    """Writes the manifest of a prefix, whole and durable."""
    storage.write_whole(path_of(prefix), manifest.model_dump_json(indent=1, exclude_none=True).encode())


def listed(prefix: str, manifest: Manifest | None) -> list[Shard]:
    """Lists the shards of a manifest that are there as it lists them: regular files of the same size.

    Names that are not those of shards of this prefix do not count, whoever wrote them into the manifest.
    """
    if manifest is None:
        return []
    folder, stem = shards.split_prefix(prefix)
    sizes = {entry.name: entry.size for entry in storage.entries(folder, stem)}
    return [
        shard
        for shard in manifest.shards
        if shards.is_shard(prefix, shard.name) and sizes.get(shard.name) == shard.size
    ]
