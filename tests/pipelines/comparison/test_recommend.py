"""`recommend`: the cheapest way that does what is asked for, why the others do not, and how sure that is."""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.console import Console
from pipelines import recommend as program
from pipelines.comparison import measuring, session
from pipelines.comparison.constraints import CONSTRAINTS
from pipelines.comparison.costs import costs_of
from pipelines.comparison.demands import demand_of
from pipelines.comparison.recommendation import Recommendation, Wish, recommend
from pipelines.comparison.recommendation_view import show
from pipelines.comparison.results import Parity, Results, Way
from pipelines.comparison.session import ComparisonSession
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.run import RunConfig
from pipelines.cost.assumptions import Assumptions
from pipelines.cost.machines import NODES
from pipelines.plan import Plan
from pipelines.planning.planner import make_plan
from tests.support import comparison_results
from tests.support.commands import ROOT, Command, Result
from tests.support.machine_search import searched
from tests.support.priced_results import (
    DIRECT,
    ENDPOINT,
    JOB,
    MeasuredWay,
    all_prices,
    batch_results,
    price_names,
    stream_results,
)

SLOW = MeasuredWay("direct", pipeline=400.0, fixed=10.0, p99=20.0)
"""Its model takes much more in a worker than on a server that is made for it."""
WISH = Wish()


def asked(results: Results, volume: float | None = None, wish: Wish = WISH, **prices: Any) -> Recommendation:
    within = 1.0 if wish.within_hours is None else wish.within_hours
    return recommend(results, all_prices(**prices), Assumptions(volume=volume, within_hours=within), wish)


def best(found: Recommendation) -> str | None:
    return found.best.way.name if found.best else None


def reasons(found: Recommendation) -> dict[str, tuple[str, ...]]:
    return {each.way.name: each.left_out for each in found.candidates if each.left_out}


KINDS = pytest.mark.parametrize(
    ("results", "other", "use", "part"),
    [
        (batch_results({"direct": SLOW, "other": JOB}), "other", "batch", "job"),
        (stream_results({"direct": SLOW, "other": ENDPOINT}), "other", "online", "nodes"),
    ],
    ids=["batch", "stream"],
)


@KINDS
def test_it_changes_at_the_break_even(results: Results, other: str, use: str, part: str) -> None:
    (change,) = asked(results, 1000).break_evens
    assert (change.below, change.above) == ("direct", other)
    assert best(asked(results, change.volume * (1 - 1e-8))) == "direct"
    assert best(asked(results, change.volume * (1 + 1e-8))) == other


@KINDS
def test_a_price_moves_it(results: Results, other: str, use: str, part: str) -> None:
    """As soon as it makes up for the difference of the two ways, and not before."""
    (change,) = asked(results, 1000).break_evens
    for volume, cheapest in ((change.volume * 0.9, "direct"), (change.volume * 1.1, other)):
        found = {each.way.name: each for each in asked(results, volume).feasible}
        difference = (found["direct"].month or 0.0) - (found[other].month or 0.0)
        share = difference / found[other].bill.parts[part]
        assert best(asked(results, volume)) == cheapest
        for much, expected in ((0.99, cheapest), (1.01, "direct" if cheapest == other else other)):
            amounts = {each.node_price(use): 0.055 * each.vcpus * (1 + much * share) for each in NODES}
            assert best(asked(results, volume, amounts=amounts)) == expected, (volume, much)


ways = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(
        MeasuredWay,
        st.sampled_from(["direct", "endpoint", "batch_job"]),
        st.floats(0.1, 500),
        st.floats(0.1, 500),
        st.floats(0, 50),
    ),
    min_size=2,
)
amounts = st.fixed_dictionaries({name: st.floats(1e-4, 10.0) for name in price_names()})


@settings(max_examples=40)
@given(ways, amounts, st.floats(1, 5e7))
def test_of_a_batch_the_cheapest_that_a_search_finds_is_recommended(
    measured: dict[str, MeasuredWay], costs: dict[str, float], volume: float
) -> None:
    results = batch_results(measured)
    found = asked(results, volume, amounts=costs)
    prices = all_prices(costs)
    least = {way.name: searched("batch", demand_of(results, way), volume, prices, 1.0) for way in results.ways}
    assert least[best(found) or ""] == pytest.approx(min(least.values()), rel=1e-6)
    assert [each.month for each in found.feasible] == pytest.approx(sorted(least.values()), rel=1e-6)


