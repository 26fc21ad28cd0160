"""Decides which type each column of a source is decoded to: what the model takes, or what it was read as."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from inference.columns.bound import Binding
from inference.columns.coercion import is_text
from model.specs import Signature
from pipelines.config.run import RunConfig
from pipelines.formats import ReadSpec, is_mixed, row_reader_class

_WORDS = pa.dictionary(pa.int32(), pa.string())


def read_spec(
    config: RunConfig,
    schema: pa.Schema,
    binding: Binding,
    output: list[tuple[str, str]],
    options: dict[str, Any],
    record_signature: Signature | None,
    partitioned: Collection[str],
) -> ReadSpec:
    """Returns the columns that the model, the key and the output need, with the types to decode them to.

    Args:
      config: of the run.
      schema: the columns of the source.
      binding: which column feeds which input.
      output: name and origin of each column to write.
      options: the format's own settings.
      record_signature: the model's signature, where whole tf.Examples may feed it.
      partitioned: columns of the names of folders.
    """
    format, key = config.source.reads, config.source.key
    written = {name for name, origin in output if origin == "source"} | ({key} if key else set())
    types: dict[str, pa.DataType] = {}
    for bound in binding.inputs:
        for name in (element.column for element in bound.elements):
            natural = schema.field(name).type
            # A value of a folder's name is coerced as that of a column with a type of its own.
            described = "parquet" if name in partitioned else format
            wanted = _decoded_type(described, natural, bound.type, 0 if bound.vector else bound.depth)
            types[name] = wanted if types.get(name, wanted) == wanted else natural
    for name in [*([key] if key else []), *(name for name, origin in output if origin == "source")]:
        described = "parquet" if name in partitioned else format
        fed = types.get(name)
        types[name] = written_type(described, schema.field(name), fed, is_key=name == key)
        if described == "csv" and "decimal" in options and name != key and fed is not None and _is_number(fed):
            # Not its text, which is no number anywhere else.
            types[name] = pa.float64() if pa.types.is_floating(fed) else fed
    if record_signature is not None and record_signature.examples_input in types:
        options = {**options, "record_column": record_signature.examples_input}
    return ReadSpec(pa.schema(list(types.items())), options, key, frozenset(written))


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def written_type(format: str, field: pa.Field, for_model: pa.DataType | None, *, is_key: bool) -> pa.DataType:
    """Returns the type to decode a column to that is written as it was read, so that its values come out unchanged."""
    if is_key and format not in ("csv", "json"):
        return field.type
    if for_model is not None and is_text(for_model) and not is_key:
        return for_model
    if format == "csv" or (format == "json" and (is_mixed(field) or (is_key and pa.types.is_floating(field.type)))):
        return pa.string()
    if format == "json" and pa.types.is_floating(field.type):
        return pa.float64()
    return field.type if for_model is None or format == "json" else for_model


def _decoded_type(format: str, natural: pa.DataType, wanted: pa.DataType, depth: int) -> pa.DataType:
    """Returns the type to decode a model's column to, so that nothing is lost and little is left to coerce."""
    if format == "tfrecord" and depth and not pa.types.is_nested(natural):
        # Later records may have more values than the first ones.
        return pa.list_(natural)
    if depth or pa.types.is_nested(natural):
        return natural
    if is_text(wanted):
        return _WORDS if pa.types.is_string(natural) and format not in ("text", "tfrecord") else natural
    if format == "tfrecord" or row_reader_class(format).has_own_types:
        return natural
    if format == "csv" or pa.types.is_null(natural):
        return pa.float32() if pa.types.is_float16(wanted) else wanted
    numbers = pa.types.is_integer(natural) or pa.types.is_floating(natural)
    if pa.types.is_floating(wanted) and numbers:
        return pa.float32() if pa.types.is_float16(wanted) else wanted
    if pa.types.is_integer(wanted) and numbers:
        return pa.uint64() if pa.types.is_uint64(wanted) else pa.int64()
    return natural
