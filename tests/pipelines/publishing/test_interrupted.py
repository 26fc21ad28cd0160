"""A run that is killed, or held up, at any step of publishing: readers find the old set or the new, never a mixture."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing.completion import look_after
from pipelines.connectors.files.publishing.reservation import Reservation
from tests.support import publishing_run

_MOST_STEPS = 100


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killing a process loses nothing that it wrote; only a machine that fails does."""
    monkeypatch.setattr("os.fsync", lambda number: None)


def fork(child: Callable[[], int]) -> int:
    """Runs a function in a child process; gives the process's id."""
    process = os.fork()
    if process:
        return process
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        os._exit(child())
    finally:
        os._exit(99)


def wait(process: int) -> int:
    """Waits for a child; gives its exit code, or the signal that ended it, negative."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def begin(folder: Path, tag: str, step: int, what: signal.Signals, count: int = 3) -> int:
    """Starts a run that sends itself a signal before a step."""

    def child() -> int:
        publishing_run.interrupt(step, lambda: os.kill(os.getpid(), what))
        return publishing_run.attempt(str(folder), tag, count)

    return fork(child)


def steps(folder: Path, act: Callable[[Path, int], bool]) -> Iterator[tuple[Path, int]]:
    """A fresh folder with an old set for each step; until `act` says that there was no such step."""
    for step in range(_MOST_STEPS):
        place = folder / str(step)
        assert publishing_run.attempt(str(place), "old", 2) == 0
        if not act(place, step):
            assert step > 20, "the steps were not counted"
            return
        yield place, step
    raise AssertionError("the run does not end")


def killed(place: Path, step: int) -> bool:
    code = wait(begin(place, "new", step, signal.SIGKILL))
    assert code in (0, -9)
    return code == -9


def recover_by_run(folder: str) -> None:
    """What a run does before it publishes anything of its own."""
    with Reservation(*publishing_run.places(folder), "feedbeef", "next") as reserved:
        reserved.claim()


def recover_by_check(folder: str) -> None:
    look_after(*publishing_run.places(folder), "feedbeef", "check")


@pytest.mark.parametrize("recover", [recover_by_run, recover_by_check])
def test_killed_at_each_step(tmp_path: Path, recover: Callable[[str], None]) -> None:
    """After the next run, or check, has looked, all of it is of one run, and nothing else is left."""
    found = []
    for place, step in steps(tmp_path, killed):
        recover(str(place))
        output, dead_letters = publishing_run.seen(str(place))
        assert output == dead_letters, step
        assert output in ({"old"}, {"new"}), step
        found.append(output == {"new"})
        if recover is recover_by_run:
            left = [name for _, folders, names in os.walk(place) for name in folders + names if name.startswith(".")]
            assert not [name for name in left if "commit" in name or "new" in name], step
    assert found == sorted(found), "once the new set was there it stays"
    assert {True, False} <= set(found)


def test_killed_again_while_it_is_completed(tmp_path: Path) -> None:
    """Completing may be killed at each of its steps, too, by whoever does it."""
    place = next(
        place for place, _ in steps(tmp_path / "first", lambda place, step: killed(place, step)) if _begun(place)
    )
    for step in range(_MOST_STEPS):
        again = tmp_path / "second" / str(step)
        shutil.copytree(place, again)

        def child(again: Path = again, step: int = step) -> int:
            publishing_run.interrupt(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
            recover_by_check(str(again))
            return 0

        code = wait(fork(child))
        recover_by_run(str(again))
        assert publishing_run.seen(str(again)) == ({"new"}, {"new"}), step
        if code == 0:
            assert step > 5
            return
    raise AssertionError("completing does not end")


def _begun(place: Path) -> bool:
    return (place / "out" / ".p.commit.json").exists()


def test_a_moved_folder_is_completed_where_it_is(tmp_path: Path) -> None:
    place = next(place for place, _ in steps(tmp_path / "a", killed) if _begun(place))
    moved = tmp_path / "elsewhere"
    place.rename(moved)
    recover_by_check(str(moved))
    assert publishing_run.seen(str(moved)) == ({"new"}, {"new"})


def stopped(place: Path, step: int, processes: list[int]) -> bool:
    process = begin(place, "slow", step, signal.SIGSTOP)
    while True:
        done, status = os.waitpid(process, os.WUNTRACED)
        assert done == process
        if os.WIFSTOPPED(status):
            processes.append(process)
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False


def test_two_runs_held_up_at_each_step(tmp_path: Path) -> None:
    """While one run is held up, another into the same place is refused; the set of the last one is there, whole."""
    processes: list[int] = []
    refused = []
    for place, step in steps(tmp_path, lambda place, step: stopped(place, step, processes)):
        second = publishing_run.attempt(str(place), "fast", 1)
        os.kill(processes[-1], signal.SIGCONT)
        first = wait(processes[-1])
        refused.append(second == 2)
        if second == 0:
            # The first had not begun, or had ended but for its last breath.
            assert first in (0, 2), step
        else:
            assert (first, second) == (0, 2), step
        output, dead_letters = publishing_run.seen(str(place))
        last = {"slow"} if first == 0 and (second == 2 or output == {"slow"}) else {"fast"}
        assert output == last, step
        assert dead_letters == (last if last == {"slow"} else set()), step
    assert sum(refused) > 15


def test_the_refusal_names_the_other_run(tmp_path: Path) -> None:
    with Reservation(*publishing_run.places(str(tmp_path)), "0123abcd", "the-first"):
        with pytest.raises(ConfigError) as error:
            Reservation(*publishing_run.places(str(tmp_path)), "4567abcd", "the-second").__enter__()
        assert "the-first" in str(error.value)
        assert "0123abcd" in str(error.value)
        assert f"process {os.getpid()}" in str(error.value)
    with Reservation(*publishing_run.places(str(tmp_path)), "4567abcd", "the-second"):
        pass
    assert list(tmp_path.iterdir()) == []


def remove_output(place: Path) -> None:
    shutil.rmtree(place / "out", ignore_errors=True)


def remove_temporary(place: Path) -> None:
    for folder in place.glob("*/.*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def remove_a_shard(place: Path) -> None:
    for path in list(place.glob("out/.*.tmp/*"))[:1] or list(place.glob("out/p-*-of-00003.csv"))[:1]:
        path.unlink()


def shorten_a_shard(place: Path) -> None:
    for path in list(place.glob("out/.*.tmp/*"))[:1] or list(place.glob("out/p-*-of-00003.csv"))[:1]:
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [remove_output, remove_temporary, remove_a_shard, shorten_a_shard])
def test_files_that_are_removed_while_a_run_is_held_up(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """At whatever step: exit code 0 means that all that was counted is there."""
    processes: list[int] = []
    failed = 0
    for place, step in steps(tmp_path, lambda place, step: stopped(place, step, processes)):
        harm(place)
        os.kill(processes[-1], signal.SIGCONT)
        code = wait(processes[-1])
        failed += code != 0
        assert code in (0, 1, 2, 3), step
        if code == 0:
            assert publishing_run.seen(str(place)) == ({"slow"}, {"slow"}), step
            assert len(list(place.glob("out/p-*"))) == 3
    assert failed > 3


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """What a killed run leaves does not keep others out, and is removed by the next."""

    def child() -> int:
        publishing_run.publish(str(tmp_path), "lost", hold=lambda: os.kill(os.getpid(), signal.SIGKILL))
        return 0

    assert wait(fork(child)) == -9
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".p.lock",
        f".p-{publishing_run.run_id('lost')}.tmp",
    }
    assert publishing_run.attempt(str(tmp_path), "next") == 0
    assert publishing_run.seen(str(tmp_path)) == ({"next"}, {"next"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] == ".") == [".p.manifest.json"]


def test_nothing_is_published_once_a_run_was_told_to_stop(tmp_path: Path) -> None:
    def child() -> int:
        from pipelines.connectors.files.publishing import commit

        return publishing_run.attempt(str(tmp_path), "late") if commit.refuse_further(1) is None else 0

    assert publishing_run.attempt(str(tmp_path), "old") == 0
    assert wait(fork(child)) == 1
    assert publishing_run.seen(str(tmp_path)) == ({"old"}, {"old"})


def test_a_signal_waits_for_publishing_that_has_begun(tmp_path: Path) -> None:
    """The gate is held while names change, so a signal comes before all of it or after."""
    import threading

    from pipelines.connectors.files.publishing import commit

    assert commit._gate.acquire()
    waiting = threading.Thread(target=commit.refuse_further, args=(60,))
    try:
        waiting.start()
        time.sleep(0.05)
        assert not commit._stopped
    finally:
        commit._gate.release()
        waiting.join()
        assert commit._stopped
        commit._stopped = False
