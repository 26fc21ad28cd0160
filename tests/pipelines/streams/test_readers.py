"""Readers are kept for all DoFns of a process, until the last of them is closed."""

from __future__ import annotations

from apache_beam.io.unbounded_source import UnboundedReader

from pipelines.beam_fixes.shared_readers import SharedReaders


class Reader(UnboundedReader):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_reader_goes_on_in_another_dofn_and_is_closed_with_the_last() -> None:
    first, second = SharedReaders(), SharedReaders()
    taken, left = Reader(), Reader()
    first.park("a", taken, True)
    first.park("b", left, False)
    assert second.acquire("a") == (taken, True)
    assert first.acquire("a") is None
    first.close_all()
    assert not left.closed
    second.close_all()
    assert (taken.closed, left.closed) == (False, True)
    assert SharedReaders().acquire("b") is None
