"""Answers in sentences which way is the fastest, which agree, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pipelines.comparison.report import words
from pipelines.comparison.report.cautions import few_messages, others, starting, warnings
from pipelines.comparison.report.cost_sentences import costs_in_words
from pipelines.comparison.report.subject import Subject, subject_of
from pipelines.comparison.results import Parity, RankedPlace, Ranking, Results


@dataclass(frozen=True)
class Findings:
    """Holds the answer of a comparison.

    Attributes:
      headline: the answer in one sentence.
      sentences: the figures it rests on, a sentence or some for each load, the largest first.
      agreement: whether the ways give the same outputs.
      costs: what they cost; empty if there are no prices.
      warnings: what one must know not to misread it.
      cautions: these, and what else weakens the answer.
    """

    headline: str
    sentences: tuple[str, ...]
    agreement: str
    costs: str
    warnings: tuple[str, ...]
    cautions: tuple[str, ...]


def answer(results: Results) -> Findings:
    """Returns the answer of a comparison, computed from its results."""
    subject = subject_of(results)
    ranked = [each for each in reversed(results.rankings) if each.places]
    warned = tuple(warnings(results, subject))
    return Findings(
        headline=_headline(results, subject, ranked),
        sentences=tuple(_at_load(results, subject, each) for each in ranked),
        agreement=_agreement(results),
        costs=costs_in_words(results),
        warnings=warned,
        cautions=(*warned, *others(results, subject)),
    )


@dataclass(frozen=True)
class _Winners:
    """The first of a ranking, in the order of the config; none if all that are ranked are tied."""

    ways: tuple[str, ...]
    alone: bool
    proved: bool = True

    def __str__(self) -> str:
        if not self.ways:
            return "all ways that are ranked are tied"
        names = words.listed([words.name_of(each) for each in self.ways])
        if self.alone:
            return f"{names} is the only way that is ranked"
        if len(self.ways) > 1:
            return f"{names} are tied for fastest"
        return f"{names} {self.is_or_was} fastest"

    @property
    def is_or_was(self) -> str:
        """Returns the verb: what is not proved only was so, once."""
        return "is" if self.proved else "was"

    @property
    def doubt(self) -> str:
        """What is said behind the load of a place that is not proved."""
        return "" if self.proved or self.alone else " (one round only: not proved)"


def _first(results: Results, ranking: Ranking) -> _Winners:
    firsts = {each.way for each in ranking.places if each.place == 1}
    proved = _is_proved(results, ranking)
    if len(firsts) == len(ranking.places) > 2:
        return _Winners((), False, proved)
    return _Winners(tuple(each.name for each in results.ways if each.name in firsts), len(ranking.places) == 1, proved)


def _is_proved(results: Results, ranking: Ranking) -> bool:
    """Whether it is known how much the figures vary: one round, and none of others to tell, proves no place."""
    for place in ranking.places:
        cell = results.cell(place.way, ranking.load)
        figure = cell.figures.get(ranking.figure) if cell else None
        if figure is not None and figure.low is None:
            return False
    return True


def _headline(results: Results, subject: Subject, ranked: Sequence[Ranking]) -> str:
    counted = [run for run in results.runs if run.round]
    if not results.runs:
        return "Nothing was measured: the comparison has no runs."
    if not ranked:
        if all(run.error for run in results.runs):
            return f"Nothing was measured: {_all_of(len(results.runs), 'run')} failed."
        if not counted:
            return "Nothing can be ranked: no run was counted."
        return "Nothing can be ranked: no way has both figures and outputs that agree."
    rising = list(reversed(ranked))
    if len(rising) == 1:
        first = _first(results, rising[0])
        return words.upper_first(f"{first} at {subject.at(rising[0].load)}{first.doubt}.")
    spans = [
        (winners, [each.load for each in group])
        for winners, group in groupby(rising, lambda ranking: _first(results, ranking))
    ]
    if len(spans) == 1:
        winners, loads = spans[0]
        span = f"{words.count(loads[0])} to {subject.at(loads[-1])}"
        return words.upper_first(f"{winners} at all {subject.loads}, from {span}{winners.doubt}.")
    parts = [f"{winners} {_span(subject, loads)}{winners.doubt}" for winners, loads in spans]
    return words.upper_first(f"{'; '.join(parts)}.")


def _span(subject: Subject, loads: Sequence[float]) -> str:
    if len(loads) == 1:
        return f"at {subject.at(loads[0])}"
    return f"from {words.count(loads[0])} to {subject.at(loads[-1])}"


def _at_load(results: Results, subject: Subject, ranking: Ranking) -> str:
    places = ranking.places
    firsts = [each for each in places if each.place == 1]
    where = f"{'In' if results.kind == 'batch' else 'At'} {subject.at(ranking.load)}"
    first = _first(results, ranking)
    names = [words.name_of(each.way) for each in firsts]
    values = [_measured(results, subject, ranking, each) for each in firsts]
    if len(places) == 1:
        start = f"{where}, {names[0]} is the only way that is ranked: {values[0]}."
    elif len(firsts) == 1:
        start = f"{where}, {names[0]} {first.is_or_was} fastest{first.doubt}: {values[0]}."
    else:
        each = words.listed([f"{name} {value}" for name, value in zip(names, values, strict=True)])
        those = words.listed(names) if first.ways else f"all {len(names)} ways that are ranked"
        start = f"{where}, {those} are tied{first.doubt}: {each}."
    return " ".join([start, *_others(places), *starting(results, ranking)])


def _others(places: Sequence[RankedPlace]) -> list[str]:
    others = [each for each in places if each.place > 1]
    if not others:
        return []
    first, *more = ((words.name_of(each.way), words.times(each.ratio)) for each in others)
    parts = [f"{first[0]} takes {first[1]} times as long", *(f"{name} {ratio} times" for name, ratio in more)]
    found = [words.upper_first(f"{words.listed(parts)}.")]
    for place, group in groupby(others, lambda each: each.place):
        tied = [words.name_of(each.way) for each in group]
        if len(tied) > 1:
            found.append(f"For place {place}, {words.listed(tied)} are tied.")
    return found


def _measured(results: Results, subject: Subject, ranking: Ranking, place: RankedPlace) -> str:
    cell = results.cell(place.way, ranking.load)
    figure = cell.figures.get(ranking.figure) if cell else None
    few = few_messages(cell)
    name = "" if results.kind == "batch" else f"{subject.statistic} {few} " if few else f"{subject.statistic} "
    value = words.measured(figure, subject.unit) if figure else f"{words.number(place.value)} {subject.unit}"
    return name + value


def _agreement(results: Results) -> str:
    # The reference may be listed too.
    compared = [each for each in results.parity if each.error or each.way != each.reference]
    if not compared:
        return "Whether the ways give the same outputs was not looked at."
    found = []
    agreeing = [each for each in compared if each.agrees and not each.error]
    reference = compared[0].reference
    looked_at = {reference, *(each.way for each in compared)}
    if len(agreeing) == len(compared) and all(way.name in looked_at for way in results.ways):
        rows = min(each.rows for each in agreeing)
        those = _all_of(len(results.ways), "way") if len(results.ways) > 1 else "the way"
        return words.upper_first(
            f"{those} give the same outputs within tolerance, compared on {words.count(rows)} rows."
        )
    if agreeing:
        found.append(f"The same outputs as {words.name_of(reference)}: {_names(agreeing)}.")
    differing = [each for each in compared if not each.agrees and not each.error]
    if differing:
        found.append(f"Other outputs than {words.name_of(reference)}, and so not ranked: {_names(differing)}.")
    unknown = [each for each in compared if each.error]
    if unknown:
        found.append(f"Not known: {_names(unknown)}, whose outputs could not be compared.")
    return " ".join(found)


def _names(parities: Sequence[Parity]) -> str:
    return words.listed([words.name_of(each.way) for each in parities])


def _all_of(amount: int, one: str) -> str:
    return f"the only {one}" if amount == 1 else f"both {one}s" if amount == 2 else f"all {amount:,} {one}s"
