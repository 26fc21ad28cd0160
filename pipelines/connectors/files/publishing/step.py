"""Ends a run: balances the account, then publishes output and dead letters, both or neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipelines import storage
from pipelines.connectors.files.publishing import commit, manifest, shards
from pipelines.connectors.files.publishing.commit_record import Commit, Move, PrefixCommit
from pipelines.connectors.files.publishing.delivery import Delivered, DeliveryOrder, StagedShard
from pipelines.connectors.files.publishing.manifest import Manifest, Shard
from pipelines.connectors.files.publishing.place import Place
from pipelines.connectors.files.publishing.reservation import held_to_publish
from pipelines.formats.base import Writer
from pipelines.telemetry.accounting import (
    DEAD_LETTERS,
    NAMESPACE,
    OUTPUT,
    Account,
    Misfits,
    Receipt,
    ShardWritten,
    balance,
)
from pipelines.telemetry.constant_outputs import in_all, notes_on


class UnbalancedError(RuntimeError):
    """Raised when rows are missing, or there are too many: nothing was published."""


class ResultsMisfitError(UnbalancedError):
    """Raised when a batch prediction job gave results that no row can have: nothing was published."""


@dataclass(frozen=True)
class PublishTarget:
    """Describes what a run publishes, and where.

    Attributes:
      run: id of the run.
      name: its name, from its config.
      output: prefix that the output belongs to.
      shards: prefix of the output's shards: that of `output`, or of a replay.
      dead_letters: prefix of the dead letters' shards; None if the run has none of its own.
      replaced: names of files, besides earlier shards, that the dead letters take the place of.
      order: of an output that a service takes over: what to deliver, without the shards yet.
      unattended: the places, of a run whose command does not wait for it: they are held while it publishes. Empty if
        the command holds them.
    """

    run: str
    name: str
    output: str
    shards: str
    dead_letters: str | None
    replaced: tuple[str, ...] = ()
    order: DeliveryOrder | None = None
    unattended: tuple[Place, ...] = ()

    @property
    def is_replay(self) -> bool:
        """Tells whether the shards come beside those that are there, and not in their place."""
        return self.shards != self.output


class Publish(beam.DoFn):  # type: ignore[misc]
    """Balances the account and publishes; takes all receipts as a side input.

    A runner may process this again, after it was interrupted or after it was done.

    Args:
      target: what to publish, and where.
      writer: of the output's format, for the header of an output without rows.
      empty: arguments of the writer behind the file: schema and options; None if an output without rows needs
        no file.
    """

    def __init__(self, target: PublishTarget, writer: type[Writer], empty: tuple[Any, Any] | None) -> None:
        self._target = target
        self._writer = writer
        self._empty = empty

    def process(self, _: Any, receipts: Iterable[Receipt]) -> Iterable[Account]:
        receipts = list(receipts)
        account = balance(receipts)
        for name in ("rows_read", "rows_written", "rows_dead_lettered"):
            Metrics.counter(NAMESPACE, name).inc(getattr(account, name))
        if account.problems:
            said = "; ".join(account.problems[:5])
            # On lines of their own: the name of an error is looked for in what Beam makes of it.
            if any(isinstance(receipt, Misfits) for receipt in receipts):
                raise ResultsMisfitError(said)
            raise UnbalancedError(said)
        target = self._target
        with ExitStack() as held:
            for place in target.unattended:
                held.enter_context(held_to_publish(place, target.run, target.name))
            if not self._is_done():
                written = [receipt for receipt in receipts if isinstance(receipt, ShardWritten)]
                self._publish(account, written)
        yield account

    def _is_done(self) -> bool:
        """Completes what an earlier attempt has begun; tells whether there was one."""
        target = self._target
        pending = commit.find(target.output)
        if pending is not None and pending.commit.run == target.run:
            commit.complete(pending)
        found = manifest.read(target.output)
        return found is not None and found.run == target.run

    def _publish(self, account: Account, written: Sequence[ShardWritten]) -> None:
        target = self._target
        output = sorted((shard for shard in written if shard.kind == OUTPUT), key=lambda shard: shard.path)
        if not output and self._empty is not None:
            output = [self._empty_shard(*self._empty)]
        dead_letters = sorted((shard for shard in written if shard.kind == DEAD_LETTERS), key=lambda shard: shard.path)
        lost = _lost(target.output, target.run, output)
        order = _filled(target.order, output)
        parts = [self._output_part(account, output, order)]
        if target.dead_letters is not None:
            prefix = target.dead_letters
            lost += _lost(prefix, target.run, dead_letters)
            parts.append(self._part(account, prefix, prefix, dead_letters, "jsonl", target.replaced))
        if lost:
            raise UnbalancedError("; ".join(lost[:5]))
        commit.publish(Commit(run=target.run, name=target.name, order=order, parts=tuple(parts)))

    def _output_part(
        self, account: Account, written: Sequence[ShardWritten], order: DeliveryOrder | None
    ) -> PrefixCommit:
        """Returns what happens to the output: its shards get names, or a service takes them over."""
        target = self._target
        if order is None:
            return self._part(account, target.output, target.shards, written, self._writer.extension, ())
        # Nobody waits to give the account of an unattended run.
        reported = bool(target.unattended)
        delivered = Delivered(what=order.what, fingerprint=order.fingerprint, rows=0, is_reported=reported)
        constants = [shard.constants for shard in written]
        part = self._part(account, target.output, target.shards, (), self._writer.extension, ())
        assert part.manifest is not None
        notes = notes_on(in_all(constants), account.rows_written)
        after = part.manifest.model_copy(update={"delivered": delivered, "notes": notes})
        return part.model_copy(update={"manifest": after})

    def _part(
        self,
        account: Account,
        prefix: str,
        named: str,
        written: Sequence[ShardWritten],
        extension: str,
        replaced: Sequence[str],
    ) -> PrefixCommit:
        """What happens under one prefix: which shards go, which come, and what is there afterwards."""
        target = self._target
        folder, _ = shards.split_prefix(prefix)
        moves = []
        for index, shard in enumerate(written):
            name = shards.shard_path(named, index, len(written), extension)[len(folder) :]
            moves.append(Move(temporary=shard.path.rpartition("/")[2], name=name, size=shard.size))
        earlier = manifest.listed(prefix, manifest.read(prefix))
        # A replay of just these dead letters may have been here before: the beginning of its names is its own.
        begin = shards.shard_path(named, 0, 0, "")[len(folder) : -len("00000-of-00000.")]
        stays = [
            shard
            for shard in earlier
            if target.is_replay and prefix == target.output and not shard.name.startswith(begin)
        ]
        kept = {shard.name for shard in stays}
        is_output = prefix == target.output
        made = [
            Shard(name=move.name, size=move.size, rows=shard.rows, run=target.run)
            for move, shard in zip(moves, written, strict=True)
        ]
        after = Manifest(
            run=target.run,
            name=target.name,
            rows_read=account.rows_read,
            rows_written=account.rows_written,
            rows_dead_lettered=account.rows_dead_lettered,
            shards=(*stays, *made),
            notes=notes_on(in_all([s.constants for s in written]), account.rows_written) if is_output else (),
        )
        needed = bool(after.shards) or is_output
        remove = [*(shard.name for shard in earlier if shard.name not in kept), *replaced]
        return PrefixCommit(
            prefix=prefix, remove=tuple(dict.fromkeys(remove)), moves=tuple(moves), manifest=after if needed else None
        )

    def _empty_shard(self, schema: Any, options: Any) -> ShardWritten:
        """Writes a file with no rows: readers find the header, or at least a file."""
        path = shards.temporary_path(self._target.output, self._target.run, self._writer.extension)
        file = storage.open_output(path)
        self._writer(file, schema, options).close()
        return ShardWritten(OUTPUT, path, 0, storage.close_durably(file))


def _filled(order: DeliveryOrder | None, written: Sequence[ShardWritten]) -> DeliveryOrder | None:
    """Returns an order with its shards; None if nothing is to be delivered, as of a replay whose rows failed again."""
    if order is None or not written:
        return None
    staged = [StagedShard(name=s.path.rpartition("/")[2], size=s.size, rows=s.rows) for s in written]
    return order.model_copy(update={"shards": tuple(staged)})


def _lost(prefix: str, run: str, written: Sequence[ShardWritten]) -> list[str]:
    """Lists shards that are not as they were written, one line each."""
    return commit.missing_shards(prefix, run, {shard.path.rpartition("/")[2]: shard.size for shard in written})
