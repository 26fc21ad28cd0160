"""Batch runs on threads of this process: they share the pieces of work, end at a failure, and need no gRPC."""

from __future__ import annotations

import threading
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcServer
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam_fixes import thread_workers

WAIT_S = 60.0
OTHERS_ARE_DONE, ANOTHER_CAME, STOPPED = threading.Event(), threading.Event(), threading.Event()
SEEN: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    for event in (OTHERS_ARE_DONE, ANOTHER_CAME, STOPPED):
        event.clear()
    SEEN.clear()


def threads(count: int) -> beam.Pipeline:
    options = PipelineOptions(
        ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={count}"]
    )
    thread_workers.use(options)
    return beam.Pipeline(options=options)


def numbers(pipeline: beam.Pipeline, count: int) -> Any:
    return pipeline | beam.Create(range(count)) | beam.Reshuffle()


class FirstWaitsForOthers(beam.DoFn):
    """Holds the first element that comes until all others have passed: dealt out beforehand, half of them would wait
    behind it.
    """

    def __init__(self, count: int) -> None:
        self._others = count - 1

    def process(self, number: int) -> Any:
        SEEN.append(number)
        if SEEN[0] == number:
            assert OTHERS_ARE_DONE.wait(WAIT_S), "the other elements wait for this one"
        elif len(SEEN) > self._others:
            OTHERS_ARE_DONE.set()
        yield number


class FailsAtFirst(beam.DoFn):
    """Fails at the first element, once another has come; that one waits until its worker knows of the failure."""

    def process(self, number: int) -> Any:
        SEEN.append(number)
        if SEEN[0] == number:
            assert ANOTHER_CAME.wait(WAIT_S)
            raise ValueError("no such number")
        ANOTHER_CAME.set()
        assert STOPPED.wait(WAIT_S)
        yield number


def test_a_slow_element_holds_no_others_up() -> None:
    with threads(2) as pipeline:
        passed = numbers(pipeline, 12) | beam.ParDo(FirstWaitsForOthers(12))
        assert_that(passed, equal_to(list(range(12))))
    assert sorted(SEEN) == list(range(12))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 2_000])
def test_each_element_comes_once(workers: int, count: int) -> None:
    with threads(workers) as pipeline:
        grouped = numbers(pipeline, count) | beam.Map(lambda number: (number % 7, number)) | beam.GroupByKey()
        sums = grouped | beam.Map(lambda pair: (pair[0], sum(pair[1])))
        expected = [(rest, sum(range(rest, count, 7))) for rest in range(min(7, count))]
        assert_that(sums, equal_to(expected))


def test_no_elements_are_handed_out_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = thread_workers._Shares.stop

    def stopped(shares: Any) -> None:
        stop(shares)
        STOPPED.set()

    monkeypatch.setattr(thread_workers._Shares, "stop", stopped)
    with pytest.raises(RuntimeError, match="ValueError: no such number"), threads(2) as pipeline:
        _ = numbers(pipeline, 50) | beam.ParDo(FailsAtFirst())
    assert len(SEEN) == 2


def test_a_side_input_reaches_every_worker() -> None:
    with threads(3) as pipeline:
        added = beam.pvalue.AsSingleton(pipeline | "Added" >> beam.Create([100]))
        assert_that(numbers(pipeline, 20) | beam.Map(lambda number, more: number + more, added),
                    equal_to(list(range(100, 120))))  # fmt: skip


def test_no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a gRPC server is started")

    monkeypatch.setattr(GrpcServer, "__init__", refuse)
    with threads(2) as pipeline:
        assert_that(numbers(pipeline, 3), equal_to([0, 1, 2]))


def test_other_pipelines_of_the_process_run_as_before() -> None:
    with threads(2) as pipeline:
        assert_that(numbers(pipeline, 3), equal_to([0, 1, 2]))
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        assert_that(numbers(pipeline, 30), equal_to(list(range(30))))


def test_other_modes_stay_as_they_are() -> None:
    options = PipelineOptions(["--direct_running_mode=multi_processing"])
    thread_workers.use(options)
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"
