"""Answers with one row less, in good order otherwise: JSON of all REST APIs, TensorFlow Serving's PredictResponse."""

from __future__ import annotations

import json

from model.proto_subset import build_messages

_VALUES = ("tensor_content", "half_val", "float_val", "double_val", "int_val", "string_val", "int64_val", "bool_val")


def without_last_prediction(body: bytes) -> bytes | None:
    """The JSON body without its last row; None if there is none to leave out."""
    try:
        answer = json.loads(body)
        if "predictions" in answer:
            answer["predictions"].pop()
        elif isinstance(answer["outputs"], dict):
            for values in answer["outputs"].values():
                values.pop()
        elif isinstance(answer["outputs"][0], dict) and "datatype" in answer["outputs"][0]:
            for tensor in answer["outputs"]:
                rows = tensor["shape"][0]
                tensor["data"] = tensor["data"][: len(tensor["data"]) * (rows - 1) // rows]
                tensor["shape"][0] = rows - 1
        else:
            answer["outputs"].pop()
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError):
        return None
    return json.dumps(answer).encode()


def without_last_row(message: bytes) -> bytes | None:
    """The PredictResponse without its last row; None if there is none to leave out."""
    response = _MESSAGES["PredictResponse"].FromString(message)
    tensors = [entry.value for entry in response.outputs]
    if not tensors or not all(tensor.tensor_shape.dim and tensor.tensor_shape.dim[0].size for tensor in tensors):
        return None
    for tensor in tensors:
        rows = tensor.tensor_shape.dim[0].size
        tensor.tensor_shape.dim[0].size = rows - 1
        for name in _VALUES:
            values = getattr(tensor, name)
            kept = values[: len(values) * (rows - 1) // rows]
            if name == "tensor_content":
                tensor.tensor_content = kept
            else:
                del values[len(kept) :]
    return bytes(response.SerializeToString())


# As much of the messages as is changed: protobuf keeps the other fields. TensorFlow's own would take 10 s to import.
_MESSAGES = build_messages(
    "misaligned",
    {
        "PredictResponse": [("outputs", 1, "map Tensor")],
        "Tensor": [
            ("dtype", 1, "int32"),
            ("tensor_shape", 2, "Shape"),
            ("tensor_content", 4, "bytes"),
            ("half_val", 13, "repeated int32"),
            ("float_val", 5, "repeated float"),
            ("double_val", 6, "repeated double"),
            ("int_val", 7, "repeated int32"),
            ("string_val", 8, "repeated bytes"),
            ("int64_val", 10, "repeated int64"),
            ("bool_val", 11, "repeated bool"),
        ],
        "Shape": [("dim", 2, "repeated Dim")],
        "Dim": [("size", 1, "int64")],
    },
)
