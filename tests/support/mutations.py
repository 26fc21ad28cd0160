"""Damages files at random."""

from __future__ import annotations

import random

WORDS = (
    b'""',
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"[1]",
    b"true",
    b"99999999999999999999",
    b"\xff\xfe",
    b"\0",
    b"{}",
    b"007",
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A copy in which bytes were flipped, replaced, cut out, put in twice, or the end is missing."""
    at = rng.randrange(len(content))
    length = min(rng.choice((1, 2, 8, 64)), len(content) - at)
    kind = rng.randrange(6)
    if kind == 0:
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in content[at : at + length])
        return content[:at] + flipped + content[at + length :]
    if kind == 1:
        return content[:at] + rng.choice(WORDS) + content[at + length :]
    if kind == 2:
        return content[:at] + content[at + length :]
    if kind == 3:
        return content[: at + length] + content[at : at + length] + content[at + length :]
    if kind == 4:
        return content[:at]
    return content[:at] + rng.randbytes(length) + content[at + length :]
