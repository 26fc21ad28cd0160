"""Cuts rows into calls of a model, and finds the rows on which it fails.

A call that fails is halved until the failing row stands alone: at most 2 k log2(n) more calls for k bad rows among n.
Where one call after another fails, pieces are cut into 16 parts, so that nearly each further call is of a single row:
1.25 n calls in place of 2 n if all rows are bad, and at most 5 k log2(n).

If nothing has ever succeeded and the loss of all rows at hand would end the run, single rows from all over them are
tried first: if they fail alike, the run ends after these few calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import pyarrow as pa

from inference.call_size import CallSize, Piece, is_exhausted
from inference.errors import EndpointConfigError, Failure, RequestTooLargeError, TooManyFailuresError

Call = Callable[[list[pa.Array]], Mapping[str, pa.Array]]
"""Input arrays of some rows, in the order of the binding -> output arrays of the same rows, by name."""

Explain = Callable[[Exception], Failure]
Outcome = Mapping[str, pa.Array] | Exception
PROBES = 32
"""Single rows that are tried, from all over those at hand, where nothing has ever succeeded."""

_MOST_AHEAD = 2048
"""Calls that are handed to threads before what came of the first is known: more than there may be threads."""

MANY_PARTS = 16
"""Parts that a failed piece is cut into where twice as many calls as this have failed, one after the other."""


class Limit(Protocol):
    """Tells how many rows of a run may fail."""

    def is_over(self, more: int) -> bool:
        """Tells whether the run cannot end well if `more` rows fail besides those that are known to have failed."""

    def explain(self, failures: Mapping[int, Failure]) -> str:
        """Says so, in words, where `failures` are those rows."""


class Outlook:
    """Tells a handler whether it is worth going on calling its model.

    Args:
      limit: how many rows may fail; None: all of them, and all are tried.
      hopeless: makes the error for a model that fails alike on all that it is called with.

    Attributes:
      succeeded: whether a call ever has.
    """

    def __init__(self, limit: Limit | None = None, hopeless: Callable[[str], Exception] = TooManyFailuresError) -> None:
        self.succeeded = False
        self._limit = limit
        self._hopeless = hopeless

    def is_over(self, more: int) -> bool:
        """Tells whether the run cannot end well if `more` rows fail."""
        return self._limit is not None and self._limit.is_over(more)

    def check(self, failures: Mapping[int, Failure], before: Mapping[int, Failure]) -> None:
        """Raises TooManyFailuresError if too many rows have failed; `before` are those that failed before these."""
        if self._limit is not None and self._limit.is_over(len(failures) + len(before)):
            # Their numbers may be the same: they count within different groups of the rows.
            numbered = dict(enumerate([*before.values(), *failures.values()]))
            raise TooManyFailuresError(self._limit.explain(numbered))

    def give_up(self, failure: Failure, rows: int) -> Exception:
        """Makes the error for `rows` rows of which single ones all failed alike."""
        return self._hopeless(
            f"the model fails on every row: {PROBES} of {rows:,} rows, from all over them, were tried alone after no "
            f"call had succeeded, and each failed with {failure.error}, the last: {failure.message}"
        )


class Done:
    """Collects the outputs of pieces of the rows, as they come in."""

    def __init__(
        self,
        rows: int,
        explain: Explain,
        outlook: Outlook,
        before: Mapping[int, Failure],
        size: CallSize | None = None,
    ) -> None:
        self.pieces: dict[int, tuple[int, Mapping[str, pa.Array] | None]] = {}
        self.failures: dict[int, Failure] = {}
        self._rows = rows
        self._explain = explain
        self._outlook = outlook
        self._before = before
        self._size = size
        self._in_a_row = 0
        self._probed = False

    def columns(self, outputs: pa.Schema) -> dict[str, pa.Array]:
        """Joins the outputs of all pieces in their order, with nulls for rows that failed."""
        in_order = [self.pieces[low] for low in sorted(self.pieces)]
        columns = {}
        for field in outputs:
            arrays = [pa.nulls(rows, field.type) if p is None else p[field.name] for rows, p in in_order]
            joined = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays) if arrays else None
            columns[field.name] = pa.nulls(0, field.type) if joined is None else joined
        return columns

    def settle(self, piece: Piece, outcome: Outcome) -> list[Piece]:
        """Takes what came of a piece; gives the smaller pieces to try instead."""
        low, high = piece
        rows = high - low
        if not isinstance(outcome, Exception):
            self._outlook.succeeded = True
            self._in_a_row = 0
            self.pieces[low] = rows, outcome
            return []
        if isinstance(outcome, EndpointConfigError):
            raise outcome
        if self._size is not None and rows > 1 and is_exhausted(outcome):
            # Nothing is wrong with these rows; there are too many of them.
            self._size.lower(rows)
            middle = low + rows // 2
            return [(low, middle), (middle, high)]
        self._in_a_row += 1
        parts = min(self._parts(outcome, rows), rows)
        if parts > 1:
            cuts = [low + rows * part // parts for part in range(parts + 1)]
            return list(zip(cuts, cuts[1:], strict=False))
        failure = self._explain(outcome)
        self.failures.update(dict.fromkeys(range(low, high), failure))
        self.pieces[low] = rows, None
        self._outlook.check(self.failures, self._before)
        return []

    def _parts(self, error: Exception, rows: int) -> int:
        """Tells how many parts the rows of a call that failed are cut into."""
        parts: int = getattr(error, "parts", 2)
        if parts != 2 or self._in_a_row <= 2 * MANY_PARTS or isinstance(error, RequestTooLargeError):
            return parts
        return MANY_PARTS if rows > 2 * MANY_PARTS else rows

    def probes(self, outcome: Outcome) -> list[Piece]:
        """Returns single rows to try before all others, because it looks as if nothing will succeed; usually none."""
        if (
            self._probed
            or self._outlook.succeeded
            or not isinstance(outcome, Exception)
            or isinstance(outcome, (EndpointConfigError, RequestTooLargeError))
            or is_exhausted(outcome)
            or self._rows < 2 * PROBES
            or not self._outlook.is_over(self._rows + len(self._before))
        ):
            return []
        self._probed = True
        places = np.linspace(0, self._rows - 1, PROBES).astype(np.int64).tolist()
        return [(place, place + 1) for place in places]

    def judge(self, outcomes: list[Outcome]) -> None:
        """Ends the run if all that was tried has failed alike."""
        failures = []
        for outcome in outcomes:
            if isinstance(outcome, EndpointConfigError):
                raise outcome
            if not isinstance(outcome, Exception):
                self._outlook.succeeded = True
                return
            failures.append(self._explain(outcome))
        if not self._outlook.succeeded and len({failure.error for failure in failures}) == 1:
            raise self._outlook.give_up(failures[-1], self._rows)


def call_in_slices(
    arrays: list[pa.Array],
    rows: int,
    call: Call,
    max_rows: int,
    explain: Explain,
    pool: Executor | None,
    outlook: Outlook,
    before: Mapping[int, Failure] | None = None,
    size: CallSize | None = None,
) -> Done:
    """Calls the model slice by slice; see `inference.batches.predict_batches`.

    Args:
      arrays: the inputs.
      rows: how many rows they have.
      call: calls the model with a slice of the inputs.
      max_rows: most rows of a slice.
      explain: makes the failure of a row from an exception of the call.
      pool: calls slices in its threads; None calls one after the other.
      outlook: knows whether calls may still succeed.
      before: failures of other rows of the same batches.
      size: bounds calls by bytes too, and by what the model had no memory for.
    """
    done = Done(rows, explain, outlook, before or {}, size)
    if size is None:
        pending = [(low, min(low + max_rows, rows)) for low in range(0, rows, max_rows)][::-1]
    else:
        pending = size.pieces(arrays, rows, max_rows)[::-1]

    def attempt(piece: Piece) -> Outcome:
        low, high = piece
        try:
            return call(arrays if high - low == rows else [array.slice(low, high - low) for array in arrays])
        except Exception as error:  # whatever the model raises is about these rows, or settle() says not
            return error

    if pool is None:
        while pending:
            piece = pending.pop()
            if size is not None and len(parts := size.parts(piece)) > 1:
                pending += parts[::-1]
                continue
            outcome = attempt(piece)
            if probes := done.probes(outcome):
                tried: list[Outcome] = []
                while probes and (not tried or isinstance(tried[-1], Exception)):
                    tried.append(attempt(probes.pop()))
                done.judge(tried)
            pending += done.settle(piece, outcome)[::-1]
        return done
    running: dict[Future[Outcome], Piece] = {}
    # Waiting for the first of many futures looks at all of them, each time.
    ended: SimpleQueue[Future[Outcome]] = SimpleQueue()

    try:
        while pending or running:
            while pending and len(running) < _MOST_AHEAD:
                piece = pending.pop()
                future = pool.submit(attempt, piece)
                running[future] = piece
                future.add_done_callback(ended.put)
            future = ended.get()
            outcome = future.result()
            if probes := done.probes(outcome):
                done.judge(list(pool.map(attempt, probes)))
            pending += done.settle(running.pop(future), outcome)[::-1]
    finally:
        for future in running:
            future.cancel()
    return done
