"""Makes SavedModels of every kind that the runtimes are tried with, each as its makers make them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support import processes

DTYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "string",
)  # fmt: skip


def _save(module: Any, folder: Path, **functions: Any) -> str:
    import tensorflow as tf

    tf.saved_model.save(module, str(folder), {name: f.get_concrete_function() for name, f in functions.items()})
    return str(folder)


def identity(folder: Path, dtype: str) -> str:
    """Gives [batch] back as it came, each value repeated, and the rows turned round."""
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(
        lambda x: {"same": x, "twice": tf.stack([x, x], 1), "turned": tf.gather(x, tf.range(tf.size(x))[::-1])},
        input_signature=[tf.TensorSpec([None], dtype, "x")],
    )
    return _save(module, folder, serving_default=module.f)


def half_plus_two(folder: Path) -> str:
    """Halves and adds two, with two variables: TensorFlow Serving's own example, as a module."""
    import tensorflow as tf

    class HalfPlusTwo(tf.Module):
        def __init__(self) -> None:
            self.a, self.b = tf.Variable(0.5), tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            return {"y": x * self.a + self.b}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def pairs(self, x: Any) -> dict[str, Any]:
            return {"sum": tf.reduce_sum(x, 1) * self.a + self.b}

    module = HalfPlusTwo()
    return _save(module, folder, serving_default=module.__call__, pairs=module.pairs)


def large(folder: Path) -> str:
    """Looks numbers up in a table of 200 MB."""
    import tensorflow as tf

    module = tf.Module()
    module.table = tf.Variable(tf.reshape(tf.range(50_000_000, dtype=tf.float32), [-1, 100]))
    module.f = tf.function(
        lambda row: {"values": tf.gather(module.table, row)}, input_signature=[tf.TensorSpec([None], tf.int64, "row")]
    )
    return _save(module, folder, serving_default=module.f)


def half_plus_two_v1(folder: Path) -> str:
    """The same as the builder of TensorFlow 1 makes it."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        a, b = v1.Variable(0.5, name="a"), v1.Variable(2.0, name="b")
        y = tf.add(x * a, b, "y")
        session.run(v1.global_variables_initializer())
        _build(session, folder, {"x": x}, {"y": y})
    return str(folder)


def counter(folder: Path) -> str:
    """Counts what it was given, in a reference variable of TensorFlow 1; keeps the last value and the last word."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        by = v1.placeholder(tf.float32, [None], "by")
        word = v1.placeholder(tf.string, [None], "word")
        count = v1.Variable(0.0, use_resource=False, name="count")
        last = v1.Variable([0.0], shape=[None], validate_shape=False, use_resource=True, name="last")
        said = v1.Variable(["-"], shape=[None], validate_shape=False, use_resource=True, name="said")
        before, said_before = last.read_value(), said.read_value()
        with tf.control_dependencies([before, said_before]):
            kept, word_kept = last.assign(by, read_value=False), said.assign(word, read_value=False)
        with tf.control_dependencies([kept, word_kept]):
            total = count.assign_add(tf.reduce_sum(by))
        session.run(v1.global_variables_initializer())
        outputs = {"total": tf.identity(total), "last": before, "said": said_before}
        _build(session, folder, {"by": by, "word": word}, outputs)
    return str(folder)


def table_v1(folder: Path, words: list[str]) -> str:
    """Looks words up in a table that is filled from an asset; a sparse input, and an input that is an output."""
    import tensorflow as tf

    v1 = tf.compat.v1
    vocabulary = folder.parent / "words.txt"
    vocabulary.write_text("\n".join(words) + "\n")
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder(tf.string, [None], "word")
        bags = v1.sparse_placeholder(tf.int64, [None, None], "bags")
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        outputs = {"id": table.lookup(word), "sum": tf.sparse.reduce_sum(bags, 1), "word": word}
        session.run(v1.tables_initializer())
        _build(session, folder, {"word": word, "bags": bags}, outputs, main_op=v1.tables_initializer())
    vocabulary.unlink()
    return str(folder)


