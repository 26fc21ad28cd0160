"""The simulated source: every message exactly once, when it is due, in bounded micro-batches, over checkpoints too."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.coders import registry
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.beam_fixes import fn_runner
from pipelines.clock import now_us
from pipelines.connectors.simulated.schedule import Schedule, messages_within
from pipelines.connectors.simulated.source import ReadSimulated, SimulatedMark, SimulatedReader, SimulatedStream
from pipelines.connectors.streaming import stop
from pipelines.connectors.streaming.unbounded import IDLE_LINGER_MOST_S, IDLE_LINGER_S, LINGER_S
from pipelines.rows.messages import Messages

SLACK_US = 300_000
START = 1_767_323_045_000_000


class Clock:
    """A time that passes only when somebody waits."""

    def __init__(self, late_us: int = 0) -> None:
        self.us = START
        self.late_us = late_us
        self.stopping = False

    def now(self) -> int:
        return self.us

    def wait(self, seconds: float) -> bool:
        if seconds and not self.stopping:
            self.us += round(seconds * 1e6) + self.late_us
        return self.stopping


def reader(source: SimulatedStream, clock: Clock, mark: SimulatedMark | None = None) -> SimulatedReader:
    return SimulatedReader(source, mark, clock.now, clock.wait)


def read(source: SimulatedStream, clock: Clock, mark: SimulatedMark | None = None) -> list[Messages]:
    """All batches of a source that ends."""
    made = reader(source, clock, mark)
    batches = []
    more = made.start()
    while True:
        if more:
            batches.append(made.get_current())
        elif made.get_watermark() >= MAX_TIMESTAMP:
            return batches
        more = made.advance()


def numbers(batches: list[Messages]) -> list[int]:
    return [number for batch in batches for number in batch.positions.tolist()]


rates = st.floats(0.5, 1e6)


@given(rates, st.integers(0, 10**8), st.integers(1, 7), st.data())
def test_a_schedule_agrees_with_itself(rate: float, index: int, parts: int, data: st.DataObject) -> None:
    schedule = Schedule(START, rate, data.draw(st.integers(0, parts - 1)), parts)
    due = schedule.due_us(index)
    assert schedule.due_times(index, 3).tolist() == [schedule.due_us(index + n) for n in range(3)]
    assert schedule.due_by(due) > index
    assert schedule.due_by(due - 1) <= index
    assert schedule.due_by(START - 1) == 0
    assert abs(due - START - schedule.number(index) / rate * 1e6) <= 1


def test_a_duration_in_messages() -> None:
    assert [messages_within(5, seconds) for seconds in (0, 0.1, 0.2, 0.3, 1)] == [0, 1, 1, 2, 5]


@settings(max_examples=40)
@given(
    rate=st.sampled_from([0, 3.0, 500.0, 44_100.0]),
    messages=st.integers(0, 200),
    max_rows=st.integers(1, 90),
    max_wait_ms=st.sampled_from([0, 1, 20, 1000]),
    parts=st.integers(1, 3),
    late_us=st.integers(0, 30_000),
    data=st.data(),
)
def test_no_message_twice_or_missing_over_checkpoints(
    rate: float, messages: int, max_rows: int, max_wait_ms: float, parts: int, late_us: int, data: st.DataObject
) -> None:
    source = SimulatedStream(
        rate=rate, messages=messages, max_rows=max_rows, max_wait_ms=max_wait_ms, pullers=parts, seed=3
    )
    clock = Clock(late_us)
    found: list[Messages] = []
    for part in source.split(20):
        coder = part.get_checkpoint_mark_coder()
        mark: SimulatedMark | None = None
        reading = reader(part, clock)
        more = reading.start()
        while True:
            if more:
                found.append(reading.get_current())
            elif reading.get_watermark() >= MAX_TIMESTAMP:
                break
            if data.draw(st.booleans()):
                # The worker is gone; another one goes on.
                mark = coder.decode(coder.encode(reading.get_checkpoint_mark()))
                reading = reader(part, clock, mark)
                more = reading.start()
            else:
                more = reading.advance()
    assert sorted(numbers(found)) == list(range(messages))
    assert all(0 < len(batch) <= max_rows for batch in found)


@settings(max_examples=60)
@given(rates, st.integers(1, 300), st.integers(1, 50), st.floats(0, 500), st.integers(0, 100_000))
def test_batches_wait_as_long_as_they_may(
    rate: float, messages: int, max_rows: int, max_wait_ms: float, late_us: int
) -> None:
    """Each is complete at once when it is full, or the stream ends, and else when its first message waited enough."""
    clock = Clock(late_us)
    source = SimulatedStream(rate=rate, messages=messages, max_rows=max_rows, max_wait_ms=max_wait_ms)
    batches = read(source, clock)
    schedule = Schedule(START, rate)
    index = 0
    for batch in batches:
        first_due = schedule.due_us(index)
        assert batch.event_us.tolist() == schedule.due_times(index, len(batch)).tolist()
        assert first_due <= batch.received_us <= batch.pulled_us
        rows = min(max_rows, messages - index)
        full = schedule.due_us(index + rows - 1)
        must_by = min(full, first_due + int(max_wait_ms * 1000))
        assert batch.pulled_us >= must_by
        assert batch.pulled_us <= max(must_by, batch.received_us) + late_us + 1
        assert len(batch) == min(rows, schedule.due_by(batch.pulled_us) - index)
        index += len(batch)
    assert index == messages


def test_a_backlog_is_not_waited_for() -> None:
    clock = Clock()
    source = SimulatedStream(rate=1000, messages=2500, max_rows=1000, max_wait_ms=50)
    reading = reader(source, clock)
    assert reading.start()
    clock.us += 2_000_000
    before = clock.us
    assert reading.advance()
    assert (clock.us, len(reading.get_current())) == (before, 1000)


def test_a_bundle_without_messages_lingers_longer() -> None:
    clock = Clock()
    reading = reader(SimulatedStream(rate=0.1, max_wait_ms=0), clock)
    assert reading.start()
    assert not reading.advance()
    reading.get_checkpoint_mark()
    before = clock.us
    assert not reading.advance()
    assert clock.us == before + IDLE_LINGER_S * 1e6


def test_the_longer_nothing_comes_the_longer_is_a_bundle_without_messages() -> None:
    clock = Clock()
    reading = reader(SimulatedStream(rate=0.01, max_wait_ms=0), clock)
    assert reading.start()
    lingers = []
    for _ in range(8):
        reading.get_checkpoint_mark()
        before = clock.us
        assert not reading.advance()
        lingers.append((clock.us - before) / 1e6)
    assert lingers == [IDLE_LINGER_S, 1, 2, 4, *[IDLE_LINGER_MOST_S] * 4]
    while not reading.advance():
        pass
    # Those of the message are to be acknowledged.
    before = clock.us
    assert not reading.advance()
    assert clock.us == before + LINGER_S * 1e6
    reading.get_checkpoint_mark()
    before = clock.us
    assert not reading.advance()
    assert clock.us == before + IDLE_LINGER_S * 1e6


def test_an_idle_reader_lingers_a_little_and_says_how_far_it_is() -> None:
    clock = Clock()
    reading = reader(SimulatedStream(rate=1, max_wait_ms=0), clock)
    assert reading.start()
    assert reading.get_current_timestamp() == Timestamp(micros=START)
    assert not reading.advance()
    assert clock.us == START + LINGER_S * 1e6
    assert reading.get_watermark() == Timestamp(micros=START + 1_000_000)
    lingered = 1
    while not reading.advance():
        lingered += 1
    assert (clock.us, lingered) == (START + 1_000_000, 19)
    assert reading.get_current().positions.tolist() == [1]


@pytest.mark.parametrize("rate", [0, 1, 1000])
def test_a_wish_to_stop_ends_a_reader(rate: float) -> None:
    clock = Clock()
    reading = reader(SimulatedStream(rate=rate, max_rows=10), clock)
    assert reading.start()
    clock.stopping = True
    assert not reading.advance()
    assert reading.get_watermark() == MAX_TIMESTAMP


def test_a_stream_without_rate_lasts_as_long_as_it_should() -> None:
    clock = Clock()
    reading = reader(SimulatedStream(rate=0, duration_s=2, max_rows=10), clock)
    assert reading.start()
    clock.us += 1_999_999
    assert reading.advance()
    assert reading.get_current().event_us.tolist() == [clock.us] * 10
    clock.us += 1
    assert not reading.advance()
    assert reading.get_watermark() == MAX_TIMESTAMP


def test_parts_share_the_messages_and_the_rate() -> None:
    whole = SimulatedStream(rate=600, messages=1000, duration_s=1, pullers=3)
    parts = list(whole.split(20))
    assert [part.limit for part in parts] == [200, 200, 200]
    assert [list(part.split(20)) for part in parts] == [[part] for part in parts]
    assert list(SimulatedStream().split(20)) == [SimulatedStream()]
    assert len(list(SimulatedStream(pullers=50).split(20))) == 20
    batches = [batch for part in parts for batch in read(part, Clock())]
    assert sorted(numbers(batches)) == list(range(600))
    due = Schedule(START, 600).due_times(0, 600)
    assert all(batch.event_us.tolist() == due[batch.positions].tolist() for batch in batches)


def test_what_travels() -> None:
    source = SimulatedStream(rate=7, pullers=2)
    assert pickle.loads(pickle.dumps(source)) == source
    assert len({source, SimulatedStream(rate=7, pullers=2)}) == 1
    coder = registry.get_coder(SimulatedMark)
    assert coder.is_deterministic()
    assert coder.encode(SimulatedMark(START, 12)) == START.to_bytes(8, "little") + (12).to_bytes(8, "little")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": -1}, {"rate": float("nan")}, {"rate": float("inf")}, {"messages": -1}, {"duration_s": -0.1},
        {"max_wait_ms": -1}, {"max_rows": 0}, {"pullers": 0},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_parameters(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatedStream(**wrong)  # type: ignore[arg-type]


ARRIVED: list[tuple[int, Messages]] = []


class Arrive(beam.DoFn):  # type: ignore[misc]
    """Notes what comes, and when."""

    def process(self, messages: Messages) -> Iterator[None]:
        ARRIVED.append((now_us(), messages))
        yield from ()


class CountMessages(beam.DoFn):  # type: ignore[misc]
    """Counts in Beam's metrics."""

    def process(self, messages: Messages) -> Iterator[None]:
        Metrics.counter("test", "messages").inc(len(messages))
        yield from ()


