"""Splits the requests of a Vertex AI endpoint among its models: percentages that sum up to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.cloud.errors import SettingError


def add(split: Mapping[str, int], id: str, traffic: int, endpoint: str) -> dict[str, int]:
    """Gives one model its share, and the others what is left, in proportion to what they had.

    Args:
      split: as it is: deployed model's id -> percentage.
      id: whose share is set.
      traffic: that share, 0 to 100.
      endpoint: for the error.

    Returns:
      The new split; empty if no model gets anything.

    Raises:
      SettingError: nothing else takes the rest.

    >>> add({"7": 50, "8": 50}, "0", 10, "births")
    {'7': 45, '8': 45, '0': 10}
    """
    others = {other: int(share) for other, share in split.items() if other != id}
    if traffic in (0, 100) and not any(others.values()):
        return {**others, id: traffic} if traffic else {}
    if not any(others.values()):
        raise SettingError(
            f"endpoint {endpoint} has no other model to take the other {100 - traffic}%: use --traffic 100"
        )
    return {**_scaled(others, 100 - traffic), id: traffic}


def remove(split: Mapping[str, int], id: str, left: Sequence[str]) -> dict[str, int]:
    """Takes one model's share away.

    Args:
      split: as it is.
      id: whose share goes to the others, in proportion to what they had.
      left: the ids that stay deployed, the newest last, which gets all if none has any.

    Returns:
      The new split; empty if nothing is left, or no model had anything.

    >>> remove({"7": 30, "8": 10, "9": 60}, "9", ["7", "8"])
    {'7': 75, '8': 25}
    """
    others = {other: int(share) for other, share in split.items() if other in left}
    if any(others.values()):
        return _scaled(others, 100)
    return {left[-1]: 100} if left and int(split.get(id, 0)) else {}


def _scaled(split: Mapping[str, int], total: int) -> dict[str, int]:
    """To a total, rounded so that it is exact: the largest remainders are rounded up."""
    whole = sum(split.values())
    scaled = {id: share * total // whole for id, share in split.items()}
    by_remainder = sorted(split, key=lambda id: split[id] * total % whole, reverse=True)
    for id in by_remainder[: total - sum(scaled.values())]:
        scaled[id] += 1
    return scaled
