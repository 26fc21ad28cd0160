"""Finds the volumes at which another way becomes the cheapest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Cost = Callable[[float], float | None]

_EXACT = 1 + 1e-9
_ALIKE = 1 + 1e-9
_MOST_IN_A_STEP = 100
_NARROW, _MOST_FLIPS = 1.5, 8


@dataclass(frozen=True)
class Flip:
    """Says where the cheapest way changes.

    Attributes:
      volume: the least at which `above` is the cheapest, and `below` is not any more.
      below: the cheapest just below it.
      above: the cheapest from there on.
    """

    volume: float
    below: str
    above: str


def volumes_between(low: float, high: float, a_decade: int = 16) -> list[float]:
    """Returns volumes that grow by the same factor, both ends included.

    >>> volumes_between(1, 100, 2)
    [1.0, 3.162, 10.0, 31.62, 100.0]
    """
    first, last = round(math.log10(low) * a_decade), round(math.log10(high) * a_decade)
    return [float(f"{10 ** (step / a_decade):.4g}") for step in range(first, last + 1)]


def flips(costs: Mapping[str, Cost], volumes: Sequence[float]) -> list[Flip]:
    """Finds where the cheapest way changes, from little to much; a way stays the cheapest while another is its equal.

    Costs go up in steps, as machines are whole, so ways may change places several times around one point. What lies
    between two volumes and comes back to the same way is not looked for; each change that is found is true.

    Args:
      costs: cost of each way at a volume; None if it has none.
      volumes: where to look, ascending.
    """
    found: list[Flip] = []
    holder = _cheapest(costs, volumes[0])
    for low, high in zip(volumes, volumes[1:], strict=False):
        begin = low
        for _ in range(_MOST_IN_A_STEP):
            if holder is None or _holds(costs, holder, high):
                break
            begin, end = _bisected(costs, holder, begin, high)
            following = _cheapest(costs, end)
            if following is None:
                break
            found.append(Flip(end, holder, following))
            holder, begin = following, end
        if holder is None or not _holds(costs, holder, high):
            holder = _cheapest(costs, high)
    return found


def readable(found: Sequence[Flip]) -> list[Flip]:
    """Leaves out pairs of changes, there and back, that lie close together; those that stay are true."""
    kept, narrow = list(found), _NARROW
    while True:
        pairs = [
            (second.volume / first.volume, index)
            for index, (first, second) in enumerate(zip(kept, kept[1:], strict=False))
            if first.below == second.above and first.above == second.below
        ]
        if not pairs:
            return kept
        ratio, index = min(pairs)
        if ratio > narrow and len(kept) <= _MOST_FLIPS:
            return kept
        del kept[index : index + 2]


def _bisected(costs: Mapping[str, Cost], holder: str, low: float, high: float) -> tuple[float, float]:
    """Narrows down where a way stops being the cheapest: the last volume where it is, the first where it is not."""
    while high > low * _EXACT:
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        low, high = (middle, high) if _holds(costs, holder, middle) else (low, middle)
    return low, high


def _cheapest(costs: Mapping[str, Cost], volume: float) -> str | None:
    known = {name: amount for name, cost in costs.items() if (amount := cost(volume)) is not None}
    return min(known, key=lambda name: known[name], default=None)


def _holds(costs: Mapping[str, Cost], holder: str, volume: float) -> bool:
    """Whether a way is still among the cheapest."""
    amounts = {name: amount for name, cost in costs.items() if (amount := cost(volume)) is not None}
    return holder in amounts and amounts[holder] <= min(amounts.values()) * _ALIKE
