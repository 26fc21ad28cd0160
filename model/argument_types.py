"""Reads the numbers of command lines; what is none of them is said without the name of a function."""

from __future__ import annotations

from argparse import ArgumentTypeError


def number(text: str) -> float:
    """Reads any number. Raises ArgumentTypeError."""
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def whole_number(text: str) -> int:
    """Reads a number without a fraction. Raises ArgumentTypeError."""
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def count(text: str) -> int:
    """Reads how many there are, at least one. Raises ArgumentTypeError."""
    value = whole_number(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is less than 1")
    return value


def count_from_zero(text: str) -> int:
    """Reads how many there are, perhaps none. Raises ArgumentTypeError."""
    value = whole_number(text)
    if value < 0:
        raise ArgumentTypeError(f"{text} is less than 0")
    return value


def amount(text: str) -> float:
    """Reads a number from 0 up. Raises ArgumentTypeError."""
    value = number(text)
    if not 0 <= value < 1e9:
        raise ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def positive(text: str) -> float:
    """Reads a number above 0. Raises ArgumentTypeError."""
    value = number(text)
    if not 0 < value < 1e9:
        raise ArgumentTypeError(f"{text} is not a number above 0")
    return value


def share(text: str) -> float:
    """Reads a part of a whole, from 0 to 1. Raises ArgumentTypeError."""
    value = number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def port(text: str) -> int:
    """Reads a port, 0 for any free one. Raises ArgumentTypeError."""
    value = whole_number(text)
    if not 0 <= value <= 65_535:
        raise ArgumentTypeError(f"{text} is not a port")
    return value
