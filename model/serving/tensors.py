"""Converts JSON values to arrays and back, column by column.

Strings are arrays of objects: str or bytes on the way in, bytes on the way out. Floats are written with as few digits
as tell them apart from their neighbours of the same type, so they come back bit by bit; what JSON has no number for
becomes one of the tokens NaN, Infinity and -Infinity, which TensorFlow Serving and Python read and write too.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import orjson

from model.serving.errors import RequestError, Status, invalid
from model.serving.limits import MAX_RANK, Limits
from model.specs import TensorSpec

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
_KINDS: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
    type(None): "null",
    dict: "an object",
    list: "a list",
}
_NON_FINITE = {"NaN", "Infinity", "-Infinity"}
_TAKES: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "true or false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float}, "numbers"),
    "O": ({str, dict}, "strings"),
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns the array type of a TensorFlow type; bytes and str are objects.

    Raises:
      RequestError: numpy has no such type.
    """
    if name == "string":
        return np.dtype(object)
    if name == "bfloat16":
        return _BFLOAT16
    try:
        return np.dtype(name)
    except TypeError as error:
        raise invalid(f"values of type {name} cannot be carried") from error


def read_json(body: bytes, limits: Limits) -> Any:
    """Reads JSON, with the tokens NaN, Infinity and -Infinity.

    Lists and objects may be nested about a thousand deep, in either of the two parsers.

    Raises:
      RequestError: it is not JSON, nested too deeply, or beyond the limits.
    """
    limits.check_json(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise invalid(f"the body is not JSON: {error}") from error
    try:
        return json.loads(body)
    except RecursionError as error:
        raise invalid(f"the body is nested too deeply; lists may be nested {MAX_RANK} deep") from error
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from error


def from_json(values: Any, spec: TensorSpec, *, texts: bool = False) -> Array:
    """Makes an array of an input's values.

    Args:
      values: a value, or lists of them, nested to the input's rank.
      spec: the input.
      texts: whether "NaN", "Infinity" and "-Infinity" are numbers, too, as they are for KServe and MLServer, which
        refuse the tokens.

    Returns:
      The array, of the input's type and of the shape of the lists, whatever shape the input has: see `disagreement`.

    Raises:
      RequestError: a value is of another type or does not fit it, or lists beside each other differ in length.
    """
    leaves, shape = _flatten(values, spec)
    dtype = numpy_dtype(spec.dtype)
    code = "f" if spec.dtype == "bfloat16" else dtype.kind
    if code not in _TAKES:
        raise invalid(f"input '{spec.name}': values of type {spec.dtype} cannot be given in JSON")
    allowed, wanted = _TAKES[code]
    kinds = set(map(type, leaves))
    if texts and code == "f" and str in kinds and {leaf for leaf in leaves if type(leaf) is str} <= _NON_FINITE:
        kinds.remove(str)
    if not kinds <= allowed:
        at = next(i for i, leaf in enumerate(leaves) if type(leaf) not in allowed)
        found = _KINDS.get(type(leaves[at]), "something else")
        raise invalid(f"input '{spec.name}'{_row(at, leaves, shape)} is {found}; the model takes {wanted}")
    if code == "O":
        if dict in kinds:
            leaves = [from_base64(leaf, f"input '{spec.name}'") if type(leaf) is dict else leaf for leaf in leaves]
        return np.array(leaves, object).reshape(shape)
    try:
        if code == "f":
            return _floats(leaves, dtype, spec).reshape(shape)
        return np.array(leaves, dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"input '{spec.name}' has a value beyond {spec.dtype}") from error


def check_shape(shape: Sequence[int], spec: TensorSpec) -> None:
    """Raises RequestError if an input of a declared shape has another one."""
    problem = _another_shape(shape, spec)
    if problem is not None:
        raise invalid(problem)


def disagreement(arrays: Mapping[str, Array], specs: Iterable[TensorSpec]) -> str | None:
    """Says where the inputs differ from what the signature declares; None if nowhere.

    Such inputs may be right nevertheless: graphs of TensorFlow 1 often take other shapes than they declare, and a
    model may take inputs of different numbers of rows. TensorFlow Serving lets the graph decide.
    """
    counts = {}
    for spec in specs:
        shape = arrays[spec.name].shape
        problem = _another_shape(shape, spec)
        if problem is not None:
            return problem
        if has_rows(spec):
            counts[spec.name] = shape[0]
    if len(set(counts.values())) < 2:
        return None
    (first, rows), *others = counts.items()
    name, other = next(item for item in others if item[1] != rows)
    return f"input '{name}' has {other} rows, input '{first}' has {rows}"


def broadcast_size(arrays: Mapping[str, Array]) -> int:
    """Returns how many values a tensor has that all inputs are broadcast to, as adding them up would do."""
    shapes = [array.shape[::-1] for array in arrays.values()]
    return math.prod(map(max, zip_longest(*shapes, fillvalue=1)))


def _another_shape(shape: Sequence[int], spec: TensorSpec) -> str | None:
    if spec.shape is None:
        return None
    if len(shape) == len(spec.shape) and all(
        size is None or size == given for size, given in zip(spec.shape, shape, strict=True)
    ):
        return None
    takes = ", ".join("?" if size is None else str(size) for size in spec.shape)
    return f"input '{spec.name}' has shape {list(shape)}; the model takes [{takes}]"


def from_base64(value: dict[str, Any], where: str) -> bytes:
    """Returns the bytes of an object `{"b64": "..."}`.

    Raises:
      RequestError: it is another object, or not base64; the message begins with `where`.
    """
    text = value.get("b64")
    if len(value) != 1 or not isinstance(text, str):
        raise invalid(f'{where} has an object that is not {{"b64": "..."}}')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{where} has a value that is not base64: {error}") from error


def to_json(array: Array, name: str) -> bytes:
    """Writes an output as JSON.

    Strings are written as text; as {"b64": ...} if the output's name ends in _bytes or one of them is not UTF-8.

    Raises:
      RequestError: its type has no JSON.
    """
    if array.dtype.kind == "O":
        return orjson.dumps(_texts(array, name))
    array = _writable(array, name)
    # orjson takes a scalar as it is, an array only as it lies in memory.
    plain = np.ascontiguousarray(array) if array.ndim else array[()]
    data = orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)
    if array.dtype.kind != "f":
        return data
    finite = np.isfinite(array)
    if finite.all():
        return data
    pieces = data.split(b"null")
    tokens = [_token(value) for value in array[~finite].tolist()]
    return b"".join(chain.from_iterable(zip(pieces, [*tokens, b""], strict=True)))