@settings(max_examples=40)
@given(ways, amounts, st.floats(0, 1e5))
def test_of_a_stream_the_cheapest_that_a_search_finds_is_recommended(
    measured: dict[str, MeasuredWay], costs: dict[str, float], volume: float
) -> None:
    results = stream_results(measured)
    found = asked(results, volume, amounts=costs)
    prices = all_prices(costs)
    can = [way for way in results.ways if way.kind != "batch_job"]
    least = {way.name: searched("stream", demand_of(results, way), volume, prices, 1.0) for way in can}
    assert {each.way.name for each in found.feasible} == set(least)
    if least:
        assert least[best(found) or ""] == pytest.approx(min(least.values()), rel=1e-6)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_each_constraint_rules_out_what_it_says(name: str) -> None:
    found = asked(batch_results(), wish=Wish(constraints=(name,)))
    kinds = {each.way.kind for each in found.candidates if each.left_out}
    assert kinds == set(CONSTRAINTS[name].rules_out)
    for why in reasons(found).values():
        assert len(why) == 1
        assert why[0].startswith(f"--constraint {name}: ")


def test_constraints_add_up() -> None:
    found = asked(batch_results(), wish=Wish(constraints=("no-server", "model-not-in-workers", "no-cloud-job")))
    assert found.best is None
    assert {name: len(why) for name, why in reasons(found).items()} == {"direct": 1, "endpoint": 1, "job": 1}


def test_latency() -> None:
    results = stream_results({"slow": replace(DIRECT, p99=200.0), "endpoint": ENDPOINT})
    assert best(asked(results)) == "slow"
    found = asked(results, wish=Wish(latency_ms=100))
    assert best(found) == "endpoint"
    assert reasons(found) == {"slow": ("--latency-ms 100: its p99 is 200 ms",)}
    close = asked(results, wish=Wish(latency_ms=81))
    assert best(close) == "endpoint"
    assert any("as much as 81.6 ms" in each.text for each in close.cautions)


def test_what_is_asked_of_one_kind_is_not_asked_of_the_other() -> None:
    wish = Wish(latency_ms=2, within_hours=0.2)
    batch = asked(batch_results(), wish=replace(wish, within_hours=None))
    assert (best(batch), reasons(batch), texts(batch)) == ("direct", {}, texts(asked(batch_results())))
    stream = asked(stream_results(), wish=replace(wish, latency_ms=None))
    assert (best(stream), reasons(stream)) == ("direct", {})


def test_a_way_that_a_constraint_rules_out_need_not_be_measured() -> None:
    results = batch_results({"direct": DIRECT, "job": JOB})
    results = results.model_copy(update={"ways": (*results.ways, Way(name="endpoint", kind="endpoint"))})
    found = asked(results, wish=Wish(constraints=("no-server",)))
    assert reasons(found) == {
        "endpoint": ("--constraint no-server: its server runs all the time, and somebody has to look after it",)
    }
    # Without the constraint it is missing.
    assert "it was not measured there" in reasons(asked(results))["endpoint"][0]


def test_numbers_are_written_in_full() -> None:
    screen = io.StringIO()
    results = batch_results({"direct": SLOW, "job": JOB})
    show(Console(file=screen, width=500), asked(results, 1e15))
    assert "1,000,000,000,000,000 rows a day" in screen.getvalue()
    assert not re.search(r"\de[+-]\d", screen.getvalue())
    assert re.search(r"break-even at \d{1,3}(,\d{3})* rows a day", screen.getvalue())


def test_time() -> None:
    found = asked(batch_results(), wish=Wish(within_hours=0.2))
    assert reasons(found) == {"job": ("--within 0.2: starting alone takes as long as a run may take, or longer",)}
    many = asked(batch_results(), 1e10, Wish(within_hours=0.5))
    few = asked(batch_results(), 1e10, Wish(within_hours=20))
    count = [int(each.best.bill.fleet[0].split(" x ")[0].replace(",", "")) if each.best else 0 for each in (many, few)]
    assert count[0] > count[1] >= 1


