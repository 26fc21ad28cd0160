"""The journal of a comparison: what was measured stays, also where a command was killed as it wrote."""

from pathlib import Path

from pipelines.comparison.journal import Journal
from pipelines.comparison.results import Parity, Run

RUN = Run(way="a", load=10, round=1, begun="2026-11-27T00:00:00+00:00", elapsed_s=1.5)
PARITY = Parity(way="a", reference="a", rows=3)


def test_the_same_comparison_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs.jsonl", {"config": "one"})
    assert not journal.goes_on
    journal.add_parity(PARITY)
    journal.add_run(RUN)
    again = Journal(tmp_path / "runs.jsonl", {"config": "one"})
    assert again.goes_on
    assert (again.runs, again.parity) == ([RUN], [PARITY])


def test_a_line_that_was_cut_is_dropped_and_what_follows_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs.jsonl", {"config": "one"})
    journal.add_run(RUN)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"run": {"way": "a", "loa')
    cut = Journal(tmp_path / "runs.jsonl", {"config": "one"})
    assert cut.runs == [RUN]
    cut.add_run(RUN)
    assert Journal(tmp_path / "runs.jsonl", {"config": "one"}).runs == [RUN, RUN]


def test_another_comparison_begins_anew_and_puts_the_earlier_aside(tmp_path: Path) -> None:
    Journal(tmp_path / "runs.jsonl", {"config": "one"}).add_run(RUN)
    assert not Journal(tmp_path / "runs.jsonl", {"config": "two"}).goes_on
    assert Journal(tmp_path / "earlier-runs.jsonl", {"config": "one"}).runs == [RUN]


def test_what_is_no_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_bytes(b"\xff\x00 not a journal")
    assert not Journal(tmp_path / "runs.jsonl", {"config": "one"}).goes_on
    assert (tmp_path / "earlier-runs.jsonl").read_bytes() == b"\xff\x00 not a journal"


def test_beginning_anew_says_why_and_where_the_earlier_runs_are(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert Journal(path, {"the config": "1", "the model": "1"}).anew == ""
    Journal(path, {"the config": "1", "the model": "1"}).add_run(RUN)
    anew = Journal(path, {"the config": "1", "the model": "2"})
    assert (
        anew.anew == f"beginning anew, as the model changed; the earlier runs are kept in {tmp_path}/earlier-runs.jsonl"
    )
    anew.add_run(RUN)
    again = Journal(path, {"the config": "1", "the model": "2"}, restart=True)
    assert again.anew.startswith("beginning anew, as --restart was given; ")
    assert again.anew.endswith("earlier-2-runs.jsonl")
    assert not again.goes_on
    # Nothing was measured since: there is nothing to keep.
    assert Journal(path, {"the config": "3", "the model": "2"}).anew == ""
    path.write_text("my runs\n")
    assert "is not of this comparison, or is damaged" in Journal(path, {"the config": "3"}).anew
    assert (tmp_path / "earlier-3-runs.jsonl").read_text() == "my runs\n"
    assert Journal(tmp_path / "earlier-2-runs.jsonl", {"the config": "1", "the model": "2"}).runs == [RUN]
