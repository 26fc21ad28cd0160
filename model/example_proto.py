"""Reads and writes tf.Examples without TensorFlow, for looking at a few records before a run starts.

Field numbers are those of tensorflow/core/example/{example,feature}.proto.
"""

from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from model.errors import ExampleFormatError
from model.proto_subset import build_messages

_Example = build_messages(
    "model.example",
    {
        "Example": [("features", 1, "Features")],
        "Features": [("feature", 1, "map Feature")],
        "Feature": [
            ("bytes_list", 1, "BytesList"),
            ("float_list", 2, "FloatList"),
            ("int64_list", 3, "Int64List"),
        ],
        "BytesList": [("value", 1, "repeated bytes")],
        "FloatList": [("value", 1, "repeated float")],
        "Int64List": [("value", 1, "repeated int64")],
    },
)["Example"]


def parse_example(data: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """Parses one serialized tf.Example.

    Args:
      data: the serialized message.

    Returns:
      The values of each feature, by the feature's name; an empty list for a feature without values. Floats have
      float32 precision.

    Raises:
      ExampleFormatError: the bytes are not a tf.Example.

    >>> parse_example(bytes.fromhex("0a0e0a0c0a016112071a050a03010203"))
    {'a': [1, 2, 3]}
    """
    try:
        example = _Example.FromString(data)
    except DecodeError as error:
        raise ExampleFormatError(f"{len(data)} bytes are not a serialized tf.Example: {error}") from error
    features: dict[str, list[bytes] | list[float] | list[int]] = {}
    for pair in example.features.feature:
        feature = pair.value
        # Only one of the three is set: they are a oneof on the wire.
        for values in (feature.bytes_list, feature.float_list, feature.int64_list):
            features[pair.key] = list(values.value)
            if features[pair.key]:
                break
    return features


def encode_example(features: Mapping[str, Sequence[bytes] | Sequence[float] | Sequence[int]]) -> bytes:
    """Serializes one tf.Example.

    Args:
      features: the values of each feature, all of one type, at least one each.

    >>> parse_example(encode_example({"a": [1, 2, 3]}))
    {'a': [1, 2, 3]}
    """
    example = _Example()
    for name, values in features.items():
        pair = example.features.feature.add(key=name)
        kind = type(values[0])
        lists = {bytes: pair.value.bytes_list, float: pair.value.float_list, int: pair.value.int64_list}
        lists[kind].value.extend(values)
    data: bytes = example.SerializeToString()
    return data
