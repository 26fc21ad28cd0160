"""Defines a commit record: the shards that a run publishes, and where they come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.connectors.files.publishing.delivery import DeliveryOrder
from pipelines.connectors.files.publishing.manifest import Manifest


class PublishError(RuntimeError):
    """Raised when publishing is not possible, or cannot be completed; the message says what was found and what
    to do.
    """


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Move(_Record):
    """Describes a finished shard and its name.

    Attributes:
      temporary: its present name, in the temporary folder.
      name: the name to give it.
      size: bytes.
    """

    temporary: str
    name: str
    size: int


class PrefixCommit(_Record):
    """Describes what happens under one prefix.

    Attributes:
      prefix: local ones relative to the record's folder.
      remove: names of files that go.
      moves: shards that come.
      manifest: what is there afterwards; None: no manifest is needed, as there are no shards.
    """

    prefix: str
    remove: tuple[str, ...]
    moves: tuple[Move, ...]
    manifest: Manifest | None


class Commit(_Record):
    """Describes what a run publishes.

    Attributes:
      version: of this format.
      run: id of the run.
      name: its name, from its config.
      parts: the output's, and the dead letters' if the run has any of its own. The record lies beside the first.
      order: of an output that a service takes over: what is delivered, beside the first part.
    """

    version: Literal[1] = 1
    run: str
    name: str
    parts: tuple[PrefixCommit, ...]
    order: DeliveryOrder | None = None


class PublishNote(_Record):
    """Tells where the record is that has a part for the prefix beside which the note lies.

    Attributes:
      run: id of the run.
      record: path of the record; local ones relative to the note's folder.
    """

    run: str
    record: str


@dataclass(frozen=True)
class Pending:
    """Describes a record that was found.

    Attributes:
      path: of the record.
      commit: what it says, prefixes as seen from the working directory.
    """

    path: str
    commit: Commit

    @property
    def prefixes(self) -> list[str]:
        """Lists the prefixes that it changes."""
        return [part.prefix for part in self.commit.parts]
