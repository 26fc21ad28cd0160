"""Repeats of a key are dropped: within a bundle, between bundles, and after a restart; nothing else is."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.run import Window
from pipelines.connectors.simulated.natality import births_at
from pipelines.flows.dedupe import Seen, forget, seen
from tests.support.commands import Command
from tests.support.streams import dead_letters, sets, written


@pytest.fixture(autouse=True)
def _forget() -> None:
    forget()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(keys: Seen, *asked: str) -> set[str]:
    """Which keys are repeats; asking takes the others."""
    mask = keys.fresh(list(asked))
    return set() if mask is None else {key for key, is_fresh in zip(asked, mask, strict=True) if not is_fresh}


def test_a_key_is_seen_for_as_long_as_the_window_and_little_longer() -> None:
    clock = Clock()
    keys = Seen(Window(100, 1_000), clock)
    assert known(keys, "a") == set()
    clock.now += 99
    assert known(keys, "a", "b") == {"a"}
    clock.now += 12
    assert known(keys, "a", "b", "c") == {"b"}
    clock.now += 200
    assert known(keys, "a", "b") == set()
    assert len(keys) == 2


def test_old_keys_are_added_by_their_age() -> None:
    clock = Clock()
    keys = Seen(Window(100, 1_000), clock)
    keys.add({"new"})
    keys.add({"old", "older"}, age_s=85)
    keys.add({"too old"}, age_s=101)
    assert known(keys, "new", "old", "too old") == {"new", "old"}
    clock.now += 30
    assert known(keys, "new", "older") == {"new"}


def test_more_keys_than_allowed_push_the_oldest_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    keys = Seen(Window(100, 50), clock)
    for n in range(10):
        keys.add({f"{n}-{m}" for m in range(10)})
        clock.now += 10
    assert len(keys) <= 60
    assert known(keys, "9-1", "0-1") == {"9-1"}
    assert "dedupe.max_keys" in caplog.text


def test_any_mix_of_repeats_gives_every_key_once() -> None:
    generator = random.Random(5)
    found = seen(Window(60, 100_000))
    assert found is seen(Window(60, 100_000))
    taken: list[str] = []
    for _ in range(500):
        keys = [str(generator.randrange(3_000)) for _ in range(generator.randrange(1, 60))]
        mask = found.fresh(keys)
        fresh = keys if mask is None else [key for key, is_fresh in zip(keys, mask, strict=True) if is_fresh]
        # The first of several is the one that is kept.
        assert fresh == [key for key in dict.fromkeys(keys) if key not in taken]
        taken += fresh
    assert set(Counter(taken).values()) == {1}


def births(folder: Path, keys: list[int]) -> Path:
    """A file of messages with the given keys, some of them broken."""
    payloads = [each.as_py() for each in births_at(np.array(keys), 1, np.zeros(len(keys), np.int64))]
    path = folder / "messages.jsonl"
    path.write_bytes(b"\n".join(payloads) + b"\n")
    return path


def test_repeats_are_dropped_and_counted_and_known_after_a_restart(command: Command, tmp_path: Path) -> None:
    numbers = [*range(500), *range(100, 200), *range(490, 600)]
    changes = {
        "source__path": str(births(tmp_path, numbers)), "source__rate": 5000, "dedupe": {"window_s": 600},
        "batching__max_rows": 64,
    }  # fmt: skip
    result = command("stream", "--max-messages", str(len(numbers)), *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(f"b{n:09d}" for n in range(600))
    summary = result.summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_repeated"]) == (710, 600, 110)
    result = command("stream", "--max-messages", str(len(numbers) + 10), *sets(tmp_path, **changes))
    assert result.code == 0, result
    assert "600 keys of what was written lately are known" in result.err
    assert "repeats dropped: 720" in " ".join(result.out.split())
    assert len(written(tmp_path)) == 600


def test_a_row_that_became_a_dead_letter_is_not_tried_again(command: Command, tmp_path: Path) -> None:
    birth = json.loads(births_at(np.array([1]), 1, np.zeros(1, np.int64))[0].as_py())
    lines = [json.dumps({**birth, "source_id": f"k{n % 4}", "mother_age": None if n % 2 else 30}) for n in range(12)]
    (tmp_path / "messages.jsonl").write_text("\n".join(lines))
    changes = {
        "source__path": str(tmp_path / "messages.jsonl"), "dead_letters__max_fraction": 1,
        "dedupe": {"window_s": 600}, "output__format": "json",
    }  # fmt: skip
    for _ in range(2):
        result = command("stream", "--max-messages", "12", *sets(tmp_path, **changes), "--json")
        assert result.code == 0, result
    assert sorted(dead_letter["key"] for dead_letter in dead_letters(tmp_path)) == ["k1", "k3"]
    rows = [json.loads(line) for path in (tmp_path / "out").glob("p-*.jsonl") for line in path.open()]
    assert sorted(row["source_id"] for row in rows) == ["k0", "k2"]


def test_the_key_must_be_written(command: Command, tmp_path: Path) -> None:
    changes = {"dedupe": {"window_s": 60}, "output__columns": ["predictions"]}
    result = command("stream", "--max-messages", "12", *sets(tmp_path, **changes))
    assert result.code == 2, result
    assert "output.columns: add 'source_id'" in result.errors[0]


def test_batch_runs_have_no_dedupe(command: Command) -> None:
    result = command("batch", "--set", 'dedupe={"window_s": 60}')
    assert result.code == 2, result
    assert "dedupe" in result.errors[0]