def rows_to_json(outputs: Mapping[str, Array]) -> bytes:
    """Writes several outputs as a list of objects, one a row.

    Args:
      outputs: all with the same number of rows.
    """
    columns = [_cells(array, name) for name, array in outputs.items()]
    names = tuple(outputs)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)


def pairs_to_json(texts: Array | None, numbers: Array | None, name: str) -> bytes:
    """Writes texts and numbers of one shape, [rows, pairs], as a list of lists of pairs.

    Args:
      texts: None for empty ones.
      numbers: None for zeros.
      name: of the output that the texts are.
    """
    shape = texts.shape if texts is not None else numbers.shape if numbers is not None else (0, 0)
    labels = [[""] * shape[1]] * shape[0] if texts is None else _texts(texts, name)
    scores: Any = np.zeros(shape, np.float32) if numbers is None else numbers
    if not np.isfinite(scores).all():
        # A list of numbers, each as it is written, without the brackets.
        scores = [[orjson.Fragment(to_json(value, name)) for value in row] for row in scores]
    rows = [list(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)]
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)


def has_rows(spec: TensorSpec) -> bool:
    """Tells whether an input's first dimension is the request's rows: one of an open size."""
    return spec.shape is not None and spec.shape[:1] == (None,)


def row_count(arrays: Mapping[str, Array], specs: Iterable[TensorSpec]) -> int:
    """Returns how many rows a request has: those of the longest input; 1 if the inputs have no rows.

    An input of unknown rank, as tf.Examples of TensorFlow 1 have it, has as many rows as it was given.
    """
    by_row = [arrays[spec.name] for spec in specs if spec.shape is None or has_rows(spec)]
    return max((len(array) for array in by_row if array.ndim), default=1)


def _flatten(values: Any, spec: TensorSpec) -> tuple[list[Any], list[int]]:
    """The values one after the other, and the shape of the lists that they were in."""
    if type(values) is not list:
        return [values], []
    shape = [len(values)]
    while values and type(values[0]) is list:
        sizes = set(map(len, values)) if set(map(type, values)) == {list} else set()
        if len(sizes) != 1:
            raise invalid(f"input '{spec.name}' has lists of different lengths or depths")
        if len(shape) == MAX_RANK:
            raise invalid(f"input '{spec.name}' has lists nested more than {MAX_RANK} deep")
        shape += sizes
        values = list(chain.from_iterable(values))
    return values, shape


def _row(at: int, leaves: list[Any], shape: list[int]) -> str:
    return f", row {at * shape[0] // len(leaves)}," if shape else ""


def _floats(leaves: list[Any], dtype: np.dtype[Any], spec: TensorSpec) -> Array:
    wide = np.array(leaves, np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if np.any(np.isinf(narrow) & np.isfinite(wide)):
        raise invalid(f"input '{spec.name}' has a value beyond {spec.dtype}")
    return narrow


def _texts(array: Array, name: str) -> Any:
    """The strings of an output as values for JSON, nested as they are."""
    flat: list[Any] = array.ravel().tolist()
    try:
        if name.endswith("_bytes"):
            flat = [{"b64": base64.b64encode(value).decode()} for value in flat]
        else:
            flat = list(map(bytes.decode, flat))
    except UnicodeDecodeError:
        flat = [{"b64": base64.b64encode(value).decode()} for value in flat]
    return flat if array.ndim == 1 else np.array(flat, object).reshape(array.shape).tolist()


def _writable(array: Array, name: str) -> Array:
    if array.dtype == _BFLOAT16:
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise RequestError(Status.INVALID, f"output '{name}': values of type {array.dtype} cannot be given in JSON")
    return array


def _token(value: float) -> bytes:
    if value != value:
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"


def _cells(array: Array, name: str) -> list[Any]:
    """The rows of an output, each as a value that orjson writes."""
    if array.dtype.kind == "O":
        return list(_texts(array, name))
    array = _writable(array, name)
    cells: list[Any] = list(np.ascontiguousarray(array))
    if array.dtype.kind == "f":
        rows = ~np.isfinite(array).reshape(len(array), -1).all(1)
        for row in np.flatnonzero(rows).tolist():
            cells[row] = orjson.Fragment(to_json(array[row : row + 1], name)[1:-1])
    return cells
