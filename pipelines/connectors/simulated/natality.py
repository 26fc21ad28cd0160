"""Generates natality messages in columns, as fast as anything could read them.

Every value is a hash of the seed and the message's number, so a message is the same however the stream is cut into
batches, and whoever makes it. The distributions resemble the natality records'.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.clock import Ints, timestamps

Words = npt.NDArray[np.uint64]

_DRAWS = 1 << 16
_AGES = range(13, 51)
_WEEKS = range(20, 47)
_SEX = {"True": 0.512, "False": 0.488}
_RACE = {"White": 0.55, "Black": 0.16, "Hispanic": 0.21, "Asian": 0.06, "Other": 0.02}
_PLURALITY = {1: 0.967, 2: 0.031, 3: 0.002}
_MARRIED = {"True": 0.63, "False": 0.37}
_CIGARETTES = {"False": 0.87, "True": 0.11, "Unknown": 0.02}
_ALCOHOL = {"False": 0.96, "True": 0.01, "Unknown": 0.03}


def birth_messages(first: int, count: int, seed: int, event_us: Ints) -> pa.Array:
    """Returns the messages with the numbers from `first`.

    Args:
      first: number of the first message, from 0.
      count: how many.
      seed: of the values.
      event_us: when the births happened, microseconds since the epoch, int64 [count].

    Returns:
      JSON objects, binary [count].
    """
    return births_at(np.arange(first, first + count), seed, event_us)


def prepare() -> None:
    """Makes what is made once (and imports what pyarrow imports then): else the first message would be late by it."""
    birth_messages(0, 1, 0, np.zeros(1, np.int64))


def births_at(numbers: Ints, seed: int, event_us: Ints) -> pa.Array:
    """Returns the messages with the given numbers, int64 [n], as `birth_messages` makes them."""
    mother, birth = _codes(numbers, seed)
    of_mother, of_birth = _fragments()
    return pc.binary_join_element_wise(
        '{"source_id": "',
        source_ids(numbers),
        '", "timestamp": "',
        timestamps(event_us),
        of_mother.take(pa.array(mother)),
        of_birth.take(pa.array(birth)),
        "",
    ).cast(pa.binary())


def source_ids(numbers: Ints) -> pa.Array:
    """Returns the keys of the messages with the given numbers: b000000123; more digits where nine are not enough."""
    digits = pc.utf8_lpad(pa.array(numbers, pa.int64()).cast(pa.string()), 9, "0")
    return pc.binary_join_element_wise("b", digits, "")


def mixed(words: Words) -> Words:
    """Returns a hash of each word: the finaliser of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def hashed(numbers: Ints, seed: int) -> Words:
    """Hashes each number to 64 bits, uint64 [n]; another seed gives other hashes."""
    return mixed(mixed(numbers.astype(np.uint64)) + mixed(np.array([seed % (1 << 64)], np.uint64)))


def _codes(numbers: Ints, seed: int) -> tuple[Ints, Ints]:
    """Which fragment of a mother and which of a birth each message has."""
    words = hashed(numbers, seed)
    draws = [word >> np.uint64(16 * n) & np.uint64(_DRAWS - 1) for word in (words, mixed(words)) for n in range(4)]
    fields = [table[draw] for table, draw in zip(_tables(), draws, strict=True)]
    sex, race, age, plurality, weeks, married, cigarettes, alcohol = fields
    mother = (sex * len(_RACE) + race) * len(_AGES) + age
    birth = (plurality * len(_WEEKS) + weeks) * len(_MARRIED) + married
    return mother, (birth * len(_CIGARETTES) + cigarettes) * len(_ALCOHOL) + alcohol


@functools.cache
def _tables() -> list[Ints]:
    """For each field, the code of the value that each of the 16-bit draws stands for."""
    ages, weeks = _rounded(NormalDist(27.5, 6.0), _AGES), _rounded(NormalDist(38.9, 2.0), _WEEKS)
    mother = [[*_SEX.values()], [*_RACE.values()], ages]
    birth = [[*_PLURALITY.values()], weeks, [*_MARRIED.values()], [*_CIGARETTES.values()], [*_ALCOHOL.values()]]
    middles = (np.arange(_DRAWS) + 0.5) / _DRAWS
    return [np.searchsorted(np.cumsum(shares)[:-1], middles).astype(np.int64) for shares in mother + birth]


def _rounded(distribution: NormalDist, values: Sequence[int]) -> list[float]:
    """The shares of whole numbers; the outermost ones have what is beyond them."""
    below = [distribution.cdf(value + 0.5) for value in values[:-1]]
    return [upper - lower for lower, upper in zip([0.0, *below], [*below, 1.0], strict=True)]


@functools.cache
def _fragments() -> tuple[pa.Array, pa.Array]:
    """Every text that can follow the timestamp, in two halves, in the order of the codes."""
    mother = [
        f'", "is_male": "{sex}", "mother_race": "{race}", "mother_age": {age}.0'
        for sex, race, age in itertools.product(_SEX, _RACE, _AGES)
    ]
    birth = [
        # Twins come earlier.
        f', "plurality": {plurality}, "gestation_weeks": {max(weeks - 3 * (plurality - 1), 17)}.0, '
        f'"mother_married": "{married}", "cigarette_use": "{cigarettes}", "alcohol_use": "{alcohol}"}}'
        for plurality, weeks, married, cigarettes, alcohol in itertools.product(
            _PLURALITY, _WEEKS, _MARRIED, _CIGARETTES, _ALCOHOL
        )
    ]
    return pa.array(mother), pa.array(birth)
