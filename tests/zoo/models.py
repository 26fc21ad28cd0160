"""Makes small SavedModels of every kind that people have, each with a table that suits it and its predictions.

Made as their users make them: Keras 3 `export`, Keras 2 `save`, the builder of TensorFlow 1, `tf.Module`. What a model
predicts is computed by the object that was saved, before anything of this project reads it.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 24
Table = dict[str, list[Any]]


@dataclass(frozen=True)
class Sample:
    """A table for a model, and what the model predicts for it.

    Attributes:
      table: columns of the data, each with a value for each row; "id" is the key.
      outputs: name of an output -> a value for each row.
      sets: what a person has to set in the config that `init` proposes; mostly nothing.
      arguments: further arguments of `init`.
    """

    table: Table
    outputs: Mapping[str, Any]
    sets: Sequence[str] = ()
    arguments: Sequence[str] = ()


Maker = Callable[[Path], Sample]
MAKERS: dict[str, Maker] = {}
FORMATS: dict[str, Sequence[str]] = {}


def _maker(*formats: str) -> Callable[[Maker], Maker]:
    """Registers a function that makes a model, and the formats that its table is written in."""

    def register(function: Maker) -> Maker:
        MAKERS[function.__name__] = function
        FORMATS[function.__name__] = formats or ("csv", "parquet")
        return function

    return register


def tensorflow() -> Any:
    """Returns TensorFlow, imported when the first model is made."""
    return importlib.import_module("tensorflow")


def _table(seed: int = 1, **columns: Any) -> Table:
    return {"id": [f"r{row:03d}" for row in range(ROWS)], **{name: list(values) for name, values in columns.items()}}


def _floats(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=(ROWS, *shape)).round(3).astype(np.float32)


def _choices(seed: int, values: Sequence[Any]) -> list[Any]:
    return [values[place] for place in np.random.default_rng(seed).integers(0, len(values), ROWS)]


def _as_python(values: Any) -> list[Any]:
    """Values as a table holds them: float32 as the shortest decimal that is that number."""
    return [_as_python(value) if np.ndim(value) else float(str(value)) for value in values]


def _export(model: Any, folder: Path) -> None:
    model.export(str(folder), verbose=False)


def _save(module: Any, folder: Path, **signatures: Any) -> None:
    tf = tensorflow()
    functions = signatures or {"serving_default": module.__call__}
    tf.saved_model.save(module, str(folder), {n: f.get_concrete_function() for n, f in functions.items()})


# Keras 3


@_maker()
def keras3_columns(folder: Path) -> Sample:
    """Takes two named numbers, as models of tables with an Input for each column do."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input((1,), name=name) for name in ("age", "income")}
    hidden = keras.layers.Dense(4, "relu")(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, keras.layers.Dense(1, name="risk")(hidden))
    age, income = _floats(2), _floats(3)
    _export(model, folder)
    predicted = model({"age": age[:, None], "income": income[:, None]}).numpy()
    return Sample(_table(Age=_as_python(age), Income=_as_python(income)), {"output_0": predicted[:, 0]})


@_maker()
def keras3_vector(folder: Path) -> Sample:
    """Takes one vector: the commonest model of a table."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3, "softmax")])
    values = _floats(4, 4)
    _export(model, folder)
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    columns = {name: _as_python(values[:, place]) for place, name in enumerate(names)}
    return Sample(_table(**columns), {"output_0": model(values).numpy()})


@_maker("csv", "json")
def keras3_preprocessing(folder: Path) -> Sample:
    """Looks words up and normalizes numbers inside the model."""
    tf = tensorflow()
    keras = tf.keras
    keras.utils.set_random_seed(3)
    words, numbers = _choices(5, ("red", "green", "blue", "unheard of")), _floats(6)
    lookup = keras.layers.StringLookup(vocabulary=["red", "green", "blue"], output_mode="one_hot")
    normalize = keras.layers.Normalization(axis=None)
    normalize.adapt(numbers)
    colour, size = keras.Input((1,), name="colour", dtype="string"), keras.Input((1,), name="size")
    joined = keras.layers.Concatenate()([lookup(colour), normalize(size)])
    model = keras.Model({"colour": colour, "size": size}, keras.layers.Dense(1)(joined))
    _export(model, folder)
    predicted = model({"colour": tf.constant(words)[:, None], "size": tf.constant(numbers)[:, None]}).numpy()
    return Sample(_table(colour=words, size=_as_python(numbers)), {"output_0": predicted[:, 0]})


@_maker("json", "parquet", "tfrecord")
def keras3_image(folder: Path) -> Sample:
    """Takes pixels, which tables hold as one flat list a row."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((8, 8, 3), name="image"), keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    pixels = _floats(7, 8, 8, 3)
    _export(model, folder)
    flat = _as_python(pixels.reshape(ROWS, -1))
    return Sample(_table(image=flat), {"output_0": model(pixels).numpy()})


