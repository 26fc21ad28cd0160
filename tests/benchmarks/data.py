"""Seeded births: CSV files as large as a benchmark needs, with all eight inputs of the model and a key.

The distributions resemble the natality records'. No field is empty or quoted, so that no reader is put at a
disadvantage.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

_SEED = 2001
_CHUNK = 250_000


def births_file(folder: Path, rows: int) -> Path:
    """The CSV file of `rows` births, about 45 bytes each; made where it is missing."""
    path = folder / f"births-{rows}-seed-{_SEED}.csv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            for start in range(0, rows, _CHUNK):
                file.write(_encoded(_births(start, min(_CHUNK, rows - start)), header=start == 0))
        os.replace(unfinished, path)
    return path


def _encoded(frame: pl.DataFrame, *, header: bool) -> bytes:
    encoded = io.BytesIO()
    frame.write_csv(encoded, include_header=header)
    return encoded.getvalue()


def _births(start: int, rows: int) -> pl.DataFrame:
    random = np.random.default_rng([_SEED, start])

    def words(values: list[str], shares: list[float]) -> pl.Series:
        codes = random.choice(len(values), size=rows, p=shares)
        return pl.Series(np.array(values, object)[codes], dtype=pl.String)

    def whole(mean: float, deviation: float, low: int, high: int) -> npt.NDArray[np.int64]:
        return np.clip(np.rint(random.normal(mean, deviation, rows)), low, high).astype(np.int64)

    plurality = random.choice(3, size=rows, p=[0.967, 0.031, 0.002]) + 1
    weeks = whole(38.9, 2.0, 20, 46) - 3 * (plurality - 1)
    columns = {
        "source_id": pl.Series(np.arange(start, start + rows)).cast(pl.String).str.zfill(8).str.replace("^", "r"),
        "is_male": words(["True", "False"], [0.512, 0.488]),
        "mother_race": words(["White", "Black", "Hispanic", "Asian", "Other"], [0.55, 0.16, 0.21, 0.06, 0.02]),
        "mother_age": whole(27.5, 6.0, 13, 50),
        "plurality": plurality,
        "gestation_weeks": np.maximum(weeks, 17),
        "mother_married": words(["True", "False"], [0.63, 0.37]),
        "cigarette_use": words(["False", "True", "Unknown"], [0.87, 0.11, 0.02]),
        "alcohol_use": words(["False", "True", "Unknown"], [0.96, 0.01, 0.03]),
    }
    return pl.DataFrame(columns)
