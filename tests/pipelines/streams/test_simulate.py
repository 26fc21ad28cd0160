"""`python -m pipelines.simulate`: the rate, what goes wrong on purpose, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.connectors.simulated.generator import Lines
from tests.support import processes
from tests.support.commands import ROOT, Command

SIMULATE = [sys.executable, "-m", "pipelines.simulate"]
EVENT = 1_767_323_045_000_000


def lines_of(
    cuts: list[int], duplicates: float = 0, malformed: float = 0, late: float = 0, seed: int = 5
) -> list[bytes]:
    """The lines of a stream that is made in pieces."""
    maker = Lines(seed, duplicates, malformed, late, None)
    made, first = b"", 0
    for cut in cuts:
        made += maker.make(first, EVENT + 1000 * np.arange(first, first + cut)).lines()
        first += cut
    return made.splitlines()


def is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def closing(said: str) -> tuple[int, float, float]:
    """The numbers of the line that ends a run."""
    found = re.fullmatch(r"sent ([\d,]+) messages? in ([\d.]+) s \(([\d,.]+)/s\)\n", said)
    assert found, said
    count, seconds, rate = (float(number.replace(",", "")) for number in found.groups())
    return int(count), seconds, rate


def test_an_exact_rate(command: Command) -> None:
    result = command("simulate", "--rate", "400", "--messages", "300")
    count, seconds, rate = closing(result.err)
    assert (result.code, count) == (0, 300)
    assert seconds >= 0.7
    assert rate == pytest.approx(300 / seconds, rel=0.1)
    births = [json.loads(line) for line in result.out.splitlines()]
    assert [birth["source_id"] for birth in births] == [f"b{n:09d}" for n in range(300)]
    times = [datetime.fromisoformat(birth["timestamp"].replace("Z", "+00:00")) for birth in births]
    assert {times[n + 1] - times[n] for n in range(299)} == {timedelta(microseconds=2500)}


def test_lines_come_when_they_are_due() -> None:
    with processes.start(
        [*SIMULATE, "--rate", "50", "--messages", "40"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        late = []
        for line in process.stdout:
            due = datetime.fromisoformat(json.loads(line)["timestamp"].replace("Z", "+00:00"))
            late.append((datetime.now(timezone.utc) - due).total_seconds())
    assert len(late) == 40
    assert min(late) >= 0


def test_a_line_does_not_wait_for_the_next() -> None:
    """Which is due in hours: a line that is not written at once would be waited for as long."""
    with processes.start(
        [*SIMULATE, "--rate", "0.0001"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["source_id"] == "b000000000"
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--rate=0", "--messages=20000"], 20_000),
        (["--rate=1000", "--duration=0.2"], 200),
        (["--rate=1000", "--duration=0.2", "--messages=7"], 7),
        (["--messages=0"], 0),
        (["--messages=1", "--rate=100"], 1),
    ],
)
def test_ends(command: Command, arguments: list[str], count: int) -> None:
    result = command("simulate", *arguments)
    assert (result.code, len(result.out.splitlines())) == (0, count)
    assert closing(result.err)[0] == count


def test_as_fast_as_possible_for_a_while(command: Command) -> None:
    result = command("simulate", "--rate", "0", "--duration", "0.3")
    count, seconds, _ = closing(result.err)
    assert len(result.out.splitlines()) == count > 0
    assert seconds >= 0.3


shares = st.sampled_from([0, 0.05, 0.3])


@given(shares, shares, shares, st.integers(-5, 5), st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_the_same_seed_makes_the_same_lines(
    duplicates: float, malformed: float, late: float, seed: int, cuts: list[int]
) -> None:
    asked = {"duplicates": duplicates, "malformed": malformed, "late": late, "seed": seed}
    whole = lines_of([sum(cuts)], **asked)  # type: ignore[arg-type]
    assert len(whole) == sum(cuts)
    assert lines_of(cuts, **asked) == whole  # type: ignore[arg-type]


def test_shares_of_what_goes_wrong() -> None:
    count = 10_000
    good = lines_of([count])
    made = lines_of([count], 0.1, 0.05, 0.02)
    assert made != lines_of([count], 0.1, 0.05, 0.02, seed=6)
    index = {line: n for n, line in reversed(list(enumerate(made)))}
    repeated = [n for n in range(count) if index[made[n]] < n]
    assert len(repeated) == pytest.approx(1000, abs=120)
    first = [n for n in range(count) if index[made[n]] == n]
    malformed = [n for n in first if not is_json(made[n])]
    assert len(malformed) == pytest.approx(500, abs=90)
    cut = sum(good[n].startswith(made[n]) for n in malformed)
    assert cut == pytest.approx(len(malformed) / 2, abs=60)
    late = [n for n in first if n not in set(malformed) and made[n] != good[n]]
    assert len(late) == pytest.approx(200, abs=60)
    for n in late:
        on_time, then = json.loads(good[n]), json.loads(made[n])
        behind = datetime.fromisoformat(on_time.pop("timestamp")[:-1]) - datetime.fromisoformat(
            then.pop("timestamp")[:-1]
        )
        assert on_time == then
        assert timedelta(minutes=2) <= behind <= timedelta(minutes=30)


@pytest.mark.parametrize("which", ["duplicates", "malformed", "late"])
def test_all_messages_go_wrong(which: str) -> None:
    good = lines_of([500])
    made = lines_of([1, 499], **{which: 1})  # type: ignore[arg-type]
    if which == "duplicates":
        assert Counter(made) == {good[0]: 500}
    elif which == "malformed":
        assert not any(map(is_json, made))
        assert len(set(made)) > 400
    else:
        assert all(map(is_json, made))
        assert not set(made) & set(good)


def test_a_duplicate_is_one_of_the_thousand_before() -> None:
    made = lines_of([900] * 6, duplicates=0.2)
    seen: dict[bytes, int] = {}
    distances = []
    for n, line in enumerate(made):
        if line in seen:
            distances.append(n - seen[line])
        seen[line] = n
    assert max(distances) <= 1_000
    assert max(distances) > 500


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], str]:
    def write(name: str, content: str) -> str:
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return write


def test_rows_of_a_csv_file(command: Command, file: Callable[[str, str], str]) -> None:
    path = file("a.csv", 'id,weight,name\n1,2.5,"a ""b"", é"\n2,,x\n')
    result = command("simulate", "--rate=0", "--messages=3", "--source", path)
    rows: list[dict[str, Any]] = [json.loads(line) for line in result.out.splitlines()]
    assert all(datetime.fromisoformat(row.pop("timestamp")[:-1]) for row in rows)
    first = {"id": 1, "weight": 2.5, "name": 'a "b", é'}
    assert rows == [first, {"id": 2, "weight": None, "name": "x"}, first]


def test_lines_of_a_file(command: Command, file: Callable[[str, str], str]) -> None:
    path = file(
        "a.jsonl",
        '{"id": 1, "timestamp": "never", "x": [1, {}]}\n\n{}\nno json\n {"big": 10000000000000000000000000}\n[1]\r\n',
    )
    result = command("simulate", "--rate=0", "--messages=10", "--source", path, "--late=1")
    lines = result.out.splitlines()
    assert (lines[2], lines[4]) == ("no json", "[1]")
    rows = [json.loads(lines[n]) for n in (0, 1, 5, 6)]
    for row in rows:
        behind = datetime.now(timezone.utc) - datetime.fromisoformat(row.pop("timestamp").replace("Z", "+00:00"))
        assert timedelta(minutes=2) <= behind <= timedelta(minutes=31)
    assert rows == [{"id": 1, "x": [1, {}]}, {}] * 2
    assert lines[3].endswith(', "big": 10000000000000000000000000}')


def test_wrong_sources(command: Command, file: Callable[[str, str], str]) -> None:
    for path, said in (
        ("nowhere.csv", "cannot read nowhere.csv: No such file"),
        (file("empty.jsonl", "\n\n"), "has no rows"),
        (file("empty.csv", ""), "not CSV"),
        (file("header.csv", "a,b\n"), "has no rows"),
        (str(ROOT), "Is a directory"),
    ):
        result = command("simulate", "--source", path)
        assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1), result
        assert result.err.startswith("error: --source: ")
        assert said in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "-1"], ["--rate", "fast"], ["--rate", "nan"], ["--messages", "1.5"], ["--messages", "-3"],
        ["--duplicates", "1.1"], ["--late", "-0.1"], ["--malformed", "x"], ["--seed", "x"], ["--rat", "3"], ["more"],
        ["--duplicates=0.5", "--late=0.6"], ["--duration", "inf"], ["--rate"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_arguments(command: Command, arguments: list[str]) -> None:
    result = command("simulate", *arguments)
    assert (result.code, result.out, len(result.errors)) == (2, "", 1), result
    assert len(result.err.splitlines()) == 1
    assert arguments[0].split("=")[0] in result.err


def test_a_reader_that_goes_away() -> None:
    with processes.start(
        [*SIMULATE, "--rate", "20000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert is_json(process.stdout.readline())
        process.stdout.close()
        assert process.wait(120) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals) -> None:
    with processes.start(
        [*SIMULATE, "--rate", "100"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(120) == 0
        assert closing(process.stderr.read())[0] == 1 + len(process.stdout.read().splitlines())


def test_progress_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with processes.start(
        [*SIMULATE, "--rate", "200", "--messages", "100"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            said += piece
            if not piece:
                break
        os.close(ours)
        assert process.wait(120) == 0
    assert b"sending" in said
    assert b"/100" in said
    assert b"sent 100 messages in" in said


def test_help_at_once() -> None:
    code = (
        "import sys, pipelines.simulate as s\n"
        "try: s.main(['--help'])\n"
        "except SystemExit: sys.exit(bool({'apache_beam', 'numpy', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    run = processes.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "--duplicates" in run.stdout
