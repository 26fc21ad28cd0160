"""Outputs that are the same in all rows of a run: the summary says so, and says it of no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.telemetry.constant_outputs import ConstantOutputs, constant_of, in_all, notes_on
from tests.servers.stand_in import sevens, stand_in
from tests.support.commands import Command
from tests.support.ledger import MODEL, Row, births, shards, write_config, write_rows

NAN = float("nan")
HALF = pa.array([NAN] * 3, pa.float32()).cast(pa.float16())
LISTS = pa.array([[1.5, 2.0], [3.0, 4.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))

ONE_VALUE = {
    "float32": (pa.array([0.1] * 200, pa.float32()), "0.1"),
    "float64": (pa.array([0.1] * 2), "0.1"),
    "int64": (pa.array([3] * 100), "3"),
    "uint64": (pa.array([2**64 - 1] * 2, pa.uint64()), "18446744073709551615"),
    "bool": (pa.array([True] * 100), "True"),
    "text": (pa.array(["no\n"] * 100), r"'no\n'"),
    "bytes": (pa.array([b"\xff"] * 100), r"b'\xff'"),
    "words": (pa.array(["a", "a"]).dictionary_encode(), "'a'"),
    "NaN": (pa.array([NAN] * 100), "NaN"),
    "NaN of half precision": (HALF, "NaN"),
    "null": (pa.array([None, None], pa.float32()), "null"),
    "zero and minus zero": (pa.array([-0.0, 0.0] * 50, pa.float32()), "0.0"),
    "lists of zeros": (pa.array([[0.0, -0.0], [-0.0, 0.0]]), "[0.0, 0.0]"),
    "half precision": (pa.array([0.5, 0.5], pa.float32()).cast(pa.float16()), "0.5"),
    "a slice of lists": (LISTS.slice(1, 2), "[3.0, 4.0]"),
    "lists of one length": (pa.array([[1, 2]] * 3, pa.list_(pa.int64(), 2)), "[1, 2]"),
    "lists of NaN": (pa.array([[NAN, NAN]] * 3), "NaN"),
    "lists of lists": (pa.array([[[1, 2], [3, 4]]] * 3), "[[1, 2], [3, 4]]"),
    "empty lists": (pa.array([[], []], pa.list_(pa.int64())), "[]"),
    "one row": (pa.array([7]), "7"),
}
TWO_VALUES = {
    "numbers": pa.array([1.0, 2.0]),
    "behind the first rows": pa.array([1.0] * 100 + [2.0]),
    "NaN and a number": pa.array([NAN, 1.0]),
    "null and a number": pa.array([1, None]),
    "text": pa.array(["a", "b"]),
    "lists": LISTS,
    "lists of two lengths": pa.array([[1], [1, 1]]),
    "lists of lists": pa.array([[[1, 2], [3, 4]], [[1, 2], [3, 5]]]),
    "lists that are too long to compare": pa.array([[0] * 2000] * 2),
}


@pytest.mark.parametrize("case", ONE_VALUE)
def test_one_value(case: str) -> None:
    array, text = ONE_VALUE[case]
    found = constant_of(array)
    assert found is not None
    assert (found.text, found.nan) == (text, text == "NaN")


@pytest.mark.parametrize("case", TWO_VALUES)
def test_two_values(case: str) -> None:
    assert constant_of(TWO_VALUES[case]) is None


def test_long_values_that_begin_alike_differ() -> None:
    one, other = (constant_of(pa.array(["x" * 100 + end])) for end in "ab")
    assert one is not None
    assert other is not None
    assert one.text == other.text
    assert len(one.text) == 60
    assert one != other


def step(*batches: dict[str, list[Any]]) -> ConstantOutputs:
    made = ConstantOutputs(("a", "b"))
    for batch in batches:
        made.look(pa.RecordBatch.from_pydict(batch))
    return made


def test_steps_together() -> None:
    """What one step finds constant is not, if another step finds something else."""
    ones, twos = {"a": [1, 1], "b": [1, 1]}, {"a": [1, 1], "b": [2, 2]}
    same, changed, other = step(ones, ones).found(), step(ones, twos).found(), step(twos).found()
    assert (same.keys(), changed.keys()) == ({"a", "b"}, {"a"})
    assert in_all([same, same]).keys() == {"a", "b"}
    assert in_all([same, other]).keys() == in_all([same, changed]).keys() == {"a"}
    assert in_all([same, {}]) == in_all([]) == step().found() == {}


def test_notes() -> None:
    found = step({"a": [7.5], "b": [NAN]}).found()
    assert notes_on(found, 99) == ()
    assert notes_on(found, 1450) == (
        "output 'a' is 7.5 in all 1,450 rows: do the columns feed what the model was trained with?",
        "output 'b' is NaN in all 1,450 rows",
    )


ROW = births(1, 11)[0]
OTHER = {**ROW, "mother_age": 41.0, "plurality": 3.0}


def alike(count: int, row: Row = ROW) -> list[Row]:
    return [{**row, "source_id": f"{row['plurality']}-{number}"} for number in range(count)]


@pytest.mark.parametrize(
    ("rows", "noted"),
    [
        pytest.param(alike(400), True, id="one value"),
        pytest.param([*alike(200), *alike(200, OTHER)], False, id="each half has one"),
        pytest.param([*alike(399), OTHER], False, id="the last row has another"),
        pytest.param(alike(99), False, id="few rows"),
    ],
)
def test_a_run_of_several_shards(
    command: Command, tmp_path: Path, small_pieces: Callable[[int, int], None], rows: list[Row], noted: bool
) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), batching={"max_rows": 50})
    result = command("batch", "--config", config, "--json", "--direct_num_workers", "2")
    assert result.code == 0, result
    notes = result.summary["notes"]
    if len(rows) > 100:
        assert len(shards(tmp_path / "out" / "p")) > 1
    if not noted:
        assert notes == []
        return
    [note] = notes
    assert note.startswith("output 'predictions' is ")
    assert f" in all {len(rows)} rows: do the columns feed" in note
    assert f"\nnote: {note}\n" in command("batch", "--config", config).out


def test_a_stream(command: Command, tmp_path: Path) -> None:
    with stand_in(sevens) as server:
        config = {
            "source": {"type": "simulated", "rate": 2000, "messages": 300, "key": "source_id"},
            "model": {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": MODEL},
            "output": {"type": "file", "format": "csv", "path": str(tmp_path / "out" / "p")},
            "dead_letters": {"path": str(tmp_path / "out" / "dead"), "max_fraction": 1},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        result = command("stream", "--config", str(tmp_path / "config.json"), "--json")
    assert result.code == 0, result
    written = result.summary["rows_written"]
    question = "do the columns feed what the model was trained with?"
    assert result.summary["notes"] == [f"output 'predictions' is 7.5 in all {written} rows: {question}"]
