"""Exports TensorFlow Serving's first example, half_plus_two, as a builder of TensorFlow 1 does."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_half_plus_two(folder: str | Path, classes: bool = True) -> str:
    """Exports y = x / 2 + 2 with the signatures that TensorFlow Serving's own test model has, and a few more.

    | signature | method | input | outputs |
    |---|---|---|---|
    | serving_default | predict | x: float32 [?, 1] | y |
    | any_shape | predict | x: float32 of unknown rank | y |
    | regress_x_to_y | regress | inputs: tf.Examples with x | outputs = x / 2 + 2 |
    | regress_x_to_y2 | regress | inputs: tf.Examples with x | outputs = x / 2 + 3 |
    | regress_x2_to_y3 | regress | inputs: float32 [?, 1] | outputs = x2 / 2 + 3 |
    | classify_x_to_y | classify | inputs: tf.Examples with x | scores = y |
    | classify_named | classify | inputs: tf.Examples with x, and x2 (0 by default) | classes, scores of half, rest |
    | classify_labels | classify | inputs: as before | classes |

    Args:
      folder: where saved_model.pb is to be; there must be nothing yet.
      classes: whether to export the last two.

    Returns:
      The folder.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
    with v1.Session(graph=tf.Graph()) as session:
        a, b, c = (v1.Variable(value, name=name) for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0)))
        examples = v1.placeholder(tf.string, [None], "tf_example")
        parsed = v1.parse_example(
            examples,
            {
                "x": tf.io.FixedLenFeature([1], tf.float32),
                "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        x = tf.identity(parsed["x"], "x")
        x2 = tf.identity(parsed["x2"], "x2")
        anything = v1.placeholder(tf.float32, None, "anything")
        y = tf.identity(a * x + b, "y")
        y2 = tf.identity(a * x + c, "y2")
        y3 = tf.identity(a * x2 + c, "y3")
        names = tf.tile(tf.constant([["half", "rest"]]), [tf.size(examples), 1])
        predict, regress, classify = (f"tensorflow/serving/{verb}" for verb in ("predict", "regress", "classify"))
        signatures = {
            "serving_default": _signature({"x": x}, {"y": y}, predict),
            "any_shape": _signature({"x": anything}, {"y": tf.identity(a * anything + b)}, predict),
            "regress_x_to_y": _signature({"inputs": examples}, {"outputs": y}, regress),
            "regress_x_to_y2": _signature({"inputs": examples}, {"outputs": y2}, regress),
            "regress_x2_to_y3": _signature({"inputs": x2}, {"outputs": y3}, regress),
            "classify_x_to_y": _signature({"inputs": examples}, {"scores": y}, classify),
        }
        if classes:
            scores = tf.concat([a * x, a * x + x2], 1)
            signatures["classify_named"] = _signature(
                {"inputs": examples}, {"classes": names, "scores": scores}, classify
            )
            signatures["classify_labels"] = _signature({"inputs": examples}, {"classes": names}, classify)
        session.run(v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
    builder.save()
    return str(folder)


def _signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
    import tensorflow as tf

    described = [
        {name: tf.compat.v1.saved_model.utils.build_tensor_info(tensor) for name, tensor in tensors.items()}
        for tensors in (inputs, outputs)
    ]
    return tf.compat.v1.saved_model.signature_def_utils.build_signature_def(*described, method)
