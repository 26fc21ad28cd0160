"""Every kind of signature, called over record batches: values, order, and the rows that fail."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from inference.errors import BindingError
from inference.marks import failures_of
from inference.saved_model.handler import SavedModelHandler
from model.errors import ModelError

tf = pytest.importorskip("tensorflow")


def save(path, fn, *specs, name="m"):
    module = tf.Module()
    module.f = tf.function(fn, input_signature=list(specs))
    tf.saved_model.save(module, str(path / name), signatures={"serving_default": module.f.get_concrete_function()})
    return str(path / name)


def predict(path, *batches, **options):
    """Predicts in both runtimes, which must agree in every value and in every word about rows that fail."""
    found = []
    for runtime in ("native", "python"):
        handler = SavedModelHandler(path, runtime=runtime, **options)
        model = handler.load_model()
        assert model.runtime == runtime
        found.append(list(handler.run_inference(list(batches), model)))
    native, python = found
    assert [batch.schema for batch in native] == [batch.schema for batch in python]
    assert repr([batch.to_pydict() for batch in native]) == repr([batch.to_pydict() for batch in python])
    assert [failures_of(batch) for batch in native] == [failures_of(batch) for batch in python]
    return native


def columns(**values):
    return pa.RecordBatch.from_pydict(values)


DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_numeric_dtype(tmp_path, dtype):
    path = save(tmp_path, lambda x: {"y": x + x}, tf.TensorSpec([None], dtype, "x"))
    [out] = predict(path, columns(x=pa.array([0, 1, 2, 60], pa.int64())))
    assert out["y"].to_pylist() == [0, 2, 4, 120]
    assert str(out["y"].type) in (dtype, {"float16": "halffloat", "float32": "float", "float64": "double"}.get(dtype))


def test_bfloat16_bool_and_string(tmp_path):
    path = save(
        tmp_path,
        lambda h, b, s: {"h": h * 2, "b": tf.logical_not(b), "s": tf.strings.join([s, "!"])},
        tf.TensorSpec([None], "bfloat16", "h"),
        tf.TensorSpec([None], "bool", "b"),
        tf.TensorSpec([None], "string", "s"),
    )  # fmt: skip
    words = pa.array(["a", "é", "a"]).dictionary_encode()
    [out] = predict(path, columns(h=[1.5, 2.0, 3.0], b=[True, False, True], s=words))
    assert out["h"].to_pylist() == [3.0, 4.0, 6.0]
    assert out["b"].to_pylist() == [False, True, False]
    assert out["s"].to_pylist() == ["a!", "é!", "a!"]


@pytest.mark.parametrize("repeats", [1, 1000])
def test_strings_arrive_whether_they_repeat_or_not(tmp_path, repeats):
    path = save(tmp_path, lambda s: {"n": tf.strings.length(s)}, tf.TensorSpec([None], "string", "s"))
    values = [("x" * (i % 50)) if repeats > 1 else f"{i}" * 3 for i in range(2000)]
    [out] = predict(path, columns(s=values))
    assert out["n"].to_pylist() == [len(value) for value in values]


def test_lists_become_dense_tensors_of_their_shape(tmp_path):
    path = save(
        tmp_path,
        lambda a, b: {"a": tf.reduce_sum(a, 1), "b": tf.reduce_sum(b, [1, 2]), "twice": a * 2},
        tf.TensorSpec([None, 3], "float32", "a"), tf.TensorSpec([None, 2, 2], "int64", "b"),
    )  # fmt: skip
    rows = columns(
        a=pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float64(), 3)), b=[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    )
    [out] = predict(path, rows)
    assert out["a"].to_pylist() == [6, 15]
    assert out["b"].to_pylist() == [10, 26]
    assert out["twice"].to_pylist() == [[2, 4, 6], [8, 10, 12]]


def test_a_list_of_another_length_fails_alone(tmp_path):
    path = save(tmp_path, lambda a: {"a": tf.reduce_sum(a, 1)}, tf.TensorSpec([None, 2], "float32", "a"))
    [out] = predict(path, columns(a=[[1, 2], [1], [3, 4], [1, None]]))
    assert out["a"].to_pylist() == [3, None, 7, None]
    assert failures_of(out)[1].message == "column 'a': 1 values, and the model takes 2"
    assert set(failures_of(out)) == {1, 3}


def test_lists_of_open_length_are_grouped_and_keep_their_order(tmp_path):
    path = save(tmp_path, lambda a: {"n": tf.reduce_sum(a, 1), "same": a}, tf.TensorSpec([None, None], "float32", "a"))
    rows = [[float(i)] * (i % 4) for i in range(37)]
    [out] = predict(path, columns(a=pa.array(rows, pa.list_(pa.float32()))), max_batch_size=5)
    assert out["n"].to_pylist() == [sum(row) for row in rows]
    assert out["same"].to_pylist() == rows


def test_column_shaped_inputs_take_plain_columns(tmp_path):
    path = save(tmp_path, lambda a: {"y": a * 2}, tf.TensorSpec([None, 1], "float32", "a"))
    [out] = predict(path, columns(a=[1.0, 2.0]))
    assert out["y"].to_pylist() == [2.0, 4.0]
    [out] = predict(path, columns(a=[[1.0], [2.0]]))
    assert out["y"].to_pylist() == [2.0, 4.0]


def test_ragged_and_sparse_inputs_and_ragged_outputs(tmp_path):
    module = tf.Module()
    module.f = tf.function(
        lambda r, s: {"r": tf.reduce_sum(r, 1), "s": tf.sparse.reduce_sum(s, 1), "back": r * 2},
        input_signature=[tf.RaggedTensorSpec([None, None], tf.float32), tf.SparseTensorSpec([None, None], tf.int64)],
    )
    path = str(tmp_path / "m")
    tf.saved_model.save(module, path, signatures={"serving_default": module.f.get_concrete_function()})
    [out] = predict(path, columns(r=pa.array([[1, 2], [], [3]], pa.list_(pa.float32())), s=[[1], [2, 3], []]))
    assert out["r"].to_pylist() == [3, 0, 3]
    assert out["s"].to_pylist() == [1, 5, 0]
    assert out["back"].to_pylist() == [[2, 4], [], [6]]


def test_serialized_examples_pass_and_columns_are_encoded():
    handler = SavedModelHandler("model/trained/v1", "serving_examples", defaults={"alcohol_use": "Unknown"})
    births = columns(
        is_male=["True", "False"], mother_race=["White", None], mother_married=["True", "True"],
        cigarette_use=["False", "False"], mother_age=[30, None], plurality=[1, 1], gestation_weeks=[39.5, 38.0],
    )  # fmt: skip
    model = handler.load_model()
    [encoded] = handler.run_inference([births], model)
    example = tf.train.Example()
    for name in births.schema.names:
        value = births[name][0].as_py()
        if isinstance(value, str):
            example.features.feature[name].bytes_list.value.append(value.encode())
        else:
            example.features.feature[name].float_list.value.append(value)
    [passed] = handler.run_inference([columns(examples=[example.SerializeToString()])], model)
    assert encoded["predictions"][0] == passed["predictions"][0]
    assert all(5 < value < 10 for value in encoded["predictions"].to_pylist())


def test_a_row_that_the_model_refuses_is_found_among_its_neighbours(tmp_path):
    def fn(x):
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "negative is not allowed")]):
            return {"y": tf.sqrt(x)}

    path = save(tmp_path, fn, tf.TensorSpec([None], "float32", "x"))
    values = np.arange(1000, dtype=np.float32)
    values[[0, 17, 500, 501, 999]] *= -1
    values[0] = -1
    [out] = predict(path, columns(x=values, id=np.arange(1000)), max_batch_size=128)
    failures = failures_of(out)
    assert sorted(failures) == [0, 17, 500, 501, 999]
    assert all(f.stage == "predict" and "negative is not allowed" in f.message for f in failures.values())
    good = [i for i in range(1000) if i not in failures]
    assert out["y"].take(pa.array(good)).to_numpy() == pytest.approx(np.sqrt(values[good]))
    assert out["id"].to_pylist() == list(range(1000))
    assert out["y"].null_count == 5


def test_outputs_that_are_not_one_a_row_are_never_laid_beside_the_wrong_row(tmp_path):
    path = save(tmp_path, lambda x: {"y": tf.boolean_mask(x, x > 0)}, tf.TensorSpec([None], "float32", "x"))
    [out] = predict(path, columns(x=[1.0, -1.0, 2.0, -2.0, 3.0]))
    assert out["y"].to_pylist() == [1.0, None, 2.0, None, 3.0]
    assert "0 rows for a batch of 1 rows" in failures_of(out)[1].message


def test_missing_values_take_the_default_or_fail(tmp_path):
    path = save(
        tmp_path,
        lambda x, s: {"y": x, "z": s},
        tf.TensorSpec([None], "float32", "x"),
        tf.TensorSpec([None], "string", "s"),
    )
    rows = columns(x=pa.array([1, None, 3], pa.int32()), s=pa.array(["a", "b", None]).dictionary_encode())
    [out] = predict(path, rows)
    assert {row: f.message.split(";")[0] for row, f in failures_of(out).items()} == {
        1: "column 'x': a value is missing", 2: "column 's': a value is missing",
    }  # fmt: skip
    [out] = predict(path, rows, defaults={"x": "NaN", "s": "none"})
    assert not failures_of(out)
    assert np.isnan(out["y"][1].as_py())
    assert out["z"].to_pylist() == ["a", "b", "none"]
    [out] = predict(path, columns(s=["a", "b"]), defaults={"x": 5})
    assert out["y"].to_pylist() == [5.0, 5.0]


def test_batches_are_joined_for_the_model_and_come_back_apart(tmp_path):
    path = save(tmp_path, lambda x: {"n": tf.fill([tf.size(x)], tf.size(x))}, tf.TensorSpec([None], "float32", "x"))
    outs = predict(path, columns(x=[1.0]), columns(x=["2", "bad"]), columns(x=[3.0, 4.0]), columns(x=[5.0]))
    assert [out.num_rows for out in outs] == [1, 2, 2, 1]
    assert outs[2]["n"].to_pylist() == [3, 3]
    assert outs[3]["n"].to_pylist() == [3]
    assert failures_of(outs[1])[1].message == "column 'x': 'bad' is not a float"


def test_no_rows_at_all(tmp_path):
    path = save(tmp_path, lambda x: {"y": x}, tf.TensorSpec([None], "float32", "x"))
    [out] = predict(path, columns(x=pa.array([], pa.float32())))
    assert out.schema.names == ["x", "y"]
    assert predict(path) == []


def test_a_model_with_a_fixed_number_of_rows_is_fed_that_many(tmp_path):
    path = save(tmp_path, lambda x: {"y": x + 1}, tf.TensorSpec([4], "float32", "x"))
    [out] = predict(path, columns(x=[1.0, 2.0, 3.0, 4.0, 5.0]))
    assert out["y"].to_pylist() == [2, 3, 4, 5, 6]


def test_binding_names_every_problem_at_once(tmp_path):
    path = save(
        tmp_path,
        lambda mother_age, race, when: {"y": mother_age},
        tf.TensorSpec([None], "float32", "mother_age"), tf.TensorSpec([None], "string", "race"),
        tf.TensorSpec([None], "int64", "when"),
    )  # fmt: skip
    handler = SavedModelHandler(path, columns={"rac": "x"}, defaults={"whem": 1})
    schema = pa.schema([("Mother_Age", pa.float32()), ("race", pa.float64()), ("when", pa.timestamp("us"))])
    with pytest.raises(BindingError) as caught:
        handler.bind(schema)
    text = "\n".join(caught.value.problems)
    assert "source.columns: 'rac' is not an input of the model; did you mean 'race'?" in text
    assert "source.defaults: 'whem'" in text
    assert "no column 'mother_age' in the source; did you mean 'Mother_Age'?" in text
    assert "column 'race' is double, and input 'race' takes string" in text
    assert "column 'when' is timestamp[us]" in text
    assert len(caught.value.problems) == 5


def test_constructor_errors_are_the_models_own():
    with pytest.raises(ModelError, match="did you mean"):
        SavedModelHandler("model/trained/v1", "serving_defalt")
    with pytest.raises(ModelError):
        SavedModelHandler("no/such/model")
    with pytest.raises(ValueError, match="max_batch_size"):
        SavedModelHandler("model/trained/v1", max_batch_size=0)


def test_versions(tmp_path):
    for number in (1, 2, 10):
        save(tmp_path, lambda x, n=number: {"y": x * n}, tf.TensorSpec([None], "float32", "x"), name=f"v{number}")
    assert predict(str(tmp_path), columns(x=[1.0]), version="latest")[0]["y"].to_pylist() == [10.0]
    assert predict(str(tmp_path), columns(x=[1.0]), version="v2")[0]["y"].to_pylist() == [2.0]
    with pytest.raises(ModelError, match="v3"):
        SavedModelHandler(str(tmp_path), version="v3")


def test_handlers_travel_to_workers_without_their_model():
    handler = SavedModelHandler("model/trained/v1")
    copy = pickle.loads(pickle.dumps(handler))
    assert copy.signature == handler.signature
    assert copy.batch_elements_kwargs()["max_batch_size"] == 16384
