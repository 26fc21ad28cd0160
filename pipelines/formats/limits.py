"""Bounds on what Avro and protobuf may take: depth, size of a type, memory of what is decoded at a time.

| what | bound | beyond it |
|---|---|---|
| bytes of an Avro schema | MAX_SCHEMA_BYTES | the schema is refused |
| types in a schema or message type, each counted wherever it is used | MAX_TYPES | the schema is refused |
| levels of types in a schema or message type | MAX_DEPTH | the schema is refused |
| memory of a row, were all its lists empty | MAX_EMPTY_ROW_BYTES | the schema is refused |
| levels of records, lists and maps in a value of a recursive type | MAX_VALUE_DEPTH | the row is a dead letter |
| bytes of a block, packed or unpacked | `avro_container.MAX_BLOCK_BYTES` | the block is a dead letter |
| memory of rows that are decoded at a time, estimated from above | DECODED_BYTES | they are decoded in parts |
| the same, of one row | DECODED_BYTES | the row is a dead letter |

A schema that is refused makes one dead letter of its file, and a problem that `check` reports.
"""

from __future__ import annotations

MAX_SCHEMA_BYTES = 4 << 20
"""Maximum bytes of an Avro schema's JSON text."""

MAX_TYPES = 1 << 16
"""Maximum types in a schema, or fields in a message type, when each is written out wherever it is used."""

MAX_DEPTH = 48
"""Maximum levels of types in a schema or message type, a list of messages being two; Arrow exchanges 64 at most."""

MAX_JSON_DEPTH = 160
"""Maximum levels of an Avro schema's JSON text; a level of types takes two or three."""

MAX_NAME = 1 << 10
"""Maximum characters of a field's name or an enum's symbol: text of a row repeats them."""

MAX_VALUE_DEPTH = 200
"""Maximum levels of records, lists and maps in a value of a recursive type."""

MAX_EMPTY_ROW_BYTES = 16 << 20
"""Maximum memory of a row whose lists are empty: a row of a few bytes may take so much."""

DECODED_BYTES = 256 << 20
"""Maximum memory of the rows that are decoded at a time."""

UNPACKED_BYTES = 32 << 20
"""Bytes of neighbouring blocks that are decoded together, after decompression; a single block may be larger."""

MAX_KEPT_BYTES = 64 << 20
"""Maximum bytes that a dead letter keeps of a block: its line of JSON takes several times as much memory."""
