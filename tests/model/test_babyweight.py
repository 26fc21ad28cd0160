"""The packaged model, and the training that made it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.births import CATEGORIES, NUMBERS, read_births
from model.errors import ModelError
from model.savedmodel import SavedModel
from model.train import main
from tests.support import processes

tf = pytest.importorskip("tensorflow")

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "model" / "trained" / "v1"
DATA = ROOT / "data" / "births-nc-2001.csv"
TYPICAL = {
    "is_male": "True",
    "mother_race": "White",
    "mother_married": "True",
    "cigarette_use": "False",
    "alcohol_use": "False",
    "mother_age": 27.0,
    "plurality": 1.0,
    "gestation_weeks": 39.0,
}


@pytest.fixture(scope="module")
def model():
    return SavedModel(str(PACKAGED))


def tensors_of(rows):
    """Turns rows (dicts with any of the inputs) into the model's inputs."""
    tensors = {c.name: tf.constant([str(row.get(c.name) or "") for row in rows], tf.string) for c in CATEGORIES}
    for number in NUMBERS:
        values = [float(row.get(number.name) or "nan") for row in rows]
        tensors[number.name] = tf.constant(values, tf.float32)
    return tensors


def weight(model, **changes):
    return float(model(tensors_of([{**TYPICAL, **changes}]))["predictions"].numpy()[0, 0])


@pytest.fixture(scope="module")
def births():
    with DATA.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_better_than_the_mean(model, births):
    truth = np.array([float(row["weight_pounds"]) for row in births])
    predicted = model(tensors_of(births))["predictions"].numpy()
    assert predicted.shape == (len(births), 1)
    assert predicted.dtype == np.float32
    rmse = np.sqrt(np.mean((predicted[:, 0] - truth) ** 2))
    assert rmse < 0.8 * truth.std()


def test_a_row_does_not_depend_on_its_batch(model, births):
    rows = (births * 12)[:16384]
    tensors = tensors_of(rows)
    whole = model(tensors)["predictions"].numpy()
    for size in (1, 2, 7, 1000):
        for start in range(0, min(len(rows), 50 * size), size):
            part = {name: tensor[start : start + size] for name, tensor in tensors.items()}
            np.testing.assert_array_equal(model(part)["predictions"].numpy(), whole[start : start + size])


def test_an_empty_batch(model):
    assert model(tensors_of([]))["predictions"].shape == (0, 1)


def test_spelling_does_not_count(model):
    assert weight(model, is_male=" TRUE\t", mother_race="white", cigarette_use="no") == weight(model)
    assert weight(model, is_male="1", mother_married="yes", mother_race="1") == weight(model)


@pytest.mark.parametrize("name", [category.name for category in CATEGORIES])
def test_unknown_words_share_a_class(model, name):
    assert weight(model, **{name: "Unknown"}) == weight(model, **{name: ""}) == weight(model, **{name: "ümlaut"})
    assert abs(weight(model, **{name: ""}) - weight(model)) < 0.5


def test_missing_and_implausible_numbers(model):
    for number in NUMBERS:
        known = weight(model, **{number.name: number.typical})
        for value in (float("nan"), 99.0, float("inf")):
            assert weight(model, **{number.name: value}) == known
        low = weight(model, **{number.name: number.low})
        assert weight(model, **{number.name: -1e30}) == weight(model, **{number.name: float("-inf")}) == low
        assert weight(model, **{number.name: 98.0}) == weight(model, **{number.name: number.high})


def test_response_is_sane(model):
    by_week = [weight(model, gestation_weeks=float(week)) for week in range(17, 41)]
    assert by_week == sorted(by_week)
    assert by_week[20 - 17] < 2.5
    assert 7.5 < by_week[39 - 17] < 8.5
    assert 7 < weight(model, gestation_weeks=47.0) < 8.5
    by_plurality = [weight(model, plurality=float(count)) for count in range(1, 6)]
    assert by_plurality == sorted(by_plurality, reverse=True)
    assert weight(model, cigarette_use="True") < weight(model)
    assert weight(model, is_male="False") < weight(model)
    assert weight(model, gestation_weeks=17.0, plurality=5.0, mother_race="Black", is_male="False") >= 0.5


def test_alcohol_use_has_no_effect(model):
    assert len({weight(model, alcohol_use=word) for word in ("True", "False", "Unknown", "")}) == 1


def example(row):
    features = {}
    for name, value in row.items():
        if isinstance(value, str):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        else:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_examples_give_the_same_predictions(model):
    examples = SavedModel(str(PACKAGED), "serving_examples")
    rows = [TYPICAL, {**TYPICAL, "gestation_weeks": 30.0}, {"is_male": "False", "plurality": 2.0}, {}]
    predicted = examples({"examples": tf.constant([example(row) for row in rows])})["predictions"]
    np.testing.assert_array_equal(predicted.numpy(), model(tensors_of(rows))["predictions"].numpy())


def test_the_packaged_files_are_small_and_say_nothing_of_a_machine():
    files = [file for file in PACKAGED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        content = file.read_bytes()
        assert not [word for word in (b".py", b"/home", b"/root", b"site-packages", b"/work") if word in content]


def test_training_twice_gives_the_same_model(tmp_path, births):
    outputs = [tmp_path / "a" / "v1", tmp_path / "b" / "v1"]
    command = [
        sys.executable,
        "-m",
        "model.train",
        "--data",
        str(DATA),
        "--epochs",
        "1",
        "--seed",
        "7",
        "--output",
    ]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    runs = [
        processes.start([*command, str(output)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for output in outputs
    ]
    printed = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    tensors = tensors_of(births)
    first, second = (SavedModel(str(output))(tensors)["predictions"].numpy() for output in outputs)
    np.testing.assert_array_equal(first, second)
    assert first.std() > 0.1
    for line in (
        "1160 births to train on, 290 held out",
        "mean   RMSE 1.",
        "model  RMSE ",
        "MAE",
        "exported to",
    ):
        assert line in printed[0]
    assert [path.name for path in outputs[0].parent.iterdir()] == ["v1"]


def test_reading_births(tmp_path):
    births = read_births(str(DATA))
    assert len(births) == 1450
    assert set(births.strings) == {"is_male", "mother_race", "mother_married", "cigarette_use"}
    assert np.isnan(births.numbers["gestation_weeks"]).sum() == 1
    file = tmp_path / "births.csv"
    for content, message in (
        ("is_male\nTrue\n", "no column weight_pounds"),
        ("is_male,weight_pounds\nTrue,7\n", "none of the columns mother_age"),
        ("mother_age,weight_pounds\nold,7\n", "column mother_age: could not convert string to float: 'old'"),
        ("", "no column weight_pounds"),
    ):
        file.write_text(content)
        with pytest.raises(ModelError, match=message):
            read_births(str(file))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_training_replaces_nothing_but_an_export(tmp_path, capsys, kind):
    mine = tmp_path / "mine"
    if kind == "folder":
        mine.mkdir()
        (mine / "thesis.txt").write_text("mine")
    else:
        mine.write_text("mine")
    assert main(["--output", str(mine)]) == 2
    assert str(mine) in capsys.readouterr().err
    assert (mine / "thesis.txt" if kind == "folder" else mine).read_text() == "mine"


def test_training_errors_are_one_line(tmp_path, capsys):
    assert main(["--data", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    file = tmp_path / "few.csv"
    file.write_text("mother_age,weight_pounds\n20,7\n")
    assert main(["--data", str(file), "--output", str(tmp_path / "out")]) == 2
    assert "has 1 births with a weight" in capsys.readouterr().err
