"""Reads the lines of result files as columns: key, outputs, and what went wrong.

A block of lines that all have the expected form is read by Arrow. One that has not (an error instead of a prediction,
NaN, text that is not JSON) is read line by line, so that a bad line costs one row and not its neighbours.
"""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from inference.columns.coercion import is_list
from inference.endpoint.protocols.json_read import read_rows
from inference.endpoint.protocols.responses import one_line, said_in
from inference.errors import EndpointError
from inference.job.records import keys_in
from inference.tensors import output_type
from model.specs import TensorSpec

KEY, ERROR, MESSAGE = "key", "error", "message"
"""Columns of parsed results beside the outputs, which are called `output:<name>`."""
_READ_BLOCK = 1 << 20
_FIXED = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string)


def output_column(name: str) -> str:
    """Returns the name that an output's column has in parsed results.

    >>> output_column("predictions")
    'output:predictions'
    """
    return f"output:{name}"


@dataclass(frozen=True)
class ResultForm(ABC):
    """Describes the lines of a service's result files.

    Attributes:
      key_name: the member of a line that holds the key.
      outputs: the model's outputs that are wanted.
    """

    key_name: str
    outputs: tuple[TensorSpec, ...]

    @property
    def schema(self) -> pa.Schema:
        """Returns the columns of parsed results."""
        outputs = [(output_column(spec.name), output_type(spec)) for spec in self.outputs]
        return pa.schema([(KEY, pa.string()), *outputs, (ERROR, pa.string()), (MESSAGE, pa.string())])

    @property
    def key_type(self) -> pa.DataType:
        """Returns the type of the member that holds the key."""
        return pa.string()

    def keys_in(self, members: pa.ChunkedArray) -> pa.ChunkedArray:
        """Returns the keys that members of this name hold, null where one holds none."""
        return members

    @abstractmethod
    def prediction_of(self, line: dict[str, Any]) -> Any:
        """Returns what a line holds as prediction: a value, or an object of outputs. Raises KeyError."""

    @abstractmethod
    def explicit(self) -> pa.Schema | None:
        """Returns the schema of a line as Arrow's JSON reader is to read it; None if that cannot read the outputs."""

    @abstractmethod
    def picked(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Returns the outputs in a table that was read with the explicit schema."""

    def read(self, block: bytes) -> pa.Table:
        """Parses whole lines; each gives a row. What is no result at all has neither a key nor an error."""
        found = self._by_arrow(block)
        return self._line_by_line(block) if found is None else found

    def _by_arrow(self, block: bytes) -> pa.Table | None:
        schema = self.explicit()
        if schema is None or not block.strip():
            return None
        options = arrow_json.ParseOptions(schema, unexpected_field_behavior="error", newlines_in_values=False)
        read = arrow_json.ReadOptions(use_threads=False, block_size=max(_READ_BLOCK, len(block)))
        try:
            table = arrow_json.read_json(io.BytesIO(block), read, options)
            outputs = {name: _unwrapped(column) for name, column in self.picked(table).items()}
        except (pa.ArrowException, ValueError):
            return None
        keys = self.keys_in(table[self.key_name])
        arrays = [keys, *outputs.values()]
        if any(array.null_count or _has_null_values(array) for array in arrays):
            return None
        nothing = pa.nulls(len(table), pa.string())
        columns = [keys, *(outputs[spec.name] for spec in self.outputs), nothing, nothing]
        try:
            fitted = [pa.chunked_array(c).cast(f.type) if isinstance(c, pa.Array) else c.cast(f.type)
                      for c, f in zip(columns, self.schema, strict=True)]  # fmt: skip
        except pa.ArrowException:
            return None
        return pa.table(fitted, self.schema)

    def _line_by_line(self, block: bytes) -> pa.Table:
        lines = [line for line in block.split(b"\n") if line.strip()]
        keys: list[str | None] = []
        errors: list[tuple[str, str] | None] = []
        predictions: list[Any] = []
        for line in lines:
            key, prediction, error = self._parsed(line)
            keys.append(key)
            predictions.append(prediction)
            errors.append(error)
        good = [row for row, error in enumerate(errors) if error is None]
        outputs, wrong = _read_some([predictions[row] for row in good], self.outputs)
        for place, said in wrong.items():
            errors[good[place]] = said
        places = np.full(len(lines), -1, np.int64)
        kept = [row for place, row in enumerate(good) if place not in wrong]
        places[kept] = np.arange(len(kept))
        index = pa.array(np.ma.masked_array(places, mask=places < 0), pa.int64())
        columns = [outputs[spec.name].take(index) for spec in self.outputs]
        return pa.table(
            [
                pa.array(keys, pa.string()),
                *columns,
                pa.array([error and error[0] for error in errors], pa.string()),
                pa.array([error and error[1] for error in errors], pa.string()),
            ],
            self.schema,
        )

    def _parsed(self, line: bytes) -> tuple[str | None, Any, tuple[str, str] | None]:
        """Takes a line apart: key, prediction, and the error in place of a prediction: its class and what it says."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            try:
                found = json.loads(line)  # which takes NaN
            except (ValueError, RecursionError):
                return None, None, ("ResponseError", f"a line that is not JSON: {_start(line)}")
        if not isinstance(found, dict):
            return None, None, ("ResponseError", f"a line that is not an object: {_start(line)}")
        key = self.key_of(found)
        try:
            prediction = self.prediction_of(found)
        except KeyError:
            return key, None, error_in(found)
        if not prediction and isinstance(prediction, str) and "error" in found:
            return key, None, error_in(found)
        return key, prediction, None

    def key_of(self, line: dict[str, Any]) -> str | None:
        """Returns the key that a line holds; None if it holds none."""
        key = line.get(self.key_name)
        return key if isinstance(key, str) and key.isascii() else None


@dataclass(frozen=True)
class VertexForm(ResultForm):
    """Reads `{"key": ..., "prediction": ...}`, where several outputs are an object."""

    def prediction_of(self, line: dict[str, Any]) -> Any:
        return line["prediction"]

    def explicit(self) -> pa.Schema | None:
        types = [_json_type(spec) for spec in self.outputs]
        if any(type is None for type in types):
            return None
        if len(types) == 1:
            return pa.schema([(self.key_name, self.key_type), ("prediction", types[0])])
        named = pa.struct([(spec.name, type) for spec, type in zip(self.outputs, types, strict=True)])
        return pa.schema([(self.key_name, self.key_type), ("prediction", named)])

    def picked(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        column = table["prediction"]
        if len(self.outputs) == 1:
            return {self.outputs[0].name: column}
        return {spec.name: pc.struct_field(column, spec.name) for spec in self.outputs}


@dataclass(frozen=True)
class VertexRecordForm(VertexForm):
    """Reads `{"instance": {"b64": ...}, "prediction": ...}`, where the key is in the instance, a tf.Example.

    Attributes:
      feature: the one that holds the key.
    """

    feature: str = "key"

    @property
    def key_type(self) -> pa.DataType:
        return pa.struct([("b64", pa.string())])

    def keys_in(self, members: pa.ChunkedArray) -> pa.ChunkedArray:
        texts = pc.struct_field(members, "b64")
        return pa.chunked_array([keys_in(texts.to_pylist(), self.feature)], pa.string())

    def key_of(self, line: dict[str, Any]) -> str | None:
        instance = line.get(self.key_name)
        text = instance.get("b64") if isinstance(instance, dict) else None
        return keys_in([text], self.feature)[0] if isinstance(text, str) else None


@dataclass(frozen=True)
class AiPlatformForm(ResultForm):
    """Reads `{"<output>": ..., ...}`, where one of the outputs is the key."""

    def prediction_of(self, line: dict[str, Any]) -> Any:
        return {spec.name: line[spec.name] for spec in self.outputs}

    def explicit(self) -> pa.Schema | None:
        types = [(spec.name, _json_type(spec)) for spec in self.outputs]
        if any(type is None for _, type in types):
            return None
        return pa.schema([(self.key_name, pa.string()), *types])

    def picked(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        return {spec.name: table[spec.name] for spec in self.outputs}


def error_in(line: dict[str, Any]) -> tuple[str, str]:
    """Returns the class and the message of the error that a line of a result or error file holds.

    >>> error_in({"key": "k", "error": {"status": "INVALID_ARGUMENT", "message": "age: not a number"}})
    ('INVALID_ARGUMENT', 'age: not a number')
    """
    error = line.get("error")
    status = error.get("status", error.get("code")) if isinstance(error, dict) else None
    name = str(status) if isinstance(status, str) and status.isidentifier() else "RequestRefusedError"
    return name[:100], said_in(error) or "the result is neither a prediction nor an error"


def _read_some(
    predictions: list[Any], outputs: Sequence[TensorSpec]
) -> tuple[dict[str, pa.Array], dict[int, tuple[str, str]]]:
    """Reads predictions; those that cannot be read are left out, and their errors are given by their places."""
    if not predictions:
        return {spec.name: pa.nulls(0, output_type(spec)) for spec in outputs}, {}
    try:
        return read_rows(predictions, len(predictions), outputs), {}
    except EndpointError as error:
        if len(predictions) == 1:
            nothing = {spec.name: pa.nulls(0, output_type(spec)) for spec in outputs}
            return nothing, {0: (type(error).__name__, one_line(str(error).removesuffix(" (row 0)")))}
    half = len(predictions) // 2
    first, first_wrong = _read_some(predictions[:half], outputs)
    second, second_wrong = _read_some(predictions[half:], outputs)
    joined = {name: pa.concat_arrays([first[name], second[name]]) for name in first}
    return joined, first_wrong | {half + place: said for place, said in second_wrong.items()}


def _json_type(spec: TensorSpec) -> pa.DataType | None:
    """The type of an output's JSON as Arrow's reader knows it; a value for each row may stand in a list."""
    wanted = output_type(spec)
    leaf, depth = wanted, 0
    while is_list(leaf):
        leaf, depth = leaf.value_type, depth + 1
    if not any(is_one(leaf) for is_one in _FIXED) or leaf == pa.float16():
        return None
    if depth and None in (spec.shape or (None,))[1:]:
        return _listed(leaf, depth)
    if depth:
        # Lists must have the sizes that were announced, which only the line by line reader looks at.
        return None
    return _listed(leaf, max(0, len(spec.shape or ()) - 1))


def _listed(type: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        type = pa.list_(type)
    return type


def _unwrapped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values out of lists of one; lists that are not of one value are left as they are."""
    while pa.types.is_list(column.type):
        lengths = pc.list_value_length(column)
        found = pc.min_max(lengths)
        if len(column) and (found["min"].as_py(), found["max"].as_py()) != (1, 1):
            break
        column = pc.list_flatten(column)
    return column


def _has_null_values(column: pa.ChunkedArray) -> bool:
    while pa.types.is_list(column.type):
        column = pc.list_flatten(column)
        if column.null_count:
            return True
    return False


def _start(line: bytes) -> str:
    return repr(one_line(line[:320].decode("utf-8", "replace")[:80], 80))
