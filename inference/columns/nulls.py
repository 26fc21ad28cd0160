"""Makes values of a column null."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def kept_where(values: Any, mask: Any) -> Any:
    """Returns values, null where a mask is false.

    Args:
      values: an array.
      mask: booleans without nulls, as many.

    >>> kept_where(pa.array(["a", "b", "c"])[1:], pa.array([True, False])).to_pylist()
    ['b', None]
    """
    # Of text that is a part of an array, and one null for all rows, pyarrow 23 makes other text.
    return pc.if_else(mask, values, pa.nulls(len(values), values.type))
