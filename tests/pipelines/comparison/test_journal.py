"""The journal of a comparison: what was measured stays, also where a command was killed as it wrote."""

from pathlib import Path

from pipelines.comparison.journal import Journal
from pipelines.comparison.results import Parity, Run

RUN = Run(way="a", load=10, round=1, begun="2026-11-27T00:00:00+00:00", elapsed_s=1.5)
PARITY = Parity(way="a", reference="a", rows=3)


def test_the_same_comparison_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs.jsonl", "one")
    assert not journal.goes_on
    journal.add_parity(PARITY)
    journal.add_run(RUN)
    again = Journal(tmp_path / "runs.jsonl", "one")
    assert again.goes_on
    assert (again.runs, again.parity) == ([RUN], [PARITY])


def test_a_line_that_was_cut_is_dropped_and_what_follows_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs.jsonl", "one")
    journal.add_run(RUN)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"run": {"way": "a", "loa')
    cut = Journal(tmp_path / "runs.jsonl", "one")
    assert cut.runs == [RUN]
    cut.add_run(RUN)
    assert Journal(tmp_path / "runs.jsonl", "one").runs == [RUN, RUN]


def test_another_comparison_begins_anew_and_puts_the_earlier_aside(tmp_path: Path) -> None:
    Journal(tmp_path / "runs.jsonl", "one").add_run(RUN)
    anew = Journal(tmp_path / "runs.jsonl", "two")
    assert not anew.goes_on
    assert anew.put_aside == "earlier-runs.jsonl"
    assert Journal(tmp_path / "earlier-runs.jsonl", "one").runs == [RUN]


def test_what_is_no_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_bytes(b"\xff\x00 not a journal")
    assert not Journal(tmp_path / "runs.jsonl", "one").goes_on
    assert (tmp_path / "earlier-runs.jsonl").read_bytes() == b"\xff\x00 not a journal"
