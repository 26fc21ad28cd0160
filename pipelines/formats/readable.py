"""Converts Arrow types that pyarrow's kernels, polars or a model cannot take to types of the same values.

Table formats convert what they read here, once, so that nothing behind a reader meets such a type.

| type | becomes |
|---|---|
| string_view, binary_view, list_view, large_list_view | large_string, large_binary, large_list |
| UUID | text: `123e4567-e89b-12d3-a456-426614174000` |
| bool8 | bool |
| other extension types | what they are stored as |
| run-end encoded; dictionaries inside of lists, structs and maps | the values themselves |
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_DASHES = (8, 13, 18, 23)


def readable_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema that `readable` gives batches of `schema`."""
    return pa.schema([field.with_type(readable_type(field.type)) for field in schema])


def readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch whose columns have readable types; itself if they have them already."""
    if all(readable_type(type) == type for type in batch.schema.types):
        return batch
    columns = [readable_array(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def readable_type(type: pa.DataType, *, nested: bool = False) -> pa.DataType:
    """Returns the type that `readable_array` gives arrays of `type`."""
    if isinstance(type, pa.BaseExtensionType):
        named = getattr(type, "extension_name", "")
        return {"arrow.uuid": pa.string(), "arrow.bool8": pa.bool_()}.get(named) or readable_type(
            type.storage_type, nested=nested
        )
    if pa.types.is_run_end_encoded(type):
        return readable_type(type.value_type, nested=nested)
    if pa.types.is_dictionary(type):
        value = readable_type(type.value_type, nested=True)
        return value if nested else type if value == type.value_type else pa.dictionary(type.index_type, value)
    if pa.types.is_string_view(type):
        return pa.large_string()
    if pa.types.is_binary_view(type):
        return pa.large_binary()
    if pa.types.is_list_view(type) or pa.types.is_large_list_view(type):
        return pa.large_list(readable_type(type.value_type, nested=True))
    return _readable_nested(type)


def _readable_nested(type: pa.DataType) -> pa.DataType:
    """Lists, structs and maps with what is in them made readable; the type itself if that changes nothing."""
    if not pa.types.is_nested(type) or pa.types.is_union(type):
        return type
    if pa.types.is_map(type):
        key, item = readable_type(type.key_type, nested=True), readable_type(type.item_type, nested=True)
        return type if (key, item) == (type.key_type, type.item_type) else pa.map_(key, item)
    if pa.types.is_struct(type):
        fields = [field.with_type(readable_type(field.type, nested=True)) for field in type]
        return type if fields == list(type) else pa.struct(fields)
    value = readable_type(type.value_type, nested=True)
    if value == type.value_type:
        return type
    if pa.types.is_fixed_size_list(type):
        return pa.list_(value, type.list_size)
    return pa.large_list(value) if pa.types.is_large_list(type) else pa.list_(value)


def readable_array(array: pa.Array) -> pa.Array:
    """Returns the same values, of a readable type."""
    type, target = array.type, readable_type(array.type)
    if target == type:
        return array
    if isinstance(type, pa.BaseExtensionType):
        if type.extension_name == "arrow.uuid":
            return uuid_text(array.storage)
        return array.storage.cast(pa.bool_()) if target == pa.bool_() else readable_array(array.storage)
    if pa.types.is_run_end_encoded(type):
        return readable_array(pc.run_end_decode(array))
    if pa.types.is_dictionary(type):
        return pa.DictionaryArray.from_arrays(array.indices, _plain(array.dictionary))
    if pa.types.is_list_view(type) or pa.types.is_large_list_view(type):
        # Not cast: of slices, pyarrow 25 makes lists whose offsets are wrong.
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        mask = array.is_null() if array.null_count else None
        return pa.LargeListArray.from_arrays(pa.array(offsets), _plain(array.flatten()), mask=mask)
    if not pa.types.is_nested(type):
        return array.cast(target)
    return _lists(array)


def _plain(array: pa.Array) -> pa.Array:
    """Values that are inside of others."""
    array = readable_array(array)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _lists(array: pa.Array) -> pa.Array:
    type = array.type
    mask = array.is_null() if array.null_count else None
    if pa.types.is_struct(type):
        fields = list(readable_type(type))
        return pa.StructArray.from_arrays([_plain(column) for column in array.flatten()], fields=fields, mask=mask)
    if pa.types.is_fixed_size_list(type):
        size = type.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(_plain(values), size, mask=mask)
    # Without the offset that a slice has, which a mask does not go with.
    offsets = pa.array(array.offsets.to_numpy(), array.offsets.type)
    if pa.types.is_map(type):
        return pa.MapArray.from_arrays(offsets, _plain(array.keys), _plain(array.items), mask=mask)
    make = pa.LargeListArray if pa.types.is_large_list(type) else pa.ListArray
    return make.from_arrays(offsets, _plain(array.values), mask=mask)


def uuid_text(values: pa.Array) -> pa.Array:
    """UUIDs as text; `values` are 16 bytes each.

    >>> uuid_text(pa.array([bytes(range(16))], pa.binary(16)))[0].as_py()
    '00010203-0405-0607-0809-0a0b0c0d0e0f'
    """
    count = len(values)
    raw = np.frombuffer(values.buffers()[1] or b"", np.uint8)[values.offset * 16 : (values.offset + count) * 16]
    raw = raw.reshape(count, 16)
    text = np.full((count, 36), ord("-"), np.uint8)
    places = np.setdiff1d(np.arange(36), _DASHES)
    text[:, places[0::2]] = _HEX[raw >> 4]
    text[:, places[1::2]] = _HEX[raw & 15]
    offsets = np.arange(0, 36 * count + 1, 36, dtype=np.int32)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    validity = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes()) if values.null_count else None
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()), validity)
