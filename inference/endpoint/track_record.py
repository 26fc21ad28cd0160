"""Counts what has come of a server's requests, and says when that is reason enough not to go on."""

from __future__ import annotations

import threading
from typing import NoReturn

from inference.errors import (
    EndpointConfigError,
    EndpointError,
    ForeignAnswerError,
    NoPredictionError,
    ResponseError,
    ServerError,
    TransientError,
)

FEW_TRIES = 3
"""Of a request that the server fails on: one of its rows may be the cause. An answer that is none, from a server that
has never predicted, is not worth more either."""

GIVEN_UP = 32
"""Requests that were given up before any had succeeded: then none will."""

ALONE = 16
"""Rows that were given up alone while nothing succeeded: for the next ones a few attempts will do."""

FOREIGN_IN_A_ROW = 64
"""Answers in a row that are none of a model, from a server that had predicted before: it is another one now."""


class TrackRecord:
    """Records how the requests of a client end, from any thread.

    Attributes:
      succeeded: whether one ever has.
    """

    def __init__(self) -> None:
        self.succeeded = False
        self._lock = threading.Lock()
        self._given_up = 0
        self._alone = 0
        self._foreign = 0
        self._verdict = ""

    def check(self) -> None:
        """Raises EndpointConfigError if it was found before that there is no use in asking."""
        if self._verdict:
            raise EndpointConfigError(self._verdict)

    def _end(self, verdict: str) -> NoReturn:
        self._verdict = self._verdict or verdict
        raise EndpointConfigError(self._verdict) from None

    def success(self) -> None:
        """Notes that a request has brought predictions."""
        with self._lock:
            self.succeeded = True
            self._foreign = self._given_up = self._alone = 0

    def tries(self, error: BaseException | None, rows: int, most: int) -> int:
        """Returns how often a request of some rows is sent at most, if it fails with an error."""
        if isinstance(error, ResponseError) and not self.succeeded:
            return min(most, FEW_TRIES)
        few = isinstance(error, (ServerError, ResponseError)) and (rows > 1 or self._alone >= ALONE)
        return min(most, FEW_TRIES) if few else most

    def failure(self, error: EndpointError) -> None:
        """Notes that a request has failed once.

        Raises:
          EndpointConfigError: there were so many answers that are none of a model, and nothing else, that the server
            is not, or no longer, what the config says.
        """
        if not isinstance(error, ForeignAnswerError):
            return
        with self._lock:
            self._foreign += 1
            over = self.succeeded and self._foreign >= FOREIGN_IN_A_ROW
        if over:
            self._end(
                f"the server has stopped predicting: its last {FOREIGN_IN_A_ROW} answers were none of a model; {error}"
            )

    def giving_up(self, error: EndpointError, rows: int) -> None:
        """Notes that a request of some rows has failed for good.

        Raises:
          EndpointConfigError: nothing has ever succeeded, and that it still will is not to be expected.
        """
        if rows == 1 and isinstance(error, (ServerError, ResponseError)):
            with self._lock:
                self._alone += 1
        if self.succeeded or not isinstance(error, TransientError) or isinstance(error, NoPredictionError):
            return
        if isinstance(error, ForeignAnswerError):
            self._end(f"{error}; no request has succeeded: check the address, the protocol and the outputs' names")
        # What several rows fail with, one of them may be the cause of.
        if rows > 1 and error.parts > 1:
            return
        with self._lock:
            self._given_up += 1
            over = self._given_up >= GIVEN_UP
        if over:
            what = "answers that were none" if isinstance(error, ResponseError) else "failures"
            self._end(
                f"no request has succeeded, {GIVEN_UP} were given up after {what} alone; the last: {error}; check the "
                "server and the address"
            )
