"""Models and data of a person's own go through `compare` with the config that `init` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines import compare, init
from pipelines.comparison.results import Results
from tests.support.commands import save

WAYS = {
    "workers": {"model": {"type": "saved_model"}},
    "endpoint": {"model": {"type": "endpoint", "protocol": "tf_serving_rest"}},
}
ROWS = 40


def text(folder: Path) -> tuple[str, str]:
    """A model of sentences, which gives a number and the words; JSON lines."""
    import tensorflow as tf

    class Sentences(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def __call__(self, text: Any) -> Any:
            words = tf.strings.split(tf.strings.lower(text))
            return {"words": words.row_lengths(), "first": words[:, :1].to_tensor()[:, 0]}

    lines = (json.dumps({"text": f"Süße Katze {number} läuft " + "weit " * (number % 5)}) for number in range(ROWS))
    (folder / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    return save(Sentences(), folder / "model"), str(folder / "rows.jsonl")


def image(folder: Path) -> tuple[str, str]:
    """A model that decodes images, which are files."""
    import tensorflow as tf

    class Means(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def __call__(self, image_bytes: Any) -> Any:
            def mean(content: Any) -> Any:
                return tf.reduce_mean(tf.cast(tf.io.decode_png(content, channels=3), tf.float32), axis=[0, 1])

            return {"mean": tf.map_fn(mean, image_bytes, fn_output_signature=tf.TensorSpec([3], tf.float32))}

    (folder / "images").mkdir()
    random = np.random.default_rng(1)
    for number in range(ROWS):
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        (folder / "images" / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    return save(Means(), folder / "model"), str(folder / "images")


def wide(folder: Path) -> tuple[str, str]:
    """A model of 300 numbers, each a column."""
    import tensorflow as tf

    class Sum(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 300], tf.float32, name="features")])
        def __call__(self, features: Any) -> Any:
            return {"sum": tf.reduce_sum(features, axis=1)}

    values = np.random.default_rng(1).normal(size=(300, ROWS)).astype(np.float32)
    parquet.write_table(pa.table({f"x{number}": values[number] for number in range(300)}), folder / "rows.parquet")
    return save(Sum(), folder / "model"), str(folder / "rows.parquet")


@pytest.mark.parametrize("kind", [text, image, wide])
def test_what_init_writes_can_be_compared(kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, source = kind(tmp_path)
    config = str(tmp_path / "mine.json")
    assert init.main(["--model", model, "--source", source, "--output", config]) == 0
    capsys.readouterr()
    sets = json.dumps({"ways": WAYS, "sizes": [2 * ROWS], "rounds": 1})
    code = compare.main(
        ["--config", config, "--output", str(tmp_path / "results"), "--minutes", "1", "--set", sets, "--json"]
    )
    results = Results.model_validate_json(capsys.readouterr().out)
    assert code == 0
    assert [(found.rows, found.agrees) for found in results.parity] == [(ROWS, True)] * 2
    assert [run.rows_written for run in results.runs] == [2 * ROWS] * 2
    assert {place.way for place in results.rankings[0].places} == set(WAYS)
