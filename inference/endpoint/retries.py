"""Tries again: with growing pauses of random length, as often and as long as the run allows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from inference.endpoint.throttle import Throttle
from inference.endpoint.track_record import TrackRecord
from inference.errors import EndpointError, NoPredictionError, QuotaError, TransientError
from inference.log_throttle import LogThrottle

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0
QUOTA_PAUSE_S = 0.5
"""Longest after a refusal for quota: it is the throttle that waits then, for all requests."""

SAY_EVERY_S = 10.0

_logger = logging.getLogger(__name__)
T = TypeVar("T")


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, TransientError) and not isinstance(error, NoPredictionError)


@dataclass(frozen=True)
class ModelServerRetries:
    """Describes when to give up.

    Attributes:
      max_attempts: how often a request is sent at most.
      deadline_s: how long, from the first attempt at a row to the beginning of its last.
    """

    max_attempts: int = 8
    deadline_s: float = 600


class Retries:
    """Sends requests again that failed for a transient cause, for all threads of a sender.

    The pause is random between 0 and a limit ("full jitter") that begins at 0.2 s and doubles with each attempt up to
    20 s (0.5 s after a refusal for quota, which slows all threads down); it is not shorter than the server asks for.

    Args:
      retry_limits: when to give up.
      throttle: paces all requests.
      clock: seconds, monotonic.
      sleep: waits that many seconds.
    """

    def __init__(
        self,
        retry_limits: ModelServerRetries,
        throttle: Throttle,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.retry_limits = retry_limits
        self.throttle = throttle
        self._clock = clock
        self._sleep = sleep
        self._warns = LogThrottle(SAY_EVERY_S, clock)
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "requests_repeated": 0, "requests_refused_for_quota": 0}
        self.record = TrackRecord()
        self._wait = tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)

    def deadline(self) -> float:
        """Returns until when rows that arrive now may be tried, by the clock."""
        return self._clock() + self.retry_limits.deadline_s

    def counts(self) -> dict[str, int]:
        """Returns how many requests were sent, how many of them again, and how many were refused for quota."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def call(self, send: Callable[[], T], rows: int, deadline: float) -> T:
        """Returns what `send` returns, at the first attempt that succeeds.

        Args:
          send: sends the request of some rows once.
          rows: how many.
          deadline: see `deadline`.

        Raises:
          EndpointError: of the last attempt, with the number of `attempts`.
          EndpointConfigError: see `TrackRecord`.
        """

        def give_up(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            tries = self.record.tries(error, rows, self.retry_limits.max_attempts)
            return state.attempt_number >= tries or self._clock() + state.upcoming_sleep > deadline

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", None) or 0.0
            grown = self._wait(state)
            return max(asked, min(grown, QUOTA_PAUSE_S) if isinstance(error, QuotaError) else grown)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_another_try),
            stop=give_up,
            wait=pause,
            sleep=self._sleep,
            before_sleep=self._say,
            reraise=True,
        )
        attempts = 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            self.record.check()
            self.throttle.wait()
            self._count("requests")
            if attempts > 1:
                self._count("requests_repeated")
            try:
                result = send()
            except QuotaError:
                self._count("requests_refused_for_quota")
                self.throttle.refused()
                raise
            except EndpointError as error:
                self.throttle.accepted()
                self.record.failure(error)
                raise
            self.throttle.accepted()
            self.record.success()
            return result

        try:
            return retrying(attempt)
        except EndpointError as error:
            error.attempts = attempts
            self.record.giving_up(error, rows)
            raise

    def _say(self, state: tenacity.RetryCallState) -> None:
        """One line every ten seconds at most: what goes wrong, and that it is tried again."""
        if state.outcome is not None and self._warns.may_log():
            _logger.warning("%s; trying again", state.outcome.exception())
