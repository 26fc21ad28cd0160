"""Sends dead letters to a service: together, and durable there before their bundle ends."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from pipelines.dead_letters.place import DeadLetterWriter
from pipelines.rows.origin import DeadLetter

_MOST_LETTERS = 1_000
_MOST_BYTES = 8 << 20


class DeadLetterRefusedError(RuntimeError):
    """Raised when a service refuses a dead letter, even without its payload."""


class DeadLetterClient(Protocol):
    """Represents a client of the service that takes dead letters."""

    def close(self) -> None:
        """Closes its connections."""


S = TypeVar("S", bound=DeadLetterClient)


class BufferedWriter(DeadLetterWriter, Generic[S]):
    """Keeps dead letters until their bundle ends or they are many, then sends them; connects when the first comes."""

    def __init__(self) -> None:
        self._dead_letters: list[DeadLetter] = []
        self._bytes = 0
        self._service: S | None = None

    def begin_bundle(self) -> None:
        self._dead_letters, self._bytes = [], 0

    def write(self, dead_letter: DeadLetter) -> None:
        self._dead_letters.append(dead_letter)
        self._bytes += len(dead_letter.payload)
        if len(self._dead_letters) >= _MOST_LETTERS or self._bytes >= _MOST_BYTES:
            self._send_all()

    def end_bundle(self) -> tuple[()]:
        self._send_all()
        return ()

    def _send_all(self) -> None:
        """Sends all that wait; what is too large for the service loses the end of its payload, and says so."""
        while self._dead_letters:
            if self._service is None:
                self._service = self.connected()
            refused = self.send(self._service, self._dead_letters)
            self._dead_letters = [_shortened(self._dead_letters[index], why) for index, why in sorted(refused.items())]
        self._bytes = 0

    def close(self) -> None:
        if self._service is not None:
            self._service.close()
            self._service = None

    @abstractmethod
    def connected(self) -> S:
        """Connects to the service."""

    @abstractmethod
    def send(self, service: S, dead_letters: Sequence[DeadLetter]) -> dict[int, str]:
        """Sends dead letters, and waits until they are durable.

        Returns:
          Why dead letters are refused, by their index; all others are durable.
        """


def _shortened(dead_letter: DeadLetter, why: str) -> DeadLetter:
    if not dead_letter.payload:
        raise DeadLetterRefusedError(f"the dead letter of {dead_letter.key} is refused: {why}")
    return dataclasses.replace(
        dead_letter, payload=dead_letter.payload[: len(dead_letter.payload) // 2], payload_truncated=True
    )
