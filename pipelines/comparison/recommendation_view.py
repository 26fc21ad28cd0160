"""Shows recommendations: tables on a terminal, plain lines in a pipe, or objects of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipelines.comparison.recommendation import Candidate, Recommendation
from pipelines.comparison.report import words
from pipelines.cost.ways import in_words


def show(console: Any, found: Recommendation) -> None:
    """Prints a recommendation."""
    for line in _head(found):
        console.print(line)
    if console.is_terminal:
        _tables(console, found)
    else:
        for line in _lines(found):
            console.print(line)
    for line in _tail(found):
        console.print(line)


def findings(found: Recommendation) -> dict[str, Any]:
    """Returns a recommendation for --json."""
    return {
        "comparison": found.results.name,
        "recommended": found.best.way.name if found.best else None,
        "sure": found.sure or None,
        "why_not_surer": [asdict(each) for each in found.cautions],
        "volume": found.volume,
        "unit": found.unit,
        "currency": found.currency,
        "load": found.load,
        "ways": [_finding(found, each) for each in found.candidates],
        "break_evens": [each.model_dump() for each in found.break_evens],
        "assumptions": list(found.assumptions),
    }


def _finding(found: Recommendation, candidate: Candidate) -> dict[str, Any]:
    speed = candidate.speed
    return {
        "way": candidate.way.name,
        "kind": candidate.way.kind,
        "settings": list(candidate.way.settings),
        "month": candidate.month,
        "least": candidate.least,
        "most": candidate.most,
        "parts": candidate.bill.parts if candidate.month is not None else {},
        "machines": list(candidate.bill.fleet),
        "missing": list(candidate.bill.missing),
        "run_hours": candidate.bill.hours or None,
        ("elapsed_s" if found.results.kind == "batch" else "p99_ms"): speed.median if speed else None,
        "on_pareto_front": candidate.is_on_front,
        "left_out": list(candidate.left_out),
    }


def _head(found: Recommendation) -> Iterator[str]:
    yield f"{found.results.name}: {found.volume:,.15g} {found.unit}"
    best = found.best
    if best is None:
        yield "recommended: no way does all that is asked for"
        return
    yield f"recommended: {best.way.name}, {_cost(found, best)} a month"
    if best.way.settings:
        yield f"settings: {'; '.join(best.way.settings)}"
    if best.bill.fleet:
        yield f"machines: {'; '.join(best.bill.fleet)}"
    yield f"cost: {', '.join(f'{name} {amount:,.2f}' for name, amount in best.bill.parts.items())} {found.currency}"
    if best.speed:
        measured = f"{found.speed_name}: {_speed(found, best)} when {_load(found)} were measured"
        yield f"{measured}; about {in_words(best.bill.hours)} in the cloud" if best.bill.hours else measured


def _lines(found: Recommendation) -> Iterator[str]:
    for number, each in enumerate(found.feasible, 1):
        front = ", on the Pareto front" if each.is_on_front else ""
        machines = f"; {', '.join(each.bill.fleet)}" if each.bill.fleet else ""
        yield (
            f"{number}. {each.way.name}: {_cost(found, each)} a month{_between(each)}, {found.speed_name} "
            f"{_speed(found, each)}{front}{machines}"
        )
    for each in found.candidates:
        for reason in each.left_out:
            yield f"left out: {each.way.name}: {reason}"


def _tables(console: Any, found: Recommendation) -> None:
    from rich import box
    from rich.table import Table

    if found.feasible:
        table = Table(box=box.ROUNDED)
        for name in ("", "way", f"{found.currency} a month", "between", found.speed_name, "Pareto front", "machines"):
            table.add_column(name, overflow="fold")
        for number, each in enumerate(found.feasible, 1):
            table.add_row(
                str(number),
                each.way.name,
                f"{each.month or 0.0:,.2f}",
                _between(each).strip(" ()"),
                _speed(found, each),
                "yes" if each.is_on_front else "",
                "; ".join(each.bill.fleet),
            )
        console.print(table)
    if any(each.left_out for each in found.candidates):
        table = Table(box=box.ROUNDED)
        table.add_column("left out", overflow="fold")
        table.add_column("because", overflow="fold")
        for each in found.candidates:
            for reason in each.left_out:
                table.add_row(each.way.name, reason)
        console.print(table)


def _tail(found: Recommendation) -> Iterator[str]:
    for change in found.break_evens:
        at = f"{words.short(change.volume)} {found.unit}"
        yield f"break-even at {at}: {change.below} below, {change.above} from there on"
    if found.sure:
        yield f"how sure: {found.sure}"
    for caution in found.cautions:
        yield f"- {caution.text}"
    if found.best:
        yield "assumed:"
    for sentence in found.assumptions if found.best else ():
        yield f"- {sentence}"


def _cost(found: Recommendation, candidate: Candidate) -> str:
    return f"{candidate.month or 0.0:,.2f} {found.currency}"


def _between(candidate: Candidate) -> str:
    if candidate.least is None or candidate.most is None or candidate.least == candidate.most:
        return ""
    return f" ({candidate.least:,.2f} to {candidate.most:,.2f})"


def _speed(found: Recommendation, candidate: Candidate) -> str:
    if candidate.speed is None:
        return "not measured"
    return f"{words.short(candidate.speed.median, 4)} {'s' if found.results.kind == 'batch' else 'ms'}"


def _load(found: Recommendation) -> str:
    return f"{found.load:,.15g} {'rows' if found.results.kind == 'batch' else 'messages a second'}"
