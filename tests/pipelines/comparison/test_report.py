"""The report of a comparison: its sentences and tables, its files, and the page as a browser shows it."""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pipelines.comparison.report import (
    article,
    article_tables,
    charts,
    cost_tables,
    data_table,
    evidence_tables,
    speed_tables,
)
from pipelines.comparison.report.answer import answer
from pipelines.comparison.report.data_table import DataTable
from pipelines.comparison.report.page import write
from pipelines.comparison.results import Figure, Parity, Ranking, Results
from tests.servers import browser
from tests.support import comparison_results as samples
from tests.support import processes
from tests.support.comparison_results import DIRECT, JOB, MICRO, SINGLE, SIZES

ROOT = Path(__file__).resolve().parents[3]
_MAKERS: dict[str, Callable[[], Results]] = {
    "batch": samples.batch,
    "stream": samples.stream,
    "disagreeing": samples.disagreeing,
    "tied": samples.tied,
    "with_failures": samples.with_failures,
    "one_round": lambda: samples.batch(rounds=1),
    "no_costs": lambda: samples.stream(costs=None),
    "all_failed": samples.all_failed,
    "empty": samples.empty,
    "hostile": samples.hostile,
}
SHOWN = ("batch", "stream", "hostile", "all_failed")
"""Those that a browser shows."""


def lines(table: DataTable | None, title: str = "") -> list[list[str]]:
    """The texts of the rows of a group, or of a table without groups."""
    assert table is not None
    (group,) = (each for each in table.groups if each.title == title)
    return [[f"{value.text} ({value.detail})" if value.detail else value.text for value in row] for row in group.rows]


# The answer.


def test_the_answer_names_the_fastest_and_by_how_much() -> None:
    results = samples.batch()
    found = answer(results)
    assert found.headline == "Direct is fastest at all sizes, from 10,000 to 1,000,000 rows."
    assert found.sentences[0] == (
        "In 1,000,000 rows, direct is fastest: 4.22 s (4.17 to 4.27). “endpoint, micro-batches” takes 2.1 times as "
        "long and “batch job” 2.9 times."
    )
    assert len(found.sentences) == 3
    assert found.agreement == "All 4 ways give the same outputs within tolerance, compared on 9,996 rows."
    assert found.costs == (
        "At 1,000,000 rows a day, direct is cheapest: USD 2.80 a month. “batch job” costs USD 6.18 and “endpoint, "
        "micro-batches” costs USD 82.90 a month. “batch job” becomes the cheapest from about 2,460,000 rows a day on "
        "(computed, not measured: this is 2.5 times the largest load that was measured, 1,000,000 rows). "
        "Nobody has verified the prices."
    )
    assert "“endpoint, single” is not ranked at 1,000,000 rows: one row a call takes 18 minutes" in found.cautions[2]


def test_the_answer_of_a_stream_is_its_latency() -> None:
    found = answer(samples.stream())
    assert found.headline == "“direct, single” is fastest at all rates, from 50 to 5,000 messages a second."
    assert found.sentences[0].startswith(
        "At 5,000 messages a second, “direct, single” is fastest: p99 7.28 ms (6.99 to 8.80)."
    )
    assert "“endpoint, single” is not ranked at 5,000 messages a second: it fell behind" in found.cautions[0]
    # A cost that lacks a price is not held against the others.
    assert "endpoint, micro-batches” costs" not in found.costs


def test_a_tie_is_called_a_tie() -> None:
    found = answer(samples.tied())
    assert found.headline == (
        "Direct and “endpoint, micro-batches” are tied for fastest at 10,000 rows; direct is fastest from 100,000 to "
        "1,000,000 rows."
    )
    assert found.sentences[2].startswith(
        "In 10,000 rows, direct and “endpoint, micro-batches” are tied: direct 2.09 s (2.07 to 2.23) and "
    )
    assert lines(speed_tables.ranking(samples.tied()), "10,000 rows")[1][1] == "1 (tied)"


def test_all_are_tied() -> None:
    results = samples.batch()
    rankings = [
        ranking.model_copy(
            update={"places": tuple(each.model_copy(update={"place": 1, "tied": True}) for each in ranking.places)}
        )
        for ranking in results.rankings
    ]
    found = answer(results.model_copy(update={"rankings": tuple(rankings)}))
    assert found.headline == "All ways that are ranked are tied at all sizes, from 10,000 to 1,000,000 rows."
    assert found.sentences[0].startswith("In 1,000,000 rows, all 3 ways that are ranked are tied: direct 4.22 s (")


