"""Makes values of every Arrow type, for tests of what formats make of them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

_DAY = datetime.date(2024, 2, 29)
_NOON = datetime.datetime(2024, 2, 29, 12, 30, 15, 250_000)
_PAST = datetime.datetime(1969, 7, 20, 20, 17, 40)
_TIME = datetime.time(12, 30, 15)
_UUIDS = [uuid.UUID(int=7 << 100 | number).bytes for number in (1, 2)]


def leaves() -> dict[str, pa.Array]:
    """Two values and a null of every type that is not nested."""
    clock_zero = datetime.time(0)
    times: dict[str, pa.Array] = {}
    for unit in ("s", "ms", "us", "ns"):
        whole = _NOON.replace(microsecond=0) if unit == "s" else _NOON
        for zone in (None, "UTC", "America/New_York", "+05:30"):
            times[f"timestamp {unit} {zone}"] = pa.array([whole, _PAST, None], pa.timestamp(unit, zone))
        times[f"duration {unit}"] = pa.array([90_061_000, -1_000, None], pa.duration(unit))
        clock = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
        times[f"time {unit}"] = pa.array([_TIME, clock_zero, None], clock)
    ints = {str(t): pa.array([1, 2, None], t) for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
    unsigned = {str(t): pa.array([1, 2, None], t) for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}
    floats = {str(t): pa.array([1.5, -2.0, None], t) for t in (pa.float16(), pa.float32(), pa.float64())}
    texts = {str(t): pa.array(['é,"\n', "", None], t) for t in (pa.string(), pa.large_string(), pa.string_view())}
    kinds_of_bytes = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2))
    raw = {str(t): pa.array([b"ab", b"cd", None], t) for t in kinds_of_bytes}
    decimals = {
        str(t): pa.array([Decimal("12.50"), Decimal("-0.25"), None], t)
        for t in (pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(38, 2), pa.decimal256(76, 2))
    }
    return {
        "null": pa.nulls(3),
        "bool": pa.array([True, False, None]),
        **ints, **unsigned, **floats, **texts, **raw, **decimals, **times,
        "decimal of hundreds": pa.array([Decimal(1200), Decimal(-300), None], pa.decimal128(9, -2)),
        "date32": pa.array([_DAY, datetime.date(1, 1, 1), None], pa.date32()),
        "date64": pa.array([_DAY, datetime.date(1970, 1, 1), None], pa.date64()),
        "interval": pa.array([(14, -3, 1_500_000_000), (0, 0, -1), None], pa.month_day_nano_interval()),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([*_UUIDS, None], pa.binary(16))),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', "[]", None])),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())),
    }  # fmt: skip


def wrapped(leaf: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Arrays of types in which there is another one: three values each, the last one null."""
    gap = pa.array([False, False, True])
    short, long = pa.array([0, 2, 3, 3], pa.int32()), pa.array([0, 2, 3, 3], pa.int64())
    sizes = [2, 1, 0]
    yield "list", pa.ListArray.from_arrays(short, leaf, mask=gap)
    yield "large_list", pa.LargeListArray.from_arrays(long, leaf, mask=gap)
    yield "list_view", pa.ListViewArray.from_arrays(short[:3], pa.array(sizes, pa.int32()), leaf, mask=gap)
    yield "large_list_view", pa.LargeListViewArray.from_arrays(long[:3], pa.array(sizes, pa.int64()), leaf, mask=gap)
    yield "struct", pa.StructArray.from_arrays([leaf, pa.array([1, 2, 3])], names=["x", "n"], mask=gap)
    yield "map", pa.MapArray.from_arrays(short, pa.array(["k", "l", "m"]), leaf, mask=gap)
    six = pa.concat_arrays([leaf, leaf])
    yield "fixed_size_list", pa.FixedSizeListArray.from_arrays(six, 2, mask=gap)


def unions() -> dict[str, pa.Array]:
    """Values of the types that no format has."""
    kinds = pa.array([0, 1, 0], pa.int8())
    places = pa.array([0, 0, 1], pa.int32())
    return {
        "sparse union": pa.UnionArray.from_sparse(kinds, [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]),
        "dense union": pa.UnionArray.from_dense(kinds, places, [pa.array([1, 2]), pa.array(["a"])]),
        "struct without fields": pa.array([{}, {}, None], pa.struct([])),
    }


def all_arrays() -> dict[str, pa.Array]:
    """Three values of every Arrow type, and of every type in which there may be another one."""
    found = leaves()
    for name, leaf in leaves().items():
        found |= {f"{kind}<{name}>": array for kind, array in wrapped(leaf)}
        if not isinstance(leaf.type, pa.BaseExtensionType) and name != "null":
            indices = pa.array([0, 1, None], pa.int32())
            found[f"dictionary<{name}>"] = pa.DictionaryArray.from_arrays(indices, leaf.slice(0, 2))
    found["run_end_encoded"] = pc.run_end_encode(pa.array(["a", "a", None]))
    return found
