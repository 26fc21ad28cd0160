"""A model with inputs and outputs of every kind, and rows for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.commands import save


def save_many_kinds(folder: Path) -> str:
    """Saves the model; returns its folder."""
    import tensorflow as tf

    inputs = [
        tf.TensorSpec([None], tf.bool, "flag"),
        tf.TensorSpec([None], tf.int64, "long"),
        tf.TensorSpec([None, 1], tf.int32, "column"),
        tf.TensorSpec([None], tf.uint8, "byte"),
        tf.TensorSpec([None, 3], tf.float64, "triple"),
        tf.TensorSpec([None, None, 2], tf.float32, "pairs"),
        tf.TensorSpec([None], tf.string, "text"),
        tf.TensorSpec([None], tf.float16, "half"),
    ]

    class ManyKinds(tf.Module):
        @tf.function(input_signature=inputs)
        def __call__(
            self, flag: Any, long: Any, column: Any, byte: Any, triple: Any, pairs: Any, text: Any, half: Any
        ) -> dict[str, Any]:
            return {
                "not_flag": tf.logical_not(flag),
                "longer": long + 1,
                "columns": column * 2,
                "bytes": tf.identity(byte),
                "triples": triple * 3,
                "pair_sums": tf.reduce_sum(pairs, 1),
                "texts": tf.strings.join([text, "!"]),
                "halves": tf.identity(half),
            }

    return save(ManyKinds(), folder)


def kinds(rows: int) -> pa.RecordBatch:
    """Returns rows, some with values that are hard to carry."""
    rng = np.random.default_rng(3)
    floats = np.concatenate([[np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308], rng.normal(size=rows)])
    longs = np.concatenate([[2**63 - 2, -(2**63), 2**53 + 1], rng.integers(-(2**53), 2**53, rows)])[:rows]
    return pa.RecordBatch.from_pydict(
        {
            "flag": pa.array(rng.integers(0, 2, rows).astype(bool)),
            "long": pa.array(longs),
            "column": pa.array(rng.integers(-(2**30), 2**30, rows), pa.int32()),
            "byte": pa.array(rng.integers(0, 256, rows), pa.uint8()),
            "triple": pa.array([floats[i : i + 3].tolist() for i in range(rows)], pa.list_(pa.float64())),
            "pairs": pa.array(
                [[[float(i), 0.1], [1e-3, 2.0], [3.0, -1.0]][: 1 + i % 3] for i in range(rows)],
                pa.list_(pa.list_(pa.float32())),
            ),
            "text": pa.array([f"täxt \"{i}\" \\ 漢 \n" for i in range(rows)]),
            "half": pa.array(rng.normal(size=rows).astype(np.float16)),
        }
    )  # fmt: skip