def test_ways_that_are_not_ranked_are_not_recommended() -> None:
    wrong = replace(DIRECT, pipeline=1.0, not_ranked={1_000_000: "12 rows differ"})
    results = batch_results({"direct": DIRECT, "wrong": wrong})
    found = asked(results, 1_000_000)
    assert best(found) == "direct"
    assert reasons(found) == {"wrong": ("not ranked at 1,000,000 rows: 12 rows differ",)}
    # At a volume for which another load tells more, it has a place.
    assert best(asked(results, 50_000)) == "wrong"


def test_a_load_at_which_nothing_was_measured_tells_nothing() -> None:
    late = {5000.0: "no time was left"}
    results = stream_results(
        {"direct": replace(DIRECT, not_ranked=late), "endpoint": replace(ENDPOINT, not_ranked=late)}, [50, 500, 5000]
    )
    found = asked(results, 2000)
    assert (best(found), found.load) == ("direct", 500)
    assert "4 times the largest load that was measured, 500 messages a second" in texts(found)
    nothing = dict.fromkeys([50.0, 500.0, 5000.0], "it failed")
    none = asked(stream_results({"direct": replace(DIRECT, not_ranked=nothing)}, [50, 500, 5000]), 2000)
    assert none.best is None
    assert reasons(none) == {"direct": ("not ranked at 5,000 messages a second: it failed",)}


def test_no_way_without_prices() -> None:
    found = asked(batch_results(), without=["dataflow_batch_vcpu_hour"])
    assert found.best is None
    assert set(reasons(found)) == {"direct", "endpoint", "job"}
    assert reasons(found)["direct"] == ("no cost: prices are missing: dataflow_batch_vcpu_hour",)


def texts(found: Recommendation) -> str:
    return "\n".join(each.text for each in found.cautions)


def test_how_sure() -> None:
    assert asked(batch_results()).sure == "high"
    assert texts(asked(batch_results())) == "all was measured on 2 cores of A processor, no cloud"
    unverified = asked(batch_results(), verified=False)
    assert unverified.sure == "medium"
    assert "nobody has verified any of the 9 prices that are needed, of 2026-11" in texts(unverified)
    further = asked(batch_results(), 5_000_000)
    assert further.sure == "medium"
    assert "5 times the largest load that was measured, 1,000,000 rows" in texts(further)
    assert asked(batch_results(), 1e9).sure == "low"
    once = asked(batch_results({"a": replace(DIRECT, spread=None), "b": replace(JOB, spread=None)}))
    assert once.sure == "low"
    assert "one round only" in texts(once)
    assert once.feasible[0].least is None
    assert "one load only" in texts(asked(batch_results(loads=[1000])))


def test_one_round_with_intervals_of_the_other_runs() -> None:
    results = batch_results()
    cells = [
        cell.model_copy(
            update={"figures": {name: f.model_copy(update={"rounds": 1}) for name, f in cell.figures.items()}}
        )
        for cell in results.cells
    ]
    found = asked(results.model_copy(update={"cells": tuple(cells)}))
    assert found.sure == "medium"
    assert "one round only: its intervals are those of how much the other runs vary" in texts(found)
    assert found.feasible[0].least is not None


def test_some_prices_are_verified() -> None:
    prices = all_prices(verified=False)
    some = dict(prices.prices)
    some["dataflow_batch_vcpu_hour"] = some["dataflow_batch_vcpu_hour"].model_copy(update={"verified": True})
    found = recommend(batch_results(), prices.model_copy(update={"prices": some}), Assumptions(), WISH)
    assert "nobody has verified 8 of the 9 prices that are needed" in texts(found)


def test_a_tie() -> None:
    results = batch_results({"a": DIRECT, "b": replace(DIRECT, pipeline=10.1, rows_per_second=200_000.0)})
    found = asked(results)
    assert (best(found), found.sure) == ("a", "medium")
    assert "a tie with b: both cost the same within the intervals of what was measured; b is faster" in texts(found)
    same = asked(stream_results({"a": replace(DIRECT, p99=90.0), "b": DIRECT}))
    assert best(same) == "b"
    assert "a tie with a: both cost the same; b is faster" in texts(same)
    assert "tie" not in texts(asked(batch_results()))


