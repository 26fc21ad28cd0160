"""The sender's pace, against a server with a quota, in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator

import pytest

from inference.endpoint.throttle import Throttle


class Quota:
    """A token bucket: so many requests a second, and a burst of a tenth of a second's worth."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = self._burst = max(1.0, rate / 10)
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def simulate(
    quota: Quota, senders: int, seconds: float, latency: float, pause: float = 0.0
) -> list[tuple[float, bool]]:
    """Every request of some concurrent senders that always have one to send: when, and whether it was taken."""
    now = 0.0
    throttle = Throttle(clock=lambda: now)
    chance = random.Random(7)
    log: list[tuple[float, bool]] = []
    order: Iterator[int] = itertools.count()
    events: list[tuple[float, int, str, int]] = [(0.0, next(order), "next", 0) for _ in range(senders)]
    while events[0][0] < seconds:
        now, _, step, detail = heapq.heappop(events)
        following, after = "look", 0.0
        if step == "next":
            detail = throttle.ticket()
        elif step == "look":
            after = throttle.remaining(detail)
            following = "look" if after else "arrive"
        elif step == "arrive":
            taken = quota.take(now)
            log.append((now, taken))
            following, after, detail = "answer", latency, int(taken)
        else:
            (throttle.accepted if detail else throttle.refused)()
            following, after = "next", 0.0 if detail else chance.uniform(0, pause)
        heapq.heappush(events, (now + after, next(order), following, detail))
    return log


@pytest.mark.parametrize(("rate", "senders"), [(20, 1), (20, 8), (50, 8), (50, 64), (400, 8), (400, 64)])
@pytest.mark.parametrize("latency", [0.001, 0.02])
def test_most_of_the_quota_is_used_and_few_requests_are_refused(rate: int, senders: int, latency: float) -> None:
    log = simulate(Quota(rate), senders, 60, latency, pause=0.2)
    settled = [taken for at, taken in log if at >= 3]
    possible = min(rate, senders / latency) * 57
    assert sum(settled) >= 0.85 * possible
    assert settled.count(False) < 0.2 * len(settled)


@pytest.mark.parametrize("senders", [1, 8])
def test_a_quota_of_a_few_requests_a_second_is_kept_too(senders: int) -> None:
    """Where single requests are all there is to learn from, less of it is used."""
    settled = [taken for at, taken in simulate(Quota(5), senders, 60, 0.02, pause=0.2) if at >= 3]
    assert sum(settled) >= 0.7 * 5 * 57
    assert settled.count(False) < 0.2 * len(settled)


def test_a_few_refusals_that_the_pace_does_not_cause_do_not_slow_it_down() -> None:
    class Noise(Quota):
        chance = random.Random(3)

        def take(self, now: float) -> bool:
            return self.chance.random() > 0.05

    settled = [taken for at, taken in simulate(Noise(1), 8, 30, 0.02, pause=0.02) if at >= 3]
    assert sum(settled) >= 0.85 * 8 / 0.02 * 27


def test_a_raised_quota_is_noticed() -> None:
    quota = Quota(50)
    log = simulate(quota, 16, 30, 0.01, pause=0.2)
    assert 0.85 * 50 <= sum(taken for at, taken in log if at >= 20) / 10 <= 51
    quota = Quota(50)
    original = quota.take

    def take(now: float) -> bool:
        quota.rate = 50 if now < 20 else 200
        return original(now)

    quota.take = take  # type: ignore[method-assign]
    log = simulate(quota, 16, 60, 0.01, pause=0.2)
    assert sum(taken for at, taken in log if at >= 50) / 10 >= 0.85 * 200


def test_a_lowered_quota_is_noticed() -> None:
    quota = Quota(400)
    original = quota.take

    def take(now: float) -> bool:
        quota.rate = 400 if now < 20 else 20
        return original(now)

    quota.take = take  # type: ignore[method-assign]
    log = simulate(quota, 16, 60, 0.01, pause=0.2)
    late = [taken for at, taken in log if at >= 30]
    assert sum(late) >= 0.85 * 20 * 30
    assert late.count(False) < 0.2 * len(late)


def test_without_a_refusal_nothing_waits() -> None:
    throttle = Throttle(clock=lambda: 0.0, sleep=lambda s: pytest.fail("slept"))
    for _ in range(1000):
        throttle.wait()
        throttle.accepted()
    assert throttle.rate is None
