"""Estimates how many rows a source has, before it is read."""

from __future__ import annotations

import pyarrow as pa

from pipelines.formats import FormatError, reader_class
from pipelines.formats.base import ReadSpec
from pipelines.plan import Plan
from pipelines.planning.planner import source_options

_LOOKED_AT = 5
"""Files that are looked at, the largest ones; the others are taken to be like them."""


def expected_rows(plan: Plan) -> int | None:
    """Returns about how many rows a run will read; None if nobody knows before it reads them."""
    if plan.extent is not None:
        return plan.extent.rows or None
    files = [file for file in plan.files if file.size]
    if not files:
        return 0
    reader = reader_class(plan.config.source.format)(ReadSpec(pa.schema([]), source_options(plan.config.source)))
    if reader.unit == "files":
        return len(files)
    looked_at = sorted(files, key=lambda file: file.size)[-_LOOKED_AT:]
    try:
        found = [reader.expected_rows(file.path, file.size) for file in looked_at]
    except (FormatError, OSError, pa.ArrowException):
        return None
    known = [rows for rows in found if rows is not None]
    if len(known) < len(found):
        return None
    return round(sum(known) * sum(file.size for file in files) / sum(file.size for file in looked_at))
