"""One contract for every way of calling the model: same rows in, same predictions out, the same rows refused.

What every handler is held to is what a direct call of the SavedModel gives, to the last bit.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler
from apache_beam.testing.util import assert_that

from inference import Endpoint, EndpointHandler, Predict, SavedModelHandler, Target
from inference.endpoint.client import Client
from inference.endpoint.remote_signature import ask_signature
from inference.endpoint.retries import ModelServerRetries
from inference.errors import EndpointConfigError
from inference.marks import failures_of
from model.specs import Signature
from pipelines.config.batch_job import BatchJobConfig
from tests.support.commands import ROOT, save
from tests.support.job_handler import JobHandler
from tests.support.job_server import job_server
from tests.support.keyed_model import save_keyed, save_parsing
from tests.support.ledger import DEFAULTS, MODEL
from tests.support.many_kinds import kinds, save_many_kinds
from tests.support.serving_process import Serving, serving
from tests.support.waiting import wait_until

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ai_platform": ("ai_platform", {}),
    "vertex": ("vertex", {}),
    "vertex raw": ("vertex", {"raw": True}),
    "tf_serving_rest": ("tf_serving_rest", {}),
    "tf_serving_rest rows": ("tf_serving_rest", {"rows": True}),
    "tf_serving_grpc": ("tf_serving_grpc", {}),
    "kserve_v1": ("kserve_v1", {}),
    "kserve_v2": ("kserve_v2", {}),
    "kserve_v2 binary": ("kserve_v2", {"binary": True}),
}
WITHOUT_BYTES = ("kserve_v2",)
"""Ways that cannot carry bytes that are not text."""
JOB_WAYS = {"job vertex": "vertex", "job ai_platform": "ai_platform"}
"""Batch prediction jobs, by the service that runs them."""

Handler = SavedModelHandler | EndpointHandler | JobHandler


@dataclass(frozen=True)
class Jobs:
    """A server that runs jobs.

    Attributes:
      url: its address.
      folder: that jobs may use.
      names: of the models on it, by their folders; of those with a key that goes through them `<name>_keyed`.
    """

    url: str
    folder: Path
    names: dict[str, str]

    def handler(self, way: str, model: str, signature: Signature, **options: Any) -> JobHandler:
        service = JOB_WAYS[way]
        name = self.names[model] + ("_keyed" if service == "ai_platform" else "")
        return JobHandler(self.url, self.folder, service, name, signature, **options)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, strict_model: str, many_kinds_model: str) -> Iterator[Jobs]:
    """One server for all models of this module."""
    made = tmp_path_factory.mktemp("keyed")
    names = {MODEL: "births", strict_model: "strict", many_kinds_model: "many_kinds"}
    models = {name: model for model, name in names.items()}
    models |= {f"{name}_keyed": save_keyed(made / name, model) for model, name in names.items()}
    models["parsing"] = save_parsing(made / "parsing", keyed=False)
    models["parsing_keyed"] = save_parsing(made / "parsing_keyed", keyed=True)
    folder = tmp_path_factory.mktemp("jobs")
    with job_server(folder, more=models, errors="both") as server:
        yield Jobs(server.url, folder, names | {"parsing": "parsing"})


def endpoint(way: str, server: Serving, **target: Any) -> Endpoint:
    protocol, settings = WAYS[way]
    url = server.grpc if protocol == "tf_serving_grpc" else server.rest
    return Endpoint(protocol, Target(url=url, **{**settings, **target}), retry_limits=ModelServerRetries(4, 60))


def ask(handler: Handler, *batches: pa.RecordBatch) -> list[pa.RecordBatch]:
    client = handler.load_model()
    try:
        return list(handler.run_inference(list(batches), client))
    finally:
        getattr(client, "close", lambda: None)()


@pytest.fixture(scope="module")
def babyweight() -> Iterator[Serving]:
    with serving(MODEL) as server:
        yield server


@pytest.fixture(scope="module", params=[*WAYS, *JOB_WAYS])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


MakeHandler = Callable[..., Handler]


@pytest.fixture(scope="module")
def handler_of(way: str, request: pytest.FixtureRequest) -> MakeHandler:
    """Makes a handler for the model of a reference, which a server has."""

    def make(reference: SavedModelHandler, server: Serving, **options: Any) -> Handler:
        if way in JOB_WAYS:
            found: Jobs = request.getfixturevalue("jobs")
            return found.handler(way, reference.path, reference.signature, **options)
        return EndpointHandler(endpoint(way, server), reference.signature, **options)

    return make


@functools.cache
def real_births() -> pa.RecordBatch:
    """All 1,450, with missing ages of gestation, and words that the model never saw."""
    table = pacsv.read_csv(ROOT / "data/births-nc-2001.csv", convert_options=pacsv.ConvertOptions(
        column_types={name: pa.string() for name in ("is_male", "mother_race", "mother_married", "cigarette_use")}
    ))  # fmt: skip
    races = table["mother_race"].to_pylist()
    races[3], races[4], races[5] = "Ünknown", 'quote " \\ \n\t\x01 </script>', "漢字 🎈"
    table = table.set_column(table.schema.get_field_index("mother_race"), "mother_race", pa.array(races))
    [batch] = table.combine_chunks().to_batches()
    return batch


def direct(**options: Any) -> SavedModelHandler:
    return SavedModelHandler(MODEL, defaults=DEFAULTS, **options)


@pytest.fixture(scope="module")
def asked(handler_of: MakeHandler, babyweight: Serving) -> MakeHandler:
    """Makes a handler for the packaged model."""
    return functools.partial(handler_of, direct(), babyweight, defaults=DEFAULTS)


@pytest.mark.parametrize("max_batch_size", [16384, 100, 7])
def test_predictions_are_those_of_a_direct_call(asked: MakeHandler, max_batch_size: int) -> None:
    [wanted] = ask(direct(), real_births())
    [found] = ask(asked(max_batch_size=max_batch_size), real_births())
    assert found.schema == wanted.schema
    assert found.equals(wanted)


def test_through_the_transform_too(asked: MakeHandler) -> None:
    batches = [(i, real_births().slice(low, 97)) for i, low in enumerate(range(0, 1450, 97))]
    wanted = dict(zip(dict(batches), ask(direct(), *dict(batches).values()), strict=True))

    def check(found: list[tuple[int, pa.RecordBatch]]) -> None:
        assert sorted(key for key, _ in found) == sorted(wanted)
        assert all(batch.equals(wanted[key]) for key, batch in found)

    with beam.Pipeline(runner="FnApiRunner") as p:
        assert_that(p | beam.Create(batches) | Predict(KeyedModelHandler(asked(max_batch_size=50))), check)


def test_the_same_rows_are_refused_before_they_are_sent(asked: MakeHandler) -> None:
    columns = real_births().slice(0, 50).to_pydict()
    columns["mother_age"][3] = None
    columns["plurality"][7] = None
    columns["mother_age"] = [None if age is None else str(age) for age in columns["mother_age"]]
    columns["mother_age"][9] = "thirty"
    batch = pa.RecordBatch.from_pydict(columns)
    [wanted], [found] = ask(direct(), batch), ask(asked(), batch)
    assert sorted(failures_of(found)) == [3, 7, 9]
    assert found.equals(wanted)


def test_no_rows_and_many_schemas(asked: MakeHandler) -> None:
    batch = real_births()
    batches = [batch.slice(0, 0), batch.slice(0, 5), batch.slice(5, 3).append_column("more", pa.array([1, 2, 3]))]
    for wanted, found in zip(ask(direct(), *batches), ask(asked(), *batches), strict=True):
        assert found.equals(wanted)


def test_a_handler_travels_to_workers(asked: MakeHandler) -> None:
    handler = pickle.loads(pickle.dumps(asked()))
    [found] = ask(handler, real_births())
    assert found.equals(ask(direct(), real_births())[0])


@pytest.fixture(scope="module")
def examples_only() -> Iterator[Serving]:
    """For protocols that cannot name a signature."""
    with serving(MODEL, "--signature", "serving_examples") as server:
        yield server


def test_serialized_examples(way: str, babyweight: Serving, request: pytest.FixtureRequest) -> None:
    if way in JOB_WAYS:
        jobs_take_serialized_examples(way, request.getfixturevalue("jobs"))
        return
    if way == "vertex":
        with pytest.raises(EndpointConfigError, match="raw"):
            Client(endpoint(way, babyweight, signature="serving_examples"))
        return
    options = {"max_batch_size": 300, "defaults": {name: DEFAULTS[name] for name in ("alcohol_use", "cigarette_use")}}
    reference = SavedModelHandler(MODEL, "serving_examples", **options)
    server = request.getfixturevalue("examples_only") if WAYS[way][0].startswith("kserve") else babyweight
    handler = EndpointHandler(endpoint(way, server, signature="serving_examples"), reference.signature, **options)
    [found] = ask(handler, real_births())
    [wanted] = ask(reference, real_births())
    if way not in WITHOUT_BYTES:
        assert found.equals(wanted)
        return
    carried = found["predictions"].is_valid()
    assert found["predictions"].filter(carried).equals(wanted["predictions"].filter(carried))
    assert {f.error for f in failures_of(found).values()} == {"RowError"}


def jobs_take_serialized_examples(way: str, jobs: Jobs) -> None:
    """As JSON lines and as TFRecords; of AI Platform the model parses the key, so as TFRecords only."""
    defaults = {name: DEFAULTS[name] for name in ("alcohol_use", "cigarette_use")}
    reference = SavedModelHandler(MODEL, "serving_examples", defaults=defaults)
    [wanted] = ask(reference, real_births())
    for are_records in (True, False) if JOB_WAYS[way] == "vertex" else (True,):
        handler = jobs.handler(way, "parsing", reference.signature, are_records=are_records, defaults=defaults)
        [found] = ask(handler, real_births())
        assert found.equals(wanted)


# A model that fails on some rows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(strict_model: str) -> Iterator[Serving]:
    with serving(strict_model) as server:
        yield server


REFUSED = {"job vertex": "INVALID_ARGUMENT", "job ai_platform": "NoResultError"}
"""How a refused row is called, where a job tells it."""


def test_a_row_that_the_model_refuses_stands_alone(
    way: str, strict: Serving, strict_model: str, handler_of: MakeHandler
) -> None:
    ages = np.arange(200, dtype=np.float32)
    ages[[0, 50, 51, 199]] = -1
    batch = pa.RecordBatch.from_pydict({"mother_age": ages, "plurality": np.ones(200, np.float32)})
    reference = SavedModelHandler(strict_model, max_batch_size=64)
    [wanted] = ask(reference, batch)
    [found] = ask(handler_of(reference, strict, max_batch_size=64), batch)
    refused = failures_of(found)
    assert sorted(refused) == sorted(failures_of(wanted)) == [0, 50, 51, 199]
    assert {(failure.stage, failure.error) for failure in refused.values()} == {
        ("predict", REFUSED.get(way, "RequestRefusedError"))
    }
    assert all("a negative age" in failure.message for failure in refused.values())
    assert found["predictions"].equals(wanted["predictions"])


# A model of every kind of input and output --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many_kinds_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_many_kinds(tmp_path_factory.mktemp("many_kinds"))


@pytest.fixture(scope="module")
def many_kinds(many_kinds_model: str) -> Iterator[Serving]:
    with serving(many_kinds_model) as server:
        yield server


def test_every_kind_of_value_travels(
    way: str, many_kinds: Serving, many_kinds_model: str, handler_of: MakeHandler
) -> None:
    reference = SavedModelHandler(many_kinds_model)
    batch = kinds(60)
    [wanted] = ask(reference, batch)
    [found] = ask(handler_of(reference, many_kinds, max_batch_size=7), batch)
    failures = failures_of(found)
    assert {row: (failure.error, failure.attempts) for row, failure in failures.items()} == not_carried(way, wanted)
    good = pa.array([row for row in range(60) if row not in failures])
    assert len(good) >= 50
    for name in wanted.schema.names:
        same_values(found[name].take(good), wanted[name].take(good), name)


def not_carried(way: str, wanted: pa.RecordBatch) -> dict[int, tuple[str, int]]:
    """The rows that a way cannot carry to the server or back: an error each, where others would lose something."""
    refused = {}
    if way in ("ai_platform", "vertex", "kserve_v1", "kserve_v2"):
        # Their JSON has no NaN and no infinities, and the model returns them.
        for row, triple in enumerate(wanted["triples"].to_pylist()):
            if not np.isfinite(triple).all():
                refused[row] = ("NoPredictionError", 1)
    if way == "vertex" or way in JOB_WAYS:
        # Its numbers are float64.
        for row, long in enumerate(wanted["long"].to_pylist()):
            if abs(long) > 2**53:
                refused[row] = ("CoercionError" if way in JOB_WAYS else "RowError", 1)
    return refused


def same_values(found: pa.Array, wanted: pa.Array, name: str) -> None:
    """Equal, with NaN equal to NaN."""
    assert found.type == wanted.type, name
    while pa.types.is_list(found.type):
        assert found.value_lengths().equals(wanted.value_lengths()), name
        found, wanted = found.flatten(), wanted.flatten()
    np.testing.assert_array_equal(found.to_numpy(zero_copy_only=False), wanted.to_numpy(zero_copy_only=False), name)


def test_what_the_server_says_it_takes_is_what_the_model_takes(
    way: str, many_kinds: Serving, many_kinds_model: str
) -> None:
    wanted = SavedModelHandler(many_kinds_model).signature
    if way in JOB_WAYS:
        with pytest.raises(ValueError, match="signature_from is missing"):
            BatchJobConfig(type="batch_job", resource="projects/p/locations/l/models/m", folder="gs://bucket/jobs")
    elif WAYS[way][0] in ("ai_platform", "vertex", "kserve_v1"):
        with pytest.raises(EndpointConfigError, match="signature_from"):
            ask_signature(endpoint(way, many_kinds))
    else:
        told = ask_signature(endpoint(way, many_kinds))
        assert (told.inputs, told.outputs) == (wanted.inputs, wanted.outputs)


# Versions -----------------------------------------------------------------------------------------------------------


def test_the_version_that_answered_stands_beside_each_row(way: str, asked: MakeHandler) -> None:
    """Jobs of AI Platform do not tell it."""
    [found] = ask(asked(model_version=True, max_batch_size=500), real_births())
    assert found.schema.names[-2:] == ["predictions", "model_version"]
    assert set(found["model_version"].to_pylist()) == {None if way == "job ai_platform" else "1"}
    [wanted] = ask(direct(model_version=True), real_births())
    assert set(wanted["model_version"].to_pylist()) == {"v1"}


def test_a_new_version_on_the_server_is_used_at_once(tmp_path: Path) -> None:
    import tensorflow as tf

    def save_version(version: int) -> None:
        class Times(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
            def __call__(self, x: Any) -> dict[str, Any]:
                return {"predictions": x * float(version)}

        save(Times(), tmp_path / "new")
        shutil.move(tmp_path / "new", tmp_path / "models" / str(version))

    (tmp_path / "models").mkdir()
    save_version(1)
    signature = SavedModelHandler(str(tmp_path / "models" / "1")).signature
    batch = pa.RecordBatch.from_pydict({"x": np.ones(10, np.float32)})
    with serving(tmp_path / "models", "--poll-seconds", "0.1") as server, contextlib.ExitStack() as clients:
        asked = []
        for way in WAYS:
            handler = EndpointHandler(endpoint(way, server), signature, model_version=True)
            client = handler.load_model()
            clients.callback(client.close)
            asked.append((handler, client))

        def answers() -> list[tuple[float, str]]:
            found = [handler.run_inference([batch], client)[0] for handler, client in asked]
            assert all(len(set(result["predictions"].to_pylist())) == 1 for result in found)
            return [(result["predictions"][0].as_py(), result["model_version"][0].as_py()) for result in found]

        assert answers() == [(1.0, "1")] * len(WAYS)
        save_version(2)
        wait_until(lambda: (1.0, "1") not in answers(), "all use the newer version")
        assert answers() == [(2.0, "2")] * len(WAYS)
