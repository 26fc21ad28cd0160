"""Makes Avro files that are small and would take all memory, and measures how much they take."""

from __future__ import annotations

import bz2
import io
import lzma
import resource
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.formats import ReadSpec
from pipelines.formats.avro import container
from pipelines.formats.avro.container import varint
from pipelines.formats.avro.reader import AvroReader
from pipelines.formats.avro.schema import resolve
from pipelines.rows.origin import Block
from tests.support.peak_memory import peak_memory

SYNC = b"s" * 16


MIB = 1 << 20


TREE = {"type": "record", "name": "T", "fields": [{"name": "next", "type": ["null", "T"]}]}


WIDE = {"type": "record", "name": "W", "fields": [{"name": f"c{i}", "type": "double"} for i in range(1000)]}


def record(*types: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": each} for i, each in enumerate(types)]}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def document(schema: Any, codec: str, *blocks: tuple[int, bytes]) -> bytes:
    return container.header_bytes(schema, codec, SYNC) + b"".join(
        container.block_bytes(rows, data, SYNC) for rows, data in blocks
    )


def deflated(parts: Iterator[bytes] | list[bytes]) -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(map(stream.compress, parts)) + stream.flush()


def strings(unpacked: int) -> Iterator[bytes]:
    yield varint(unpacked)
    for _ in range(unpacked // MIB):
        yield bytes(MIB)


def zstandard(unpacked: int) -> bytes:
    import zstandard

    stream = zstandard.ZstdCompressor().compressobj()
    return b"".join(map(stream.compress, strings(unpacked))) + stream.flush()


def bzip2(unpacked: int) -> bytes:
    stream = bz2.BZ2Compressor(1)
    return b"".join(map(stream.compress, strings(unpacked))) + stream.flush()


def xz(unpacked: int) -> bytes:
    stream = lzma.LZMACompressor(preset=0)
    return b"".join(map(stream.compress, strings(unpacked))) + stream.flush()


def snappy(unpacked: int) -> bytes:
    return container.compress("snappy", b"".join(strings(unpacked)))


def large_list(items: Any, count: int) -> bytes:
    return document(record(array(items)), "deflate", (1, deflated([varint(count), bytes(count), b"\0"])))


BOMBS = {
    "deflate": lambda: document(record("bytes"), "deflate", *[(1, deflated(strings(240 * MIB)))] * 2),
    "beyond": lambda: document(record("bytes"), "deflate", (1, deflated(strings(300 * MIB)))),
    "zstandard": lambda: document(record("bytes"), "zstandard", (1, zstandard(100 * MIB))),
    "bzip2": lambda: document(record("bytes"), "bzip2", (1, bzip2(100 * MIB))),
    "xz": lambda: document(record("bytes"), "xz", (1, xz(100 * MIB))),
    "snappy": lambda: document(record("bytes"), "snappy", (1, snappy(240 * MIB))),
    "many": lambda: document(record("bytes"), "deflate", *[(1, deflated(strings(30 * MIB)))] * 12),
    "rows": lambda: document(
        record("bytes"), "deflate", (100_000, deflated([(varint(1000) + bytes(1000)) * 1000] * 100))
    ),
    "nulls": lambda: document(record(["null", WIDE]), "deflate", (50_000, deflated([bytes(50_000)]))),
    "numbers": lambda: large_list("long", 60 * MIB),
    "null items": lambda: large_list(["null", WIDE], 3 * MIB),
    "objects": lambda: large_list(["null", "string", "int"], 20 * MIB),
    "depth": lambda: document(TREE, "deflate", (1, deflated([b"\x02" * MIB] * 20))),
}


def measured() -> dict[str, list[int]]:
    """Peak of memory, rows and dead letters of each bomb."""
    resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
    found: dict[str, list[int]] = {}
    for name, make in BOMBS.items():
        counts = [0, 0]
        found[name] = [peak_memory(partial(count, make(), counts)), *counts]
    return found


def count(content: bytes, counts: list[int]) -> None:
    """Adds the rows and dead letters of a file without keeping them."""
    record = resolve(container.read_header(io.BytesIO(content), "x").schema, "x")
    columns = pa.schema([(name, node.type) for name, node in record.children.items()])
    for item in AvroReader(ReadSpec(columns)).replay(content, {}, "x"):
        if isinstance(item, Block):
            counts[0] += item.batch.num_rows
        else:
            counts[1] += 1
