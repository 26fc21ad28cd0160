"""Bad rows of every kind among good ones, in every format: all are accounted for, and no neighbour changes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import KEY, Row, assert_balanced, births, books_of, write_rows
from tests.support.ledger_runs import Cut, assert_partly_read, assert_summary, run

# Text ---------------------------------------------------------------------------------------------------------------


def break_csv(row: Row, kind: str, rng: random.Random) -> bytes:
    """A row of CSV that cannot be predicted, for one of several reasons."""
    row = {**row, "note": "bad"}
    if kind == "too few columns":
        return ledger.csv_row(row).rsplit(b",", rng.randint(1, 5))[0]
    if kind == "too many columns":
        return ledger.csv_row(row) + b"," * rng.randint(1, 3)
    if kind == "not a number":
        return ledger.csv_row({**row, "mother_age": rng.choice(["old", "1 2", "0x10", "--3", "1e999", "1,5"])})
    if kind == "too large":
        return ledger.csv_row({**row, "plurality": "1e40"})
    if kind == "bad UTF-8":
        return ledger.csv_row({**row, "mother_race": "Q~"}).replace(
            b"Q~", rng.choice([b"\xff\xfe", b"caf\xe9", b"\xc3"])
        )
    if kind == "null in a required column":
        return ledger.csv_row({**row, rng.choice(["mother_age", "plurality", "is_male"]): None})
    if kind == "unclosed quote at the end":
        return ledger.csv_row({**row, "note": ""}) + b'"never closed'
    assert kind == "unclosed quote"
    return ledger.csv_row({**row, "mother_race": "Q~"}).replace(b"Q~", b'"White')


CSV_KINDS = (
    "too few columns",
    "too many columns",
    "not a number",
    "too large",
    "bad UTF-8",
    "null in a required column",
    "unclosed quote",
    "unclosed quote at the end",
)


def mixed_csv(rows: list[Row], rng: random.Random, end: bytes, bom: bool) -> tuple[bytes, list[Row], dict[str, bytes]]:
    """A file of good and bad rows; the good rows; the bad ones by key."""
    content, good, bad = [], [], {}
    for row in rows:
        if rng.random() < 0.06:
            raw = bad[row[KEY]] = break_csv(row, rng.choice(CSV_KINDS), rng)
        else:
            raw = ledger.csv_row(row, rng)
            good.append(row)
        content.append(raw + end * (1 if rng.random() < 0.95 else 2))
    return (b"\xef\xbb\xbf" if bom else b"") + ledger.HEADER + end + b"".join(content), good, bad


def test_csv(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rng = random.Random(1)
    good, bad = [], {}
    for number, (end, bom) in enumerate([(b"\n", False), (b"\r\n", False), (b"\n", True), (b"\r\n", True)]):
        content, fine, broken = mixed_csv(births(900, number, f"f{number}-"), rng, end, bom)
        (tmp_path / f"in-{number}.csv").write_bytes(content)
        good += fine
        bad.update(broken)
    (tmp_path / "in-empty.csv").write_bytes(b"")
    (tmp_path / "in-header.csv").write_bytes(ledger.HEADER + b"\n")
    (tmp_path / "in-bare-header.csv").write_bytes(ledger.HEADER)
    result = run(command, tmp_path, "csv", str(tmp_path / "in-*.csv"))
    books = books_of(tmp_path)
    assert_balanced(books, good, bad)
    assert_summary(result, books)
    assert len(bad) > 150


def test_a_row_of_csv_that_ends_the_file_within_quotes(command: Command, tmp_path: Path) -> None:
    rows = births(20, 1)
    last = ledger.csv_row({**rows[-1], "note": "Q~"}).replace(b"Q~", b'"no end')
    content = ledger.lines([ledger.csv_row(row) for row in rows[:-1]], ledger.HEADER) + last
    (tmp_path / "in.csv").write_bytes(content)
    run(command, tmp_path, "csv", str(tmp_path / "in.csv"))
    assert_balanced(books_of(tmp_path), rows[:-1], {rows[-1][KEY]: last})


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_row_of_50_mb(command: Command, tmp_path: Path, format: str) -> None:
    rows = births(400, 5)
    as_bytes = ledger.csv_row if format == "csv" else ledger.json_row
    giant = as_bytes({**rows[200], "note": "x" * 50_000_000})
    lines = [giant if number == 200 else as_bytes(row) for number, row in enumerate(rows)]
    file = tmp_path / "in.text"
    file.write_bytes(ledger.lines(lines, ledger.HEADER if format == "csv" else None))
    run(command, tmp_path, format, str(file))
    books = books_of(tmp_path)
    key = books.dead_letters[0]["key"]
    if format == "json":  # its key may be anywhere in 50 MB
        assert key in (rows[200][KEY], f"{file}:{len(ledger.lines(lines[:200]))}")
    else:
        assert key == rows[200][KEY]
    assert_balanced(books, rows[:200] + rows[201:], {key: giant})


def test_a_file_whose_header_cannot_be_used(command: Command, tmp_path: Path) -> None:
    """It is one dead letter that holds the file; its neighbours do not suffer."""
    rows = births(40, 6)
    write_rows(tmp_path / "in-0.csv", "csv", rows[:20])
    twins = tmp_path / "in-1.csv"
    twins.write_bytes(write_rows(twins, "csv", rows[20:]).read_bytes().replace(b"is_male", b"mother_race", 1))
    run(command, tmp_path, "csv", str(tmp_path / "in-*.csv"))
    assert_balanced(books_of(tmp_path), rows[:20], {f"{twins}:0": twins.read_bytes()})
    assert "twice" in books_of(tmp_path).dead_letters[0]["message"]


def break_json(row: Row, kind: str, rng: random.Random) -> tuple[bytes, bool]:
    """A row of JSON that cannot be predicted; whether its key can be told."""
    line = ledger.json_row({**row, "mother_race": "Q~"})
    if kind == "not JSON":
        return rng.choice([line[:-1], line[:-9], line.replace(b":", b"", 1), b"{", b"nonsense", line + b"}"]), False
    if kind == "not an object":
        return rng.choice([b"[1, 2]", b"7", b'"text"', b"null"]), False
    if kind == "not a number":
        return ledger.json_row({**row, "mother_age": rng.choice(["old", [1, 2], {"a": 1}])}), True
    if kind == "too large":
        return line.replace(b'"mother_age": ', b'"mother_age": 1e39, "was": '), True
    if kind == "bad UTF-8":
        return line.replace(b"Q~", b"\xff\xfe"), True
    if kind == "null in a required column":
        return ledger.json_row({**row, rng.choice(["mother_age", "is_male"]): None}), True
    assert kind == "missing"
    return ledger.json_row({name: value for name, value in row.items() if name != "plurality"}), True


JSON_KINDS = (
    "not JSON",
    "not an object",
    "not a number",
    "too large",
    "bad UTF-8",
    "null in a required column",
    "missing",
)


def test_json(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rng = random.Random(2)
    good, bad = [], {}
    for number, end in enumerate([b"\n", b"\r\n", b"\n\n"]):
        file, content = tmp_path / f"in-{number}.jsonl", b""
        for row in births(700, 10 + number, f"f{number}-"):
            if rng.random() < 0.05:
                raw, named = break_json(row, rng.choice(JSON_KINDS), rng)
                bad[row[KEY] if named else f"{file}:{len(content)}"] = raw
            else:
                raw = ledger.json_row(row)
                good.append(row)
            content += raw + end
        file.write_bytes(content)
    (tmp_path / "in-empty.jsonl").write_bytes(b"")
    (tmp_path / "in-blank.jsonl").write_bytes(b"\n\n\r\n")
    result = run(command, tmp_path, "json", str(tmp_path / "in-*.jsonl"))
    books = books_of(tmp_path)
    assert_balanced(books, good, bad)
    assert_summary(result, books)
    assert len(bad) > 70


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_truncated_gzip_file_among_good_ones(
    command: Command, tmp_path: Path, format: str, small_pieces: Cut
) -> None:
    good, cut = births(500, 1, "good"), births(500, 2, "cut")
    write_rows(tmp_path / "in-a.gz", format, good)
    broken = write_rows(tmp_path / "in-b.gz", format, cut)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    run(command, tmp_path, format, str(tmp_path / "in-*.gz"))
    # What is left of a CSV file may be too little to find its header in.
    assert_partly_read(tmp_path, good, cut, broken, some=None if format == "csv" else True)


# Tables -------------------------------------------------------------------------------------------------------------


# The model ----------------------------------------------------------------------------------------------------------