def test_the_figure_of_the_ranking_is_the_one_that_is_named() -> None:
    results = samples.stream()
    rankings = tuple(each.model_copy(update={"figure": "latency.total.p95"}) for each in results.rankings)
    results = results.model_copy(update={"rankings": rankings})
    assert (
        answer(results).sentences[0].startswith("At 5,000 messages a second, “direct, single” is fastest: p95 6.25 ms")
    )
    assert "95% of the messages" in speed_tables.ranking(results).caption
    assert charts.charts(results)[0].title == "Latency against rate: p95"
    table = article_tables.stream(results)
    assert table.headings[-1].text == "latency p95, ms"


def test_a_tie_further_down() -> None:
    results = samples.batch()
    first, second, third = results.rankings[-1].places
    third = third.model_copy(update={"place": 2, "tied": True})
    second = second.model_copy(update={"tied": True})
    ranking = results.rankings[-1].model_copy(update={"places": (first, second, third)})
    found = answer(results.model_copy(update={"rankings": (ranking,)}))
    assert found.headline == "Direct is fastest at 1,000,000 rows."
    assert found.sentences[0].endswith("For place 2, “endpoint, micro-batches” and “batch job” are tied.")


def test_a_way_that_disagrees_is_said_so_with_the_reason() -> None:
    results = samples.disagreeing()
    found = answer(results)
    assert found.agreement == (
        "The same outputs as direct: “endpoint, micro-batches” and “batch job”. Other outputs than direct, and so not "
        "ranked: “endpoint, single”."
    )
    reason = "it does not agree with direct: 3 rows differ, 1 is missing."
    assert f"“endpoint, single” is not ranked at any size: {reason}" in found.cautions
    assert [SINGLE, f"not ranked: {reason}"] in lines(speed_tables.ranking(results), "10,000 rows")
    assert lines(evidence_tables.parity(results))[1][:6] == [SINGLE, "no", "9,999", "0.053", "3", "1"]
    assert lines(evidence_tables.differing_rows(results), SINGLE)[0] == [
        "source_id=nc-000017", "weight_pounds", "7.4375", "7.4901"
    ]  # fmt: skip
    assert lines(evidence_tables.outputs(results), SINGLE)[0][5] == "3"


def test_one_round_has_no_intervals() -> None:
    results = samples.batch(rounds=1)
    found = answer(results)
    assert found.sentences[0].startswith("In 1,000,000 rows, direct was fastest (one round only: not proved): 4.18 s. ")
    assert "There was one round only: no interval can be given, and differences may be chance." in found.cautions
    assert all("(" not in cell for line in lines(speed_tables.elapsed(results), "10,000 rows") for cell in line)


def test_few_rounds_are_said() -> None:
    assert "Some figures rest on 2 rounds only." in answer(samples.batch(rounds=2)).cautions


def test_failures_and_outliers_are_said() -> None:
    results = samples.with_failures()
    found = answer(results)
    assert "1 run of 66 failed; their figures are not counted." in found.cautions
    assert "1 run of 66 is far from the other rounds, in round 4; the figures include it." in found.cautions
    (failed,) = lines(evidence_tables.failures(results))
    assert failed[:4] == [MICRO, "10,000", "2", "1"]
    assert lines(evidence_tables.outliers(results)) == [[DIRECT, "100,000", "4", "elapsed_s"]]
    assert {line[-1] for line in lines(evidence_tables.runs(results))} == {
        "counted",
        "not counted",
        "failed",
        "outlier",
    }


def test_everything_failed() -> None:
    found = answer(samples.all_failed())
    assert found.headline == "Nothing was measured: all 22 runs failed."
    assert (found.sentences, found.costs) == ((), "")
    assert "whose outputs could not be compared" in found.agreement
    assert "Direct is not ranked at any size: it failed: exit code 2: error: model.path:" in found.cautions[0]


