"""The ledger of an endpoint that fails in every way: each row ends exactly once, with its own prediction."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inference import Endpoint, EndpointHandler, SavedModelHandler, Target
from inference.endpoint.client import Client
from inference.endpoint.retries import ModelServerRetries
from inference.errors import EndpointConfigError
from inference.marks import failures_of
from tests.servers.faulty import HTTP_KINDS, Faults, Proxy, faulty_http
from tests.servers.faulty_grpc import GRPC_KINDS, faulty_grpc
from tests.support.ledger import DEFAULTS, MODEL
from tests.support.serving_process import Serving, serving
from tests.support.waiting import wait_until

ROWS = 20_000
TIMEOUT_S = 0.5
FAULTS = Faults(seed=11, rate=0.3, die_at=(40, 41), down_seconds=1.0, stall_seconds=0.8)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(MODEL) as server:
        yield server


def keyed(rows: int) -> list[pa.RecordBatch]:
    """Batches of rows with a key, some of which no model can take."""
    rng = np.random.default_rng(17)
    ages = [None if i % 1000 == 7 else float(age) for i, age in enumerate(rng.integers(15, 45, rows))]
    table = pa.RecordBatch.from_pydict(
        {
            "source_id": pa.array([f"k{i}" for i in range(rows)]),
            "is_male": pa.array(rng.choice(["True", "False"], rows)),
            "mother_race": pa.array(rng.choice(["White", "Black", "Other"], rows)),
            "mother_married": pa.array(rng.choice(["True", "False"], rows)),
            "cigarette_use": pa.array(rng.choice(["True", "False"], rows)),
            "mother_age": pa.array(ages, pa.float32()),
            "plurality": pa.array(rng.integers(1, 4, rows), pa.float32()),
            "gestation_weeks": pa.array(rng.normal(39, 2, rows).astype(np.float32)),
        }
    )
    return [table.slice(low, 1_234) for low in range(0, rows, 1_234)]


def handler(protocol: str, url: str, max_batch_size: int = 100, **settings: Any) -> EndpointHandler:
    defaults = {"timeout_s": TIMEOUT_S, "retry_limits": ModelServerRetries(40, 300), "max_in_flight": 8}
    return EndpointHandler(
        Endpoint(protocol, Target(url=url), **{**defaults, **settings}),
        SavedModelHandler(MODEL).signature,
        defaults=DEFAULTS,
        max_batch_size=max_batch_size,
    )


class Hurried(Client):
    """A client whose pauses are a twentieth as long."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, sleep=lambda seconds: time.sleep(seconds / 20))


def ask(asked: EndpointHandler, batches: list[pa.RecordBatch], client: Client) -> list[pa.RecordBatch]:
    """All batches, by two workers that share a client, as in a run."""
    try:
        with ThreadPoolExecutor(2) as workers:
            results = workers.map(lambda batch: list(asked.run_inference([batch], client)), batches)
            return [result for found in results for result in found]
    finally:
        client.close()


@pytest.mark.parametrize("protocol", ["tf_serving_rest", "tf_serving_grpc", "vertex", "kserve_v2"])
def test_every_row_ends_exactly_once(protocol: str, server: Serving) -> None:
    batches = keyed(ROWS)
    direct = SavedModelHandler(MODEL, defaults=DEFAULTS)
    wanted = list(direct.run_inference(batches, direct.load_model()))
    remote = protocol == "tf_serving_grpc"
    proxied = faulty_grpc(server.grpc, FAULTS) if remote else faulty_http(server.rest, FAULTS)
    with proxied as proxy:
        asked = handler(protocol, proxy.url)
        client = Hurried(asked.endpoint)
        found = ask(asked, batches, client)
        counts = client.retries.counts()
    assert_all_faults_happened(proxy, GRPC_KINDS if remote else HTTP_KINDS)
    assert counts["requests"] > 200
    assert counts["requests_repeated"] > 50

    predictions: Counter[tuple[str, float]] = Counter()
    dead: Counter[str] = Counter()
    for result in found:
        failures = failures_of(result)
        # Whatever the server did, only rows that it never got are dead.
        assert {failure.stage for failure in failures.values()} <= {"coerce"}
        for row, (key, value) in enumerate(
            zip(result["source_id"].to_pylist(), result["predictions"].to_pylist(), strict=True)
        ):
            if row in failures:
                assert value is None
                dead[key] += 1
            else:
                predictions[key, value] += 1
    assert dead == Counter(f"k{i}" for i in range(ROWS) if i % 1000 == 7)
    assert predictions == Counter(
        pair
        for batch in wanted
        for pair in zip(batch["source_id"].to_pylist(), batch["predictions"].to_pylist(), strict=True)
        if pair[1] is not None
    )
    assert predictions.total() + dead.total() == ROWS


def assert_all_faults_happened(proxy: Proxy, kinds: dict[str, str]) -> None:
    assert set(kinds) <= set(proxy.log), proxy.log
    failed = sum(proxy.log[kind] for kind in kinds)
    assert 0.2 < failed / proxy.requests < 0.4
    assert proxy.log["died"] >= 1
    assert proxy.log["came_back"] == proxy.log["died"]


