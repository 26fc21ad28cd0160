"""The results of `tests.benchmarks.endpoint` as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks.contest import Result
from tests.benchmarks.report import Line, Table, table

ONE_RECORD_TARGET = 20.0
IN_FLIGHT_TARGET = 5.0
LABELS = {
    "naive-1000": "naive loop: REST, a dict a row, one request at a time",
    "naive_beam-1000": "naive Beam pipeline: REST, a dict a row",
    "rest_rows-1000": "tf_serving_rest, body rows",
    "ai_platform-1000": "ai_platform",
    "kserve_v2_json-1000": "kserve_v2, body json",
    "rest_columns-1000": "tf_serving_rest, body columns",
    "kserve_v2_binary-1000": "kserve_v2, body binary",
    "grpc-1000": "tf_serving_grpc",
    "direct-1000": "saved_model, without a server",
    "direct-16384": "saved_model, 16,384 rows a call",
}
"""Cases of the first table, in its order."""

REQUESTS = [
    ("one_record", "naive-1", "naive loop, 1 row a request", "", None),
    ("one_record", "rest_columns-1", "REST columns, 1 row a request", "", None),
    ("one_record", "rest_columns-1000", "REST columns, 1,000 rows a request", "rest_columns-1", ONE_RECORD_TARGET),
    ("in_flight", "in_flight-1", "REST columns, 20 ms away, 1 request at a time", "", None),
    ("in_flight", "in_flight-8", "REST columns, 20 ms away, 8 requests at a time", "in_flight-1", IN_FLIGHT_TARGET),
]
"""Group, case, what it is, the case to compare with, how many times its rate it should reach."""

SIZES_OF = ("rest_columns", "grpc")
SIZES_HEADER = ("rows a request", "REST columns, rows/s", "gRPC, rows/s")


def endpoint_lines(found: Mapping[str, Result], groups: Sequence[str]) -> list[Line]:
    """The lines of all tables but the last."""
    return [*_protocols(found, groups), *_requests(found, groups)]


def endpoint_tables(found: Mapping[str, Result], groups: Sequence[str]) -> list[Table]:
    """The tables of the groups; empty ones for no results."""
    tables = []
    if "protocols" in groups:
        tables.append(table("protocols, 1,000 rows a request", _protocols(found, groups), "protocols"))
    if "one_record" in groups or "in_flight" in groups:
        tables.append(table("requests", _requests(found, groups), "requests"))
    if "batch_sizes" in groups:
        tables.append(Table("batch sizes", _sizes(found), SIZES_HEADER, section="batch sizes"))
    return tables


def _protocols(found: Mapping[str, Result], groups: Sequence[str]) -> list[Line]:
    if "protocols" not in groups:
        return []
    lines = [
        _line(found[name], label, found["naive-1000"] if name != "naive-1000" else None, "naive loop")
        for name, label in LABELS.items()
        if name in found
    ]
    if not lines:
        return []
    ours, beam = found["rest_columns-1000"].rows_per_second, found["naive_beam-1000"].rows_per_second
    return [*lines, Line("tf_serving_rest, body columns, rows/s", baseline="naive Beam pipeline", ratio=ours / beam)]


def _requests(found: Mapping[str, Result], groups: Sequence[str]) -> list[Line]:
    labels = {name: label for _, name, label, _, _ in REQUESTS}
    return [
        _line(found[name], label, found.get(baseline), labels.get(baseline, ""), target)
        for group, name, label, baseline, target in REQUESTS
        if group in groups and name in found
    ]


def _line(
    result: Result, label: str, baseline: Result | None = None, against: str = "", target: float | None = None
) -> Line:
    ratio = None if baseline is None else result.rows_per_second / baseline.rows_per_second
    return Line(
        label,
        result.entry.rows,
        result.median_seconds,
        result.rows_per_second,
        result.median_peak_mb,
        baseline="" if baseline is None else against,
        ratio=ratio,
        target="" if target is None else f">= {target:g}",
        met=None if target is None or ratio is None else ratio >= target,
    )


def _sizes(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """A row for each number of rows in a request."""
    rates = {
        (int(size), how): f"{result.rows_per_second:,.0f}"
        for name, result in found.items()
        for how, _, size in [name.partition("-")]
        if how in SIZES_OF
    }
    return [(f"{size:,}", *(rates[size, how] for how in SIZES_OF)) for size in sorted({size for size, _ in rates})]