@_maker("json", "parquet")
def keras3_lstm(folder: Path) -> Sample:
    """Takes sequences of vectors."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((6, 2), name="series"), keras.layers.LSTM(3), keras.layers.Dense(1)])
    series = _floats(8, 6, 2)
    _export(model, folder)
    return Sample(_table(series=_as_python(series)), {"output_0": model(series).numpy()[:, 0]})


@_maker()
def keras3_300_columns(folder: Path) -> Sample:
    """Takes 300 named numbers."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(6)
    names = [f"f{number}" for number in range(300)]
    inputs = {name: keras.Input((1,), name=name) for name in names}
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values()))))
    values = _floats(9, 300)
    _export(model, folder)
    predicted = model({name: values[:, [place]] for place, name in enumerate(names)}).numpy()[:, 0]
    columns = {name: _as_python(values[:, place]) for place, name in enumerate(names)}
    return Sample(_table(**columns), {"output_0": predicted})


@_maker("csv", "json")
def keras3_several_outputs(folder: Path) -> Sample:
    """Gives several named outputs of different shapes."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(7)
    x = keras.Input((1,), name="x")
    outputs = {"score": keras.layers.Dense(1)(x), "classes": keras.layers.Dense(3)(x)}
    model = keras.Model({"x": x}, outputs)
    values = _floats(10)
    _export(model, folder)
    predicted = model({"x": values[:, None]})
    expected = {"score": predicted["score"].numpy()[:, 0], "classes": predicted["classes"].numpy()}
    return Sample(_table(x=_as_python(values)), expected)


@_maker("csv", "json", "parquet")
def keras3_token_ids(folder: Path) -> Sample:
    """Takes lists of integers, as the encoders of texts do."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(8)
    ids = keras.Input((5,), dtype="int32", name="input_ids")
    mask = keras.Input((5,), dtype="int32", name="attention_mask")
    embedded = keras.layers.Embedding(50, 4)(ids)
    weighted = keras.layers.Multiply()([embedded, keras.layers.Reshape((5, 1))(mask)])
    model = keras.Model({"input_ids": ids, "attention_mask": mask}, keras.layers.GlobalAveragePooling1D()(weighted))
    rng = np.random.default_rng(11)
    tokens, ones = rng.integers(0, 50, (ROWS, 5), np.int32), rng.integers(0, 2, (ROWS, 5), np.int32)
    _export(model, folder)
    predicted = model({"input_ids": tokens, "attention_mask": ones}).numpy()
    table = _table(input_ids=tokens.tolist(), attention_mask=ones.tolist())
    return Sample(table, {"output_0": predicted})


# Keras 2