def test_a_break_even_nearby_and_outputs_that_differ() -> None:
    results = stream_results({"direct": SLOW, "endpoint": ENDPOINT})
    volume = asked(results, 1000).break_evens[0].volume
    assert "which is near, endpoint is the cheapest" in texts(asked(results, volume * 0.8))
    assert "which is near, direct is the cheapest" in texts(asked(results, volume * 1.2))
    assert "near" not in texts(asked(results, volume * 10))
    differing = results.model_copy(
        update={
            "parity": (
                Parity(way="direct", reference="endpoint", agrees=False),
                Parity(way="endpoint", reference="direct"),
            )
        }
    )
    assert "not found equal to those of endpoint" in texts(asked(differing, 1000))


def test_the_pareto_front() -> None:
    results = stream_results(
        {"cheap": replace(DIRECT, p99=90.0), "fast": replace(ENDPOINT, p99=5.0), "neither": replace(ENDPOINT, p99=95.0)}
    )
    on_front = {each.way.name for each in asked(results, 100).feasible if each.is_on_front}
    assert on_front == {"cheap", "fast"}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Results], str]:
    def save(results: Results) -> str:
        path = tmp_path / f"{results.kind}.json"
        path.write_text(results.model_dump_json(), "utf-8")
        return str(path)

    return save


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.json"
    path.write_text(all_prices().model_dump_json(), "utf-8")
    return str(path)


@pytest.fixture
def run(command: Command, prices: str) -> Callable[..., Result]:
    return lambda *arguments: command("recommend", "--prices", prices, *arguments)


def test_the_command(run: Command, saved: Callable[[Results], str]) -> None:
    result = run("--results", saved(batch_results()), "--rows-a-day", "10M", "--within", "2")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "batch-of-a-test: 10,000,000 rows a day"
    assert lines[1] == "recommended: direct, 0.32 USD a month"
    assert "settings: runtime: c; 1,000 rows in a call" in lines
    assert "machines: 1 x n1-standard-1 worker, 10 min a run" in lines
    assert any(line.startswith("3. endpoint: 80.54 USD a month (80.53 to 80.54), elapsed 30 s; ") for line in lines)
    assert "how sure: medium" in lines
    assert not any("─" in line or "│" in line for line in lines)


def test_json(run: Command, saved: Callable[[Results], str]) -> None:
    files = ["--results", saved(batch_results()), "--results", saved(stream_results())]
    result = run(*files, "--json", "--constraint", "no-cloud-job", "--messages-a-second", "2k", "--rows-a-day", "1.5b")
    assert result.code == 0
    assert set(result.summary) == {"batch", "stream"}
    batch, stream = result.summary["batch"], result.summary["stream"]
    assert (batch["recommended"], batch["volume"], stream["volume"]) == ("direct", 1.5e9, 2000)
    ways = {each["way"]: each for each in batch["ways"]}
    assert ways["job"]["left_out"] == ["--constraint no-cloud-job: a managed service predicts the rows"]
    assert ways["direct"]["month"] == pytest.approx(sum(ways["direct"]["parts"].values()))
    assert stream["ways"][0]["p99_ms"] == 30.0
    assert batch["sure"] == "low"
    assert any("workers" in machine for machine in ways["direct"]["machines"])


def test_costs_of_the_command_are_those_of_the_report(run: Command, saved: Callable[[Results], str]) -> None:
    result = run("--results", saved(batch_results()), "--rows-a-day", "2M", "--json")
    costs = costs_of(batch_results(), all_prices(), Assumptions(volume=2e6))
    shown = {each["way"]: each["month"] for each in result.summary["batch"]["ways"]}
    assert shown == {each.way: each.month for each in costs.ways}
    assert result.summary["batch"]["break_evens"] == [each.model_dump() for each in costs.break_evens]


