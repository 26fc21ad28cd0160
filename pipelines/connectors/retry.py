"""Asks a service that may be away for a while again, for as long as waiting helps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from inference.log_throttle import LogThrottle, first_line
from pipelines.connectors.streaming.stop import STOPPING

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 2.0
_WARN_EVERY_S = 10.0
_STOPS_WITHIN_S = 30.0
_T = TypeVar("_T")


def wait_for_service(call: Callable[[], _T], waits: Callable[[BaseException], bool], what: str) -> _T:
    """Returns what a call gives, tried again for as long as its errors are such that waiting helps.

    Nothing is lost by that: the source does not acknowledge meanwhile, and pulls no more than it can hold. When the
    stream is to stop, it goes on for half a minute, and then raises the last error.

    Args:
      call: writes something, all or none, or more than once if it must.
      waits: whether an error passes by itself: the service is away, or has too much to do.
      what: the service's name, for the warnings.
    """
    stopped = 0.0
    warns = LogThrottle(_WARN_EVERY_S)

    def stop(state: RetryCallState) -> bool:
        nonlocal stopped
        if not STOPPING.is_set():
            return False
        stopped = stopped or time.monotonic()
        return time.monotonic() - stopped > _STOPS_WITHIN_S

    def warn(state: RetryCallState) -> None:
        if state.outcome is not None and warns.may_log():
            said = first_line(state.outcome.exception())
            _LOG.warning("%s does not take rows, trying again: %s", what, said)

    retrying = Retrying(
        retry=retry_if_exception(waits),
        wait=wait_random_exponential(multiplier=0.1, max=_LONGEST_WAIT_S),
        stop=stop,
        before_sleep=warn,
        reraise=True,
    )
    return retrying(call)
