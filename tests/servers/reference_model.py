"""Makes the SavedModel that computes what the test servers compute: `arithmetic.predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_reference_model(folder: Path) -> str:
    """Exports the model as serving_default; its path."""
    import tensorflow as tf

    class Ages(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.float32, "mother_age"),
                tf.TensorSpec([None], tf.float32, "plurality"),
                tf.TensorSpec([None], tf.string, "is_male"),
            ]
        )
        def __call__(self, mother_age: Any, plurality: Any, is_male: Any) -> dict[str, Any]:
            # assert_non_negative would refuse NaN too.
            negative = tf.reduce_any(mother_age < 0)
            with tf.control_dependencies([tf.debugging.assert_equal(negative, False, "a negative age")]):
                weights = tf.identity(mother_age) * 0.25 + plurality
            return {"predictions": weights + tf.where(is_male == "True", 0.5, 0.0)}

    module = Ages()
    tf.saved_model.save(module, str(folder), {"serving_default": module.__call__.get_concrete_function()})
    return str(folder)
