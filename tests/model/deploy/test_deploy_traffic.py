"""How the traffic of an endpoint is shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.cloud.errors import SettingError
from model.deployment import traffic


def test_shares_are_rounded_by_the_largest_remainder() -> None:
    assert traffic.add({"7": 70, "8": 30}, "0", 5, "e") == {"7": 67, "8": 28, "0": 5}
    assert traffic.add({"7": 30, "8": 70}, "0", 1, "e") == {"7": 30, "8": 69, "0": 1}
    assert traffic.remove({"7": 20, "8": 10, "9": 70}, "9", ["7", "8"]) == {"7": 67, "8": 33}


SPLITS = st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any)


@given(SPLITS, st.integers(0, 100))
def test_shares_sum_up(weights: list[int], share: int) -> None:
    split = traffic._scaled({str(i + 1): weight for i, weight in enumerate(weights)}, 100)
    for id in ("0", "1"):
        rest = {other: old for other, old in split.items() if other != id}
        if share < 100 and not any(rest.values()):
            if share:
                with pytest.raises(SettingError):
                    traffic.add(split, id, share, "e")
            continue
        new = traffic.add(split, id, share, "e")
        assert sum(new.values()) == 100
        assert new[id] == share
        assert all(new[a] <= new[b] + 1 for a in rest for b in rest if rest[a] <= rest[b])
    left = [id for id in split if id != "1"]
    after = traffic.remove(split, "1", left)
    assert sum(after.values()) == (100 if left else 0)
    assert set(after) <= set(left)
