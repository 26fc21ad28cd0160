"""Versions of a model: chosen, labelled, replaced while the server runs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import httpx
import pytest

from model.errors import ModelError
from model.serving.errors import RequestError
from model.serving.options import ServedModel
from model.serving.store import Store, find_versions
from tests.support.commands import save
from tests.support.serving_process import serving
from tests.support.waiting import wait_until

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402


def adder(number):
    class Adder(tf.Module):
        def __init__(self):
            super().__init__()
            self.number = tf.Variable(float(number))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):
            return {"y": x + self.number}

    return Adder()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models that add their number, as exported."""
    folder = tmp_path_factory.mktemp("exported")
    for number in (1, 2, 3, 10):
        save(adder(number), folder / str(number))
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    for number in (1, 2):
        shutil.copytree(exported / str(number), tmp_path / f"v{number}")
    return tmp_path


def test_update_while_running(folder, exported):
    options = ["--poll-seconds", "0.1", "--label", "stable=1", "--label", "next=3"]
    with serving(folder, *options) as server, httpx.Client(base_url=server.rest, timeout=120) as client:

        def ask(place=""):
            response = client.post(f"/v1/models/default{place}:predict", content=b'{"instances": [0]}')
            return response.status_code, response.headers.get("x-model-version"), response.json().get("predictions")

        def wait_for(number):
            wait_until(lambda: ask()[1] == str(number), lambda: f"version {number} answers: {server.stderr}")

        assert ask() == (200, "2", [2])
        assert ask("/versions/1") == ask("/labels/stable") == (200, "1", [1])
        assert ask("/versions/3")[0] == ask("/labels/next")[0] == 404
        assert ask("/labels/x")[0] == 400

        # Half a copy: it has to wait for the other half, and nobody notices.
        answers = []
        done = threading.Event()

        def keep_asking():
            with httpx.Client(base_url=server.rest, timeout=120) as other:
                while not done.is_set():
                    content = b'{"instances": [0.5]}'
                    answers.append(other.post("/v1/models/default:predict", content=content).json()["predictions"])

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            (folder / "v3").mkdir()
            shutil.copy(exported / "3" / "saved_model.pb", folder / "v3")
            wait_until(lambda: "version 3 of default does not load" in server.stderr, "half a version is met")
            states = {
                state["version"]: state["state"]
                for state in client.get("/v1/models/default").json()["model_version_status"]
            }
            assert states == {"3": "END", "2": "AVAILABLE", "1": "AVAILABLE"}
            shutil.copytree(exported / "3", folder / "v3", dirs_exist_ok=True)
            wait_for(3)
        finally:
            done.set()
            asking.join()
        assert {value for (value,) in answers} <= {2.5, 3.5}
        assert ask("/labels/next") == (200, "3", [3])

        # Two are kept, and what has a label.
        shutil.copytree(exported / "10", folder / "v10")
        wait_for(10)
        wait_until(lambda: "version 2 of default unloaded" in server.stderr, "version 2 is unloaded")
        assert [ask(f"/versions/{number}")[0] for number in (1, 2, 3, 10)] == [200, 404, 200, 200]

        # A version taken back.
        shutil.rmtree(folder / "v10")
        wait_for(3)

        with grpc.insecure_channel(server.grpc) as channel:
            request = predict_pb2.PredictRequest(inputs={"x": tf.make_tensor_proto([0.0])})
            request.model_spec.name = "default"
            request.model_spec.version_label = "stable"
            answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=120)
        assert (answer.model_spec.version.value, list(answer.outputs["y"].float_val)) == (1, [1.0])


def test_numbers_of_folders(folder, exported):
    (folder / "archive").mkdir()
    assert find_versions(str(folder)) == {number: str(folder / f"v{number}") for number in (1, 2)}
    assert find_versions(str(exported / "10")) == {10: str(exported / "10")}
    moved = folder / "some_model"
    shutil.copytree(exported / "10", moved)
    assert find_versions(str(moved)) == {1: str(moved)}
    assert find_versions(str(folder / "none")) == {}


def test_the_newest_that_loads(folder, capfd):
    Path(folder, "v2", "saved_model.pb").write_bytes(b"x")
    store = Store(ServedModel("m", str(folder), keep=1), "serving_default")
    store.load()
    assert (store.versions, list(store.failures)) == ([1], [2])
    assert "version 2 of m does not load" in capfd.readouterr().err
    for _ in range(3):
        store.refresh()
    assert capfd.readouterr().err == ""  # the files are what they were
    shutil.rmtree(folder / "v1")
    store.refresh()
    assert store.versions == [1]  # the last one stays
    with pytest.raises(RequestError, match="Servable not found"):
        store.find(2)


def test_nothing_that_loads(folder):
    for number in (1, 2):
        shutil.rmtree(folder / f"v{number}" / "variables")
    with pytest.raises(ModelError, match="TensorFlow cannot load the model"):
        Store(ServedModel("m", str(folder)), "serving_default").load()
    with pytest.raises(ModelError, match="did you mean 'serving_default'"):
        Store(ServedModel("m", str(folder)), "serving_defaul").load()
