"""Ends streaming calls of gRPC whose next answer does not come: a call without a deadline waits for it for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

_LOOKS = 8
"""How often the time is looked at while an answer may take as long as it may."""


class Patience:
    """Iterates over the answers of a streaming call, and cancels the call when one takes too long.

    Time that passes between two requests for an answer does not count. Where the call is cancelled, the iteration
    raises the call's grpc.RpcError.

    Args:
      call: a streaming call.
      seconds: how long an answer may take.

    Attributes:
      ended: whether the call was cancelled for its silence.
    """

    def __init__(self, call: Any, seconds: float) -> None:
        self.ended = False
        self._call = call
        self._seconds = seconds
        self._waiting_since: float | None = None
        self._done = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        threading.Thread(target=self._watch, name="patience", daemon=True).start()
        try:
            while True:
                self._waiting_since = time.monotonic()
                answer = next(self._call, None)
                self._waiting_since = None
                if answer is None:
                    return
                yield answer
        finally:
            self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(self._seconds / _LOOKS):
            since = self._waiting_since
            if since is not None and time.monotonic() - since >= self._seconds:
                self.ended = True
                self._call.cancel()
                return
