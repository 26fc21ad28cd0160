"""Makes instances of rows for a batch prediction job: a line of JSON each, with the row's key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list
from inference.endpoint.protocols.json_write import row_lines
from model.specs import TensorSpec

_EXACT = 2**53


def instance_lines(
    keys: pa.Array, key_name: str, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]
) -> pa.StringArray:
    r"""Returns a line of JSON a row, with its line end: the key, then the inputs.

    >>> age = TensorSpec("age", "float32", (None,))
    >>> instance_lines(pa.array(["k"]), "key", [pa.array([30], pa.float32())], [age])[0].as_py()
    '{"key":"k","age":30.0}\n'
    """
    return row_lines([keys, *arrays], [TensorSpec(key_name, "string", (None,)), *inputs])


def rounded_rows(arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> dict[int, str]:
    """Finds rows with an integer that the service would round: it holds numbers of JSON as float64.

    Returns:
      The reason by row.
    """
    found: dict[int, str] = {}
    for array, spec in zip(arrays, inputs, strict=True):
        parents = _parents(array)
        while is_list(array.type):
            array = array.flatten()
        if not (pa.types.is_integer(array.type) and array.type.bit_width == 64 and len(array)):
            continue
        large = pc.or_kleene(pc.greater(array, _EXACT), pc.less(array, -_EXACT if _is_signed(array.type) else 0))
        places = np.flatnonzero(pc.fill_null(large, False).to_numpy(zero_copy_only=False))
        message = f"input '{spec.name}': an integer beyond 2^53, which a batch prediction job would round"
        found.update(dict.fromkeys(parents[places].tolist(), message))
    return found


def _is_signed(type: pa.DataType) -> bool:
    return bool(pa.types.is_signed_integer(type))


def _parents(array: pa.Array) -> npt.NDArray[np.int64]:
    """The row of each value in (lists of) lists."""
    rows = np.arange(len(array), dtype=np.int64)
    while is_list(array.type):
        rows = rows[np.asarray(pc.list_parent_indices(array))]
        array = array.flatten()
    return rows
