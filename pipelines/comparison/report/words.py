"""Puts numbers into words: as many digits as matter, units that are easy to read, the same on every machine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone

from pipelines.comparison.results import Figure

NONE = "–"
"""Stands where there is no figure."""
DECIMALS = 3
"""Of seconds and milliseconds, at most: no clock of a run is better."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def number(value: float, digits: int = 3, most: int = 12) -> str:
    """Returns a number with so many digits that matter, and commas.

    Args:
      value: the number.
      digits: that matter.
      most: decimals, whatever matters.

    >>> number(4.1234), number(41.26), number(12345.6), number(0.00123), number(0)
    ('4.12', '41.3', '12,346', '0.00123', '0')
    >>> number(0.00123, most=3), number(0.00001, most=3)
    ('0.001', '0.000')
    """
    return f"{value:,.{min(_decimals(value, digits), most)}f}"


def _decimals(value: float, digits: int) -> int:
    if not value:
        return 0
    size = math.floor(math.log10(abs(value)))
    # Rounding may add a digit: 9.999 becomes 10.0, not 10.00.
    size = math.floor(math.log10(abs(round(value, digits - 1 - size))))
    return max(0, digits - 1 - size)


def count(value: float) -> str:
    """Returns how many there are, as a whole number where it is one or large.

    >>> count(1000000.0), count(2.5)
    ('1,000,000', '2.5')
    """
    is_whole = float(value).is_integer() or abs(value) >= 1_000
    return f"{value:,.0f}" if is_whole else f"{value:.6g}"


def interval(figure: Figure, factor: float = 1.0) -> str:
    """Returns where the 95% interval of a figure lies; empty if it has none.

    >>> interval(Figure(median=4.12, low=3.9, high=4.3, rounds=5))
    '3.90 to 4.30'
    """
    if figure.low is None or figure.high is None:
        return ""
    low, high = figure.low * factor, figure.high * factor
    return f"{number(low, most=DECIMALS)} to {number(high, most=DECIMALS)}"


def measured(figure: Figure, unit: str) -> str:
    """Returns a median with its unit and its interval; long times in minutes.

    >>> measured(Figure(median=4.12, low=3.9, high=4.3, rounds=5), "s")
    '4.12 s (3.90 to 4.30)'
    >>> measured(Figure(median=754.0, low=750.0, high=761.0, rounds=5), "s")
    '12 min 34 s (12 min 30 s to 12 min 41 s)'
    """
    if unit == "s" and figure.median >= 120:
        between = "" if figure.low is None or figure.high is None else f"{_long(figure.low)} to {_long(figure.high)}"
        return _long(figure.median) + (f" ({between})" if between else "")
    between = interval(figure)
    return f"{number(figure.median)} {unit}" + (f" ({between})" if between else "")


def _long(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock(seconds: float) -> str:
    """Returns minutes and seconds, as the article writes them.

    >>> clock(930), clock(4.12), clock(119.97)
    ('15:30', '0:04.1', '2:00')
    """
    tenths = round(seconds * 10)
    if tenths >= 600:
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
    return f"0:{tenths / 10:04.1f}"


def times(ratio: float) -> str:
    """Returns how many times as much something is.

    >>> times(2.134), times(1.034), times(23.4), times(0.5)
    ('2.1', '1.03', '23', '0.50')
    """
    if ratio < 1.1:
        return f"{ratio:.2f}"
    return f"{ratio:,.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def money(amount: float, currency: str) -> str:
    """Returns an amount of money; more than two decimals if it is less than one hundredth.

    >>> money(1234.5, "USD"), money(0.00123, "USD"), money(0, "USD")
    ('USD 1,234.50', 'USD 0.0012', 'USD 0.00')
    """
    small = 0 < amount < 0.01
    return f"{currency} {number(amount, 2) if small else f'{amount:,.2f}'}"


def megabytes(size: float) -> str:
    """Returns millions of bytes as a number.

    >>> megabytes(54_800_000)
    '54.8'
    """
    return number(size / 1e6)


def listed(words: Sequence[str], last: str = "and") -> str:
    """Returns words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(amount: float, one: str, many: str) -> str:
    """Returns an amount with the word for it.

    >>> plural(1, "row", "rows"), plural(1200, "row", "rows")
    ('1 row', '1,200 rows')
    """
    return f"{count(amount)} {one if amount == 1 else many}"


def name_of(way: str) -> str:
    """Returns the name of a way as it stands in a sentence: in quotes if it is more than a word.

    >>> name_of("direct"), name_of("in the workers")
    ('direct', '“in the workers”')
    """
    return way if re.fullmatch(r"[\w.-]{1,40}", way) else f"“{way}”"


def upper_first(sentence: str) -> str:
    """Returns a sentence with a capital letter.

    >>> upper_first("direct is fastest")
    'Direct is fastest'
    """
    return sentence[:1].upper() + sentence[1:]


def full_stop(sentence: str) -> str:
    """Returns a sentence that ends as one.

    >>> full_stop("it failed"), full_stop("it failed.")
    ('it failed.', 'it failed.')
    """
    return sentence if sentence.rstrip().endswith((".", "!", "?")) else f"{sentence.rstrip()}."


def printable(text: str) -> str:
    """Returns a text on one line, without what neither has a shape nor is allowed in XML.

    >>> printable(" a\\n b\\x1b")
    'a b'
    """
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def when(begun: str, ended: str) -> str:
    """Returns a span of time for people, from dates and times of ISO 8601; what is none stays as it is.

    >>> when("2026-11-26T22:00:00Z", "2026-11-26T23:14:09Z")
    '26 November 2026, 22:00 to 23:14 UTC'
    """
    try:
        first, last = (_utc(each) for each in (begun, ended))
    except ValueError:
        return f"{begun} to {ended}"
    end = f"{last:%H:%M}" if first.date() == last.date() else _date_and_time(last)
    return f"{_date_and_time(first)} to {end} UTC"


def _utc(moment: str) -> datetime:
    found = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return found.astimezone(timezone.utc) if found.tzinfo else found


def _date_and_time(moment: datetime) -> str:
    # Not %B, which depends on the language of the machine.
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M}"
