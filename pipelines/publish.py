"""The end of a run: the account is balanced, then output and dead letters are published, both or neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipelines import files, shards
from pipelines.accounting import DEAD_LETTERS, OUTPUT, Account, Receipt, ShardWritten, balance
from pipelines.formats.base import Writer

NAMESPACE = "account"


class UnbalancedError(RuntimeError):
    """Rows are missing, or there are too many: nothing was published."""


class Publish(beam.DoFn):  # type: ignore[misc]
    """Takes all receipts as a side input.

    Args:
      output: prefix of the output's shards.
      dead_letters: prefix of the dead letters' shards.
      run_id: of this run.
      writer: of the output's format, for the header of an output without rows.
      empty: arguments of the writer behind the file: schema and options; None if an output without rows needs
        no file.
      replaced: files, besides the shards of earlier runs, that the dead letters take the place of.
    """

    def __init__(
        self,
        output: str,
        dead_letters: str,
        run_id: str,
        writer: type[Writer],
        empty: tuple[Any, Any] | None,
        replaced: Sequence[str] = (),
    ) -> None:
        self._output = output
        self._dead_letters = dead_letters
        self._run_id = run_id
        self._writer = writer
        self._empty = empty
        self._replaced = replaced

    def process(self, _: Any, receipts: Iterable[Receipt]) -> Iterable[Account]:
        receipts = list(receipts)
        account = balance(receipts)
        for name in ("rows_read", "rows_written", "rows_dead_lettered"):
            Metrics.counter(NAMESPACE, name).inc(getattr(account, name))
        if account.problems:
            raise UnbalancedError("; ".join(account.problems[:5]))
        written = [receipt for receipt in receipts if isinstance(receipt, ShardWritten)]
        output = [shard.path for shard in written if shard.kind == OUTPUT]
        if not output and self._empty is not None:
            output = [self._empty_shard(*self._empty)]
        letters = [shard.path for shard in written if shard.kind == DEAD_LETTERS]
        if output:
            shards.publish(self._output, output, self._writer.extension)
        shards.publish(self._dead_letters, letters, "jsonl", self._replaced)
        shards.clean_up_all(self._output)
        shards.clean_up_all(self._dead_letters)
        Metrics.counter(NAMESPACE, "shards").inc(len(output))
        Metrics.counter(NAMESPACE, "dead_letter_shards").inc(len(letters))
        yield account

    def _empty_shard(self, schema: Any, options: Any) -> str:
        """A file with no rows: readers find the header, or at least a file."""
        path = shards.temporary_path(self._output, self._run_id, self._writer.extension)
        with files.open_output(path) as file:
            self._writer(file, schema, options).close()
        return path
