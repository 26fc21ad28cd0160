"""Answers in sentences which way is the fastest, which agree, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pipelines.comparison.report import words
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
      cautions: what weakens the answer.
    """

    headline: str
    sentences: tuple[str, ...]
    agreement: str
    costs: str
    cautions: tuple[str, ...]


def answer(results: Results) -> Findings:
    """Returns the answer of a comparison, computed from its results."""
    subject = subject_of(results)
    ranked = [each for each in reversed(results.rankings) if each.places]
    return Findings(
        headline=_headline(results, subject, ranked),
        sentences=tuple(_at_load(results, subject, each) for each in ranked),
        agreement=_agreement(results),
        costs=_costs(results),
        cautions=tuple(_cautions(results, subject)),
    )


def name_of(way: str) -> str:
    """Returns the name of a way as it stands in a sentence: in quotes if it is more than a word.

    >>> name_of("direct"), name_of("in the workers")
    ('direct', '“in the workers”')
    """
    return way if re.fullmatch(r"[\w.-]{1,40}", way) else f"“{way}”"


@dataclass(frozen=True)
class _Winners:
    """The first of a ranking, in the order of the config; none if all that are ranked are tied."""

    ways: tuple[str, ...]
    alone: bool

    def __str__(self) -> str:
        if not self.ways:
            return "all ways that are ranked are tied"
        names = words.listed([name_of(each) for each in self.ways])
        if self.alone:
            return f"{names} is the only way that is ranked"
        return f"{names} is fastest" if len(self.ways) == 1 else f"{names} are tied for fastest"


def _first(results: Results, ranking: Ranking) -> _Winners:
    firsts = {each.way for each in ranking.places if each.place == 1}
    if len(firsts) == len(ranking.places) > 2:
        return _Winners((), False)
    return _Winners(tuple(each.name for each in results.ways if each.name in firsts), len(ranking.places) == 1)


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
        return words.upper_first(f"{_first(results, rising[0])} at {subject.at(rising[0].load)}.")
    spans = [
        (winners, [each.load for each in group])
        for winners, group in groupby(rising, lambda ranking: _first(results, ranking))
    ]
    if len(spans) == 1:
        winners, loads = spans[0]
        span = f"{words.count(loads[0])} to {subject.at(loads[-1])}"
        return words.upper_first(f"{winners} at all {subject.loads}, from {span}.")
    parts = [f"{winners} {_span(subject, loads)}" for winners, loads in spans]
    return words.upper_first(f"{'; '.join(parts)}.")


def _span(subject: Subject, loads: Sequence[float]) -> str:
    if len(loads) == 1:
        return f"at {subject.at(loads[0])}"
    return f"from {words.count(loads[0])} to {subject.at(loads[-1])}"


def _at_load(results: Results, subject: Subject, ranking: Ranking) -> str:
    places = ranking.places
    firsts = [each for each in places if each.place == 1]
    where = f"{'In' if results.kind == 'batch' else 'At'} {subject.at(ranking.load)}"
    names = [name_of(each.way) for each in firsts]
    values = [_measured(results, subject, ranking, each) for each in firsts]
    if len(places) == 1:
        start = f"{where}, {names[0]} is the only way that is ranked: {values[0]}."
    elif len(firsts) == 1:
        start = f"{where}, {names[0]} is fastest: {values[0]}."
    else:
        each = words.listed([f"{name} {value}" for name, value in zip(names, values, strict=True)])
        those = words.listed(names) if _first(results, ranking).ways else f"all {len(names)} ways that are ranked"
        start = f"{where}, {those} are tied: {each}."
    return " ".join([start, *_others(places)])


def _others(places: Sequence[RankedPlace]) -> list[str]:
    others = [each for each in places if each.place > 1]
    if not others:
        return []
    first, *more = ((name_of(each.way), words.times(each.ratio)) for each in others)
    parts = [f"{first[0]} takes {first[1]} times as long", *(f"{name} {ratio} times" for name, ratio in more)]
    found = [words.upper_first(f"{words.listed(parts)}.")]
    for place, group in groupby(others, lambda each: each.place):
        tied = [name_of(each.way) for each in group]
        if len(tied) > 1:
            found.append(f"For place {place}, {words.listed(tied)} are tied.")
    return found


