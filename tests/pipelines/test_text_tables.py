"""Tables of text as people have them: `init`, `check` and `batch` take them at the first try."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from pipelines.formats import FormatError, ReadSpec, detection, reader_class
from pipelines.rows.origin import Block, RejectedRow
from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import COLUMNS, DEFAULTS, KEY, MODEL, births
from tests.support.mutations import mutated


def table(rows: list[ledger.Row], delimiter: str = ",", quote: str = '"', space: str = "", end: str = "\n") -> str:
    """Rows as a table of text; a field is quoted where it has to be."""

    def field(value: Any) -> str:
        text = "" if value is None else str(value)
        odd = any(c in text for c in (delimiter, quote, "\r", "\n"))
        return quote + text.replace(quote, quote + quote) + quote if odd else text

    names = [name for name in COLUMNS if name != "note" or not space]
    lines = [(delimiter + space).join(names)]
    lines += [(delimiter + space).join(field(row[name]) for name in names) for row in rows]
    return "".join(line + end for line in lines)


ROWS = [{**row, "mother_race": "Black" if n % 3 else "White"} for n, row in enumerate(births(200, 5))]
EUROPEAN = [{**row, "note": "café €5"} for row in births(200, 5)]

TABLES: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "plain": ("in.csv", table(ROWS).encode(), {}),
    "with a BOM": ("in.csv", table(ROWS).encode("utf-8-sig"), {}),
    "semicolons": ("in.csv", table(ROWS, ";").encode(), {"delimiter": ";"}),
    "tabs": ("in.tsv", table(ROWS, "\t").encode(), {"delimiter": "\t"}),
    "tabs, packed": ("in.tsv.gz", gzip.compress(table(ROWS, "\t").encode()), {"delimiter": "\t"}),
    "bars in a .txt": ("in.txt", table(ROWS, "|").encode(), {"delimiter": "|"}),
    "commas in a .txt": ("in.txt", table(ROWS).encode(), {}),
    "carriage returns": ("in.csv", table(ROWS, ";", end="\r\n").encode(), {"delimiter": ";"}),
    "a shard's name, then .csv": ("in-00000-of-00002.csv", table(ROWS, ";").encode(), {"delimiter": ";"}),
    ".csv, then a shard's name": ("in.csv-00000-of-00002", table(ROWS, ";").encode(), {"delimiter": ";"}),
    "a shard's name alone": ("in-00000-of-00002", table(ROWS, ";").encode(), {"delimiter": ";"}),
    "a shard's name, packed": ("in.csv-00000-of-00001.gz", gzip.compress(table(ROWS).encode()), {}),
    "a shard of packed": ("in.csv.gz-00000-of-00001", gzip.compress(table(ROWS).encode()), {}),
    "cp1252": ("in.csv", table(EUROPEAN, ";").encode("cp1252"), {"delimiter": ";", "encoding": "cp1252"}),
    "utf-16": ("in.csv", table(EUROPEAN, "\t").encode("utf-16"), {"delimiter": "\t", "encoding": "utf-16"}),
    "apostrophes": ("in.csv", table(ROWS, ",", "'").replace("Black", "'Black'").encode(), {"quote": "'"}),
    "spaces behind delimiters": ("in.csv", table(ROWS, ",", space="  ").encode(), {"trim": True}),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_at_the_first_try(command: Command, tmp_path: Path, name: str) -> None:
    file, content, options = TABLES[name]
    (tmp_path / file).write_bytes(content)
    config = tmp_path / "config.json"
    result = command("init", "--model", MODEL, "--source", str(tmp_path / "in*"), "--output", str(config))
    assert result.code == 0, result
    written = json.loads(config.read_text())
    known = {"delimiter", "quote", "encoding", "trim"}
    assert {key: value for key, value in written["source"].items() if key in known} == options
    assert written["source"]["format"] == "csv"
    assert written["source"]["key"] == KEY
    written["source"]["defaults"] = DEFAULTS
    written["output"]["path"], written["dead_letters"] = (
        str(tmp_path / "out" / "p"),
        {"path": str(tmp_path / "out" / "dead")},
    )
    config.write_text(json.dumps(written))
    assert command("check", "--config", str(config)).code == 0
    assert command("batch", "--config", str(config)).code == 0
    books = ledger.books_of(tmp_path)
    ledger.assert_balanced(books, EUROPEAN if "encoding" in options else ROWS, {})


def test_a_delimiter_that_is_evidently_wrong(command: Command, tmp_path: Path) -> None:
    for delimiter, shown in ((";", '";"'), ("\t", r'"\t"'), ("|", '"|"')):
        (tmp_path / "in.csv").write_text(table(ROWS[:5], delimiter))
        config = ledger.write_config(tmp_path, "csv", str(tmp_path / "in.csv"), source={"key": None})
        for module in ("check", "batch"):
            result = command(module, "--config", config)
            assert result.code == 2, result
            assert len(result.errors) == 1
            assert "source.delimiter: the header has one column" in result.errors[0]
            assert f"set source.delimiter to {shown}" in result.errors[0]
        assert command("check", "--config", config, "--set", f"source.delimiter={delimiter}").code == 0


def test_a_column_whose_name_has_a_semicolon(command: Command, tmp_path: Path, strict_model: str) -> None:
    """It is what it seems, if it feeds the model."""
    (tmp_path / "in.csv").write_text("age; in years\n25\n30\n")
    config = ledger.write_config(
        tmp_path,
        "csv",
        str(tmp_path / "in.csv"),
        source={"key": None, "columns": {"mother_age": "age; in years"}, "defaults": {"plurality": 1}},
        model={"path": strict_model},
    )
    result = command("batch", "--config", config)
    assert result.code == 0, result
    assert len(ledger.books_of(tmp_path).output) == 2


# What is read ------------------------------------------------------------------------------------------------------


def read(path: Path, options: dict[str, Any], **types: pa.DataType) -> tuple[list[dict[str, Any]], list[RejectedRow]]:
    """The rows of a CSV file, cut in many pieces, and those that are refused."""
    reader = reader_class("csv")(ReadSpec(pa.schema(list(types.items())), options))
    pieces = [p for split in reader.splits(str(path), path.stat().st_size, 8) for p in reader.read(split)]
    rows = [row for piece in pieces if isinstance(piece, Block) for row in piece.batch.to_pylist()]
    return rows, [piece for piece in pieces if isinstance(piece, RejectedRow)]


WORDS = pa.dictionary(pa.int32(), pa.string())


def test_spaces_around_fields(tmp_path: Path) -> None:
    """As pandas reads them, once they are trimmed there too."""
    text = 'id , word, n\n1 , red ,  1.5\n2,red , 2\n 3,\t"a, b" ,\t3 \n4, , 4\n5, NA,  \n6,"  blue ", 6\n'
    (tmp_path / "in.csv").write_text(text.replace('\t"a, b" ', '"a, b"'))
    options = {"trim": True, "null_values": ["", "NA"]}
    rows, bad = read(tmp_path / "in.csv", options, id=pa.string(), word=WORDS, n=pa.float64())
    assert not bad
    wanted = pd.read_csv(tmp_path / "in.csv", dtype={"id ": str})
    for row, (_, other) in zip(rows, wanted.iterrows(), strict=True):
        assert row["id"] == str(other["id "]).strip()
        word = other[" word"]
        assert row["word"] == (word.strip() if isinstance(word, str) and word.strip() not in ("", "NA") else None)
    assert [row["n"] for row in rows] == [1.5, 2, 3, 4, None, 6]
    assert reader_class("csv").schema(str(tmp_path / "in.csv"), options).names == ["id", "word", "n"]


def test_decimal_commas(command: Command, tmp_path: Path, strict_model: str) -> None:
    """Columns of the model are numbers, where they are written too; others keep their text; points are refused."""
    (tmp_path / "in.csv").write_text(
        "id;mother_age;plurality;price\na;25,5;1;3,50\nb;30;2,0;4\nc;1.234;1;5\nd;-0,25;2;6\ne;1,2,3;1;7\n"
    )
    config = tmp_path / "config.json"
    out = ("--set", f"output.path={tmp_path}/out/p", "--set", f"dead_letters.path={tmp_path}/out/dead")
    columns = json.dumps(["id", "mother_age", "price", "predictions"])
    out = (
        *out,
        "--set",
        f"output.columns={columns}",
        "--set",
        "output.format=json",
        "--set",
        "dead_letters.max_fraction=1",
    )
    result = command("init", "--model", strict_model, "--source", str(tmp_path / "in.csv"), "--output", str(config))
    assert result.code == 0, result
    written = json.loads(config.read_text())
    # A point may separate thousands there, or be a mistake: a person decides.
    assert "decimal" not in written["source"]
    out = (*out, "--set", "source.decimal=,")
    assert command("batch", "--config", str(config), *out).code == 0
    books = ledger.books_of(tmp_path)
    assert {
        dead_letter["key"]: dead_letter["stage"] for dead_letter in ledger.dead_letters(tmp_path / "out" / "dead")
    } == {
        "c": "coerce",
        "d": "predict",
        "e": "coerce",
    }
    found = [(row["id"], row["mother_age"], row["price"], row["predictions"]) for row in books.output]
    assert found == [("a", 25.5, "3,50", 9.5), ("b", 30, "4", 12)]
    rows, bad = read(
        tmp_path / "in.csv",
        {"delimiter": ";", "decimal": ","},
        id=pa.string(),
        mother_age=pa.float32(),
        plurality=pa.int64(),
    )
    assert [(row["id"], row["mother_age"], row["plurality"]) for row in rows] == [
        ("a", 25.5, 1),
        ("b", 30, 2),
        ("d", -0.25, 2),
    ]
    assert "a decimal comma is expected" in bad[0].message


@pytest.mark.parametrize(
    ("nulls", "expected"),
    [
        (None, [None, None, "NA", "x"]),
        ([""], [None, None, "NA", "x"]),
        (["NA"], ["", "", None, "x"]),
        ([], ["", "", "NA", "x"]),
    ],
    ids=str,
)
def test_empty_fields(tmp_path: Path, nulls: list[str] | None, expected: list[str | None]) -> None:
    (tmp_path / "in.csv").write_text('a,b\n"",1\n,2\nNA,3\nx,4\n')
    options = {} if nulls is None else {"null_values": nulls}
    for type in (pa.string(), WORDS):
        rows, _ = read(tmp_path / "in.csv", options, a=type, b=pa.int64())
        assert [row["a"] for row in rows] == expected


def test_a_byte_that_an_encoding_does_not_have_is_its_rows_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("a,b\né,1\n".encode("cp1252") + b"\x81,2\n" + "ü,3\n".encode("cp1252"))
    rows, bad = read(tmp_path / "in.csv", {"encoding": "cp1252"}, a=pa.string(), b=pa.int64())
    assert rows == [{"a": "é", "b": 1}, {"a": "ü", "b": 3}]
    assert [row.payload for row in bad] == [b"\x81,2"]
    (tmp_path / "in.csv").write_bytes("a,b\né,1\nx,2\n".encode("utf-16") + b"\x00\xd8\n\x00y")
    rows, bad = read(tmp_path / "in.csv", {"encoding": "utf-16"}, a=pa.string(), b=pa.int64())
    assert rows == [{"a": "é", "b": 1}, {"a": "x", "b": 2}]
    assert [row.position for row in bad] == [13, 17]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "shift_jis"])
def test_broken_copies_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    """Rows are right or dead letters, and nothing is raised."""
    rng = random.Random(encoding)
    names = [f"{n}-naïve" if encoding != "shift_jis" else f"{n}-表能" for n in range(12)]
    content = ("a;b;c\n" + "".join(f"{name}; {n}.5;'x'';{n}'\n" for n, name in enumerate(names))).encode(encoding)
    options = {"encoding": encoding, "delimiter": ";", "quote": "'", "trim": True}
    whole, refused = 0, 0
    for _ in range(200):
        (tmp_path / "in.csv").write_bytes(mutated(content, rng))
        try:
            rows, bad = read(tmp_path / "in.csv", options, a=WORDS, b=pa.float32(), c=pa.string())
        except FormatError:
            # Its header cannot be read; a run makes a dead letter of such a file.
            continue
        whole += sum(row["a"] in names and row["b"] is not None for row in rows)
        refused += len(bad)
    assert whole > 500
    assert refused > 50


def test_what_is_said_of_text_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("a,b\né,1\nx,2\n".encode("cp1252"))
    _, bad = read(tmp_path / "in.csv", {}, a=pa.string(), b=pa.int64())
    assert 'set source.encoding ("cp1252")' in bad[0].message
    (tmp_path / "in.csv").write_bytes("a,b\né,1\n".encode("utf-16"))
    for format in ("csv", "json", "text"):
        with pytest.raises(FormatError, match='set source.encoding to "utf-16"'):
            reader_class(format).schema(str(tmp_path / "in.csv"), {})
    (tmp_path / "in.csv").write_bytes("a,b\né,1\n".encode("utf-16-le"))
    for format in ("csv", "json", "text"):
        with pytest.raises(FormatError, match="it has no BOM; set source.encoding to utf-16-le or utf-16-be"):
            reader_class(format).schema(str(tmp_path / "in.csv"), {"encoding": "utf-16"})
    rows, bad = read(tmp_path / "in.csv", {"encoding": "utf-16-le"}, a=pa.string(), b=pa.int64())
    assert (rows, bad) == ([{"a": "é", "b": 1}], [])


def test_json_in_other_encodings(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"a": text, "n": n}, ensure_ascii=False) + "\n" for n, text in enumerate("äöü€"))
    for encoding in ("cp1252", "utf-16"):
        (tmp_path / "in.json").write_bytes(lines.encode(encoding))
        options = {"encoding": encoding}
        schema = reader_class("json").schema(str(tmp_path / "in.json"), options)
        assert schema == pa.schema([("a", pa.string()), ("n", pa.int64())])
        reader = reader_class("json")(ReadSpec(schema, options))
        size = (tmp_path / "in.json").stat().st_size
        pieces = [p for s in reader.splits(str(tmp_path / "in.json"), size, 9) for p in reader.read(s)]
        assert all(isinstance(piece, Block) for piece in pieces)
        assert [row["a"] for p in pieces if isinstance(p, Block) for row in p.batch.to_pylist()] == list("äöü€")


# What is detected --------------------------------------------------------------------------------------------------

DETECTED: dict[str, tuple[str, bytes, str, dict[str, Any]]] = {
    "lines": ("a.txt", b"Hello, you.\nHow are you?\n", "text", {}),
    "one line": ("a.txt", b"Hello, you", "text", {}),
    "lines with as many commas, mostly": ("a.txt", b"a, b\nc\nd, e\n", "text", {}),
    "lines in cp1252": ("a.log", "grün\nblau\n".encode("cp1252"), "text", {"encoding": "cp1252"}),
    "one column": ("a.csv", b"id\n1\n2\n", "csv", {}),
    "an empty file": ("a.csv", b"", "csv", {}),
    "more columns": ("a.csv", b"a;b,c;d\n1;x,y;4\n", "csv", {"delimiter": ";"}),
    "quoted delimiters": ("a.csv", b'a;b\n"1;2";3\n"4;5;6";7\n', "csv", {"delimiter": ";"}),
    "decimal commas": ("a.csv", b"a;b\n1,5;2,5\n3,5;4,5\n", "csv", {"delimiter": ";", "decimal": ","}),
    "decimal commas and points": ("a.csv", b"a;b\n1,5;2.5\n3,5;4.5\n", "csv", {"delimiter": ";"}),
    "quoted decimal commas": ("a.csv", b'a,b\n"1,5","x"\n"3,5",y\n', "csv", {"decimal": ","}),
    "a byte that is wrong in UTF-8": ("a.csv", "a,b\né,ü\nö,\n".encode() + b"\xff,x\n", "csv", {}),
    "JSON without an extension": ("a", b' {"a": 1}\n', "json", {}),
    "JSON of a shard": ("a-00000-of-00001", b'{"a": 1}\n', "json", {}),
    "JSON in UTF-16": ("a.json", '{"a": "é"}\n'.encode("utf-16"), "json", {"encoding": "utf-16"}),
    "Parquet without an extension": ("a", b"PAR1....", "parquet", {}),
    "Avro without an extension": ("a-00001-of-00002", b"Obj\x01....", "avro", {}),
    "an image": ("a.JPG", b"\xff\xd8\xff", "bytes", {}),
    "an image without an extension": ("a", b"\x89PNG\r\n", "bytes", {}),
    "TFRecord of a shard": ("a.tfrecord-00000-of-00010.gz", b"", "tfrecord", {}),
}


@pytest.mark.parametrize("name", DETECTED)
def test_what_a_file_is(tmp_path: Path, name: str) -> None:
    file, content, format, options = DETECTED[name]
    (tmp_path / file).write_bytes(content)
    found = detection.look_at(str(tmp_path / file))
    assert (found.format, found.options) == (format, options)


def test_what_is_said_of_what_was_detected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1;2\n3;4\n")
    assert "decide: the first line looks like a row" in detection.look_at(str(tmp_path / "a.csv")).notes[-1]


@pytest.mark.parametrize("content", [b"\0\1\2\3" * 50, b"\xff\xfe\0\0a\0\0\0"], ids=["bytes", "UTF-32"])
def test_what_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FormatError):
        detection.look_at(str(tmp_path / "a"))


def test_options_that_formats_do_not_have(command: Command, tmp_path: Path) -> None:
    for format, options, said in (
        ("parquet", {"encoding": "cp1252"}, "encoding: parquet files have none, only csv, json, text"),
        ("csv", {"record": "raw"}, "record: csv files have none, only tfrecord"),
        ("csv", {"encoding": "utf-7"}, "'utf-7' is no encoding that can be read"),
        ("csv", {"encoding": "klingon"}, "'klingon' is no encoding that can be read"),
        ("csv", {"delimiter": ";", "quote": ";"}, "quote: it is the delimiter too"),
        ("csv", {"delimiter": "|", "encoding": "shift_jis"}, "'|' is a part of other characters in shift_jis"),
        ("csv", {"delimiter": "é"}, "is no character that can stand between fields"),
    ):
        config = ledger.write_config(tmp_path, format, str(tmp_path / "in.csv"), source=options)
        result = command("check", "--config", config)
        assert result.code == 2
        assert said in result.err, result