def test_no_way(run: Command, saved: Callable[[Results], str]) -> None:
    files = ["--results", saved(stream_results())]
    result = run(*files, "--constraint", "other-clients-need-the-model", "--latency-ms", "20")
    assert (result.code, result.err) == (3, "")
    assert "recommended: no way does all that is asked for" in result.out
    for line in (
        "left out: direct: --constraint other-clients-need-the-model: the model is in the workers",
        "left out: direct: --latency-ms 20: its p99 is 30 ms",
        "left out: endpoint: --latency-ms 20: its p99 is 80 ms",
    ):
        assert line in result.out
    asked_json = run(*files, "--latency-ms", "1", "--json")
    assert (asked_json.code, asked_json.summary["stream"]["recommended"]) == (3, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows-a-day", "10X"], "'10X' is not a whole number of rows from 1 to 1,000,000B"),
        (["--rows-a-day", "-5"], "is not a whole number of rows"),
        (["--rows-a-day", "9999999B"], "is not a whole number of rows"),
        (["--rows-a-day", "1e400"], "is not a whole number of rows"),
        (["--rows-a-day", "nan"], "is not a whole number of rows"),
        (["--rows-a-day", "0"], "'0' is not a whole number of rows"),
        (["--rows-a-day", "2.5"], "'2.5' is not a whole number of rows"),
        (["--messages-a-second", "0"], "'0' is not a number above 0"),
        (["--within", "25"], "25 h is longer than a day"),
        (["--latency-ms", "nan"], "'nan' is not a number above 0"),
        (["--constraint", "cheap"], "invalid choice: 'cheap'"),
        (["--latency-ms", "20"], "--latency-ms: it is for a stream, and none was measured"),
        (["--messages-a-second", "20"], "--messages-a-second: it is for a stream"),
        (["--config", "a.json"], "leave --config, --set and --restart out"),
        (["--prices", "nowhere.json"], "nowhere.json: there is no such file"),
    ],
    ids=str,
)
def test_wrong_options(run: Command, saved: Callable[[Results], str], arguments: list[str], said: str) -> None:
    result = run("--results", saved(batch_results()), *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("500k", 5e5),
        ("10M", 1e7),
        ("1B", 1e9),
        ("1.5m", 1.5e6),
        ("10,000,000", 1e7),
        ("1_000", 1000),
        ("1e6", 1e6),
        ("2.5E+3", 2500),
        ("1.1m", 1_100_000),
    ],
)
def test_volumes(text: str, volume: float) -> None:
    assert program._rows(text) == volume
    assert program._rate(text) == volume
    assert program._rate("0.5") == 0.5


def test_two_results_of_one_kind(run: Command, saved: Callable[[Results], str]) -> None:
    path = saved(batch_results())
    result = run("--results", path, "--results", path)
    assert (result.code, len(result.errors)) == (2, 1)
    assert "two of batch runs" in result.errors[0]


def broken(change: Callable[[dict[str, Any]], Any]) -> str:
    content = json.loads(batch_results().model_dump_json())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file: Invalid JSON"),
        ("[]", "the file: Input should be"),
        ("[" * 100_000, "the file: Invalid JSON"),
        (
            broken(lambda c: c.update(format=2)),
            "format: it is of another version of this project; this version reads format 1: measure again",
        ),
        (broken(lambda c: c.pop("format")), "format is missing, so it is not known how to read it; this version reads"),
        (broken(lambda c: c.update(more=1)), "more: Extra inputs are not permitted"),
        (
            broken(lambda c: c["cells"][3]["figures"]["cpu_s"].update(median=float("inf"))),
            "cells.3.figures.cpu_s.median",
        ),
        (broken(lambda c: c["cells"][3]["figures"]["cpu_s"].update(median=1e300)), "cells.3.figures.cpu_s: more than"),
        (broken(lambda c: c["cells"][0].update(way="\x1b[31m")), "cells.0.way: no way of this name is in ways"),
        (broken(lambda c: c["ways"].append(c["ways"][0])), "ways: a name is there twice"),
        (broken(lambda c: c.update(loads=[0, 100_000, 1_000_000])), "loads.0: 0 is not above 0"),
        (broken(lambda c: c.update(rankings=[])), "rankings: there are none"),
        (broken(lambda c: c.update(loads=[*c["loads"], *range(1, 200)])), "loads: there are 202"),
        (broken(lambda c: c["rankings"][0]["places"][0].update(way="x")), "rankings.0: a way that is not in ways"),
    ],
    ids=str,
)
def test_files_that_are_wrong(run: Command, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, "utf-8")
    result = run("--results", str(path))
    assert (result.code, result.out) == (2, "")
    assert 1 <= len(result.errors) == len(result.err.splitlines()) <= 21
    assert f"error: {path}: {said}" in result.err
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (comparison_results.batch, 0),
        (comparison_results.stream, 0),
        (comparison_results.tied, 0),
        (comparison_results.disagreeing, 0),
        (comparison_results.with_failures, 0),
        (comparison_results.hostile, 0),
        (comparison_results.all_failed, 3),
        (comparison_results.empty, 2),
    ],
)
def test_results_as_comparisons_write_them(
    run: Command, saved: Callable[[Results], str], made: Callable[[], Results], code: int
) -> None:
    result = run("--results", saved(made()))
    assert result.code == code, result
    assert "Traceback" not in result.err
    if code == 0:
        assert "recommended: " in result.out
        assert "\x1b" not in result.out


