"""Publishes: finished shards get their names, those of earlier runs go, for output and dead letters together.

What is to be done is first written down, in a commit record `.p.commit.json` beside the output. From that moment the
new shards are published, whatever happens: who finds the record completes what it says. Before it, nothing has changed.
Beside the dead letters a note, `.dead.commit.json`, says where the record is, for whoever comes from there.

    shards are on the disk -> notes -> record -> a service takes over the output's shards, where one is to
    -> earlier shards go -> new ones get their names -> manifests
    -> the record goes -> notes and temporary folders go

Each step can be done again, so it does not matter at which of them a process was killed.
"""

from __future__ import annotations

import os
import threading

from pydantic import ValidationError

from pipelines import storage
from pipelines.connectors import registry
from pipelines.connectors.files.publishing import lock, manifest, shards
from pipelines.connectors.files.publishing.commit_record import Commit, Pending, PrefixCommit, PublishError, PublishNote
from pipelines.connectors.files.publishing.delivery import DeliveryError, DeliveryRefusedError

_MOST_BYTES = 256 << 20
_gate = threading.Lock()
_stopped = False


def record_path(prefix: str) -> str:
    """Gives the path of the record, or of the note, beside a prefix."""
    return shards.hidden_path(prefix, "commit.json")


def refuse_further(timeout_s: float) -> None:
    """Waits until nothing is being published in this process, then lets nothing be published any more."""
    global _stopped
    has_gate = _gate.acquire(timeout=timeout_s)
    _stopped = True
    if has_gate:
        _gate.release()


def publish(commit: Commit) -> None:
    """Publishes what a commit says; gives up before anything is changed if something is not as it should be.

    Raises:
      PublishError: nothing was changed, or (with a path of the record) what was begun cannot be completed.
    """
    with _gate:
        if _stopped:
            raise PublishError("the run was stopped")
        _check(commit)
        path = _write_down(commit)
        try:
            complete(Pending(path, commit))
        except DeliveryRefusedError:
            discard(Pending(path, commit))
            raise


def _check(commit: Commit) -> None:
    """Is everything there that is to be published, are the names free, is the place still ours?"""
    for part in commit.parts:
        holder = lock.holder_of(part.prefix, commit.run)
        if holder != commit.run:
            became = f"was taken over by run {holder}" if holder else "was removed"
            raise PublishError(
                f"{part.prefix}: the lock of this run {became} while it went on, so nothing was published; run it again"
            )
        folder, stem = shards.split_prefix(part.prefix)
        present = {entry.name: entry.size for entry in storage.entries(folder, stem)}
        for move in part.moves:
            if move.name in present and move.name not in part.remove:
                raise PublishError(
                    f"{folder}{move.name} appeared while the run went on, and this run did not write it, so nothing "
                    "was published; move it away, and run again"
                )


def missing_shards(prefix: str, run: str, sizes: dict[str, int]) -> list[str]:
    """Lists what is wrong with a run's temporary shards, one line each.

    Args:
      prefix: of the shards.
      run: id of the run.
      sizes: bytes that were written, by name.
    """
    if not sizes:
        return []
    folder = shards.temporary_folder(prefix, run)
    present = {entry.name: entry.size for entry in storage.entries(folder, "")}
    problems = []
    for name, size in sizes.items():
        found = present.get(name)
        if found != size:
            became = "was removed" if found is None else f"has {found:,} bytes"
            problems.append(f"{folder}{name}, written with {size:,} bytes, {became} while the run went on")
    return problems


def _write_down(commit: Commit) -> str:
    """Writes notes and record; gives the path of the record."""
    path = record_path(commit.parts[0].prefix)
    for part in commit.parts[1:]:
        beside = record_path(part.prefix)
        note = PublishNote(run=commit.run, record=_relative(path, beside))
        if beside != path:
            storage.write_whole(beside, note.model_dump_json().encode())
    parts = tuple(part.model_copy(update={"prefix": _relative(part.prefix, path)}) for part in commit.parts)
    storage.write_whole(path, commit.model_copy(update={"parts": parts}).model_dump_json().encode())
    return path


def _relative(path: str, to: str) -> str:
    """Gives a path as seen from the folder of another; a slash at its end stays."""
    if storage.is_remote(path):
        return path
    slash = "/" if path.endswith("/") else ""
    if storage.is_remote(to):
        return os.path.abspath(path) + slash
    return os.path.relpath(os.path.abspath(path), _real_folder_of(to)) + slash


def _from_relative(path: str, to: str) -> str:
    """Undoes `_relative`."""
    if storage.is_remote(path) or os.path.isabs(path):
        return path
    slash = "/" if path.endswith("/") else ""
    return os.path.normpath(os.path.join(_real_folder_of(to), path)) + slash


def _real_folder_of(path: str) -> str:
    return os.path.realpath(os.path.dirname(path) or ".")


def find(prefix: str) -> Pending | None:
    """Finds what a stopped run has not completed under a prefix.

    Raises:
      PublishError: there is a record that cannot be used.
    """
    path = record_path(prefix)
    content = _read(path)
    if content is None:
        return None
    try:
        note = PublishNote.model_validate_json(content)
    except ValidationError:
        return _parse(path, content)
    at = _from_relative(note.record, path)
    found = _read(at)
    pending = _parse(at, found) if found is not None and at != path else None
    if pending is None or pending.commit.run != note.run:
        # The run was killed before it had published anything, or after all of it.
        storage.delete([path])
        return None
    return pending


