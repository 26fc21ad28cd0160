"""Ends a run without the run: shards are written, published and looked for, with no pipeline around it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import commit, manifest, shards
from pipelines.connectors.files.publishing.commit_record import Commit, Move, PrefixCommit, PublishError
from pipelines.connectors.files.publishing.manifest import Manifest, Shard
from pipelines.connectors.files.publishing.place import Place
from pipelines.connectors.files.publishing.reservation import Reservation

ACCOUNTED = threading.Event()
"""The account was given: what becomes of the files is nobody's business any more."""

OUTPUT_ROWS, LETTER_ROWS = 4, 2
STEPS = ("replace", "remove", "unlink", "rmdir", "mkdir", "fsync")


def places(folder: str) -> tuple[Place, Place]:
    """Output and dead letters, in different folders."""
    return Place("output.path", f"{folder}/out/p", "csv"), Place("dead_letters.path", f"{folder}/dead/d", "jsonl")


def run_id(tag: str) -> str:
    """A run's id, from a word."""
    return tag.encode().hex().ljust(8, "0")[:8]


def publish(folder: str, tag: str, shard_count: int = 3, hold: Callable[[], None] = lambda: None) -> list[str]:
    """Does what a run does with its files; every line of them is the tag. Gives what is lost at its end."""
    output, dead = places(folder)
    with Reservation(output, dead, run_id(tag), tag) as reserved:
        reserved.claim()
        hold()
        parts = []
        for place, count, rows in ((output, shard_count, OUTPUT_ROWS), (dead, shard_count - 1, LETTER_ROWS)):
            parts.append(_part(place, tag, count, rows, shard_count))
        sizes = [{move.temporary: move.size for move in part.moves} for part in parts]
        lost = [
            line
            for place, expected in zip((output, dead), sizes, strict=True)
            for line in commit.missing_shards(place.prefix, run_id(tag), expected)
        ]
        if lost:
            raise PublishError("; ".join(lost))
        commit.publish(Commit(run=run_id(tag), name=tag, parts=tuple(parts)))
        problems = list(reserved.outcome().problems)
        ACCOUNTED.set()
        return problems


def _part(place: Place, tag: str, count: int, rows: int, shard_count: int) -> PrefixCommit:
    folder, _ = shards.split_prefix(place.prefix)
    moves = []
    for index in range(count):
        path = shards.temporary_path(place.prefix, run_id(tag), place.extension)
        file = shards.create(path)
        file.write(f"{tag}\n".encode() * rows)
        name = shards.shard_path(place.prefix, index, count, place.extension)[len(folder) :]
        moves.append(Move(temporary=path.rpartition("/")[2], name=name, size=storage.close_durably(file)))
    earlier = manifest.listed(place.prefix, manifest.read(place.prefix))
    after = Manifest(
        run=run_id(tag),
        name=tag,
        rows_read=shard_count * OUTPUT_ROWS + (shard_count - 1) * LETTER_ROWS,
        rows_written=shard_count * OUTPUT_ROWS,
        rows_dead_lettered=(shard_count - 1) * LETTER_ROWS,
        shards=tuple(Shard(name=move.name, size=move.size, rows=rows, run=run_id(tag)) for move in moves),
    )
    needed = after if moves or place.extension == "csv" else None
    return PrefixCommit(
        prefix=place.prefix, remove=tuple(shard.name for shard in earlier), moves=tuple(moves), manifest=needed
    )


def seen(folder: str) -> tuple[set[str], set[str]]:
    """The tags that a reader finds in the output and in the dead letters; each file must be whole and listed."""
    found = []
    for place, rows in zip(places(folder), (OUTPUT_ROWS, LETTER_ROWS), strict=True):
        listed = manifest.read(place.prefix)
        present = [Path(file.path) for file in shards.published(place.prefix)]
        contents = [path.read_text().splitlines() for path in present]
        assert {len(lines) for lines in contents} <= {rows}
        assert {path.name for path in present} == ({shard.name for shard in listed.shards} if listed else set())
        assert {path.name.split("-of-")[1][:5] for path in present} <= {f"{len(present):05d}"}
        found.append({line for lines in contents for line in lines})
    return found[0], found[1]


def interrupt(at: int, act: Callable[[], None]) -> None:
    """Makes this process act before its step number `at`, from now on."""
    left = at
    ACCOUNTED.clear()

    def counted(call: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0 and not ACCOUNTED.is_set():
                act()
            left -= 1
            return call(*arguments, **named)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def attempt(folder: str, tag: str, shard_count: int = 3) -> int:
    """Publishes; gives the exit code that a command would have."""
    try:
        lost = publish(folder, tag, shard_count)
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except (PublishError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lost), file=sys.stderr)
    return 3 if lost else 0