def run(
    source: SimulatedStream,
    payloads: pa.Array | None = None,
    bundle_s: float = 0.2,
    flags: tuple[str, ...] = (),
) -> float:
    """Runs a pipeline that reads a source; gives the seconds from the first batch to the end."""
    ARRIVED.clear()
    stop.STOPPING.clear()
    fn_runner.mend()
    options = PipelineOptions(["--runner=FnApiRunner", "--streaming", *flags])
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | ReadSimulated(source, payloads, bundle_s=bundle_s) | beam.ParDo(Arrive())
    return (now_us() - ARRIVED[0][0]) / 1e6


def test_a_bounded_stream_ends_by_itself() -> None:
    source = SimulatedStream(rate=5_000, messages=5_000, max_rows=120, max_wait_ms=20)
    assert run(source) > 0.9
    ids = Counter(json.loads(payload)["source_id"] for _, batch in ARRIVED for payload in batch.payloads.to_pylist())
    assert ids == Counter(f"b{n:09d}" for n in range(5_000))
    events = np.concatenate([batch.event_us for _, batch in ARRIVED])
    assert set(np.diff(events).tolist()) == {200}
    stamps = [json.loads(batch.payloads[0].as_py())["timestamp"] for _, batch in ARRIVED]
    assert stamps == sorted(stamps)
    assert all(len(batch) <= 120 for _, batch in ARRIVED)
    for at, batch in ARRIVED:
        assert batch.event_us[-1] <= batch.pulled_us <= at
    # Their wait ends them, not their rows: `test_waiting_...` above shows how long it is, by a clock of its own.
    assert len(ARRIVED) > 5_000 / 120