def test_nothing_ran_nothing_was_ranked_one_was_ranked() -> None:
    assert answer(samples.empty()).headline == "Nothing was measured: the comparison has no runs."
    assert answer(samples.empty()).agreement == "Whether the ways give the same outputs was not looked at."
    results = samples.batch()
    none = [Ranking(load=each, figure="elapsed_s", places=()) for each in SIZES]
    assert answer(results.model_copy(update={"rankings": tuple(none)})).headline.startswith("Nothing can be ranked: ")
    warmed = tuple(run for run in results.runs if not run.round)
    update = {"rankings": tuple(none), "runs": warmed}
    assert answer(results.model_copy(update=update)).headline == "Nothing can be ranked: no run was counted."
    one = results.rankings[-1].model_copy(update={"places": results.rankings[-1].places[:1]})
    found = answer(results.model_copy(update={"rankings": (one,)}))
    assert found.headline == "Direct is the only way that is ranked at 1,000,000 rows."
    assert found.sentences == ("In 1,000,000 rows, direct is the only way that is ranked: 4.22 s (4.17 to 4.27).",)


def test_costs_that_are_not_known() -> None:
    results = samples.batch()
    costs = samples.batch_costs()
    unknown = costs.model_copy(update={"ways": tuple(way.model_copy(update={"month": None}) for way in costs.ways)})
    assert "no way has a cost that is known" in answer(results.model_copy(update={"costs": unknown})).costs
    assert answer(results.model_copy(update={"costs": None})).costs == ""


# The tables.


def test_figures_stand_by_way_and_load() -> None:
    results = samples.batch()
    elapsed = lines(speed_tables.elapsed(results), "1,000,000 rows")
    assert [line[0] for line in elapsed] == [DIRECT, MICRO, JOB]
    assert elapsed[0][1] == "4.22 (4.17 to 4.27)"
    assert [line[0] for line in lines(speed_tables.steps(results), "10,000 rows")] == [JOB]
    processors = lines(speed_tables.processors(results), "10,000 rows")
    assert (processors[0][2], processors[1][2][:5]) == ("–", "0.129")
    assert lines(speed_tables.rows(results), "100,000 rows")[1] == [MICRO, "100,000", "99,996", "4", "102", "2", "6.10"]
    assert lines(evidence_tables.left_out(results))[0][:2] == [SINGLE, "1,000,000"]
    assert speed_tables.latency(results) is None
    stream = samples.stream()
    assert len(lines(speed_tables.latency(stream), "500 messages a second")) == 4
    assert lines(speed_tables.stages(stream), "50 messages a second")[0][1].startswith("1.59 (")
    assert speed_tables.steps(stream) is None


def test_costs_have_their_prices() -> None:
    results = samples.batch()
    costs = samples.batch_costs()
    assert lines(cost_tables.month(results, costs))[0][:4] == [DIRECT, "2.80", "2.40", "0.40"]
    assert lines(cost_tables.break_evens(results, costs)) == [["2,460,000", DIRECT, JOB]]
    assert lines(cost_tables.runs(results, costs))[0] == [DIRECT, "0.00080", "0.0080", "0.08"]
    assert [line[1] for line in lines(cost_tables.prices(costs))] == ["unverified", "unverified"]
    (stream,) = lines(cost_tables.prices(samples.stream_costs()))
    assert stream[1] == "verified"
    assert lines(cost_tables.month(samples.stream(), samples.stream_costs()))[2][-1] == "pubsub_gb"


def test_the_articles_figures_are_those_of_the_article() -> None:
    jobs = [each for each in article.BATCH if each.kind == "batch_job"]
    assert [(each.rows, each.elapsed_s, each.vcpu_hours) for each in jobs] == [
        (10_000, 930, 0.301), (100_000, 997, 0.334), (1_000_000, 1271, 0.446), (10_000_000, 1988, 5.251)
    ]  # fmt: skip
    assert len(article.STREAM) == 12


