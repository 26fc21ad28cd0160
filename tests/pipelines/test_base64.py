"""Bytes in formats of text: objects `{"b64": "..."}` of JSON, and columns of base64 in any format."""

from __future__ import annotations

import base64
import csv
import json
import random
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.formats import ReadSpec, reader_class
from pipelines.formats.base import Split
from pipelines.rows.origin import Block
from tests.support import ledger
from tests.support.commands import Command, save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Gives a hash of bytes, and of all of a list of two."""
    import tensorflow as tf

    class Hashes(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.string, "image"), tf.TensorSpec([None, 2], tf.string, "pair")]
        )
        def __call__(self, image: Any, pair: Any) -> dict[str, Any]:
            return {
                "image_hash": tf.strings.to_hash_bucket_fast(image, 1 << 40),
                "pair_hash": tf.strings.to_hash_bucket_fast(tf.strings.reduce_join(pair, axis=1), 1 << 40),
            }

    return save(Hashes(), tmp_path_factory.mktemp("hashes"))


@pytest.fixture(scope="module")
def one_input_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    import tensorflow as tf

    class Hash(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"image_hash": tf.strings.to_hash_bucket_fast(image, 1 << 40)}

    return save(Hash(), tmp_path_factory.mktemp("hash"))


def write_config(folder: Path, model: str, source: dict[str, Any], **changes: Any) -> str:
    config = {
        "source": {"type": "file", "key": "id", **source},
        "model": {"type": "saved_model", "path": model},
        "batching": {"max_rows": 64},
        "output": {"type": "file", "format": "json", "path": str(folder / "out" / "p")},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 1},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "config.json")


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": text(raw)}


def hashed(contents: list[bytes]) -> list[int]:
    import tensorflow as tf

    return [int(n) for n in tf.strings.to_hash_bucket_fast(tf.constant(contents, tf.string), 1 << 40).numpy()]


BAD = ({"b64": "no base64"}, {"b64": 7}, {"b64": None}, {}, {"other": "AAAA"}, [b64(b"a"), b64(b"b")], None)


@pytest.mark.parametrize("words", [0.0, 0.3, 1.0], ids=["objects", "objects and texts", "texts, then objects"])
def test_objects_of_json(command: Command, tmp_path: Path, model: str, words: float) -> None:
    """Whatever the first rows have, each value is what it says."""
    rng = random.Random(str(words))
    rows, good, bad = [], {}, set()
    for number in range(1_500):
        image, first, second = (rng.randbytes(rng.randint(0, 40)) for _ in range(3))
        name = f"r{number}"
        row: dict[str, Any] = {"id": name, "image": b64(image), "pair": [b64(first), b64(second)]}
        if rng.random() < 0.01 and number > 5:
            row["image"] = rng.choice(BAD)
            bad.add(name)
        elif rng.random() < 0.01 and number > 5:
            row["pair"][1] = {"b64": "?"}
            bad.add(name)
        else:
            if rng.random() < words and (words < 1 or number < 700):
                row["image"], image = "ünï", "ünï".encode()
            good[name] = (image, first + second)
        rows.append(row)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"format": "json", "path": str(tmp_path / "in.jsonl")}
    result = command("batch", "--config", write_config(tmp_path, model, source), "--json")
    assert result.code == 0, result
    books = ledger.books_of(tmp_path)
    assert {dead_letter["key"] for dead_letter in books.dead_letters} == bad
    assert len(bad) > 10
    payloads = {row["id"]: json.dumps(row).encode() for row in rows}
    assert all(dead_letter["payload"] == payloads[dead_letter["key"]] for dead_letter in books.dead_letters)
    images, pairs = (hashed([value[place] for value in good.values()]) for place in (0, 1))
    wanted = dict(zip(good, zip(images, pairs, strict=True), strict=True))
    assert {row["id"]: (row["image_hash"], row["pair_hash"]) for row in books.output} == wanted
    assert result.summary["rows_read"] == len(rows)


def write(path: Path, format: str, rows: list[dict[str, Any]]) -> None:
    if format == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "image"])
            writer.writeheader()
            writer.writerows(rows)
    elif format == "json":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=40)
    elif format == "avro":
        fields = [{"name": name, "type": ["null", "string"]} for name in ("id", "image")]
        with path.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "r", "fields": fields}, rows)
    else:
        ledger.write_records(path, map(ledger.example, rows))


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "avro", "tfrecord"])
def test_columns_of_base64(command: Command, tmp_path: Path, one_input_model: str, format: str) -> None:
    """Of any format; the column is written as it was read; what is no base64 is that row's dead letter."""
    rng = random.Random(format)
    raws = {f"r{n}": rng.choice([b"\xff\x00", b"text", rng.randbytes(30)]) for n in range(200)}
    rows: list[dict[str, Any]] = [{"id": name, "image": text(raw)} for name, raw in raws.items()]
    for number, wrong in {7: "no base64!", 50: "AAA", 51: "AAAA AAAA"}.items():
        rows[number]["image"] = wrong
        del raws[f"r{number}"]
    write(tmp_path / "in", format, rows)
    source = {"format": format, "path": str(tmp_path / "in"), "encodings": {"image": "base64"}}
    columns = {"type": "file", "format": "csv", "path": str(tmp_path / "out" / "p")}
    config = write_config(
        tmp_path, one_input_model, source, output={**columns, "columns": ["id", "image", "image_hash"]}
    )
    checked = command("check", "--config", config)
    assert "bytes in base64" in checked.out, checked
    for run in ("batch", "replay"):
        assert command(run, "--config", config).code == 0
        books = ledger.books_of(tmp_path)
        assert {dead_letter["key"] for dead_letter in books.dead_letters} == {"r7", "r50", "r51"}
        assert all("is not base64" in dead_letter["message"] for dead_letter in books.dead_letters)
    found = {row["id"]: (row["image"], int(row["image_hash"])) for row in books.output}
    hashes = hashed(list(raws.values()))
    assert found == {name: (text(raw), h) for (name, raw), h in zip(raws.items(), hashes, strict=True)}


