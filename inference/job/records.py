"""Puts keys into serialized tf.Examples, and finds them there again: instances that are TFRecords have no other place.

Serialized protobuf messages that stand one after the other are one message with the fields of all. So a tf.Example with
nothing but the key is appended to each record, whatever wrote that, and the key is at the record's end.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from inference.job.keys import KEY_LENGTH

_LENGTH_DELIMITED = 2
_MOST_NAME_BYTES = 60
"""So that all lengths below have one byte."""


def keyed_records(examples: pa.Array, keys: pa.Array, key_name: str) -> pa.LargeBinaryArray:
    """Returns serialized tf.Examples with the keys of their rows as a further feature, a text.

    Args:
      examples: serialized tf.Examples.
      keys: of as many rows, as `keys.keys_of` makes them.
      key_name: of the feature.

    Raises:
      ValueError: the name is too long.
    """
    beginning = pa.scalar(key_feature_start(key_name), pa.large_binary())
    binary = pa.large_binary()
    joined = pc.binary_join_element_wise(examples.cast(binary), beginning, keys.cast(binary), pa.scalar(b"", binary))
    return joined


def keys_in(texts: Iterable[str | None], key_name: str) -> list[str | None]:
    """Returns the keys in records that are written in base64; None where there is none.

    >>> record = keyed_records(pa.array([b""]), pa.array(["00c0ffee0123-00007-0000002"]), "key")[0].as_py()
    >>> keys_in([base64.b64encode(record).decode(), "AAAA", None], "key")
    ['00c0ffee0123-00007-0000002', None, None]
    """
    beginning = key_feature_start(key_name)
    characters = ((len(beginning) + KEY_LENGTH) // 3 + 2) * 4
    return [None if text is None else _key_at_end(text[-characters:], beginning) for text in texts]


def _key_at_end(text: str, beginning: bytes) -> str | None:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    if data[-KEY_LENGTH - len(beginning) : -KEY_LENGTH] != beginning:
        return None
    key = data[-KEY_LENGTH:]
    return key.decode("ascii") if key.isascii() else None


def key_feature_start(key_name: str) -> bytes:
    """Returns the bytes of a tf.Example with one feature, up to its value, which is a key.

    Raises:
      ValueError: the name is too long.
    """
    name = key_name.encode()
    if len(name) > _MOST_NAME_BYTES:
        raise ValueError(f"'{key_name}' has more than {_MOST_NAME_BYTES} bytes; give the key a shorter name")
    # From inside: BytesList.value, Feature.bytes_list, value and key of the entry, Features.feature, Example.features.
    beginning, size = b"", KEY_LENGTH
    for field, before in ((1, b""), (1, b""), (2, _head(1, len(name)) + name), (1, b""), (1, b"")):
        beginning = before + _head(field, size) + beginning
        size = KEY_LENGTH + len(beginning)
    return beginning


def _head(field: int, size: int) -> bytes:
    return bytes([field << 3 | _LENGTH_DELIMITED, size])