@pytest.mark.parametrize("value", [5e-324, 0.0, 0.5, 1e15], ids=str)
@pytest.mark.parametrize("name", ["rows_read", "pipeline_cpu_s", "server_cpu_s", "pipeline_peak_mb"])
def test_figures_that_cannot_be_end_in_no_traceback(run: Command, tmp_path: Path, name: str, value: float) -> None:
    def change(content: dict[str, Any]) -> None:
        for cell in content["cells"]:
            if name in cell["figures"]:
                cell["figures"][name] = {"median": value}

    path = tmp_path / "results.json"
    path.write_text(broken(change), "utf-8")
    result = run("--results", str(path), "--rows-a-day", "1000000B")
    assert result.code in (0, 3), result
    assert "Traceback" not in result.err


def test_a_folder_of_results(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "births"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(batch_results().model_dump_json(), "utf-8")
    assert "recommended: direct" in run("--results", str(folder)).out
    above = run("--results", str(folder.parent))
    assert (above.code, above.errors) == (
        2,
        [f"error: {folder.parent}: this folder has no results.json; give one of its folders: {folder}"],
    )
    (folder / "results.json").unlink()
    (none,) = run("--results", str(folder)).errors
    assert "this folder has no results.json; python -m pipelines.compare writes one" in none


def test_a_file_that_is_too_large(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    result = run("--results", str(path))
    assert result.code == 2
    assert "at most 67,108,864 are allowed" in result.errors[0]


def test_many_mistakes_are_few_lines(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(broken(lambda c: c.update(runs=[{} for _ in range(100)])), "utf-8")
    result = run("--results", str(path))
    assert (result.code, len(result.errors)) == (2, 21)
    assert result.errors[-1] == "error: and 480 more mistakes"


def test_names_do_not_reach_the_terminal_as_they_are(run: Command, saved: Callable[[Results], str]) -> None:
    result = run("--results", saved(batch_results({"a\x1b[31m": DIRECT, "[red]b": JOB})))
    assert result.code == 0
    assert "recommended: a\\x1b[31m, " in result.out
    assert "[red]b" in result.out


class Session:
    """Stands for a session that measures; tells what it was made for."""

    made: ClassVar[list[Session]] = []

    def __init__(
        self, config: ComparisonConfig, path: str, tell: Callable[[str], None], restart: bool, plan: Plan
    ) -> None:
        self.config, self.path, self.restart, self.kind, self.goes_on = config, path, restart, "batch", False
        self.loads, self.ways, self.is_run, self._tell = (1000.0,), config.ways or "12345", False, tell
        self.made.append(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self) -> Results:
        self.is_run = True
        self._tell("round 1  in the workers")
        names = {"in the workers": DIRECT, "endpoint, gRPC": ENDPOINT, "batch job": JOB}
        return batch_results({name: names[name] for name in self.config.ways or names if name in names})

    def so_far(self) -> Results:
        return batch_results()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    monkeypatch.setattr(measuring, "ComparisonSession", Session)
    monkeypatch.setattr(Session, "made", [])
    return Session.made


def test_measuring_a_config(command: Command, sessions: list[Session]) -> None:
    result = command("recommend", "--set", "rounds=2", "--restart")
    assert (result.code, sessions[0].path, sessions[0].restart) == (0, "configs/natality.json", True)
    assert (sessions[0].config.rounds, sessions[0].config.minutes, sessions[0].config.ways) == (2, 2.0, {})
    assert sessions[0].config.folder == "out/recommend"
    said = result.err.splitlines()
    assert said == ["natality: 5 ways over 1,000 rows; at most 2 minutes of runs", "round 1  in the workers"]


def test_the_run_is_planned_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files may be many, and on other machines."""
    planned = []

    def plan(config: RunConfig) -> Plan:
        planned.append(config.name)
        return make_plan(config)

    def interrupted(session: ComparisonSession) -> None:
        raise KeyboardInterrupt

    for module in (measuring, session):
        monkeypatch.setattr(module, "make_plan", plan)
    monkeypatch.setattr(ComparisonSession, "__enter__", interrupted)
    assert (command("recommend").code, planned) == (130, ["natality"])


@pytest.mark.parametrize("option", ["--messages-a-second", "--latency-ms"])
def test_what_is_for_a_stream_is_refused_before_a_batch_run_is_measured(
    command: Command, sessions: list[Session], option: str
) -> None:
    result = command("recommend", "--rows-a-day", "10M", option, "5")
    assert (result.code, sessions) == (2, [])
    assert result.errors == [f"error: {option}: it is for a stream, and configs/natality.json is a batch run"]


def test_ways_that_a_constraint_rules_out_are_not_measured(command: Command, sessions: list[Session]) -> None:
    result = command("recommend", "--constraint", "no-server")
    assert list(sessions[0].config.ways) == ["in the workers", "batch job"]
    # What was measured of all ways stays where it is.
    assert sessions[0].config.folder == "out/recommend/without-endpoint"
    assert "not measured, as a constraint rules them out: endpoint, gRPC; endpoint, REST; " in result.err
    for name in ("endpoint, gRPC", "endpoint, REST", "endpoint, single records"):
        (line,) = (line for line in result.out.splitlines() if line.startswith(f"left out: {name}"))
        assert "--constraint no-server" in line


def test_one_way_is_left(command: Command, sessions: list[Session]) -> None:
    result = command("recommend", "--constraint", "no-server", "--constraint", "no-cloud-job")
    assert list(sessions[0].config.ways) == ["in the workers"]
    assert "natality: 1 way over 1,000 rows; at most 2 minutes of runs" in result.err
    assert "one way is left, in the workers: it is compared with no other, and measured for what it costs" in result.err
    assert (result.code, "recommended: in the workers, " in result.out) == (0, True)


def test_no_way_is_left(command: Command, sessions: list[Session]) -> None:
    constraints = [f"--constraint={name}" for name in ("no-server", "no-cloud-job", "model-not-in-workers")]
    result = command("recommend", *constraints)
    assert (result.code, sessions[0].is_run) == (3, False)
    assert "the constraints rule out all ways: nothing is measured" in result.err
    assert "recommended: no way does all that is asked for" in result.out
    assert result.out.count("left out: ") == 5


def test_interrupted(command: Command, sessions: list[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(session: Session) -> Results:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it goes on")

    monkeypatch.setattr(Session, "run", interrupted)
    result = command("recommend")
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[1:] == [
        "stopped: what was measured is kept; the same command goes on, with --restart it begins anew"
    ]


@pytest.mark.parametrize("wish", [WISH, Wish(constraints=("no-server", "no-cloud-job", "model-not-in-workers"))])
def test_a_terminal_gets_tables(wish: Wish) -> None:
    screen = io.StringIO()
    found = asked(batch_results(), 1e7, wish)
    show(Console(file=screen, force_terminal=True, width=100), found)
    assert "╭" in screen.getvalue()
    assert "Pareto front" in screen.getvalue() if found.best else "because" in screen.getvalue()


def test_the_page_shows_what_is_printed(command: Command, saved: Callable[[Results], str]) -> None:
    """Its lines, as they begin: the figures are those of a real run."""
    page = (ROOT / "docs" / "recommend.md").read_text("utf-8")
    results = saved(batch_results({"in the workers": DIRECT, "batch job": JOB, "endpoint, gRPC": ENDPOINT}))
    result = command("recommend", "--results", results, "--rows-a-day", "10M", "--constraint", "no-server")
    shown = page.partition("```text\n")[2].partition("```")[0].splitlines()

    def begins(lines: list[str]) -> list[str]:
        labels = [line.partition(": ")[0].split(" the ")[0] for line in lines if not line.startswith("- ")]
        return list(dict.fromkeys(labels))[1:]

    printed = result.out.partition("assumed:")[0].splitlines()
    assert begins(shown) == begins(printed)
    assert all(f"`{name}`" in page for name in CONSTRAINTS)