def test_objects_in_messages(command: Command, tmp_path: Path, one_input_model: str) -> None:
    """Nobody knows before they come what messages have."""
    raws = [b"\xff\xfe", b"", b"text", bytes(range(256))]
    rows = [{"id": f"r{n}", "image": b64(raw)} for n, raw in enumerate(raws)]
    rows[2]["image"] = "text"  # type: ignore[assignment]
    (tmp_path / "messages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"type": "simulated", "path": str(tmp_path / "messages.jsonl"), "messages": 40, "rate": 0, "key": "id"}
    config = write_config(tmp_path, one_input_model, source)
    result = command("stream", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 40
    found = {row["image_hash"] for path in (tmp_path / "out").glob("p-*.jsonl") for row in ledger.read_shard(path)}
    assert found == set(hashed(raws))


def test_text_of_messages(command: Command, tmp_path: Path, one_input_model: str) -> None:
    raws = [b"\xff\xfe", b"", bytes(range(256))]
    rows = [{"id": f"r{n}", "image": text(raw)} for n, raw in enumerate(raws)] + [{"id": "bad", "image": "no base64"}]
    (tmp_path / "messages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"type": "simulated", "path": str(tmp_path / "messages.jsonl"), "messages": 40, "rate": 0, "key": "id"}
    config = write_config(tmp_path, one_input_model, {**source, "encodings": {"image": "base64"}})
    result = command("stream", "--config", config, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (30, 10)
    found = {row["image_hash"] for path in (tmp_path / "out").glob("p-*.jsonl") for row in ledger.read_shard(path)}
    assert found == set(hashed(raws))


def test_encodings_that_fit_nothing(command: Command, tmp_path: Path, strict_model: str, one_input_model: str) -> None:
    (tmp_path / "in.csv").write_text("id,mother_age,plurality,image\na,1,1,AAAA\n")
    source = {"format": "csv", "path": str(tmp_path / "in.csv"), "encodings": {"mother_age": "base64"}}
    result = command("check", "--config", write_config(tmp_path, strict_model, source))
    assert result.code == 2
    assert "feeds input 'mother_age', which takes float32, not bytes" in result.err
    source["encodings"] = {"imege": "base64"}
    result = command("check", "--config", write_config(tmp_path, one_input_model, source))
    assert result.code == 2
    assert "source.encodings: no column 'imege' in the source; did you mean 'image'?" in result.err


def test_blocks_of_objects_are_parsed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first block is parsed twice; nothing is parsed by the row."""
    rows = b"".join(b'{"a": {"b64": "AAAA"}}\n' for _ in range(1_000))
    (tmp_path / "in.json").write_bytes(rows)
    reader = reader_class("json")(ReadSpec(pa.schema([("a", pa.dictionary(pa.int32(), pa.string()))])))
    monkeypatch.setattr("pipelines.formats.text_blocks.BLOCK_BYTES", 2_000)
    monkeypatch.setattr(type(reader), "parse_alone", None)
    pieces = list(reader.read(Split(str(tmp_path / "in.json"), 0, len(rows), len(rows))))
    assert all(isinstance(piece, Block) for piece in pieces)
    assert sum(piece.rows for piece in pieces) == 1_000