@_maker()
def keras2_with_optimizer(folder: Path) -> Sample:
    """Was trained and saved with its optimizer's state, as most SavedModels of 2019 to 2023."""
    keras = importlib.import_module("tf_keras")
    keras.utils.set_random_seed(9)
    model = keras.Sequential([keras.layers.Dense(4, "relu", input_shape=(3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    values = _floats(12, 3)
    model.fit(values, values.sum(axis=1), epochs=1, verbose=0)
    model.save(str(folder), save_format="tf")
    columns = {name: _as_python(values[:, place]) for place, name in enumerate("abc")}
    return Sample(_table(**columns), {"dense_1": model(values).numpy()[:, 0]})


@_maker("csv", "json")
def keras2_functional(folder: Path) -> Sample:
    """Has named inputs and outputs, and an optimizer of Keras 2.10 and before, whose state are slots."""
    tf, keras = tensorflow(), importlib.import_module("tf_keras")
    keras.utils.set_random_seed(10)
    city = keras.Input((1,), name="city", dtype="string")
    rooms = keras.Input((1,), name="rooms")
    known = keras.layers.StringLookup(vocabulary=["Ulm", "Bonn"], output_mode="one_hot")(city)
    joined = keras.layers.Concatenate()([known, rooms])
    price, days = keras.layers.Dense(1, name="price")(joined), keras.layers.Dense(1, name="days")(joined)
    model = keras.Model({"city": city, "rooms": rooms}, {"price": price, "days": days})
    model.compile(keras.optimizers.legacy.Adam(), "mse")
    cities, counts = _choices(13, ("Ulm", "Bonn", "Köln")), _floats(14)
    given = {"city": tf.constant(cities)[:, None], "rooms": counts[:, None]}
    model.fit(given, {"price": counts, "days": counts}, epochs=1, verbose=0)
    model.save(str(folder), save_format="tf")
    predicted = {name: value.numpy()[:, 0] for name, value in model(given).items()}
    return Sample(_table(city=cities, rooms=_as_python(counts)), predicted)


# TensorFlow 1


def _build(folder: Path, graph: Any, session: Any, signatures: Mapping[str, Any], **options: Any) -> None:
    v1 = tensorflow().compat.v1
    builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
    builder.add_meta_graph_and_variables(
        session, [v1.saved_model.tag_constants.SERVING], signature_def_map=dict(signatures), **options
    )
    builder.save()


def _signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str = "predict") -> Any:
    v1 = tensorflow().compat.v1
    info = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.signature_def_utils.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


@_maker()
def tf1_half_plus_two(folder: Path) -> Sample:
    """TensorFlow Serving's first example: signatures of predict, regress and classify, ref variables."""
    v1 = tensorflow().compat.v1
    graph = tensorflow().Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        a = v1.Variable(0.5, name="a", use_resource=False)
        b = v1.Variable(2.0, name="b", use_resource=False)
        serialized = v1.placeholder(tensorflow().string, [None], "tf_example")
        parsed = v1.parse_example(serialized, {"x": v1.FixedLenFeature([1], tensorflow().float32)})
        x = tensorflow().identity(parsed["x"], "x")
        y = tensorflow().add(a * x, b, "y")
        session.run(v1.global_variables_initializer())
        signatures = {
            "serving_default": _signature({"x": x}, {"y": y}),
            "regress_x_to_y": _signature({"inputs": serialized}, {"outputs": y}, "regress"),
            "classify_x_to_y": _signature({"inputs": serialized}, {"scores": y}, "classify"),
        }
        _build(folder, graph, session, signatures)
    values = _floats(15)
    return Sample(_table(x=_as_python(values)), {"y": values * np.float32(0.5) + np.float32(2)})


@_maker("csv", "json", "tfrecord")
def tf1_examples(folder: Path) -> Sample:
    """Parses tf.Examples, with features of a fixed and of a variable length."""
    tf, v1 = tensorflow(), tensorflow().compat.v1
    graph = tf.Graph()
    ages, tags = _floats(16), _choices(17, ("a", "bb", "ccc"))
    with graph.as_default(), v1.Session(graph=graph) as session:
        serialized = v1.placeholder(tf.string, [None], "examples")
        features = {"age": v1.FixedLenFeature([], tf.float32), "tag": v1.VarLenFeature(tf.string)}
        parsed = v1.parse_example(serialized, features)
        lengths = tf.strings.length(tf.sparse.to_dense(parsed["tag"], default_value=""))
        score = parsed["age"] + tf.cast(tf.reduce_sum(lengths, axis=1), tf.float32)
        signatures = {"serving_default": _signature({"examples": serialized}, {"score": score})}
        _build(folder, graph, session, signatures)
    expected = ages + np.array([len(tag) for tag in tags], np.float32)
    return Sample(_table(age=_as_python(ages), tag=tags), {"score": expected})


@_maker("csv", "json", "parquet")
def tf1_odd_names(folder: Path) -> Sample:
    """Has names of inputs and outputs that no program would choose."""
    tf, v1 = tensorflow(), tensorflow().compat.v1
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        first, second = (v1.placeholder(tf.float32, [None]) for _ in range(2))
        total = first + 2 * second
        inputs = {"Age (years)": first, "größe/cm": second}
        _build(folder, graph, session, {"serving_default": _signature(inputs, {"the score, in %": total})})
    ages, sizes = _floats(18), _floats(19)
    table = _table(**{"Age (years)": _as_python(ages), "größe/cm": _as_python(sizes)})
    return Sample(table, {"the score, in %": ages + 2 * sizes})


@_maker("csv", "tfrecord")
def tf1_table_of_an_asset(folder: Path) -> Sample:
    """Looks words up in a table that is initialised from a file of the model."""
    tf, v1 = tensorflow(), tensorflow().compat.v1
    words = folder.parent / "words.txt"
    words.write_text("zero\none\ntwo\n")
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        word = v1.placeholder(tf.string, [None], "word")
        initializer = tf.lookup.TextFileInitializer(
            str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        number = tf.lookup.StaticHashTable(initializer, -1).lookup(word)
        session.run(v1.tables_initializer())
        signatures = {"serving_default": _signature({"word": word}, {"number": number})}
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        _build(folder, graph, session, signatures, assets_collection=assets, main_op=v1.tables_initializer())
    words.unlink()
    given = _choices(20, ("zero", "one", "two", "three"))
    expected = [{"zero": 0, "one": 1, "two": 2}.get(text, -1) for text in given]
    return Sample(_table(word=given), {"number": expected})


# tf.Module


def _module(function: Any, *specs: Any) -> Any:
    tf = tensorflow()

    class Module(tf.Module):  # type: ignore[misc, name-defined]
        __call__ = tf.function(function, input_signature=list(specs), autograph=False)

    return Module()


def _spec(shape: Sequence[int | None] | None, dtype: str, name: str) -> Any:
    return tensorflow().TensorSpec(shape, dtype, name)


@_maker("csv", "json", "parquet")
def module_of_many_types(folder: Path) -> Sample:
    """Takes and gives values of many types."""
    tf = tensorflow()

    def call(self: Any, small: Any, large: Any, exact: Any, flag: Any) -> dict[str, Any]:
        return {
            "sum": tf.cast(small, tf.int64) + large,
            "half": exact / 2,
            "negated": tf.logical_not(flag),
            "as_bytes": tf.strings.as_string(large),
        }

    _save(
        _module(
            call,
            _spec([None], "uint8", "small"),
            _spec([None], "int64", "large"),
            _spec([None], "float64", "exact"),
            _spec([None], "bool", "flag"),
        ),
        folder,
    )
    rng = np.random.default_rng(21)
    small, large = rng.integers(0, 256, ROWS), rng.integers(-(2**40), 2**40, ROWS)
    exact, flag = rng.normal(size=ROWS), rng.integers(0, 2, ROWS).astype(bool)
    table = _table(small=small.tolist(), large=large.tolist(), exact=exact.tolist(), flag=flag.tolist())
    outputs = {"sum": small + large, "half": exact / 2, "negated": ~flag, "as_bytes": [str(n) for n in large]}
    return Sample(table, outputs)


@_maker("csv", "json", "parquet")
def module_of_text(folder: Path) -> Sample:
    """Takes text and gives text."""
    tf = tensorflow()

    def upper(self: Any, text: Any) -> dict[str, Any]:
        return {"upper": tf.strings.upper(text, encoding="utf-8")}

    _save(_module(upper, _spec([None], "string", "text")), folder)
    texts = _choices(22, ("the first", 'says "hi", twice', "naïve ☃", ""))
    # An empty cell of CSV is a missing value.
    texts = [text or "x" for text in texts]
    return Sample(_table(text=texts), {"upper": [text.upper() for text in texts]})


@_maker("text")
def module_of_lines(folder: Path) -> Sample:
    """Takes text that stands in a file as plain lines."""
    tf = tensorflow()

    def call(self: Any, sentence: Any) -> dict[str, Any]:
        return {"length": tf.strings.length(sentence)}

    _save(_module(call, _spec([None], "string", "sentence")), folder)
    lines = _choices(23, ("one", "two words", "and, three words"))
    return Sample({"line": lines}, {"length": [len(line) for line in lines]})


@_maker("json", "parquet")
def module_of_ragged(folder: Path) -> Sample:
    """Takes lists of any length."""
    tf = tensorflow()

    def call(self: Any, values: Any) -> dict[str, Any]:
        return {"total": tf.reduce_sum(values, axis=1), "doubled": values * 2}

    _save(_module(call, tf.RaggedTensorSpec([None, None], tf.int64, 1)), folder)
    rng = np.random.default_rng(24)
    lists = [rng.integers(0, 9, rng.integers(0, 4)).tolist() for _ in range(ROWS)]
    outputs = {"total": [sum(values) for values in lists], "doubled": [[2 * v for v in values] for values in lists]}
    return Sample(_table(values=lists), outputs)


@_maker("json", "parquet")
def module_of_sparse(folder: Path) -> Sample:
    """Takes lists as a sparse matrix."""
    tf = tensorflow()

    def call(self: Any, weights: Any) -> dict[str, Any]:
        return {"total": tf.sparse.reduce_sum(weights, axis=1)}

    _save(_module(call, tf.SparseTensorSpec([None, None], tf.float32)), folder)
    rng = np.random.default_rng(25)
    lists = [(rng.integers(0, 9, rng.integers(0, 4)) / 2).tolist() for _ in range(ROWS)]
    return Sample(_table(weights=lists), {"total": [sum(values) for values in lists]})


def _jpegs() -> list[bytes]:
    tf = tensorflow()
    rng = np.random.default_rng(26)
    pixels = [np.full((8, 8, 3), value, np.uint8) for value in rng.integers(0, 256, ROWS)]
    return [tf.io.encode_jpeg(each).numpy() for each in pixels]


def _mean_of_jpegs(folder: Path) -> list[float]:
    tf = tensorflow()

    def mean(encoded: Any) -> Any:
        return tf.reduce_mean(tf.cast(tf.io.decode_jpeg(encoded, channels=3), tf.float32))

    def call(self: Any, image_bytes: Any) -> dict[str, Any]:
        return {"mean": tf.map_fn(mean, image_bytes, fn_output_signature=tf.float32)}

    _save(_module(call, _spec([None], "string", "image_bytes")), folder)
    return [float(mean(jpeg)) for jpeg in _jpegs()]


@_maker("json")
def module_of_jpegs_in_json(folder: Path) -> Sample:
    """Decodes images that stand in JSON as TensorFlow Serving's clients write them."""
    means = _mean_of_jpegs(folder)
    encoded = [{"b64": base64.b64encode(jpeg).decode()} for jpeg in _jpegs()]
    return Sample(_table(image_bytes=encoded), {"mean": means})


@_maker("bytes", "tfrecord_raw")
def module_of_jpegs_in_files(folder: Path) -> Sample:
    """Decodes images, each a file of a folder."""
    return Sample({"bytes": _jpegs()}, {"mean": _mean_of_jpegs(folder)})


@_maker("json", "parquet")
def module_of_a_fixed_batch(folder: Path) -> Sample:
    """Takes exactly eight rows a call, and would tell if one of them were missing."""
    tf = tensorflow()

    def call(self: Any, x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(x, axis=1) * 2}

    _save(_module(call, _spec([8, 3], "float32", "x")), folder)
    values = _floats(27, 3)
    table = {"id": _table()["id"], "x": _as_python(values)}
    # Not a multiple of eight.
    short = {name: column[: ROWS - 3] for name, column in table.items()}
    return Sample(short, {"y": (values.sum(axis=1) * 2)[: ROWS - 3]})


@_maker()
def module_of_one_row(folder: Path) -> Sample:
    """Takes the values of one row, without a dimension for the batch."""

    def call(self: Any, a: Any, b: Any) -> dict[str, Any]:
        return {"product": a * b}

    _save(_module(call, _spec([], "float32", "a"), _spec([], "float32", "b")), folder)
    a, b = _floats(28), _floats(29)
    return Sample(_table(a=_as_python(a), b=_as_python(b)), {"product": a * b})


@_maker()
def module_of_another_signature(folder: Path) -> Sample:
    """Has one signature, which is not named serving_default."""
    module = _module(lambda self, x: {"y": x + 1}, _spec([None], "float32", "x"))
    _save(module, folder, score=module.__call__)
    values = _floats(30)
    return Sample(_table(x=_as_python(values)), {"y": values + np.float32(1)})


@_maker()
def module_of_several_signatures(folder: Path) -> Sample:
    """Has several signatures; a person names the one that is wanted."""
    tf = tensorflow()

    class Module(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def half(self, x: Any) -> dict[str, Any]:
            return {"half": x / 2}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def double(self, x: Any) -> dict[str, Any]:
            return {"double": x * 2}

    module = Module()
    _save(module, folder, half=module.half, double=module.double)
    values = _floats(31)
    return Sample(_table(x=_as_python(values)), {"double": values * 2}, arguments=("--signature", "double"))


@_maker()
def module_with_an_output_without_rows(folder: Path) -> Sample:
    """Gives, beside a value for each row, one for the whole batch, which `output.columns` leaves out."""
    tf = tensorflow()

    def call(self: Any, x: Any) -> dict[str, Any]:
        return {"y": x * 3, "rows": tf.size(x)}

    _save(_module(call, _spec([None], "float32", "x")), folder)
    values = _floats(32)
    return Sample(_table(x=_as_python(values)), {"y": values * 3}, sets=('output.columns=["id","y"]',))


@_maker("csv", "parquet")
def module_of_variable_length_features(folder: Path) -> Sample:
    """Parses tf.Examples whose features are all of a variable length, as TFX's Chicago taxi model does."""
    tf = tensorflow()

    def call(self: Any, examples: Any) -> dict[str, Any]:
        features = {"fare": tf.io.VarLenFeature(tf.float32), "company": tf.io.VarLenFeature(tf.string)}
        parsed = tf.io.parse_example(examples, features)
        fare = tf.sparse.to_dense(parsed["fare"], default_value=-1.0)
        company = tf.sparse.to_dense(parsed["company"], default_value="")
        known = tf.strings.length(tf.strings.reduce_join(company, axis=1))
        return {"score": tf.reduce_sum(fare, axis=1) + tf.cast(known, tf.float32)}

    _save(_module(call, _spec([None], "string", "examples")), folder)
    fares = [None if row % 7 == 3 else row / 4 for row in range(ROWS)]
    companies = [None if row % 5 == 2 else "c" * (row % 4 + 1) for row in range(ROWS)]
    # to_dense fills a missing value with its default where another row of the batch has one.
    score = [(-1.0 if fare is None else fare) + len(name or "") for fare, name in zip(fares, companies, strict=True)]
    return Sample(_table(fare=fares, company=companies), {"score": score})


def lose_an_operation(folder: Path) -> str:
    """Renames an operation in a saved model's graph to one that no library has; returns the name."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = model.meta_graphs[0].graph_def
    renamed = 0
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            if node.op == "Mul":
                node.op = "TheirOwnKernel"
                renamed += 1
    assert renamed, "the graph does not multiply"
    path.write_bytes(model.SerializeToString())
    return "TheirOwnKernel"


def main() -> None:
    """Makes the models that are named on the command line behind a folder, each beside its sample as JSON."""
    folder, *names = sys.argv[1:]
    for name in names:
        sample = MAKERS[name](Path(folder) / name)
        outputs = {output: np.asarray(values).tolist() for output, values in sample.outputs.items()}
        (Path(folder) / f"{name}.json").write_text(json.dumps({"table": sample.table, "outputs": outputs}))


if __name__ == "__main__":
    main()
