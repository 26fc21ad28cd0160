"""Hands the dead letters of the transforms on in the pipeline, or fails it with the first of them."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.origin import DeadLetter


@dataclass(frozen=True)
class HandedOn(DeadLetterPlace):
    """Hands dead letters on to the next steps of the pipeline."""

    def check(self) -> None:
        """Does nothing: they are written nowhere."""

    def open(self) -> DeadLetterWriter:
        return _HandingOn()

    def describe(self) -> str:
        return "the pipeline"


class _HandingOn(DeadLetterWriter):
    def __init__(self) -> None:
        self._waiting: list[DeadLetter] = []

    def begin_bundle(self) -> None:
        self._waiting = []

    def write(self, dead_letter: DeadLetter) -> None:
        self._waiting.append(dead_letter)

    def handed_on(self) -> list[DeadLetter]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def end_bundle(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        self._waiting = []


@dataclass(frozen=True)
class Refused(DeadLetterPlace):
    """Fails the pipeline with the first dead letter.

    Attributes:
      advice: what to do, for the error.
    """

    advice: str

    def check(self) -> None:
        """Does nothing: they are written nowhere."""

    def open(self) -> DeadLetterWriter:
        return _Refusing(self.advice)

    def describe(self) -> str:
        return "nowhere"


class _Refusing(DeadLetterWriter):
    def __init__(self, advice: str) -> None:
        self._advice = advice

    def begin_bundle(self) -> None:
        """Does nothing: a failed bundle has left nothing."""

    def write(self, dead_letter: DeadLetter) -> None:
        raise ValueError(f"{dead_letter.source}: {dead_letter.message} ({dead_letter.error}); {self._advice}")

    def end_bundle(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        """Does nothing: nothing is open."""