def _measured(results: Results, subject: Subject, ranking: Ranking, place: RankedPlace) -> str:
    cell = results.cell(place.way, ranking.load)
    figure = cell.figures.get(ranking.figure) if cell else None
    name = "" if results.kind == "batch" else f"{subject.statistic} "
    return name + (words.measured(figure, subject.unit) if figure else f"{words.number(place.value)} {subject.unit}")


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
        found.append(f"The same outputs as {name_of(reference)}: {_names(agreeing)}.")
    differing = [each for each in compared if not each.agrees and not each.error]
    if differing:
        found.append(f"Other outputs than {name_of(reference)}, and so not ranked: {_names(differing)}.")
    unknown = [each for each in compared if each.error]
    if unknown:
        found.append(f"Not known: {_names(unknown)}, whose outputs could not be compared.")
    return " ".join(found)


def _names(parities: Sequence[Parity]) -> str:
    return words.listed([name_of(each.way) for each in parities])


def _all_of(amount: int, one: str) -> str:
    return f"the only {one}" if amount == 1 else f"both {one}s" if amount == 2 else f"all {amount:,} {one}s"


def _costs(results: Results) -> str:
    costs = results.costs
    if costs is None:
        return ""
    known = sorted((each.month, each.way) for each in costs.ways if each.month is not None and not each.missing)
    at = f"At {words.count(costs.volume)} {costs.unit}"
    if not known:
        return f"{at}, no way has a cost that is known: prices are missing."
    (month, way), *others = known
    found = [f"{at}, {name_of(way)} is cheapest: {words.money(month, costs.currency)} a month."]
    if others:
        each = words.listed([f"{name_of(name)} costs {words.money(cost, costs.currency)}" for cost, name in others])
        found.append(words.upper_first(f"{each} a month."))
    found += [
        words.upper_first(
            f"{name_of(each.above)} becomes the cheapest from about {words.number(each.volume)} {costs.unit} on."
        )
        for each in costs.break_evens
    ]
    if others and not costs.break_evens:
        volumes = sorted(volume for each in costs.ways for volume, _ in each.curve)
        between = f"{words.count(volumes[0])} to {words.count(volumes[-1])} {costs.unit}" if volumes else ""
        found += [f"No other way becomes the cheapest from {between}."] if volumes else []
    if costs.unverified:
        found.append("Nobody has verified the prices." if _all_unverified(results) else "Some prices are not verified.")
    return " ".join(found)


def _all_unverified(results: Results) -> bool:
    return results.costs is not None and len(results.costs.unverified) >= len(results.costs.prices)


def _cautions(results: Results, subject: Subject) -> list[str]:
    found = []
    rounds = {
        figure.rounds for cell in results.cells for name, figure in cell.figures.items() if name == subject.figure
    }
    if rounds == {1}:
        found.append("There was one round only: no interval can be given, and small differences may be chance.")
    elif rounds and min(rounds) < 3:
        found.append(f"Some figures rest on {words.plural(min(rounds), 'round', 'rounds')} only.")
    reasons: dict[tuple[str, str], list[float]] = {}
    for ranking in results.rankings:
        for way, why in ranking.not_ranked.items():
            reasons.setdefault((way, why), []).append(ranking.load)
    for (way, why), loads in reasons.items():
        everywhere = len(loads) == len(results.rankings) and len(loads) > 1
        where = (
            f"at any {subject.single_load}"
            if everywhere
            else f"at {words.listed([words.count(each) for each in loads])} {subject.one}"
        )
        found.append(words.full_stop(words.upper_first(f"{name_of(way)} is not ranked {where}: {why}")))
    failed = sum(bool(run.error) for run in results.runs)
    if failed:
        found.append(
            f"{words.plural(failed, 'run', 'runs')} of {len(results.runs):,} failed; their figures are not counted."
        )
    strange = sum(bool(run.outlier) and run.ok for run in results.runs)
    if strange:
        found.append(
            f"{words.plural(strange, 'run is', 'runs are')} far from the other rounds; the figures include them."
        )
    return found