def _read(path: str) -> bytes | None:
    try:
        content = storage.read_small(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise PublishError(f"{path}: cannot be read: {error}; remove it if you did not expect it") from None
    if content is not None and not storage.is_remote(path) and os.lstat(path).st_uid != os.geteuid():
        raise PublishError(
            f"{path}: another user's run was stopped while it published; that user can complete it by running "
            "python -m pipelines.check with the config of that run"
        )
    return content


def _parse(path: str, content: bytes) -> Pending:
    try:
        commit = Commit.model_validate_json(content)
    except ValidationError:
        raise PublishError(f"{path}: is not a record of this project; remove it if you did not expect it") from None
    parts = tuple(part.model_copy(update={"prefix": _from_relative(part.prefix, path)}) for part in commit.parts)
    for part in parts:
        names = [*part.remove, *(move.name for move in part.moves)]
        if not all(_is_ours(part.prefix, name) for name in names) or not all(
            shards.is_temporary_shard(move.temporary) for move in part.moves
        ):
            raise PublishError(f"{path}: names files that no run has written; remove it if you did not expect it")
    return Pending(path, commit.model_copy(update={"parts": parts}))


def _is_ours(prefix: str, name: str) -> bool:
    return shards.is_shard(prefix, name) or shards.is_rolling_file(prefix, name, "jsonl")


def complete(pending: Pending) -> None:
    """Does what a record says, or what is left of it.

    Raises:
      PublishError: a shard is gone, or a service does not answer.
      DeliveryRefusedError: a service refuses the output; nothing was changed.
    """
    commit = _delivered(pending.commit)
    for part in commit.parts:
        kept = {move.name for move in part.moves}
        folder, _ = shards.split_prefix(part.prefix)
        storage.delete([folder + name for name in part.remove if name not in kept])
    for part in commit.parts:
        _move(part, commit.run, pending.path)
    for part in commit.parts:
        storage.sync_folder(shards.split_prefix(part.prefix)[0])
        if part.manifest is None:
            storage.delete([manifest.path_of(part.prefix)])
        else:
            manifest.write(part.prefix, part.manifest)
    discard(Pending(pending.path, commit))


def discard(pending: Pending) -> None:
    """Removes a record, of which all is done or nothing, its notes, and the run's temporary folders."""
    parts = pending.commit.parts
    storage.delete([pending.path])
    storage.sync_folder(os.path.dirname(pending.path))
    storage.delete([record_path(part.prefix) for part in parts[1:] if record_path(part.prefix) != pending.path])
    if pending.commit.order is not None:
        storage.delete([_delivery_note(parts[0].prefix)])
    for part in parts:
        remove_temporary(part.prefix, pending.commit.run)


def _delivery_note(prefix: str) -> str:
    return shards.hidden_path(prefix, "delivery.json")


def _delivered(commit: Commit) -> Commit:
    """Has a service take over the output, if one is to; returns the commit with what it says in the manifest."""
    output = commit.parts[0]
    if commit.order is None or output.manifest is None or output.manifest.delivered is None:
        return commit
    order, folder = commit.order, shards.temporary_folder(output.prefix, commit.run)
    try:
        rows = registry.delivery(order.service).deliver(order, folder, _delivery_note(output.prefix))
    except DeliveryError as error:
        raise PublishError(str(error)) from None
    delivered = output.manifest.delivered.model_copy(update={"rows": rows})
    after = output.manifest.model_copy(update={"delivered": delivered})
    return commit.model_copy(update={"parts": (output.model_copy(update={"manifest": after}), *commit.parts[1:])})


def _move(part: PrefixCommit, run: str, record: str) -> None:
    folder, stem = shards.split_prefix(part.prefix)
    temporary = shards.temporary_folder(part.prefix, run)
    waiting = {entry.name: entry.size for entry in storage.entries(temporary, "")}
    present = {entry.name: entry.size for entry in storage.entries(folder, stem)} if part.moves else {}
    # A shard has either name, as it was moved before a kill or not.
    gone = [
        folder + move.name for move in part.moves if waiting.get(move.temporary, present.get(move.name)) != move.size
    ]
    if gone:
        raise PublishError(
            f"{gone[0]}{f' and {len(gone) - 1} more' * (len(gone) > 1)} cannot be published: its shard was removed or "
            f"changed while the run was stopped; to give up what is left of that run, remove {record}, and run it again"
        )
    moves = [move for move in part.moves if move.temporary in waiting]
    storage.rename([(temporary + move.temporary, folder + move.name) for move in moves])


def remove_temporary(prefix: str, run: str) -> None:
    """Removes a run's temporary folder and the shards in it; what is no shard stays, and so does its folder."""
    folder = shards.temporary_folder(prefix, run)
    if storage.is_remote(prefix):
        names = [entry.name for entry in storage.entries(folder, "")]
        storage.delete([folder + name for name in names if shards.is_temporary_shard(name)])
        return
    shards.remove_local_folder(folder.rstrip("/"))


def remove_left_behind(prefix: str, but: str = "") -> None:
    """Removes what killed runs have left under a prefix; only its lock makes sure that none of them goes on.

    Args:
      prefix: of the shards.
      but: id of a run whose temporary shards stay.
    """
    for what in ("commit.json", "manifest.json"):
        storage.remove_unfinished(shards.hidden_path(prefix, what))
    folder, stem = shards.split_prefix(prefix)
    begin = f".{stem}"
    for name in storage.folder_names(folder, begin):
        run = shards.run_of_folder(prefix, name)
        if run is not None and run != but:
            remove_temporary(prefix, run)
