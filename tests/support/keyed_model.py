"""Saves the packaged model with a key that goes through it, as AI Platform's batch prediction needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.ledger import MODEL, NUMBERS, TEXTS


def save_keyed(folder: Path) -> str:
    """Saves a model with an input `row_key`, which its output `row_key_out` gives back."""
    import tensorflow as tf

    class Keyed(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tf.saved_model.load(MODEL)

    keyed = Keyed()
    signature = keyed.inner.signatures["serving_default"]
    specs = {name: tf.TensorSpec([None], tf.string, name) for name in (*TEXTS, "row_key")}
    specs |= {name: tf.TensorSpec([None], tf.float32, name) for name in NUMBERS}

    @tf.function
    def predict(**columns: Any) -> dict[str, Any]:
        key = columns.pop("row_key")
        return {"predictions": signature(**columns)["predictions"], "row_key_out": tf.identity(key)}

    tf.saved_model.save(keyed, str(folder), {"serving_default": predict.get_concrete_function(**specs)})
    return str(folder)


def save_parsing(folder: Path, *, keyed: bool) -> str:
    """Saves the packaged model as one whose only input is serialized tf.Examples.

    Args:
      folder: where to.
      keyed: whether it parses a feature `row_key`, too, which its output `row_key_out` gives back.
    """
    import tensorflow as tf

    class Parsing(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tf.saved_model.load(MODEL)

    parsing = Parsing()
    signature = parsing.inner.signatures["serving_default"]
    features = {name: tf.io.FixedLenFeature([], tf.string, "Unknown") for name in TEXTS}
    features |= {name: tf.io.FixedLenFeature([], tf.float32) for name in NUMBERS if name != "gestation_weeks"}
    features["gestation_weeks"] = tf.io.FixedLenFeature([], tf.float32, float("nan"))
    if keyed:
        features["row_key"] = tf.io.FixedLenFeature([], tf.string)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def predict(examples: Any) -> dict[str, Any]:
        columns = tf.io.parse_example(examples, features)
        key = {"row_key_out": columns.pop("row_key")} if keyed else {}
        return {"predictions": signature(**columns)["predictions"], **key}

    tf.saved_model.save(parsing, str(folder), {"serving_default": predict.get_concrete_function()})
    return str(folder)
