"""Makes the article's two tables, with our figures beside its own."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.comparison.report import article, words
from pipelines.comparison.report.data_table import DataTable, Heading, RowGroup, TableValue, text
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import Figure, Results, Way, WayKind

_THEIRS, _OURS = "the article, on Dataflow", "here, on one machine"
_HOUR = 3600


def batch(results: Results) -> DataTable:
    """Returns the article's batch runs; ours beside them if ours are batch runs."""
    ours = results if results.kind == "batch" else None
    titles = [
        Heading("way", number=False),
        Heading("elapsed, min:s", group=_THEIRS),
        Heading("times direct", group=_THEIRS),
        Heading("times 10,000 rows", group=_THEIRS),
        Heading("vCPU hours", group=_THEIRS),
    ]
    if ours:
        titles += [
            Heading("elapsed, min:s", group=_OURS),
            Heading("times direct", group=_OURS),
            Heading("times 10,000 rows", group=_OURS),
            Heading("CPU hours", group=_OURS),
        ]
    loads = sorted({float(each.rows) for each in article.BATCH} | set(ours.loads if ours else ()))
    groups = tuple(RowGroup(f"{words.count(load)} rows", tuple(_batch_rows(ours, load))) for load in loads)
    return DataTable("Batch: elapsed time and processors", tuple(titles), groups, article.BATCH_SETTING)


def _batch_rows(ours: Results | None, load: float) -> Iterator[tuple[TableValue, ...]]:
    kinds: tuple[WayKind, ...] = ("direct", "batch_job")
    theirs = {each.kind: each for each in article.BATCH if each.rows == load}
    for kind, single, way in _lines(ours, [(kind, False) for kind in kinds if kind in theirs]):
        found = theirs.get(kind) if not single else None
        name = text(way.name if way else article.in_words(kind))
        values = _their_batch(found, theirs) if found else (text(""),) * 4
        values += _our_batch(ours, way, load) if ours else ()
        if any(each.text != words.NONE for each in values):
            yield name, *values


def _their_batch(found: article.BatchFigures, theirs: dict[WayKind, article.BatchFigures]) -> tuple[TableValue, ...]:
    smallest = next(each for each in article.BATCH if each.kind == found.kind)
    parts = " + ".join(words.clock(seconds) for seconds, _ in found.parts)
    hours = " + ".join(f"{hours:.3f}" for _, hours in found.parts)
    return (
        TableValue(words.clock(found.elapsed_s), parts),
        TableValue(words.times(found.elapsed_s / theirs["direct"].elapsed_s)),
        TableValue(words.times(found.elapsed_s / smallest.elapsed_s)),
        TableValue(f"{found.vcpu_hours:.3f}", hours),
    )


def _our_batch(ours: Results, way: Way | None, load: float) -> tuple[TableValue, ...]:
    elapsed = _figure(ours, way, load, "elapsed_s")
    if elapsed is None:
        return (text(""),) * 4
    direct = _figure(ours, _way(ours, "direct", False), load, "elapsed_s")
    smallest = _figure(ours, way, article.BATCH[0].rows, "elapsed_s")
    cpu = _figure(ours, way, load, "cpu_s")
    return (
        _clock(elapsed),
        _ratio(elapsed, direct.median if direct else None),
        _ratio(elapsed, smallest.median if smallest else None),
        text("" if cpu is None else words.number(cpu.median / _HOUR)),
    )


def stream(results: Results) -> DataTable:
    """Returns the article's streams; ours beside them if ours are streams."""
    ours = results if results.kind == "stream" else None
    times = "times the publishing"
    titles = [Heading("way", number=False), Heading("total, min:s", group=_THEIRS), Heading(times, group=_THEIRS)]
    if ours:
        titles += [
            Heading("messages", group=_OURS),
            Heading("total, min:s", group=_OURS),
            Heading(times, group=_OURS),
            Heading(f"latency {subject_of(ours).short}", group=_OURS),
        ]
    loads = sorted({float(each.rate) for each in article.STREAM} | set(ours.loads if ours else ()))
    groups = tuple(
        RowGroup(f"{words.count(load)} messages a second", tuple(_stream_rows(ours, load))) for load in loads
    )
    note = f"{article.STREAM_SETTING} No stream can take less time than its messages take to be published."
    if ours:
        note += " Ours is the time from the first message on, without the start of the command."
    return DataTable("Streams: total time", tuple(titles), groups, note)


def _stream_rows(ours: Results | None, load: float) -> Iterator[tuple[TableValue, ...]]:
    theirs = {(each.kind, each.single): each for each in article.STREAM if each.rate == load}
    order: list[tuple[WayKind, bool]] = [
        ("direct", True), ("direct", False), ("endpoint", True), ("endpoint", False)
    ]  # fmt: skip
    for kind, single, way in _lines(ours, [each for each in order if each in theirs]):
        found = theirs.get((kind, single)) if kind != "batch_job" else None
        name = text(way.name if way else f"{article.in_words(kind, single)}{'' if single else ', micro-batches'}")
        values = _their_stream(found) if found else (text(""),) * 2
        values += _our_stream(ours, way, load) if ours else ()
        if any(each.text != words.NONE for each in values):
            yield name, *values


def _their_stream(found: article.StreamFigures) -> tuple[TableValue, ...]:
    if found.total_s is None:
        return text(article.UNFINISHED), text("")
    least = article.MESSAGES / found.rate
    return TableValue(words.clock(found.total_s)), TableValue(words.times(found.total_s / least))


def _our_stream(ours: Results, way: Way | None, load: float) -> tuple[TableValue, ...]:
    total = _figure(ours, way, load, "work_s") or _figure(ours, way, load, "elapsed_s")
    messages = _figure(ours, way, load, "rows_read")
    if total is None or messages is None:
        return (text(""),) * 4
    latency = _figure(ours, way, load, subject_of(ours).figure)
    return (
        TableValue(words.count(round(messages.median))),
        _clock(total),
        _ratio(total, messages.median / load if load else None),
        text("" if latency is None else words.number(latency.median)),
    )


def _lines(ours: Results | None, theirs: list[tuple[WayKind, bool]]) -> Iterator[tuple[WayKind, bool, Way | None]]:
    """Our ways in their order, then the article's that are not among them: kind, whether single, our way."""
    ways = ours.ways if ours else ()
    yield from ((way.kind, way.single, way) for way in ways)
    taken = {(way.kind, way.single) for way in ways}
    yield from ((kind, single, None) for kind, single in theirs if (kind, single) not in taken)


def _way(ours: Results, kind: WayKind, single: bool) -> Way | None:
    return next((each for each in ours.ways if (each.kind, each.single) == (kind, single)), None)


def _figure(ours: Results, way: Way | None, load: float, name: str) -> Figure | None:
    cell = ours.cell(way.name, load) if way else None
    return cell.figures.get(name) if cell else None


def _clock(found: Figure) -> TableValue:
    between = (
        "" if found.low is None or found.high is None else f"{words.clock(found.low)} to {words.clock(found.high)}"
    )
    return TableValue(words.clock(found.median), between)


def _ratio(found: Figure, base: float | None) -> TableValue:
    return text(words.times(found.median / base) if base else "")
