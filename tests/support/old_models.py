"""Writes models that only older TensorFlow and Keras write, in a process of its own: `python old_models.py FOLDER`.

Keras 2 must not be imported by the process that tests: TensorFlow would find its classes there. Beside each model lie
the rows that it was called with, and what it gave for them.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Writes all of them."""
    keras_2(folder / "keras2")
    reference_variable(folder / "reference")
    tensorflow_1(folder / "tf1")


def keras_2(path: Path) -> None:
    """Writes a model that was trained for one step, with its optimizer's state, a table and an asset."""
    import numpy as np
    import tensorflow as tf
    import tf_keras

    class Model(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = tf_keras.layers.StringLookup(vocabulary=["red", "green"])
            self.embedding = tf_keras.layers.Embedding(3, 2)
            self.dense = tf_keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            word = self.embedding(self.words(inputs["word"]))
            return {"score": self.dense(tf.concat([word, inputs["size"]], 1))}

    rows = {"word": ["red", "green", "blue", "red"], "size": [[0.5], [1.0], [2.0], [-1.0]]}
    inputs = {"word": tf.constant(rows["word"]), "size": tf.constant(rows["size"])}
    model = Model()
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    model.fit(inputs, {"score": np.ones([4, 1], "float32")}, verbose=0)
    model.save(str(path), save_format="tf")
    given = model(inputs)["score"].numpy().ravel().tolist()
    rows["size"] = [value for [value] in rows["size"]]
    path.with_suffix(".json").write_text(json.dumps({"rows": rows, "outputs": {"score": given}}))


def reference_variable(path: Path) -> None:
    """Writes a model of TensorFlow 1 whose variable is no resource, with a table that is filled from an asset."""
    import tensorflow as tf

    v1 = tf.compat.v1
    vocabulary = path.parent / "words.txt"
    vocabulary.write_text("red\ngreen\n")
    rows = {"word": ["red", "green", "blue"], "size": [1.0, 2.0, 3.0]}
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("weight", [1], initializer=v1.constant_initializer(2.5), use_resource=False)
        word, size = v1.placeholder(tf.string, [None], "word"), v1.placeholder(tf.float32, [None], "size")
        asset = tf.constant(str(vocabulary))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        initializer = tf.lookup.TextFileInitializer(
            asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        table = tf.lookup.StaticVocabularyTable(initializer, 1)
        score = size * weight[0] + tf.cast(table.lookup(word), tf.float32)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        given = session.run(score, {word: rows["word"], size: rows["size"]}).tolist()
        v1.saved_model.simple_save(
            session,
            str(path),
            {"word": word, "size": size},
            {"score": score},
            legacy_init_op=v1.tables_initializer(),
        )
    path.with_suffix(".json").write_text(json.dumps({"rows": rows, "outputs": {"score": given}}))


def tensorflow_1(path: Path) -> None:
    """Writes a model with two graphs for serving, of which TensorFlow 2 loads neither by itself."""
    import tensorflow as tf

    v1 = tf.compat.v1
    rows = {"word": ["a", "b"], "size": [1.0, 2.0]}
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("weight", [], initializer=v1.constant_initializer(3.0))
        size, word = v1.placeholder(tf.float32, [None], "size"), v1.placeholder(tf.string, [None], "word")
        sparse = v1.sparse_placeholder(tf.float32, [None, None])
        outputs = {"score": size * weight, "words": tf.strings.upper(word), "sparse": sparse * 2.0}
        inputs = {"size": size, "word": word}
        session.run(v1.global_variables_initializer())
        define = v1.saved_model.predict_signature_def
        signatures = {
            "scores": define(inputs, {name: outputs[name] for name in ("score", "words")}),
            "sparse": define({"values": sparse}, {"sparse": outputs["sparse"]}),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve", "tpu"], signatures)
        builder.add_meta_graph(["serve"], signatures)
        builder.save()
    outputs_given = {"score": [3.0, 6.0], "words": ["A", "B"]}
    path.with_suffix(".json").write_text(json.dumps({"rows": rows, "outputs": outputs_given}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
