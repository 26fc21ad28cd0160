"""Sessions with Kafka, without a pipeline: what is taken, paused and committed, also when partitions move."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.config.kafka import KafkaSecurity
from pipelines.connectors.kafka import consumer as kafka_session
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.consumer import Session
from pipelines.connectors.kafka.taken import Taken
from tests.servers.kafka import Broker, kafka_broker
from tests.support.streams import births
from tests.support.waiting import wait_until


@pytest.fixture
def sessions(broker: Broker) -> Iterator[Any]:
    made: list[Session] = []

    def make(topic: str) -> Session:
        session = Session(Cluster(broker.address, KafkaSecurity.model_construct()), [topic], f"group-{topic}")
        made.append(session)
        session.start()
        return session

    yield make
    for session in made:
        session.close()


def taken(session: Session, wanted: int, most: int = 1_000_000) -> list[Taken]:
    """Takes until there are so many messages."""
    found: list[Taken] = []

    def left() -> int:
        return wanted - sum(len(each.messages) for each in found)

    def has_all() -> bool:
        each = session.take(min(most, left()), 0.2, 0.05, lambda: False) if left() > 0 else None
        if each is not None:
            found.append(each)
        return left() <= 0

    wait_until(has_all, lambda: f"{left()} more of {wanted} messages come", every_s=0)
    return found


def places(takes: list[Taken]) -> Counter[tuple[int, int]]:
    return Counter((message.partition(), message.offset()) for each in takes for message in each.messages)


def test_the_backlog_is_what_was_not_taken(broker: Broker, sessions: Any) -> None:
    topic = broker.create_topic(2)
    for partition in (0, 1):
        broker.produce(topic, births(500), partition)
    session = sessions(topic)
    taken(session, 600, most=100)
    assert session.backlog() == 400
    taken(session, 400)
    assert session.backlog() == 0


def test_partitions_with_few_messages_share_a_micro_batch(broker: Broker, sessions: Any) -> None:
    topic = broker.create_topic(12)
    session = sessions(topic)
    assert session.take(10, 3.0, 0.05, lambda: False) is None
    for partition in range(12):
        broker.produce(topic, births(5), partition)
    # All of them have been fetched ahead meanwhile.
    time.sleep(1.0)
    [each] = taken(session, 60)
    assert len(each.partitions) == 12


def test_what_was_acknowledged_is_committed_and_no_more(broker: Broker, sessions: Any) -> None:
    topic = broker.create_topic(1)
    broker.produce(topic, births(100))
    session = sessions(topic)
    taken(session, 100, most=10)
    session.acknowledge(4)
    assert session.drain(10) == 0
    assert broker.committed(f"group-{topic}", topic) == {0: 40}
    session.acknowledge(3)
    session.acknowledge(7)
    assert session.drain(10) == 0
    assert broker.committed(f"group-{topic}", topic) == {0: 70}


def test_brokers_that_are_away_are_named_though_something_is_to_be_committed(caplog: pytest.LogCaptureFixture) -> None:
    with kafka_broker() as broker:
        topic = broker.create_topic(1)
        broker.produce(topic, births(100))
        session = Session(Cluster(broker.address, KafkaSecurity.model_construct()), [topic], "group")
        session.start()
        taken(session, 100)
        broker.kill()
        session.acknowledge(session.number)
        takes = 0

        def said() -> int:
            return sum("no broker answers, trying again" in record.message for record in caplog.records)

        def is_told() -> bool:
            nonlocal takes
            session.take(100, 0.2, 0.0, lambda: False)
            takes += 1
            return bool(said())

        wait_until(is_told, "it is told", every_s=0)
        # The client takes one call at a time; none of ours waits for the brokers, which are given seconds to answer.
        assert takes > 5
        for _ in range(10):
            session.take(100, 0.2, 0.0, lambda: False)
        assert said() == 1
        broker.start()
        # Brokers that were away for long may have given its partition away: then all of it comes again.

        def is_committed() -> bool:
            session.take(100, 0.2, 0.0, lambda: False)
            session.acknowledge(session.number)
            return broker.committed("group", topic) == {0: 100}

        wait_until(is_committed, "all is committed", every_s=0)
        assert session.drain(10) == 0
        session.close()


def test_a_reader_that_takes_nothing_for_long_stays_in_the_group(
    broker: Broker, sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_session, "_PAUSES_AFTER_S", 0.2)
    monkeypatch.setattr(kafka_session, "_KEEPER_PERIOD_S", 0.05)
    topic = broker.create_topic(2)
    for partition in (0, 1):
        broker.produce(topic, births(300), partition)
    session = sessions(topic)
    found = taken(session, 50)
    time.sleep(1.0)
    for partition in (0, 1):
        broker.produce(topic, births(200), partition)
    found += taken(session, 950)
    assert places(found) == Counter((partition, offset) for partition in (0, 1) for offset in range(500))


def test_partitions_that_come_back_to_a_paused_member_are_read_on(
    broker: Broker, sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.create_topic(4)
    first = sessions(topic)
    assert first.take(10, 2.0, 0.0, lambda: False) is None
    monkeypatch.setattr(kafka_session, "_PAUSES_AFTER_S", 0.1)
    monkeypatch.setattr(kafka_session, "_KEEPER_PERIOD_S", 0.05)
    second = sessions(topic)

    def has_two() -> bool:
        second.take(10, 0.1, 0.0, lambda: False)
        return len(second.offsets.partitions) >= 2

    wait_until(has_two, "the second has two partitions", every_s=0)
    assert len(first.offsets.partitions) == 2
    second.close()
    for partition in range(4):
        broker.produce(topic, births(100), partition)
    # It takes nothing meanwhile, but keeps in touch.
    wait_until(lambda: len(first.offsets.partitions) == 4, "all partitions have come back")
    assert places(taken(first, 400)) == Counter((partition, offset) for partition in range(4) for offset in range(100))


def test_partitions_that_went_to_another_member_are_not_committed_any_more(broker: Broker, sessions: Any) -> None:
    topic = broker.create_topic(4)
    group = f"group-{topic}"
    for partition in range(4):
        broker.produce(topic, births(100), partition)
    first = sessions(topic)
    takes = taken(first, 400, most=50)
    halfway = len(takes) // 2
    first.acknowledge(halfway)
    assert first.drain(10) == 0
    second = sessions(topic)
    seen: list[Taken] = []

    def has_two() -> bool:
        """The first one gives partitions away while it takes; the second gets what the first has not committed."""
        assert first.take(100, 0.1, 0.0, lambda: False) is None
        each = second.take(1_000, 0.1, 0.0, lambda: False)
        seen.extend([each] if each is not None else [])
        return len(second.offsets.partitions) >= 2

    wait_until(has_two, "the second has two partitions", every_s=0)
    given = {partition for _, partition in second.offsets.partitions}
    assert len(given) == 2
    before = broker.committed(group, topic)
    done = dict(sorted(places(takes[:halfway])))
    assert before == {partition: offset + 1 for partition, offset in done.items()}
    first.acknowledge(len(takes))
    assert first.drain(10) == 0
    after = broker.committed(group, topic)
    assert {partition: after.get(partition, 0) for partition in range(4)} == {
        partition: before.get(partition, 0) if partition in given else 100 for partition in range(4)
    }
    wanted = sum(100 - before.get(partition, 0) for partition in given)
    seen += taken(second, wanted - sum(len(each.messages) for each in seen))
    assert places(seen) == Counter(
        (partition, offset) for partition in given for offset in range(before.get(partition, 0), 100)
    )
