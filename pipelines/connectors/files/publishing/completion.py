"""Completes what stopped runs left half published."""

from __future__ import annotations

from collections.abc import Sequence

from inference.stores.errors import StoreError
from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import commit, lock, shards
from pipelines.connectors.files.publishing.commit_record import Pending, PublishError
from pipelines.connectors.files.publishing.delivery import DeliveryRefusedError
from pipelines.connectors.files.publishing.lock import Holder, InUseError
from pipelines.connectors.files.publishing.place import Place, lock_place


def look_after(output: Place, dead_letters: Place, run: str, name: str) -> list[str]:
    """Completes what a stopped run left half published; tells what was found, one line each.

    Raises:
      ConfigError: it cannot be completed.
    """
    places = [place for place in (output, dead_letters) if _is_there(place)]
    locks = []
    holder = Holder.this_process(run, name)
    try:
        for place in places:
            try:
                locks.append(lock.acquire(place.prefix, holder))
            except InUseError as error:
                return [f"{place.prefix} is in use by {error}; a run would be refused until it has ended"]
            except StoreError as error:
                raise ConfigError([f"{place.where}: {error}"]) from None
            except OSError as error:
                raise ConfigError([f"{place.where}: {place.prefix} cannot be locked: {error}"]) from None
        return complete([place.prefix for place in places], holder)
    finally:
        for each in locks:
            each.release()


def _is_there(place: Place) -> bool:
    """Tells whether a stopped run can have left something: records and temporary folders are hidden files."""
    folder, stem = shards.split_prefix(place.prefix)
    return bool(storage.entries(folder, f".{stem}"))


def complete(prefixes: Sequence[str], holder: Holder) -> list[str]:
    """Completes what stopped runs left half published, under prefixes whose locks are held; returns a line for each."""
    notes = []
    held = {shards.identity(prefix) for prefix in prefixes}
    try:
        for prefix in prefixes:
            pending = commit.find(prefix)
            if pending is not None:
                notes.append(_complete_one(pending, held, holder))
    except PublishError as error:
        raise ConfigError([str(error)]) from None
    return notes


def _complete_one(pending: Pending, held: set[tuple[str, str]], holder: Holder) -> str:
    """Completes what one record says, or gives it up if a service refuses it; tells which, on one line."""
    others = [prefix for prefix in pending.prefixes if shards.identity(prefix) not in held]
    locks = []
    try:
        for prefix in others:
            locks.append(lock_place(Place(f"{pending.path}, which a stopped run left", prefix, ""), holder))
        commit.complete(pending)
        return _described(pending)
    except DeliveryRefusedError as error:
        commit.discard(pending)
        made = pending.commit
        return f"run '{made.name}' ({made.run}) was stopped while it published, and nothing of it was: {error}"
    finally:
        for each in locks:
            each.release()


def _described(pending: Pending) -> str:
    made = pending.commit
    if made.order is not None:
        return (
            f"run '{made.name}' ({made.run}) was stopped while it published {made.order.rows:,} rows to "
            f"{made.order.what}; that is completed now"
        )
    count = sum(len(part.moves) for part in made.parts)
    return (
        f"run '{made.name}' ({made.run}) was stopped while it published {count:,} file{'s' * (count != 1)} at "
        f"{made.parts[0].prefix}; that is completed now"
    )