def _build(session: Any, folder: Path, inputs: Any, outputs: Any, main_op: Any = None) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    info = v1.saved_model.utils.build_tensor_info
    signature = v1.saved_model.signature_def_utils.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        "tensorflow/serving/predict",
    )
    builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
    assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
    builder.add_meta_graph_and_variables(
        session, ["serve"], {"serving_default": signature}, assets_collection=assets, main_op=main_op
    )
    builder.save()


def composites(folder: Path) -> str:
    """Takes a ragged and a sparse input, gives both back; another signature parses tf.Examples."""
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(2.0)

    @tf.function(
        input_signature=[
            tf.RaggedTensorSpec([None, None, None], tf.float32, 2),
            tf.SparseTensorSpec([None, 4], tf.int64),
            tf.RaggedTensorSpec([None, None], tf.string, 1),
        ]
    )
    def serving_default(r: Any, s: Any, w: Any) -> dict[str, Any]:
        return {"ragged": r * module.factor, "sparse": s, "sum": tf.sparse.reduce_sum(s, 1), "words": w}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "records")])
    def examples(records: Any) -> dict[str, Any]:
        features = {"x": tf.io.FixedLenFeature([2], tf.float32), "w": tf.io.FixedLenFeature([], tf.string)}
        return dict(tf.io.parse_example(records, features))

    return _save(module, folder, serving_default=serving_default, examples=examples)


def keras_two(folder: Path) -> str:
    """A model of Keras 2 that was trained with Adam, whose state is in it.

    It is made by another process: where tf_keras is imported, its classes help to load it.
    """
    root = Path(__file__).parents[2]
    processes.run([sys.executable, "-m", "tests.support.runtime_models", str(folder)], cwd=root, check=True)
    return str(folder)


def make_keras_two(folder: Path) -> None:
    """Trains and saves the model of `keras_two` in this process."""
    import numpy as np
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, activation="relu"), tf_keras.layers.Dense(1)])
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    model.fit(np.ones((8, 4), np.float32), np.ones(8, np.float32), epochs=1, verbose=0)
    model.save(str(folder), save_format="tf")


def keras_three(folder: Path) -> str:
    """A model of Keras 3 with the layers that look words up and bring numbers to one scale."""
    import keras
    import numpy as np

    words, numbers = keras.Input((1,), dtype="string", name="word"), keras.Input((2,), name="numbers")
    normal = keras.layers.Normalization()
    normal.adapt(np.array([[1.0, 10.0], [3.0, 30.0]], np.float32))
    looked_up = keras.layers.StringLookup(vocabulary=["a", "bb", "ccc"], output_mode="one_hot")(words)
    joined = keras.layers.Concatenate()([looked_up, normal(numbers)])
    model = keras.Model([words, numbers], keras.layers.Dense(2, kernel_initializer="ones")(joined))
    model.export(str(folder), verbose=False)
    return str(folder)


def strict(folder: Path) -> str:
    """Refuses a batch with a negative value."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serving_default(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "a negative age")]):
            return {"y": tf.sqrt(x)}

    return _save(module, folder, serving_default=serving_default)


def with_python(folder: Path) -> str:
    """Has a function of Python in its graph."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serving_default(x: Any) -> dict[str, Any]:
        y = tf.numpy_function(lambda values: values * 2, [x], tf.float32)
        return {"y": tf.ensure_shape(y, [None])}

    module.f = serving_default
    return _save(module, folder, serving_default=serving_default)


def with_dataset(folder: Path) -> str:
    """Computes with a tf.data pipeline, which has threads of its own, in the graph."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serving_default(x: Any) -> dict[str, Any]:
        data = tf.data.Dataset.from_tensor_slices(x).map(lambda v: v * 3, num_parallel_calls=2).prefetch(2)
        return {"total": data.reduce(0.0, lambda a, b: a + b)}

    return _save(module, folder, serving_default=serving_default)


if __name__ == "__main__":
    make_keras_two(Path(sys.argv[1]))