def test_ours_stands_beside_the_articles() -> None:
    table = article_tables.batch(samples.batch())
    direct, micro, single, job = lines(table, "10,000 rows")
    assert direct == [DIRECT, "8:24", "1.00", "1.00", "0.173", "0:02.1 (0:02.1 to 0:02.2)", "1.00", "1.00", "0.000723"]
    assert job[:5] == [JOB, "15:30 (7:47 + 7:43)", "1.8", "1.00", "0.301 (0.151 + 0.150)"]
    assert (job[6], micro[1], single[5][:6]) == ("1.7", "–", "0:13.3")
    assert [line[0] for line in lines(table, "1,000,000 rows")] == [DIRECT, MICRO, JOB]
    # What only the article measured is there, what nobody measured is not.
    assert lines(table, "10,000,000 rows") == [
        [DIRECT, "25:02", "1.00", "3.0", "7.878", "–", "–", "–", "–"],
        [JOB, "33:08 (12:15 + 20:53)", "1.3", "2.1", "5.251 (3.581 + 1.670)", "–", "–", "–", "–"],
    ]
    stream = article_tables.stream(samples.stream())
    assert lines(stream, "50 messages a second")[2][:4] == [SINGLE, "9:34", "2.9", "1,000"]
    assert lines(stream, "500 messages a second")[2][1] == "not finished (quota)"
    assert lines(stream, "5,000 messages a second")[0][1] == "–"
    alone = lines(article_tables.stream(samples.batch()), "50 messages a second")
    assert alone[0] == ["direct, single", "3:43", "1.1"]


def test_a_way_of_ours_that_the_article_lacks_and_the_other_way_round() -> None:
    results = samples.batch()
    results = results.model_copy(update={"ways": results.ways[1:2]})
    assert [line[0] for line in lines(article_tables.batch(results), "10,000 rows")] == [
        MICRO, "direct", "batch prediction job"
    ]  # fmt: skip


@pytest.mark.parametrize("name", _MAKERS)
def test_every_row_has_a_value_for_every_heading(name: str) -> None:
    results = _MAKERS[name]()
    found = [
        speed_tables.ways(results), speed_tables.ranking(results), speed_tables.elapsed(results),
        speed_tables.steps(results), speed_tables.latency(results), speed_tables.stages(results),
        speed_tables.processors(results), speed_tables.rows(results), evidence_tables.parity(results),
        evidence_tables.outputs(results), evidence_tables.runs(results), evidence_tables.manifest(results),
        article_tables.batch(results), article_tables.stream(results),
        *(each.table for each in [*charts.charts(results), *charts.parts_charts(results)]),
    ]  # fmt: skip
    for table in filter(None, found):
        for group in table.groups:
            for row in group.rows:
                assert sum(value.span for value in row) == len(table.headings), table.caption


def test_headings_above_headings_span_their_columns() -> None:
    table = evidence_tables.parity(samples.batch())
    assert table is not None
    assert table.heading_groups == [("", 8), ("rows that failed", 3)]
    assert data_table.words_table("c", ("a", "b"), [("1", "")]).heading_groups == []


# The plots.


def test_what_cannot_be_on_a_logarithmic_axis_is_left_out() -> None:
    results = samples.stream()
    cells = []
    for cell in results.cells:
        zero = {name: figure.model_copy(update={"median": 0.0}) for name, figure in cell.figures.items()}
        cells.append(cell.model_copy(update={"figures": zero}))
    results = results.model_copy(update={"cells": tuple(cells)})
    assert charts.charts(results) == []
    assert charts.parts_charts(results) == []


def test_a_plot_says_what_it_shows() -> None:
    time, *_ = charts.charts(samples.batch())
    assert time.description.startswith(
        "elapsed seconds against rows, both axes logarithmic. direct: 2.09 at 10,000, 4.22 at 1,000,000; "
    )
    cost = charts.cost_chart(samples.batch())
    assert cost is not None
    assert cost.marks == ((1_000_000, "stated volume"), (2_460_000, f"break-even, above it {JOB}"))
    assert "2,460,000: break-even, above it batch job." in cost.description
    assert "Prices are missing" in str(charts.cost_chart(samples.stream()))


# The files.


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a sample's report, made once."""
    folder = tmp_path_factory.mktemp("reports")

    def find(name: str) -> Path:
        if not (folder / name).exists():
            assert write(_MAKERS[name](), str(folder / name)) == str(folder / name / "report.html")
        return folder / name

    return find


