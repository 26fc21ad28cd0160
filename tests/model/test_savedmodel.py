"""Loading and calling models, with dense, ragged and sparse inputs."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest

from model.errors import ModelInputError, ModelLoadError, ModelNotFoundError, SignatureNotFoundError
from model.savedmodel import SavedModel

tf = pytest.importorskip("tensorflow")

PACKAGED = Path(__file__).parents[2] / "model" / "trained" / "v1"


@pytest.fixture(scope="module")
def composite(tmp_path_factory):
    """A model with a ragged and a sparse input and output, and a variable; also a function of tf.Examples."""
    path = str(tmp_path_factory.mktemp("composite"))
    root = tf.Module()
    root.factor = tf.Variable(2.0)

    def function(r, s):
        return {"ragged": r * root.factor, "sparse": s, "sum": tf.sparse.reduce_sum(s, 1)}

    def examples(records):
        features = {"x": tf.io.FixedLenFeature([2], tf.float32), "w": tf.io.FixedLenFeature([], tf.string)}
        parsed = tf.io.parse_example(records, features)
        return {"x": parsed["x"], "w": parsed["w"]}

    ragged = tf.RaggedTensorSpec([None, None, None], tf.float32, 2)
    signatures = {
        "serving_default": tf.function(function).get_concrete_function(
            ragged, tf.SparseTensorSpec([None, 4], tf.int64)
        ),
        "examples": tf.function(examples).get_concrete_function(tf.TensorSpec([None], tf.string)),
        "picky": tf.function(lambda x: {"x": tf.ensure_shape(x, [3])}).get_concrete_function(
            tf.TensorSpec([None], tf.float32)
        ),
    }
    tf.saved_model.save(root, path, signatures=signatures)
    return path


@pytest.fixture
def tensors():
    return {
        "r": tf.ragged.constant([[[1.0], [2.0, 3.0]], [[4.0]]]),
        "s": tf.sparse.from_dense(tf.constant([[1, 0, 0, 2], [0, 0, 5, 0]], tf.int64)),
    }


def test_composite_inputs_and_outputs(composite, tensors):
    model = SavedModel(composite)
    model.warm_up()
    outputs = model(tensors)
    assert outputs["ragged"].to_list() == [[[2.0], [4.0, 6.0]], [[8.0]]]
    assert outputs["sum"].numpy().tolist() == [3, 5]
    assert isinstance(outputs["sparse"], tf.SparseTensor)


def test_other_row_splits_dtype_is_converted(composite, tensors):
    ragged = tensors["r"].with_row_splits_dtype(tf.int32)
    assert SavedModel(composite)({**tensors, "r": ragged})["ragged"].shape[0] == 2


def test_components_in_place_of_composites(composite, tensors):
    r, s = tensors["r"], tensors["s"]
    flat = {"r": r.flat_values, "r_1": r.nested_row_splits[0], "r_2": r.nested_row_splits[1]}
    flat |= {"s": s.indices, "s_1": s.values, "s_2": s.dense_shape}
    assert SavedModel(composite)(flat)["sum"].numpy().tolist() == [3, 5]


def test_inputs_that_do_not_match(composite, tensors):
    model = SavedModel(composite)
    with pytest.raises(ModelInputError, match=r"missing: s, s_1, s_2; unknown: t\); it takes r, s"):
        model({"r": tensors["r"], "t": tensors["s"]})
    with pytest.raises(ModelInputError, match="input 's' is a RaggedTensor; the model takes a sparse tensor"):
        model({**tensors, "s": tensors["r"]})
    with pytest.raises(ModelInputError, match="has 1 ragged dimensions; the model takes 2"):
        model({**tensors, "r": tf.ragged.constant([[1.0], [2.0]])})
    with pytest.raises(ModelInputError, match="missing: examples"):
        SavedModel(str(PACKAGED), "serving_examples")({})


def test_warm_up_gives_required_features_and_forgives_refusals(composite):
    model = SavedModel(composite, "examples")
    outputs = model(model._neutral_inputs())
    assert outputs["x"].numpy().tolist() == [[0.0, 0.0]] * 2
    picky = SavedModel(composite, "picky")
    picky.warm_up()
    assert picky({"x": tf.zeros([3])})["x"].shape == (3,)


def test_the_model_is_let_go(composite):
    model = SavedModel(composite)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_what_cannot_be_loaded(composite, tmp_path):
    with pytest.raises(ModelNotFoundError):
        SavedModel(str(tmp_path))
    with pytest.raises(SignatureNotFoundError):
        SavedModel(composite, "predict")
    shutil.copy(Path(composite, "saved_model.pb"), tmp_path)
    with pytest.raises(ModelLoadError, match="TensorFlow cannot load the model at"):
        SavedModel(str(tmp_path))
