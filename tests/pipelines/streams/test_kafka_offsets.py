"""What a member of a group remembers of its partitions: nothing is committed that is another's or not done with."""

from __future__ import annotations

import numpy as np

from pipelines.connectors.kafka.offsets import Offsets, Part
from pipelines.connectors.kafka.taken import Taken

A, B = ("topic", 0), ("topic", 1)


def hand_out(offsets: Offsets, **last: int) -> None:
    """Two messages of each partition, up to a number."""
    partitions = [("topic", int(name[1:])) for name in last]
    numbers = [n for end in last.values() for n in (end - 1, end)]
    places = np.repeat(np.arange(len(last)), 2)
    offsets.hand_out(Taken([], np.array(numbers, np.int64), partitions, places, 0))


def test_what_was_acknowledged_is_due_until_it_is_committed() -> None:
    offsets = Offsets()
    offsets.gain([A, B])
    hand_out(offsets, p0=1, p1=11)
    hand_out(offsets, p0=3)
    assert (offsets.number, offsets.due()) == (2, {})
    offsets.acknowledge(1)
    sent = offsets.due()
    assert sent == {A: Part(1, 2, 2), B: Part(1, 12, 2)}
    offsets.acknowledge(2)
    offsets.committed(sent)
    assert offsets.due() == {A: Part(1, 4, 2)}
    assert offsets.wait_until_committed(0.0) == 2
    offsets.committed(offsets.due())
    assert offsets.wait_until_committed(0.0) == 0


def test_what_was_given_away_is_not_due_and_its_late_answer_changes_nothing() -> None:
    offsets = Offsets()
    offsets.gain([A, B])
    hand_out(offsets, p0=1, p1=1)
    hand_out(offsets, p0=3)
    offsets.acknowledge(1)
    sent = offsets.due()
    offsets.lose([A])
    assert offsets.partitions == {B}
    assert offsets.due() == {B: Part(1, 2, 2)}
    # It comes back, and begins anew: what was taken before is not acknowledged by what is taken now.
    offsets.gain([A])
    offsets.acknowledge(2)
    assert A not in offsets.due()
    hand_out(offsets, p0=1)
    offsets.acknowledge(3)
    offsets.committed(sent)
    assert offsets.due() == {A: Part(2, 2, 2)}


def test_where_the_next_messages_are() -> None:
    offsets = Offsets()
    offsets.gain([A, B])
    assert offsets.reached() == {}
    hand_out(offsets, p0=7)
    assert offsets.reached() == {A: 8}
    offsets.lose([A])
    assert offsets.reached() == {}
