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
