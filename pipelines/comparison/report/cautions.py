"""Says what weakens the answer of a comparison, and what one must know not to misread it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipelines.comparison.report import words
from pipelines.comparison.report.subject import Subject
from pipelines.comparison.results import Cell, Ranking, Results

FEWEST_MESSAGES = 300
"""Messages from which three or more lie above p99."""
_MOSTLY = 0.5
_NEARLY_ALL = 0.7


def few_messages(cell: Cell | None) -> str:
    """Returns what is said next to a p99 of few messages; empty if there are enough, or it is of a batch run."""
    count = _messages(cell)
    return (
        f"of only {words.plural(count, 'message', 'messages')}" if count is not None and count < FEWEST_MESSAGES else ""
    )


def _messages(cell: Cell | None) -> int | None:
    """Messages of one run of a stream; None of a batch run, whose time has no percentiles."""
    if cell is None or "latency.total.p99" not in cell.figures or "rows_read" not in cell.figures:
        return None
    return round(cell.figures["rows_read"].median)


def starting(results: Results, ranking: Ranking) -> list[str]:
    """Returns a sentence if starting is most of the time of the fastest ways of a batch run; none if it is not."""
    shares = [_share_of_start(results, place.way, ranking.load) for place in ranking.places if place.place == 1]
    if results.kind != "batch" or not shares or min(shares) <= _MOSTLY:
        return []
    between = f"{min(shares):.0%} to {max(shares):.0%}" if len(shares) > 1 else f"{shares[0]:.0%}"
    return [f"Of {'these times' if len(shares) > 1 else 'this time'}, {between} was start, before the first row."]


def _share_of_start(results: Results, way: str, load: float) -> float:
    cell = results.cell(way, load)
    start, whole = ((cell.figures[name].median if cell and name in cell.figures else 0.0) for name in _START)
    return start / whole if whole > 0 else 0.0


_START = ("start_s", "elapsed_s")


def warnings(results: Results, subject: Subject) -> Iterator[str]:
    """Says what one must know not to misread the answer: dead letters, starts, few rounds, few messages."""
    yield from _dead_letters(results, subject)
    ranked = [each for each in results.rankings if each.places]
    loads = [each.load for each in ranked if starting(results, each)]
    if loads:
        served = any(way.kind != "direct" for way in results.ways)
        yield (
            f"At {_loads(loads, subject)}, most of the time is start: the places there are of starts, and larger sizes "
            "may have others. A way in the workers loads the model in each run"
            + ("; a server had it loaded before, and its own start is in no time." if served else ".")
        )
    found = {figure.rounds for cell in results.cells for name, figure in cell.figures.items() if name == subject.figure}
    if found == {1}:
        yield "There was one round only: no interval can be given, and differences may be chance."
    elif found and min(found) < 3:
        yield f"Some figures rest on {words.plural(min(found), 'round', 'rounds')} only."
    few = {count: each.load for each in ranked for count in _few(results, each)}
    for count, load in sorted(few.items()):
        messages = words.plural(count, "message", "messages")
        yield f"At {subject.at(load)} a run had {messages} only: its p99 is nearly the slowest one."


def _few(results: Results, ranking: Ranking) -> set[int]:
    counts = [_messages(results.cell(place.way, ranking.load)) for place in ranking.places]
    return {each for each in counts if each is not None and each < FEWEST_MESSAGES}


def _dead_letters(results: Results, subject: Subject) -> Iterator[str]:
    """What was dead-lettered at the least load, where most ways were run, and whether a run would end well with it."""
    load = min((run.load for run in results.runs if run.ok and run.round), default=None)
    counts = {
        run.way: (run.rows_dead_lettered, run.rows_read)
        for run in results.runs
        if run.ok and run.round and run.load == load and run.rows_read
    }
    ways: dict[tuple[int, int], list[str]] = {}
    for way, each in counts.items():
        if each[0]:
            ways.setdefault(each, []).append(way)
    noun = "rows" if results.kind == "batch" else "messages"
    for (dead, read), names in ways.items():
        share = dead / read
        everywhere = len(names) == len(counts) > 1
        where = f"all {len(names)} ways" if everywhere else words.listed([words.name_of(each) for each in names])
        said = f"In {where}, {dead:,} of {read:,} {noun} ({_percent(share)}) were dead-lettered"
        most = results.max_dead_letters
        if most is not None and share > most:
            said += (
                f". The config allows {most:.2%} (dead_letters.max_fraction): a run of it would fail with exit code 3"
            )
        yield f"{said}."


def _percent(share: float) -> str:
    return "less than 0.01%" if share < 5e-5 else f"{share:.2%}"


def _loads(loads: list[float], subject: Subject) -> str:
    return f"{words.listed([words.count(each) for each in loads])} {subject.one}"


def others(results: Results, subject: Subject) -> Iterator[str]:
    """Says what else weakens the answer: ways that are not ranked, runs that failed or are far from the others."""
    reasons: dict[tuple[str, str], list[float]] = {}
    for ranking in results.rankings:
        for way, why in ranking.not_ranked.items():
            reasons.setdefault((way, why), []).append(ranking.load)
    for (way, why), loads in reasons.items():
        everywhere = len(loads) == len(results.rankings) and len(loads) > 1
        where = f"at any {subject.single_load}" if everywhere else f"at {_loads(loads, subject)}"
        yield words.full_stop(words.upper_first(f"{words.name_of(way)} is not ranked {where}: {why}"))
    failed = sum(bool(run.error) for run in results.runs)
    if failed:
        yield f"{words.plural(failed, 'run', 'runs')} of {len(results.runs):,} failed; their figures are not counted."
    strange = Counter(run.round for run in results.runs if run.outlier and run.ok)
    if strange:
        count = strange.total()
        yield (
            f"{words.plural(count, 'run', 'runs')} of {len(results.runs):,} {'is' if count == 1 else 'are'} far from "
            f"the other rounds, {_of_rounds(strange)}; the figures include {'it' if count == 1 else 'them'}."
        )


def _of_rounds(found: Counter[int]) -> str:
    """In which rounds runs are that are far from the others."""
    count = found.total()
    round, most = found.most_common(1)[0]
    if most == count:
        return f"{'in' if count == 1 else 'all in'} round {round}"
    if most >= _NEARLY_ALL * count:
        return f"{most:,} of them in round {round}, in which something else may have used the machine"
    return f"in rounds {words.listed([f'{each}' for each in sorted(found)])}"
