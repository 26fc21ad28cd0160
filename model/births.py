"""Defines the features of the babyweight model, and makes the births that it is trained on.

The names and ranges are those of the natality records of the United States. `alcohol_use` is an input although
the packaged births do not record it: a feature whose column is absent from the data is accepted and ignored.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.errors import ModelError

_YES_NO = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), "true"),
    **dict.fromkeys(("false", "f", "no", "n", "0"), "false"),
}
_SEX = {**_YES_NO, "male": "true", "m": "true", "female": "false"}
_RACE = {
    **dict.fromkeys(("white", "1"), "white"),
    **dict.fromkeys(("black", "african american", "2"), "black"),
    **dict.fromkeys(("hispanic", "latino"), "hispanic"),
    # The natality records' codes of the other groups, which the births at hand put together.
    **dict.fromkeys(("3", "4", "5", "6", "7", "18", "28", "38", "39", "48", "58", "68", "78"), "other"),
    **dict.fromkeys(("other", "asian", "american indian", "native american", "pacific islander"), "other"),
}

TARGET = "weight_pounds"

NOT_STATED = 99.0
"""From this number on a value means that it was not stated, as the natality records have it."""

HIDDEN_UNITS = 16


@dataclass(frozen=True)
class CategoricalInput:
    """Describes a string input.

    Attributes:
      name: the input's name.
      words: the class that each accepted spelling (lower case) stands for. Class 0 is everything else.
    """

    name: str
    words: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the classes 1, 2, ... in order."""
        return tuple(dict.fromkeys(self.words.values()))


@dataclass(frozen=True)
class NumericInput:
    """Keeps a number as it is written.

    Attributes:
      name: the input's name.
      low: values below are taken for this one.
      high: values above are taken for this one.
      typical: stands in for a missing value, and is the origin of the terms.
      unit: what the terms are measured in, so that they are of order one.
      bends: the values where the linear part may change its slope.
    """

    name: str
    low: float
    high: float
    typical: float
    unit: float
    bends: tuple[float, ...] = ()


CATEGORIES = (
    CategoricalInput("is_male", _SEX),
    CategoricalInput("mother_race", _RACE),
    CategoricalInput("mother_married", _YES_NO),
    CategoricalInput("cigarette_use", _YES_NO),
    CategoricalInput("alcohol_use", _YES_NO),
)

NUMBERS = (
    NumericInput("mother_age", 12.0, 50.0, 27.0, 6.0, bends=(27.0,)),
    # Births of more than three are as rare as their effect, at a given gestation, is like that of three.
    NumericInput("plurality", 1.0, 3.0, 1.0, 1.0),
    # Growth is steady up to term; recorded durations beyond 40 weeks say hardly anything more.
    NumericInput("gestation_weeks", 17.0, 47.0, 39.0, 4.0, bends=(28.0, 37.0, 40.0)),
)


@dataclass(frozen=True)
class Births:
    """Births as columns.

    Attributes:
      strings: the values of each string input, [rows].
      numbers: the values of each number, float32 [rows], NaN where missing.
      weight: the weight in pounds, float32 [rows].
    """

    strings: dict[str, list[str]]
    numbers: dict[str, npt.NDArray[np.float32]]
    weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.weight)


def read_births(path: str) -> Births:
    """Reads births from a CSV file with a header.

    Args:
      path: the file; it has `weight_pounds` and any of the model's inputs. An empty field is a missing value.

    Returns:
      The births with a known weight.

    Raises:
      ModelError: the file cannot be read, or has a number that is none, or lacks the weight or all inputs.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"{path} cannot be read as a CSV file of births: {error}") from error
    present = set(rows[0]) if rows else set()
    if TARGET not in present:
        raise ModelError(f"{path} has no column {TARGET}: it holds no births to learn from")
    rows = [row for row in rows if row[TARGET]]
    strings = {c.name: [row[c.name] or "" for row in rows] for c in CATEGORIES if c.name in present}
    numbers = {n.name: _numbers(path, n.name, rows) for n in NUMBERS if n.name in present}
    if not numbers:
        raise ModelError(f"{path} has none of the columns {', '.join(n.name for n in NUMBERS)}")
    return Births(strings, numbers, _numbers(path, TARGET, rows))


def _numbers(path: str, name: str, rows: list[dict[str, str]]) -> npt.NDArray[np.float32]:
    try:
        return np.array([float(row[name] or "nan") for row in rows], np.float32)
    except ValueError as error:
        raise ModelError(f"{path}, column {name}: {error}") from error
