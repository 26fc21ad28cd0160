"""What is tried again, how often, after what pauses; in simulated time."""

from __future__ import annotations

import pytest

from inference.endpoint.retries import LONGEST_PAUSE_S, ModelServerRetries, Retries
from inference.endpoint.throttle import Throttle
from inference.endpoint.track_record import ALONE, FEW_TRIES, FOREIGN_IN_A_ROW, GIVEN_UP
from inference.errors import (
    EndpointConfigError,
    EndpointError,
    ForeignAnswerError,
    NoPredictionError,
    QuotaError,
    RequestRefusedError,
    ResponseError,
    ServerError,
    TransientError,
)


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Server:
    """Answers with some errors, then with success."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def send(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "predictions"


def retries(time: Time, max_attempts: int = 8, deadline_s: float = 600) -> Retries:
    return Retries(
        ModelServerRetries(max_attempts, deadline_s), Throttle(time.clock, time.sleep), time.clock, time.sleep
    )


@pytest.mark.parametrize("error", [TransientError, QuotaError, ServerError, ResponseError])
def test_a_transient_failure_is_tried_again(error: type[EndpointError]) -> None:
    time, server = Time(), Server(error("once"))
    tried = retries(time)
    assert tried.call(server.send, 100, tried.deadline()) == "predictions"
    assert server.asked == 2
    assert tried.counts()["requests"] == 2
    assert tried.counts()["requests_repeated"] == 1
    assert tried.counts()["requests_refused_for_quota"] == (error is QuotaError)


@pytest.mark.parametrize("error", [EndpointConfigError, RequestRefusedError])
def test_other_failures_are_not(error: type[EndpointError]) -> None:
    time, server = Time(), Server(error("no"))
    tried = retries(time)
    with pytest.raises(error) as raised:
        tried.call(server.send, 100, tried.deadline())
    assert (server.asked, raised.value.attempts, time.pauses) == (1, 1, [])


def test_attempts_are_counted_and_end() -> None:
    time, server = Time(), Server(*[TransientError("down")] * 100)
    tried = retries(time, max_attempts=5)
    with pytest.raises(TransientError, match="down") as raised:
        tried.call(server.send, 100, tried.deadline())
    assert (server.asked, raised.value.attempts) == (5, 5)
    assert len(time.pauses) == 4


def test_pauses_grow_are_random_and_bounded() -> None:
    pauses = []
    for _ in range(200):
        time, server = Time(), Server(*[TransientError("down")] * 100)
        tried = retries(time, max_attempts=12, deadline_s=1e9)
        with pytest.raises(TransientError):
            tried.call(server.send, 1, tried.deadline())
        pauses.append(time.pauses)
    for attempt, found in enumerate(zip(*pauses, strict=True)):
        limit = min(LONGEST_PAUSE_S, 0.2 * 2**attempt)
        assert 0 <= min(found) < 0.1 * limit
        assert 0.9 * limit < max(found) <= limit


def test_the_server_says_how_long_to_wait() -> None:
    error = TransientError("later")
    error.retry_after = 33.0
    time, server = Time(), Server(error)
    tried = retries(time)
    tried.call(server.send, 1, tried.deadline())
    assert time.pauses == [33.0]


def test_nobody_waits_beyond_the_deadline() -> None:
    error = TransientError("later")
    error.retry_after = 33.0
    time, server = Time(), Server(error)
    tried = retries(time, deadline_s=30)
    with pytest.raises(TransientError):
        tried.call(server.send, 1, tried.deadline())
    assert time.pauses == []
    time, server = Time(), Server(*[TransientError("down")] * 10_000)
    tried = retries(time, max_attempts=10_000, deadline_s=30)
    with pytest.raises(TransientError):
        tried.call(server.send, 1, tried.deadline())
    assert 5 < time.now <= 30


@pytest.mark.parametrize("error", [ServerError, ResponseError])
def test_a_server_that_fails_on_many_rows_gets_them_apart_soon(error: type[EndpointError]) -> None:
    for rows, wanted in ((100, FEW_TRIES), (1, 8)):
        time, server = Time(), Server()
        tried = retries(time)
        tried.call(server.send, rows, tried.deadline())
        server.errors = [error("fails")] * 100
        with pytest.raises(error):
            tried.call(server.send, rows, tried.deadline())
        assert server.asked == 1 + wanted


@pytest.mark.parametrize("error", [ServerError, ResponseError])
def test_rows_that_fail_alone_one_after_the_other_are_not_waited_for_as_long(error: type[EndpointError]) -> None:
    time, server = Time(), Server()
    tried = retries(time)
    tried.call(server.send, 1, tried.deadline())
    server.errors = [error("fails")] * 10_000
    asked = []
    for _ in range(ALONE + 3):
        before = server.asked
        with pytest.raises(error):
            tried.call(server.send, 1, tried.deadline())
        asked.append(server.asked - before)
    assert asked == [8] * ALONE + [FEW_TRIES] * 3
    server.errors = []
    tried.call(server.send, 1, tried.deadline())
    server.errors, before = [error("fails")] * 100, server.asked
    with pytest.raises(error):
        tried.call(server.send, 1, tried.deadline())
    assert server.asked - before == 8


@pytest.mark.parametrize(
    ("error", "rows", "requests"),
    [
        (ForeignAnswerError("a page"), 100, 1),
        (ForeignAnswerError("a page"), 1, 1),
        (ResponseError("for 2 rows"), 1, GIVEN_UP),
        (ServerError("500"), 1, GIVEN_UP),
        (TransientError("503"), 100, GIVEN_UP),
        (QuotaError("429"), 100, GIVEN_UP),
    ],
)
def test_a_server_that_has_never_predicted_ends_it(error: EndpointError, rows: int, requests: int) -> None:
    time, server = Time(), Server(*[error] * 10_000)
    tried = retries(time)
    for _ in range(requests - 1):
        with pytest.raises(type(error)):
            tried.call(server.send, rows, tried.deadline())
    with pytest.raises(EndpointConfigError, match=f"{error}.*no request has|no request has .*{error}"):
        tried.call(server.send, rows, tried.deadline())
    assert server.asked <= requests * 8
    if isinstance(error, ResponseError):
        assert server.asked == requests * FEW_TRIES


@pytest.mark.parametrize("error", [ServerError("500"), ResponseError("cut"), NoPredictionError("null")])
def test_what_one_row_may_be_the_cause_of_ends_nothing_while_rows_are_together(error: EndpointError) -> None:
    time, server = Time(), Server(*[error] * 10_000)
    tried = retries(time)
    for _ in range(3 * GIVEN_UP):
        with pytest.raises(type(error)):
            tried.call(server.send, 2, tried.deadline())


def test_a_server_that_sends_nothing_but_pages_from_now_on_ends_it() -> None:
    time, server = Time(), Server()
    tried = retries(time)
    tried.call(server.send, 100, tried.deadline())
    server.errors = [ForeignAnswerError("a page")] * 10_000
    for _ in range((FOREIGN_IN_A_ROW - 1) // FEW_TRIES):
        with pytest.raises(ForeignAnswerError):
            tried.call(server.send, 100, tried.deadline())
    with pytest.raises(EndpointConfigError, match="has stopped predicting: its last 64 answers .*; a page"):
        tried.call(server.send, 100, tried.deadline())
    assert server.asked == 1 + FOREIGN_IN_A_ROW


def test_what_goes_wrong_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    time, server = Time(), Server(*[TransientError("no connection")] * 100)
    tried = retries(time, max_attempts=20)
    with pytest.raises(TransientError):
        tried.call(server.send, 1, tried.deadline())
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "no connection; trying again"
    assert 2 <= len(said) <= 1 + time.now / 10
