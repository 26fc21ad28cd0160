"""Reserves the places that a run publishes to, from before it starts until after its account is given.

Entering reserves them: their locks are taken, and what a stopped run left half published is completed. `claim` makes
sure that nothing of a person's is in the way. At the end, `outcome` looks whether what was published is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import Self

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import commit, manifest, shards
from pipelines.connectors.files.publishing.commit_record import PublishError
from pipelines.connectors.files.publishing.completion import complete
from pipelines.connectors.files.publishing.lock import Holder, Lock
from pipelines.connectors.files.publishing.manifest import Manifest
from pipelines.connectors.files.publishing.place import Place, lock_place
from pipelines.storage import FileInfo


@dataclass(frozen=True)
class Outcome:
    """Describes what a run has published.

    Attributes:
      manifest: the output's; None if it is not there, or is another run's.
      output_shards: how many.
      dead_letter_shards: how many.
      problems: what is not there as it was published, one line each.
    """

    manifest: Manifest | None
    output_shards: int
    dead_letter_shards: int
    problems: tuple[str, ...]


class Reservation:
    """Holds the places of a run; a context manager.

    Args:
      output: the output's.
      dead_letters: the dead letters'.
      run: id of the run.
      name: its name, from its config.
      folder_mode: access rights of the temporary folders.

    Attributes:
      notes: what a person should know, one line each.

    Raises:
      ConfigError: on entering: another run holds a place, or a stopped one left it so that it cannot be completed.
    """

    def __init__(self, output: Place, dead_letters: Place, run: str, name: str, folder_mode: int = 0o700) -> None:
        self.places = (output, dead_letters)
        self.run = run
        self._holder = Holder.this_process(run, name)
        self._folder_mode = folder_mode
        self._locks: list[Lock] = []
        self._folders: list[str] = []
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        try:
            for place in self.places:
                folder, _ = shards.split_prefix(place.prefix)
                if folder and not storage.is_remote(folder):
                    self._make_for(place, folder.rstrip("/") or "/")
                self._locks.append(lock_place(place, self._holder))
            self.notes += complete([place.prefix for place in self.places], self._holder)
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.abandon()
        self.release()

    def claim(self, replaced: Sequence[FileInfo] = (), replay: str = "") -> None:
        """Looks whether names are free, and makes the temporary folders.

        Args:
          replaced: files that the dead letters take the place of, besides what the manifest lists.
          replay: prefix of the output's shards, if they come beside those that are there.

        Raises:
          ConfigError: what is in the way was not written by this project.
        """
        output, dead_letters = self.places
        problems = in_the_way(output, begin=replay) + in_the_way(dead_letters, replaced)
        if problems:
            raise ConfigError(problems)
        for place in self.places:
            commit.remove_left_behind(place.prefix)
            if not storage.is_remote(place.prefix):
                folder = shards.temporary_folder(place.prefix, self.run)
                os.mkdir(folder, 0o700)
                os.chmod(folder, self._folder_mode)

    def abandon(self) -> str:
        """Removes the temporary files of a run that did not come to its end; tells what became of its output.

        What it had begun to publish stays, for the next run to complete.
        """
        try:
            pending = commit.find(self.places[0].prefix)
        except PublishError:
            pending = None
        if pending is not None and pending.commit.run == self.run:
            return "it was stopped while it published: the next run, replay or check of this config completes that"
        for place in self.places:
            commit.remove_temporary(place.prefix, self.run)
        published = _manifest_of(self.places[0], [])
        if published is not None and published.run == self.run:
            return "all was published"
        return "nothing was published"

    def release(self) -> None:
        """Gives the places up; folders that were made for nothing go."""
        while self._locks:
            self._locks.pop().release()
        while self._folders:
            try:
                os.rmdir(self._folders.pop())
            except OSError:
                continue

    def _make_for(self, place: Place, folder: str) -> None:
        try:
            self._make(folder)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError([f"{place.where}: the folder {folder} cannot be made: {why}"]) from None

    def _make(self, folder: str) -> None:
        if not os.path.isdir(folder):
            self._make(os.path.dirname(folder) or ".")
            os.mkdir(folder)
            self._folders.append(folder)

    def unreported(self, fingerprint: str) -> Manifest | None:
        """Returns the manifest of an earlier run of the same config over the same input whose delivery was completed,
        and whose account nobody has given; None if there is none.
        """
        found = self.left_unreported()
        is_ours = found is not None and found.delivered is not None and found.delivered.fingerprint == fingerprint
        return found if is_ours else None

    def left_unreported(self) -> Manifest | None:
        """Returns the manifest of the last run here, of whatever config, if its delivery was completed and nobody has
        given its account; else None.
        """
        found = manifest.read(self.places[0].prefix)
        return None if found is None or found.delivered is None or found.delivered.is_reported else found

    def reported(self) -> None:
        """Notes that the account of the last delivery was given: the next run is a run of its own."""
        prefix = self.places[0].prefix
        found = manifest.read(prefix)
        if found is not None and found.delivered is not None:
            delivered = found.delivered.model_copy(update={"is_reported": True})
            manifest.write(prefix, found.model_copy(update={"delivered": delivered}))

    def outcome(self) -> Outcome:
        """Looks whether everything that this run published is there, with its size."""
        problems: list[str] = []
        counts = []
        manifests = []
        for place in self.places:
            found = _manifest_of(place, problems)
            is_ours = found is not None and found.run == self.run
            mine = found.of_run(self.run) if found is not None else []
            there = {shard.name for shard in manifest.listed(place.prefix, found)}
            folder, _ = shards.split_prefix(place.prefix)
            problems += [
                f"{folder}{each.name} was published, and is not there any more"
                for each in mine
                if each.name not in there
            ]
            counts.append(len(mine))
            manifests.append(found if is_ours else None)
        output, dead = manifests
        if output is None:
            problems.append(f"{manifest.path_of(self.places[0].prefix)}: this run's is not there any more")
        elif output.rows_dead_lettered and dead is None:
            problems.append(f"{manifest.path_of(self.places[1].prefix)}: this run's is not there any more")
        elif output.delivered is not None and output.delivered.rows != output.rows_written:
            problems.append(
                f"{output.delivered.what} took {output.delivered.rows:,} rows of this run, and {output.rows_written:,} "
                "were written for it; look at the table before you use it"
            )
        return Outcome(output, counts[0], counts[1], tuple(problems))


@contextmanager
def held_to_publish(place: Place, run: str, name: str) -> Iterator[None]:
    """Holds a place only while the block publishes there, for a run that has written its shards without reserving it.

    Args:
      place: where the run publishes.
      run: its id.
      name: its name.

    Raises:
      PublishError: another run holds the place, a stopped one left it so that it cannot be completed, or what is in the
        way was not written by this project. Not a ConfigError, whose list of problems Beam would not keep.
    """
    folder, _ = shards.split_prefix(place.prefix)
    if folder and not storage.is_remote(folder):
        os.makedirs(folder, exist_ok=True)
    holder = Holder.this_process(run, name)
    try:
        held = lock_place(place, holder)
    except ConfigError as error:
        raise PublishError("; ".join(error.problems)) from None
    try:
        try:
            complete([place.prefix], holder)
            problems = in_the_way(place)
        except ConfigError as error:
            problems = error.problems
        if problems:
            raise PublishError("; ".join(problems))
        commit.remove_left_behind(place.prefix, but=run)
        yield
    finally:
        held.release()


def _manifest_of(place: Place, problems: list[str]) -> Manifest | None:
    try:
        return manifest.read(place.prefix)
    except ConfigError as error:
        problems += error.problems
        return None


def in_the_way(place: Place, replaced: Sequence[FileInfo] = (), begin: str = "") -> list[str]:
    """Lists what a run would replace though this project did not write it, one line each.

    Args:
      place: where the run publishes.
      replaced: files that may be replaced, besides those of the manifest.
      begin: only shards of this prefix count.

    Raises:
      ConfigError: the manifest cannot be used.
    """
    folder, stem = shards.split_prefix(place.prefix)
    ours = {shard.name for shard in manifest.listed(place.prefix, manifest.read(place.prefix))}
    ours |= {file.path.rpartition("/")[2] for file in replaced}
    found = [entry.name for entry in storage.entries(folder, begin[len(folder) :] or stem)]
    foreign = [n for n in found if shards.is_shard(place.prefix, n, (place.extension,)) and n not in ours]
    if not foreign:
        return []
    replay_them = ", or replay it" if place.extension == "jsonl" else ""
    more = f" and {len(foreign) - 1:,} more like it" if len(foreign) > 1 else ""
    return [
        f"{place.where}: {folder}{foreign[0]}{more} would be replaced, but was not written by an earlier run, or was "
        f"changed since ({manifest.path_of(place.prefix)} does not list it so); move it away{replay_them}, or choose "
        f"another {place.where}"
    ]
