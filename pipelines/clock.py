"""Gives the time in microseconds since the epoch, as numbers and as columns."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def now_us() -> int:
    """Returns microseconds since the epoch."""
    return time.time_ns() // 1000


Ints = npt.NDArray[np.int64]


def timestamps(event_us: Ints) -> pa.Array:
    """Times as JSON has them: 2026-01-02T03:04:05.123456Z."""
    times = pa.array(event_us, pa.int64()).view(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.utf8_replace_slice(times, 10, 11, "T"), "Z", "")