class _Outline(HTMLParser):
    """The headings of a page, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", [*SHOWN, "with_failures", "no_costs", "empty"])
def test_the_page_is_one_file_without_scripts(name: str, folders: Callable[[str], Path]) -> None:
    page = (folders(name) / "report.html").read_text("utf-8")
    found = _Outline(page)
    tags = [tag for tag, _ in found.tags]
    assert not {"script", "link", "img", "iframe", "b"} & set(tags)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in found.tags
    assert ("html", {"lang": "en"}) in found.tags
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"] or "" for tag, attributes in found.tags if tag == "a"]
    missing = [link for link in links if link[0] != "#" and not (folders(name) / link).exists()]
    assert missing == []
    assert {link[1:] for link in links if link[0] == "#"} <= set(names)
    assert tags.count("table") == tags.count("caption")
    assert "So compare ratios" in page


def test_plots_lie_beside_the_page(folders: Callable[[str], Path]) -> None:
    names = {path.name for path in folders("batch").iterdir()}
    plots = ("time-against-size", "throughput-against-size", "where-time-goes-small", "where-time-goes-large",
             "cost-against-volume")  # fmt: skip
    assert names == {"report.html"} | {f"{each}.{ending}" for each in plots for ending in ("svg", "png")}
    for name in ("batch", "stream", "hostile"):
        for path in folders(name).glob("*.svg"):
            root = ET.parse(path).getroot()
            assert root.get("role") == "img"
            assert root[0].tag.endswith("title")
            # Text stays text.
            assert any(each.tag.endswith("}text") for each in root.iter())
        for path in folders(name).glob("*.png"):
            assert path.read_bytes().startswith(b"\x89PNG")


def test_names_are_shown_as_they_are(folders: Callable[[str], Path]) -> None:
    page = (folders("hostile") / "report.html").read_text("utf-8")
    assert "<script" not in page.lower()
    assert "direct &lt;script&gt;alert(1)&lt;/script&gt; &amp; $x^2$" in page
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
    assert "{{ 7 * 7 }}" in page
    svg = (folders("hostile") / "time-against-size.svg").read_text("utf-8")
    assert "direct &lt;script&gt;alert(1)&lt;/script&gt; &amp; $x^2$" in svg
    assert "_\"quoted\" 'single' {{ 7 * 7 }}" in svg
    assert "\x1b" not in svg


def test_the_same_results_give_the_same_bytes(folders: Callable[[str], Path], tmp_path: Path) -> None:
    again = Path(write(_MAKERS["stream"](), str(tmp_path / "again"))).parent
    for path in folders("stream").iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_plots_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    write(samples.batch(), str(tmp_path))
    write(samples.empty(), str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "results.json"}


def test_matplotlib_and_jinja_wait_until_they_are_needed() -> None:
    code = (
        "import sys, pipelines.comparison.report.page; "
        "sys.exit(bool({'matplotlib', 'jinja2', 'tensorflow', 'apache_beam'} & set(sys.modules)))"
    )
    assert processes.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_not_all_ways_were_compared() -> None:
    results = samples.batch()
    found = answer(results.model_copy(update={"parity": results.parity[:2]}))
    assert found.agreement == "The same outputs as direct: “endpoint, micro-batches”."


def test_wide_intervals_do_not_flatten_the_lines() -> None:
    assert all(each.limits is None for each in charts.charts(samples.batch()) if isinstance(each, charts.LineChart))
    results = samples.batch()
    wide = Figure(median=4.0, low=0.02, high=900.0, rounds=2)
    cells = (results.cells[0].model_copy(update={"figures": {"elapsed_s": wide}}), *results.cells[1:])
    time, *_ = charts.charts(results.model_copy(update={"cells": cells}))
    assert isinstance(time, charts.LineChart)
    assert time.limits == (pytest.approx(2.24 / 4, rel=0.01), pytest.approx(4 * 113.3, rel=0.01))
    assert "Some intervals go on outside of the plot" in time.note
    assert time.table.groups[0].rows[0][1] == ("4.00", "0.020 to 900", 1)


def test_the_cheapest_way_may_stay_the_cheapest() -> None:
    costs = samples.batch_costs().model_copy(update={"break_evens": ()})
    found = answer(samples.batch(costs=costs)).costs
    assert (
        "No other way is cheaper between 10,000 and 1,000,000 rows a day, which were measured; computed, not measured, "
        "none is from 1,000 to 1,000,000,000 either."
    ) in found


def test_a_curve_of_many_points_is_a_short_table() -> None:
    results = samples.batch()
    costs = samples.batch_costs()
    curve = tuple((10.0 ** (each / 10), 1.0 + each) for each in range(80))
    ways = tuple(way.model_copy(update={"curve": curve}) for way in costs.ways)
    chart = charts.cost_chart(results.model_copy(update={"costs": costs.model_copy(update={"ways": ways})}))
    assert chart is not None
    (group,) = chart.table.groups
    assert len(group.rows) <= 20
    assert group.rows[-1][0].text == "79,432,823"


def test_agreement_with_nothing_to_compare() -> None:
    parity = (Parity(way=MICRO, reference=DIRECT, agrees=False, error="it failed"),)
    results = samples.batch(parity=parity)
    table = evidence_tables.parity(results)
    assert lines(table)[0][:4] == [MICRO, "not known", "0", "–"]
    assert table is not None
    assert table.note == f"{MICRO} could not be compared: it failed."


# The page in a browser.


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all pages."""
    program = browser.chromium()
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=program, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def axe() -> str:
    return browser.axe()


