"""Writes numbers as people do: with commas, and never with an exponent."""

from __future__ import annotations

from decimal import Decimal


def written(value: float, digits: int = 15) -> str:
    """Returns a number rounded to so many digits, in full.

    >>> written(2.719674e6, 6), written(0.0333333, 3), written(1e15), written(12345.678, 4), written(0)
    ('2,719,670', '0.0333', '1,000,000,000,000,000', '12,350', '0')
    """
    text = f"{Decimal(f'{value:.{digits}g}'):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
