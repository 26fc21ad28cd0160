"""What an answer does not claim: more than was measured, more than was proved, and rows that were dead-lettered."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.console import Console
from pipelines import compare
from pipelines.comparison.costs import costs_of
from pipelines.comparison.manifest import command_line
from pipelines.comparison.publishing import Published
from pipelines.comparison.report import charts, cost_tables, speed_tables
from pipelines.comparison.report.answer import Findings, answer
from pipelines.comparison.report.page import write
from pipelines.comparison.results import Cell, Figure, Ranking, Results, Run
from pipelines.comparison.statistics import Contestant, figure, ranking
from pipelines.comparison.view import show
from pipelines.cost.assumptions import Assumptions
from tests.support import comparison_results as samples
from tests.support.comparison_results import DIRECT, JOB, MICRO, RATES, SIZES
from tests.support.priced_results import all_prices

SLOW, QUICK = samples.DIRECT_SINGLE, "direct, micro-batches"
BEHIND = "it did not keep up: 3,000 messages/s, and 5,000/s came"


def without(results: Results, load: float, reasons: dict[str, str]) -> Results:
    """The same results, with some ways that have no place at a load."""

    def changed(each: Ranking) -> Ranking:
        if each.load != load:
            return each
        places = tuple(place for place in each.places if place.way not in reasons)
        return each.model_copy(update={"places": places, "not_ranked": {**each.not_ranked, **reasons}})

    return results.model_copy(update={"rankings": tuple(map(changed, results.rankings))})


def with_figures(results: Results, figures: dict[str, Figure], load: float | None = None) -> Results:
    """The same results, with some other figures, at a load or at all."""

    def changed(cell: Cell) -> Cell:
        concerned = bool(cell.figures) and load in (None, cell.load)
        return cell.model_copy(update={"figures": {**cell.figures, **figures}}) if concerned else cell

    return results.model_copy(update={"cells": tuple(map(changed, results.cells))})


def with_volume(results: Results, volume: float, **more: Any) -> Results:
    assert results.costs is not None
    return results.model_copy(update={"costs": results.costs.model_copy(update={"volume": volume, **more})})


# Costs beyond what was measured.


def test_the_cost_of_a_way_that_was_not_measured_at_the_volume_is_called_computed() -> None:
    results = with_volume(without(samples.stream(), RATES[-1], {QUICK: "no time was left"}), RATES[-1])
    found = answer(results).costs
    assert found.startswith(
        "At 5,000 messages a second, “direct, single” is the cheapest of the ways that were measured there: USD "
    )
    assert "“direct, micro-batches” costs" not in found
    assert re.search(
        r"“direct, micro-batches” would cost USD [\d.]+, computed from what was measured up to 500 messages a second: "
        r"it was not measured there\.",
        found,
    )
    costs = results.costs
    assert costs is not None
    rows = {row[0].text: row[1].detail for row in cost_tables.month(results, costs).groups[0].rows}
    assert (rows[SLOW], rows[QUICK]) == ("", "computed, measured up to 500")


def test_a_way_that_did_not_keep_up_has_no_cost_there_without_it_being_said() -> None:
    results = with_volume(without(samples.stream(), RATES[-1], {SLOW: BEHIND}), RATES[-1])
    assert "measured up to 500 messages a second: it did not keep up." in answer(results).costs
    priced = costs_of(results, all_prices(), Assumptions())
    runs = {each.way: list(each.runs) for each in priced.ways}
    assert (runs[SLOW], runs[QUICK]) == (["50", "100", "500"], ["50", "100", "500", "5000"])


def test_a_volume_above_all_loads_is_called_computed() -> None:
    found = answer(with_volume(samples.batch(), 5_000_000)).costs
    assert (
        "Computed, not measured: this is 5.0 times the largest load that was measured, 1,000,000 rows. “batch job”"
    ) in found


def test_the_cost_plot_shows_where_measuring_ended(tmp_path: Path) -> None:
    results = without(samples.batch(), SIZES[-1], {JOB: "no time was left"})
    found = charts.cost_chart(results)
    assert found is not None
    assert found.measured == (10_000, 1_000_000)
    assert "measured from 10,000 to 1,000,000, computed outside of these" in found.description
    hollow = {line.name: min(line.hollow) for line in found.lines}
    assert hollow == {DIRECT: 1e7, MICRO: 1e7, JOB: 1e6}
    write(results, str(tmp_path))
    drawn = words_of(tmp_path / "cost-against-volume.svg")
    assert "shaded: computed, beyond what was measured" in drawn
    assert "hollow: beyond what was measured of" in drawn


def test_a_volume_that_nobody_stated_is_not_called_stated() -> None:
    results = samples.batch()
    assert costs_of(results, all_prices(), Assumptions()).stated is False
    assert costs_of(results, all_prices(), Assumptions(volume=5.0)).stated is True
    found = charts.cost_chart(with_volume(results, 1_000_000, stated=False))
    assert found is not None
    assert (1_000_000, "the largest load") in found.marks


def test_ways_that_are_not_ranked_lack_no_prices() -> None:
    results = samples.stream()
    assert results.costs is not None
    costs = results.costs.model_copy(update={"ways": ()})
    found = answer(results.model_copy(update={"costs": costs})).costs
    assert found == "At 500 messages a second, no way is ranked, so none has a cost."


# What is not proved.


def test_one_round_proves_no_place() -> None:
    found = answer(samples.batch(rounds=1))
    assert found.headline == (
        "Direct was fastest at all sizes, from 10,000 to 1,000,000 rows (one round only: not proved)."
    )
    assert all("(one round only: not proved)" in each for each in found.sentences)
    assert "not proved" not in " ".join(answer(samples.batch()).sentences)


def test_the_p99_of_few_messages_says_so_where_it_stands() -> None:
    results = with_figures(samples.stream(), {"rows_read": Figure(median=60)}, RATES[0])
    found = answer(results)
    assert "“direct, single” is fastest: p99 of only 60 messages " in found.sentences[-1]
    assert "of only" not in found.sentences[0]
    assert "At 50 messages a second a run had 60 messages only: its p99 is nearly the slowest one." in found.warnings
    latency = speed_tables.latency(results)
    assert latency is not None
    assert latency.note.endswith("Where a run has fewer than 300 messages, it is nearly the greatest.")
    table = speed_tables.ranking(results)
    assert [group.rows[0][2].detail.endswith("; of only 60 messages") for group in table.groups] == [
        True, False, False, False
    ]  # fmt: skip


def test_places_that_are_of_starts_are_called_so() -> None:
    results = with_figures(samples.batch(), {"start_s": Figure(median=1.9)})
    found = answer(results)
    assert "of this time" not in found.sentences[0].lower()
    assert re.search(r"Of this time, \d\d% was start, before the first row\.$", found.sentences[-1])
    (said,) = (each for each in found.warnings if "places there are of starts" in each)
    assert said.startswith("At 10,000 and 100,000 rows, most of the time is start")
    assert said.endswith("a server had it loaded before, and its own start is in no time.")
    assert not any("start" in each for each in answer(samples.stream()).warnings)


def test_intervals_that_touch_as_they_are_printed_are_a_tie() -> None:
    low, high = Figure(median=1.6, low=1.46, high=1.8321, rounds=3), Figure(median=2, low=1.8349, high=2.4, rounds=3)
    apart = Figure(median=2.1, low=1.84, high=2.4, rounds=3)

    def tied(other: Figure) -> bool:
        return ranking(1, "elapsed_s", [Contestant("a", low), Contestant("b", other)], {}).places[1].tied

    assert tied(high)
    assert not tied(apart)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([2], "1 run of 66 is far from the other rounds, in round 2; the figures include it."),
        ([3, 3], "2 runs of 66 are far from the other rounds, all in round 3; the figures include them."),
        ([3, 3, 3, 1], "3 of them in round 3, in which something else may have used the machine;"),
        ([1, 2, 4], "3 runs of 66 are far from the other rounds, in rounds 1, 2 and 4; the figures include them."),
    ],
)
def test_runs_far_from_the_others_name_their_round(rounds: list[int], said: str) -> None:
    runs = list(samples.batch().runs)
    for round in rounds:
        index = next(at for at, run in enumerate(runs) if run.round == round and not run.outlier)
        runs[index] = runs[index].model_copy(update={"outlier": "elapsed_s"})
    assert said in answer(samples.batch(runs=tuple(runs))).cautions[-1]


# Dead letters.


def dead(results: Results, counts: dict[str, int]) -> Results:
    def changed(run: Run) -> Run:
        return run.model_copy(update={"rows_dead_lettered": counts.get(run.way, counts.get("", 0))})

    return results.model_copy(update={"runs": tuple(map(changed, results.runs)), "max_dead_letters": 0.01})


def test_dead_letters_and_how_a_run_would_end_are_said() -> None:
    found = answer(dead(samples.batch(), {"": 383}))
    assert found.warnings[0] == (
        "In all 4 ways, 383 of 10,000 rows (3.83%) were dead-lettered. The config allows 1.00% "
        "(dead_letters.max_fraction): a run of it would fail with exit code 3."
    )
    few = answer(dead(samples.batch(), {DIRECT: 3})).warnings[0]
    assert few == "In direct, 3 of 10,000 rows (0.03%) were dead-lettered."
    assert not any("dead-lettered" in each for each in answer(dead(samples.batch(), {})).warnings)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_console_says_the_answer(is_terminal: bool) -> None:
    results = dead(samples.batch(), {"": 383})
    screen = io.StringIO()
    show(Console(file=screen, force_terminal=is_terminal, width=400), Published(results, "a.json", "a.html"))
    found: Findings = answer(results)
    said = screen.getvalue()
    for sentence in (found.headline, found.costs, found.warnings[0]):
        assert sentence in said
    assert said.index(found.headline) > said.index("1,000,000 rows, by time")


def test_a_config_of_which_no_row_is_right_ends_at_once(
    tmp_path: Path, folder_of: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder_of()
    (place / "rows.csv").write_text("x\n" + "no number\n" * 20)
    run = {
        "name": "wrong",
        "source": {"type": "file", "format": "csv", "path": str(place / "rows.csv")},
        "model": {"path": str(place / "model")},
        "output": {"type": "file", "format": "csv", "path": str(place / "out")},
    }
    (place / "run.json").write_text(json.dumps(run))
    ways = {"all": {"model": {}}, "one": {"model": {}, "batching": {"max_rows": 1}}}
    config = {"name": "wrong", "config": str(place / "run.json"), "ways": ways, "sizes": [20], "folder": str(tmp_path)}
    (place / "compare.json").write_text(json.dumps(config))
    assert compare.main(["--config", str(place / "compare.json")]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert "all: it predicted none of 20 rows, all are dead letters; most frequent: " in error
    assert "(20 rows); see that the source is what the config says" in error
    assert not (tmp_path / "wrong" / "report.html").exists()


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[], Path]:
    """Makes a folder with a model that doubles."""

    def make() -> Path:
        import tensorflow as tf

        from tests.support.commands import save

        class Doubles(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
            def __call__(self, x: Any) -> Any:
                return {"twice": 2 * x}

        save(Doubles(), tmp_path / "model")
        return tmp_path

    return make


# Plots and numbers.


def words_of(path: Path) -> str:
    """The text of a plot."""
    return " ".join(
        each.text or ""
        for each in ET.parse(path).getroot().iter()
        if each.tag.endswith("}text") or each.tag.endswith("}tspan")
    )


def test_a_way_that_did_not_keep_up_has_a_hollow_mark(tmp_path: Path) -> None:
    results = without(samples.stream(), RATES[-1], {SLOW: BEHIND})
    found = charts.charts(results)[0]
    assert isinstance(found, charts.LineChart)
    assert {line.name: line.hollow for line in found.lines if line.hollow} == {SLOW: {RATES[-1]}}
    assert "direct, single at 5,000: did not keep up" in found.description
    assert found.table.groups[0].rows[-1][1].detail.endswith("; did not keep up")
    write(results, str(tmp_path))
    assert "hollow: did not keep up" in words_of(tmp_path / "latency-against-rate.svg")
    write(samples.stream(), str(tmp_path))
    assert "hollow" not in words_of(tmp_path / "latency-against-rate.svg")


def test_a_png_has_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure as Drawing

    from pipelines.comparison.report.drawing import draw

    titles: list[str] = []
    put = Drawing.suptitle
    monkeypatch.setattr(Drawing, "suptitle", lambda self, t, **more: (titles.append(t), put(self, t, **more))[1])
    svg, _ = draw(charts.charts(samples.batch())[0])
    assert titles == ["Time against size"]
    # The page has it above the plot.
    assert "Time against size" not in svg


def test_the_same_count_in_all_rounds_stays_that_count() -> None:
    found = figure([1000.0, 1000.0, 1000.0])
    assert (found.low, found.median, found.high) == (1000.0, 1000.0, 1000.0)


def test_no_interval_of_seconds_begins_below_zero() -> None:
    assert figure([0.0, 0.01, 0.012]).low == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["/x/pipelines/compare.py", "--set", "sizes=[1, 2]"], "python -m pipelines.compare --set 'sizes=[1, 2]'"),
        (["/x/pipelines/recommend.py"], "python -m pipelines.recommend"),
        (["/x/pipelines/__main__.py", "compare"], "python -m pipelines compare"),
        (["/x/.venv/bin/beam-tf-predict", "compare"], "beam-tf-predict compare"),
        (["-c"], "python -m pipelines.compare"),
    ],
)
def test_how_to_repeat_it_is_the_command_that_was_run(given: list[str], said: str) -> None:
    assert command_line(given) == said
