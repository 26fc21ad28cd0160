"""Publishes messages to a Pub/Sub topic: several requests under way, each tried again until Pub/Sub has taken it."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zlib import crc32

from inference.log_throttle import first_line
from pipelines.connectors.pubsub.client import make_client
from pipelines.connectors.retry import wait_for_service

MOST_MESSAGES = 1_000
"""Of a request: Pub/Sub takes no more."""
MOST_BYTES = 9_000_000
"""Of a request, if it has more than one message: Pub/Sub takes 10,000,000, names and lengths included."""
LARGEST_MESSAGE_BYTES = 9_990_000
_IN_FLIGHT = 4
_TIMEOUT_S = 10.0
_FATAL = ("NotFound", "PermissionDenied", "Unauthenticated", "FailedPrecondition", "DefaultCredentialsError")
_TOO_LARGE = "larger than max"
_Lane = deque[list[int]]
"""Requests that go one after the other, as indices of their messages."""


class Topic:
    """Publishes to a topic of Pub/Sub, from one thread at a time.

    Args:
      name: projects/<project>/topics/<name>.
    """

    def __init__(self, name: str) -> None:
        from google.pubsub_v1 import PublisherClient, types

        self.name = name
        self._client = make_client("PublisherClient")
        # The client's own `publish` takes one message, and sends it when it thinks fit.
        self._publish = functools.partial(PublisherClient.publish, self._client)
        self._request = types.PublishRequest
        self._message = types.PubsubMessage.pb()
        self._pool = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="pubsub publisher")

    def message(self, data: bytes, attributes: dict[str, str], ordering_key: str = "") -> Any:
        """Returns a message as Pub/Sub's protocol has it."""
        return self._message(data=data, attributes=attributes, ordering_key=ordering_key)

    def publish(self, messages: Sequence[Any]) -> dict[int, str]:
        """Publishes messages, those with the same ordering key in their order; returns when Pub/Sub has them.

        While it is away they are tried again: those whose answer was lost are published twice.

        Returns:
          What it refuses, however often that is tried: the indices of messages, and why.

        Raises:
          GoogleAPICallError, GoogleAuthError: it takes none, and waiting does not help, or the stream is to stop.
        """
        refused: dict[int, str] = {}
        lanes = self._lanes(messages, refused)

        def attempt() -> None:
            left = [lane for lane in lanes if lane]
            send = functools.partial(self._send, messages=messages, refused=refused)
            errors = [send(left[0])] if len(left) == 1 else list(self._pool.map(send, left))
            found = [error for error in errors if error is not None]
            if found:
                raise next((error for error in found if not _passes(error)), found[0])

        wait_for_service(attempt, _passes, self.name)
        return refused

    def _lanes(self, messages: Sequence[Any], refused: dict[int, str]) -> list[_Lane]:
        """The requests; messages with the same ordering key are in the same lane."""
        ordered: list[list[int]] = [[] for _ in range(_IN_FLIGHT)]
        free: list[int] = []
        sizes = [message.ByteSize() for message in messages]
        for index, size in enumerate(sizes):
            if size > LARGEST_MESSAGE_BYTES:
                refused[index] = f"{size:,} bytes; a message of Pub/Sub may have {LARGEST_MESSAGE_BYTES:,}"
            elif key := messages[index].ordering_key:
                ordered[crc32(key.encode()) % _IN_FLIGHT].append(index)
            else:
                free.append(index)
        lanes = [_requests(indices, sizes) for indices in ordered if indices]
        return lanes + [deque([request]) for request in _requests(free, sizes)]

    def _send(self, lane: _Lane, messages: Sequence[Any], refused: dict[int, str]) -> Exception | None:
        """Sends a lane's requests; gives the error that the first of those that are left met with."""
        while lane:
            indices = lane[0]
            request = self._request.pb()(topic=self.name, messages=[messages[index] for index in indices])
            try:
                self._publish(request=self._request.wrap(request), retry=None, timeout=_TIMEOUT_S)
            except Exception as error:  # of gRPC, of the client, of its credentials
                if not _is_refusal(error):
                    return error
                lane.popleft()
                if len(indices) == 1:
                    refused[indices[0]] = first_line(error)
                else:
                    middle = len(indices) // 2
                    lane.extendleft((indices[middle:], indices[:middle]))
            else:
                lane.popleft()
        return None

    def close(self) -> None:
        """Disconnects."""
        self._pool.shutdown()
        self._client.transport.close()


def _requests(indices: list[int], sizes: list[int]) -> _Lane:
    """Messages for one request each."""
    found: _Lane = deque()
    total = 0
    for index in indices:
        # A tag and a length before each.
        size = sizes[index] + 8
        if not found or len(found[-1]) >= MOST_MESSAGES or total + size > MOST_BYTES:
            found.append([])
            total = 0
        found[-1].append(index)
        total += size
    return found


def _is_refusal(error: Exception) -> bool:
    """Whether a message of a request is at fault."""
    return type(error).__name__ == "InvalidArgument" or _TOO_LARGE in str(error)


def _passes(error: BaseException) -> bool:
    """Whether waiting helps."""
    return type(error).__name__ not in _FATAL
