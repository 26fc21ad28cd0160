"""Makes the keys that tell which row a result belongs to.

A service gives results in any order, in any number of files, so each instance carries a key, and the result gives it
back. A key says where the row is kept: `<group>-<row>`, where a group is a record batch of prepared rows.

| part | characters |
|---|---|
| shard of prepared rows, hexadecimal | 12 |
| group in the shard | 5 |
| row in the group | 7 |
"""

from __future__ import annotations

import uuid

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]

GROUP_LENGTH = 18
KEY_LENGTH = 26
MOST_GROUPS = 100_000
"""Groups of a shard."""
MOST_ROWS = 10_000_000
"""Rows of a group."""
_POWERS = 10 ** np.arange(KEY_LENGTH - GROUP_LENGTH - 2, -1, -1, dtype=np.int64)
_ZERO, _NINE, _DASH = b"09-"


def new_shard() -> str:
    """Returns a name for a shard of prepared rows that no other has."""
    return uuid.uuid4().hex[:12]


def group_name(shard: str, number: int) -> str:
    """Returns the name of a group of rows in a shard.

    >>> group_name("00c0ffee0123", 7)
    '00c0ffee0123-00007'
    """
    return f"{shard}-{number:05d}"


def keys_of(group: str, rows: int) -> pa.Array:
    """Returns the keys of the rows of a group, string [rows].

    >>> keys_of("00c0ffee0123-00007", 2).to_pylist()
    ['00c0ffee0123-00007-0000000', '00c0ffee0123-00007-0000001']
    """
    made = np.empty((rows, KEY_LENGTH), np.uint8)
    made[:, :GROUP_LENGTH] = np.frombuffer(group.encode("ascii"), np.uint8)
    made[:, GROUP_LENGTH] = _DASH
    made[:, GROUP_LENGTH + 1 :] = np.arange(rows, dtype=np.int64)[:, None] // _POWERS % 10 + _ZERO
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(KEY_LENGTH)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(made))


def parsed(keys: pa.Array) -> tuple[npt.NDArray[np.bool_], pa.DictionaryArray, Numbers]:
    """Takes keys apart.

    Args:
      keys: string, or null.

    Returns:
      Which of them have the form of a key, and of those, in their order, the group (dictionary of string) and the row.
    """
    of_length = pc.fill_null(pc.equal(pc.binary_length(keys), KEY_LENGTH), False)
    is_key = np.array(of_length.to_numpy(zero_copy_only=False))
    chosen = keys.filter(of_length)
    characters = _characters(chosen)
    digits = characters[:, GROUP_LENGTH + 1 :]
    right = (characters[:, GROUP_LENGTH] == _DASH) & ((digits >= _ZERO) & (digits <= _NINE)).all(axis=1)
    if not right.all():
        is_key[np.flatnonzero(is_key)[~right]] = False
        characters, digits = characters[right], digits[right]
    groups = pc.dictionary_encode(_texts(np.ascontiguousarray(characters[:, :GROUP_LENGTH])))
    return is_key, groups, (digits.astype(np.int64) - _ZERO) @ _POWERS


def _characters(keys: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of keys of the right length, uint8 [keys, KEY_LENGTH]."""
    if not len(keys):
        return np.empty((0, KEY_LENGTH), np.uint8)
    first = np.frombuffer(keys.buffers()[1], np.int32)[keys.offset]
    data = np.frombuffer(keys.buffers()[2], np.uint8)[first : first + len(keys) * KEY_LENGTH]
    return data.reshape(len(keys), KEY_LENGTH)


def _texts(characters: npt.NDArray[np.uint8]) -> pa.Array:
    count, width = characters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    # Bytes, as they come from outside: they are compared with names that are known, and shown only escaped.
    return pa.BinaryArray.from_buffers(
        pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(characters.reshape(-1))]
    )