def test_a_stream_lasts_as_long_as_asked() -> None:
    run(SimulatedStream(rate=1_000, duration_s=0.5, max_wait_ms=5))
    assert numbers([batch for _, batch in ARRIVED]) == list(range(500))


def test_bundles_lose_and_repeat_nothing() -> None:
    """Bundles of a few milliseconds: a hundred checkpoints on the way."""
    run(SimulatedStream(rate=0, messages=20_000, max_rows=97), bundle_s=0.002)
    assert numbers([batch for _, batch in ARRIVED]) == list(range(20_000))


def test_pullers_together_bring_all() -> None:
    run(SimulatedStream(rate=4_000, messages=2_001, pullers=3, max_wait_ms=10))
    assert sorted(numbers([batch for _, batch in ARRIVED])) == list(range(2_001))


@pytest.mark.parametrize("pullers", [1, 2, 3])
def test_several_workers(pullers: int) -> None:
    """Messages of all of them arrive, in many bundles; those of two pullers at the same time."""
    run(
        SimulatedStream(rate=4_000, messages=4_000, pullers=pullers, max_rows=50),
        bundle_s=0.05,
        flags=("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
    )
    assert sorted(numbers([batch for _, batch in ARRIVED])) == list(range(4_000))
    turns = [int(batch.positions[0]) % pullers for _, batch in ARRIVED]
    changes = sum(one != other for one, other in zip(turns, turns[1:], strict=False))
    # One after the other, there would be a change every 0.05 s.
    assert changes > len(turns) / 4 if pullers > 1 else changes == 0


def test_metrics_of_many_bundles() -> None:
    """More than Python may recurse."""
    fn_runner.mend()
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner", "--streaming"]))
    source = SimulatedStream(rate=0, messages=1_000, max_rows=1)
    _ = pipeline | ReadSimulated(source, bundle_batches=1) | beam.ParDo(CountMessages())
    result = pipeline.run()
    result.wait_until_finish()
    [found] = result.metrics().query(MetricsFilter().with_name("messages"))["counters"]
    assert found.committed == 1_000


def test_given_payloads_in_place_of_births() -> None:
    payloads = [b'{"n": 1}', b"\xff", b""]
    run(SimulatedStream(rate=0, messages=1_000, max_rows=64), pa.array(payloads, pa.binary()))
    assert [payload for _, batch in ARRIVED for payload in batch.payloads.to_pylist()] == (payloads * 334)[:1_000]
    assert [key for _, batch in ARRIVED for key in batch.keys.to_pylist()] == [str(n) for n in range(1_000)]
    with pytest.raises(ValueError, match="no payloads"):
        ReadSimulated(SimulatedStream(), pa.array([], pa.binary()))


@pytest.mark.parametrize("rate", [0, 2, 5_000])
def test_a_wish_to_stop_ends_a_run(rate: float) -> None:
    timer = threading.Timer(1, stop.STOPPING.set)
    timer.start()
    try:
        run(SimulatedStream(rate=rate, max_rows=300, max_wait_ms=10))
    finally:
        timer.cancel()
        timer.join()
    found = numbers([batch for _, batch in ARRIVED])
    assert found
    assert found == list(range(len(found)))
    stop.STOPPING.clear()