def test_a_server_that_never_answers_leaves_every_row_in_the_dead_letters(server: Serving) -> None:
    with faulty_http(server.rest, Faults(rate=1.0, kinds=("unavailable",))) as proxy:
        asked = handler("tf_serving_rest", proxy.url, retry_limits=ModelServerRetries(3, 60))
        found = ask(asked, keyed(2_000), Hurried(asked.endpoint))
    for result in found:
        failures = failures_of(result)
        assert len(failures) == result.num_rows
        assert {(f.error, f.attempts) for f in failures.values() if f.stage == "predict"} == {("TransientError", 3)}
        assert result["predictions"].null_count == result.num_rows


@pytest.mark.parametrize("kind", ["truncated", "misaligned"])
def test_an_answer_that_is_none_is_a_clear_error_of_each_row(kind: str, server: Serving) -> None:
    with faulty_http(server.rest, Faults(rate=1.0, kinds=(kind,))) as proxy:
        asked = handler("tf_serving_rest", proxy.url, retry_limits=ModelServerRetries(2, 60))
        [found] = ask(asked, [keyed(1_234)[0].slice(0, 3)], Hurried(asked.endpoint))
    said = {"truncated": "breaks off", "misaligned": "for 1 row"}[kind]
    failures = failures_of(found)
    assert len(failures) == 3
    assert all(f.error == "ResponseError" and said.lower() in f.message.lower() for f in failures.values()), failures


def test_a_page_from_a_server_that_has_never_predicted_is_an_error_of_the_config(server: Serving) -> None:
    with faulty_http(server.rest, Faults(rate=1.0, kinds=("html",))) as proxy:
        asked = handler("tf_serving_rest", proxy.url, retry_limits=ModelServerRetries(8, 60))
        with pytest.raises(EndpointConfigError, match="an HTML page, perhaps a sign-in page.*no request has succeeded"):
            ask(asked, [keyed(1_234)[0].slice(0, 3)], Hurried(asked.endpoint))
        assert proxy.requests == 3


def test_requests_are_as_large_as_the_service_takes(server: Serving) -> None:
    """4,000 bytes a request, for rows of about 60: the size is found, and no row is lost."""
    [batch] = keyed(1_000)
    with faulty_http(server.rest, Faults(rate=0.0)) as proxy:
        asked = handler("tf_serving_rest", proxy.url, 1_000, max_request_bytes=4_000, timeout_s=30)
        found = ask(asked, [batch, batch], Hurried(asked.endpoint))
    wanted = handler("tf_serving_rest", server.rest, timeout_s=30)
    [whole] = ask(wanted, [batch], Client(wanted.endpoint))
    assert all(result.equals(whole) for result in found)
    assert 25 < proxy.requests < 80
    asked = handler("tf_serving_rest", server.rest, max_request_bytes=100)
    failures = failures_of(ask(asked, [batch.slice(0, 2)], Client(asked.endpoint))[0])
    assert {failure.error for failure in failures.values()} == {"RequestTooLargeError"}


def test_a_refused_caller_stops_everything_with_one_message(server: Serving) -> None:
    asked = handler("tf_serving_rest", server.rest)
    client = Client(Endpoint("tf_serving_rest", Target(url=server.rest, model="no such model")))
    with pytest.raises(EndpointConfigError, match="404.*no such model"):
        ask(asked, keyed(2_000), client)


def test_as_many_requests_at_once_as_allowed(server: Serving) -> None:
    for allowed in (1, 4):
        with faulty_http(server.rest, Faults(rate=0.0)) as proxy:
            asked = handler("tf_serving_rest", proxy.url, max_in_flight=allowed, timeout_s=30)
            ask(asked, keyed(5_000), Client(asked.endpoint))
        assert proxy.most_at_once <= allowed
        assert allowed == 1 or proxy.most_at_once > 1


@pytest.mark.parametrize("protocol", ["tf_serving_rest", "tf_serving_grpc"])
def test_most_of_a_quota_is_used_and_few_requests_are_refused(protocol: str) -> None:
    """60 requests a second, and rows without end; the first stretch is for finding the quota.

    Other tests on the same cores may keep the callers from asking for a while: one of three stretches shows it.
    """
    quota, rows = 60, 10
    with serving(MODEL, "--quota-qps", str(quota)) as server:
        url = server.grpc if protocol == "tf_serving_grpc" else server.rest
        asked = EndpointHandler(
            Endpoint(protocol, Target(url=url), retry_limits=ModelServerRetries(100, 300), max_in_flight=16),
            SavedModelHandler(MODEL).signature,
            defaults=DEFAULTS,
            max_batch_size=rows,
        )
        client = Client(asked.endpoint)
        batch = keyed(1_234)[0].slice(10, 900)
        over = threading.Event()

        def work(_: int) -> None:
            while not over.is_set():
                asked.run_inference([batch.slice(0, 300)], client)

        with ThreadPoolExecutor(2) as workers:
            working = [workers.submit(work, worker) for worker in range(2)]

            def stretch() -> tuple[int, int]:
                """Sent and refused requests, while so many are answered as the quota gives in eight seconds."""
                before = client.retries.counts()

                def since() -> tuple[int, int]:
                    after = client.retries.counts()
                    sent, refused = (after[name] - before[name] for name in ("requests", "requests_refused_for_quota"))
                    return sent, refused

                wait_until(lambda: since()[0] - since()[1] >= 8 * quota, lambda: f"most are answered: {since()}")
                return since()

            try:
                stretch()
                for _ in range(3):
                    sent, refused = stretch()
                    if refused < 0.2 * sent:
                        break
            finally:
                over.set()
            for worker in working:
                worker.result()
        client.close()
    assert refused < 0.2 * sent, f"{refused} of {sent} refused"
