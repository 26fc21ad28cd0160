"""Saves models with a key that goes through them, as AI Platform's batch prediction needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.ledger import MODEL, NUMBERS, TEXTS


def save_keyed(folder: Path, model: str = MODEL) -> str:
    """Saves a model with a further input `row_key`, which its output `row_key_out` gives back.

    Args:
      folder: where to.
      model: the model, whose default signature is taken.
    """
    import tensorflow as tf

    class Keyed(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tf.saved_model.load(model)

    keyed = Keyed()
    signature = keyed.inner.signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in inputs.items()}
    specs["row_key"] = tf.TensorSpec([None], tf.string, "row_key")

    @tf.function
    def predict(**columns: Any) -> dict[str, Any]:
        key = columns.pop("row_key")
        return {**signature(**columns), "row_key_out": tf.identity(key)}

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