Opened = Callable[..., Page]


@pytest.fixture
def opened(chromium: Browser, folders: Callable[[str], Path]) -> Iterator[Opened]:
    """Opens a sample's report without a network; nothing may go wrong in it, nor be asked for from outside."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_it(name: str, width: int, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        address = (folders(name) / "report.html").as_uri()
        page.goto(address)
        assert asked == [address]
        asked.clear()
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert (said, asked) == ([], [])


_SIZES = "[document.scrollingElement.scrollWidth, window.innerWidth]"
_OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true })"
_FINDINGS = """async () => (await axe.run({resultTypes: ['violations']})).violations
    .filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => `${each.id}: ${each.nodes.slice(0, 3).map(node => node.html.slice(0, 200)).join(" | ")}`)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", SHOWN)
def test_a_browser_shows_the_page(
    name: str, width: int, scheme: Any, opened: Opened, axe: str, folders: Callable[[str], Path]
) -> None:
    page = opened(name, width, color_scheme=scheme)
    results = _MAKERS[name]()
    assert page.locator(".headline").inner_text() == answer(results).headline
    assert page.locator(".answers li").count() == len(answer(results).sentences)
    drawn = len(list(folders(name).glob("*.svg")))
    assert page.locator("figure svg[role=img][aria-label]").count() == drawn
    for svg in page.locator("figure svg").all():
        box = svg.bounding_box()
        assert box is not None
        assert box["width"] > 300
    shown, room = page.evaluate(_SIZES)
    assert shown <= room
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(21, 24, 28)") == (scheme == "dark")
    page.evaluate(_OPEN_ALL)
    shown, room = page.evaluate(_SIZES)
    assert shown <= room
    if (width, scheme) in ((390, "light"), (1280, "dark")):
        return
    # Nobody can tell what is behind text on a gradient.
    page.add_style_tag(content=".scroll { background: none !important }")
    page.evaluate(axe)
    assert page.evaluate(_FINDINGS) == []


@pytest.mark.parametrize("name", SHOWN)
def test_a_printed_page_is_light_and_whole(name: str, opened: Opened) -> None:
    page = opened(name, _PRINTED_WIDTH, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(254, 254, 254)"
    shown, room = page.evaluate(_SIZES)
    assert shown <= room
    for details in page.locator("details").all():
        table = details.locator("table").bounding_box()
        assert table is not None
        assert table["height"] > 20
    cut = page.evaluate("""[...document.querySelectorAll('table')]
        .filter(each => each.getBoundingClientRect().right > window.innerWidth + 1)
        .map(each => each.caption.innerText)""")
    assert cut == []


_PRINTED_WIDTH = 687
"""Of a page of A4 between its margins, in pixels of CSS."""


def test_plots_are_readable_on_a_phone(opened: Opened) -> None:
    page = opened("batch", 390)
    sizes = page.evaluate("""[...document.querySelectorAll('figure svg text')].map(
        each => {
            const {a, b, c, d} = each.getScreenCTM();
            return parseFloat(getComputedStyle(each).fontSize) * Math.sqrt(Math.abs(a * d - b * c));
        })""")
    assert len(sizes) > 20
    assert min(sizes) >= 10.5
