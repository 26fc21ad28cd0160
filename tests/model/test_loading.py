"""Models that nobody here exported: old ones are loaded and called, damaged ones are refused in one line."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from model.errors import ModelLoadError
from model.savedmodel import SavedModel
from tests.support.commands import save


@pytest.fixture
def no_keras_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where tf_keras is not installed: TensorFlow would find the classes of Keras 2's optimizers in it."""
    monkeypatch.setitem(sys.modules, "tf_keras", None)


@pytest.fixture(scope="module")
def table_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a variable and a vocabulary."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("table")
    (folder / "words.txt").write_text("red\ngreen\n")

    class Table(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = tf.Variable([1.0, 2.0, 3.0] + [0.0] * 1000)
            self.table = tf.lookup.StaticVocabularyTable(
                tf.lookup.TextFileInitializer(
                    str(folder / "words.txt"),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                1,
            )

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
        def __call__(self, word: Any) -> dict[str, Any]:
            return {"score": tf.gather(self.values, self.table.lookup(word))}

    return Path(save(Table(), folder / "model"))


@pytest.mark.parametrize(
    ("name", "signature"), [("keras2", None), ("keras2", "serving_default"), ("reference", None), ("tf1", "scores")]
)
def test_an_old_model_gives_what_it_gave_when_it_was_written(
    name: str, signature: str | None, old_models: Path, no_keras_2: None, capfd: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    written = json.loads((old_models / f"{name}.json").read_text())
    model = SavedModel(str(old_models / name), signature)
    model.warm_up()
    shapes = {spec.name: [-1, *(spec.shape or ())[1:]] for spec in model.signature.inputs}
    dtypes = {spec.name: spec.dtype for spec in model.signature.inputs}
    rows = {key: tf.reshape(tf.constant(value, dtypes[key]), shapes[key]) for key, value in written["rows"].items()}
    for key, value in written["outputs"].items():
        found = tf.reshape(model(rows)[key], [-1]).numpy().tolist()
        assert found == ([v.encode() for v in value] if isinstance(value[0], str) else pytest.approx(value))
    assert "Unable to create a python object for variable" not in capfd.readouterr().err
    assert logging.getLogger("tensorflow").level != logging.ERROR


def test_a_sparse_input_is_fed_into_a_session(old_models: Path) -> None:
    import tensorflow as tf

    model = SavedModel(str(old_models / "tf1"), "scores").with_signature("sparse")
    given = tf.SparseTensor([[0, 1], [1, 0]], [1.0, 2.0], [2, 2])
    found = model({"values": given})["sparse"]
    assert tf.sparse.to_dense(found).numpy().tolist() == [[0, 2], [4, 0]]


def _without_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def _cut_off(folder: Path) -> None:
    file = folder / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:2000])


def _without_vocabulary(folder: Path) -> None:
    shutil.rmtree(folder / "assets")


def _with_a_custom_operation(folder: Path) -> None:
    file = folder / "saved_model.pb"
    data = file.read_bytes()
    assert b"LookupTableFindV2" in data
    file.write_bytes(data.replace(b"LookupTableFindV2", b"LookupTableFindXY"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_variables, ["no variables/variables.index", "copy the whole folder"]),
        (_cut_off, ["Read less bytes than requested", "cut off or damaged"]),
        (_without_vocabulary, ["words.txt", "No such file"]),
        (_with_a_custom_operation, ["'LookupTableFindXY'", "custom operation"]),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(
    damage: Any, said: list[str], table_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(table_model, copy)
    damage(copy)
    with pytest.raises(ModelLoadError) as raised:
        SavedModel(str(copy)).warm_up()
    message = str(raised.value)
    assert "\n" not in message
    assert str(copy) in message
    assert len(message) < 1500
    for part in said:
        assert part in message
