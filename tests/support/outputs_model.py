"""Makes a model with outputs of several types, and tells what it says of the simulated births."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from inference import SavedModelHandler
from pipelines.connectors.simulated.natality import births_at
from tests.support.commands import save


def make(folder: Path) -> str:
    """Exports it: floats, integers, texts and lists from an age and a plurality."""
    import tensorflow as tf

    class Outputs(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.float32, "mother_age"),
                tf.TensorSpec([None], tf.int64, "plurality"),
            ]
        )
        def __call__(self, mother_age: Any, plurality: Any) -> dict[str, Any]:
            return {
                "weight": mother_age / 7,
                "count": plurality * 3,
                "label": tf.strings.join(["age é ", tf.strings.as_string(mother_age, precision=1)]),
                "parts": tf.stack([mother_age, mother_age / 3], axis=1),
                "many": plurality > 1,
            }

    return save(Outputs(), folder)


def predicted(model: str, count: int) -> dict[str, dict[str, Any]]:
    """What it says of the first births, by their keys."""
    messages = [json.loads(m.as_py()) for m in births_at(np.arange(count), 2001, np.zeros(count, np.int64))]
    handler = SavedModelHandler(model)
    [found] = handler.run_inference([pa.RecordBatch.from_pylist(messages)], handler.load_model())
    names = ["source_id", "weight", "count", "label", "parts", "many"]
    return {row["source_id"]: {name: row[name] for name in names} for row in found.to_pylist()}
