"""Servers that others wrote, asked through the handler: their predictions are those of the SavedModel."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inference import Endpoint, EndpointHandler, SavedModelHandler, Target
from inference.endpoint.remote_signature import ask_signature
from inference.endpoint.retries import ModelServerRetries
from inference.errors import EndpointConfigError
from inference.marks import failures_of
from model.signature import read_signature
from tests.servers.reference_model import save_reference_model
from tests.servers.third_party import Server, kserve_server, mlserver_server

SERVERS = {"kserve": kserve_server, "mlserver": mlserver_server}
SPOKEN = [("kserve", "kserve_v1"), ("kserve", "kserve_v2"), ("kserve", "binary"), ("mlserver", "kserve_v2")]
ROWS = 2_000


@pytest.fixture(scope="module", params=SPOKEN, ids="-".join)
def spoken(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def server(spoken: tuple[str, str]) -> Iterator[Server]:
    with SERVERS[spoken[0]]() as server:
        yield server


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> SavedModelHandler:
    return SavedModelHandler(save_reference_model(tmp_path_factory.mktemp("reference")))


@functools.cache
def rows() -> pa.RecordBatch:
    rng = np.random.default_rng(5)
    ages = rng.normal(27, 6, ROWS).astype(np.float32)
    ages[::97] = np.nan
    return pa.RecordBatch.from_pydict(
        {
            "mother_age": pa.array(np.abs(ages)),
            "plurality": pa.array(rng.integers(1, 5, ROWS), pa.int64()),
            "is_male": pa.array(rng.choice(["True", "False", "", 'Ünïcode "quoted"\n\t\\'], ROWS)),
        }
    )


def endpoint(spoken: tuple[str, str], server: Server, **target: Any) -> Endpoint:
    protocol = "kserve_v2" if spoken[1] == "binary" else spoken[1]
    address = Target(url=server.url, model=server.model, binary=spoken[1] == "binary")
    return Endpoint(protocol, Target(**{**vars(address), **target}), retry_limits=ModelServerRetries(3, 30))


def ask(handler: EndpointHandler | SavedModelHandler, batch: pa.RecordBatch) -> pa.RecordBatch:
    client = handler.load_model()
    try:
        [result] = handler.run_inference([batch], client)
    finally:
        getattr(client, "close", lambda: None)()
    return result


def test_predictions_are_those_of_the_saved_model(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    batch = rows()
    if spoken[1] != "binary":
        # Their JSON has null for a prediction that is not a number.
        batch = batch.filter(pa.compute.is_finite(batch["mother_age"]))
    handler = EndpointHandler(endpoint(spoken, server), reference.signature, max_batch_size=130)
    found, wanted = ask(handler, batch), ask(reference, batch)
    assert not failures_of(found)
    np.testing.assert_array_equal(found["predictions"].to_numpy(), wanted["predictions"].to_numpy())


def test_a_prediction_that_their_json_cannot_carry_is_an_error_of_its_row(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    batch = rows().slice(90, 16)
    lost = [i for i, age in enumerate(batch["mother_age"].to_pylist()) if age != age]
    assert lost
    result = ask(EndpointHandler(endpoint(spoken, server), reference.signature), batch)
    if spoken[1] == "binary":
        assert np.isnan(result["predictions"].to_numpy()[lost]).all()
        return
    failures = failures_of(result)
    assert sorted(failures) == lost
    assert all("null" in failure.message for failure in failures.values())
    assert result["predictions"].null_count == len(lost)


def test_a_row_that_the_model_refuses_is_found(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    batch = rows().slice(0, 90)
    ages = batch["mother_age"].to_pylist()
    ages[0], ages[17], ages[63] = 20.0, -1.0, -2.0
    batch = batch.set_column(0, "mother_age", pa.array(ages, pa.float32()))
    found = ask(EndpointHandler(endpoint(spoken, server), reference.signature), batch)
    failures = failures_of(found)
    assert sorted(failures) == [17, 63]
    assert {(f.error, "a negative age" in f.message) for f in failures.values()} == {("RequestRefusedError", True)}
    good = [i for i in range(90) if i not in failures]
    wanted = ask(reference, batch)
    assert found["predictions"].take(good).equals(wanted["predictions"].take(good))


def test_the_server_tells_its_inputs_where_its_protocol_can(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    if spoken[1] == "kserve_v1":
        with pytest.raises(EndpointConfigError, match="signature_from"):
            ask_signature(endpoint(spoken, server))
        return
    told = ask_signature(endpoint(spoken, server))
    assert told.inputs == read_signature(reference.path).inputs
    assert [(spec.name, spec.dtype) for spec in told.outputs] == [("predictions", "float32")]


def test_a_model_that_is_not_there_stops_everything(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    handler = EndpointHandler(endpoint(spoken, server, model="babies"), reference.signature)
    with pytest.raises(EndpointConfigError, match="404.*babies"):
        ask(handler, rows().slice(0, 3))


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_fails_without_saying_why_gets_the_rows_apart(name: str, tmp_path: Path) -> None:
    """An undeclared error of the model is a 500, after which the server drops the connection."""
    signature = read_signature(save_reference_model(tmp_path))
    batch = rows().slice(1, 40)
    ages = batch["mother_age"].to_pylist()
    ages[11] = -1.0
    batch = batch.set_column(0, "mother_age", pa.array(ages, pa.float32()))
    with SERVERS[name](careless=True) as server:
        result = ask(EndpointHandler(endpoint((name, "kserve_v2"), server), signature), batch)
    failures = failures_of(result)
    assert list(failures) == [11]
    assert failures[11].error == "ServerError"
    assert failures[11].attempts == 3


def test_the_version_that_answered_is_told(
    spoken: tuple[str, str], server: Server, reference: SavedModelHandler
) -> None:
    handler = EndpointHandler(endpoint(spoken, server), reference.signature, model_version=True)
    result = ask(handler, rows().slice(1, 5))
    told = "v1" if spoken[0] == "mlserver" else None
    assert result["model_version"].to_pylist() == [told] * 5
