"""Reads a signature that a person wrote down, for servers that cannot tell theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference.columns.bound import arrow_type, did_you_mean
from inference.errors import BindingError
from model.specs import Signature, TensorSpec

_DTYPES = (
    "bool", "string", "bfloat16", "float16", "float32", "float64",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_BATCH = (None, -1)


def declared_signature(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, name: str = "serving_default"
) -> Signature:
    """Returns the signature of declared inputs and outputs.

    Args:
      inputs: name -> dtype, or {"dtype": ..., "shape": [...]}. The shape is that of one row's value; a leading -1
        (or None) stands for the batch. Without a shape it is a single value.
      outputs: likewise; one float32 "predictions" by default.
      name: the signature's name.

    Raises:
      BindingError: with every mistake found.

    >>> declared_signature({"age": "float32", "pixels": {"dtype": "uint8", "shape": [28, 28]}}).inputs[1].shape
    (None, 28, 28)
    """
    problems: list[str] = []
    found = [
        tuple(_spec(kind, key, value, problems) for key, value in sorted(given.items()))
        for kind, given in (("inputs", inputs), ("outputs", outputs or {"predictions": "float32"}))
    ]
    if problems:
        raise BindingError(problems)
    return Signature(name, found[0], found[1], "tensorflow/serving/predict")


def _spec(kind: str, name: str, value: Any, problems: list[str]) -> TensorSpec:
    dtype = value if isinstance(value, str) else value["dtype"]
    shape: Sequence[int | None] = () if isinstance(value, str) else value.get("shape") or ()
    if dtype not in _DTYPES or arrow_type(dtype) is None:
        problems.append(
            f"model.{kind}.{name}: '{dtype}' is not a dtype{did_you_mean(dtype, list(_DTYPES))} "
            f"(known: {', '.join(_DTYPES)})"
        )
    sizes = list(shape[1:] if shape and shape[0] in _BATCH else shape)
    if any(size is not None and size < -1 for size in sizes):
        problems.append(f"model.{kind}.{name}: {list(shape)} is not a shape")
    return TensorSpec(name, dtype, (None, *(None if size in _BATCH else size for size in sizes)))
