"""Keeps the ledger of a run: what went in, what came out, what became dead letters. Multisets, never sets.

Nothing here uses the code under test: files are written and read with other libraries, and predictions are those
of the SavedModel itself.
"""

from __future__ import annotations

import base64
import bz2
import csv
import functools
import glob
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

MODEL = str(Path(__file__).resolve().parents[2] / "model" / "trained" / "v1")
KEY = "source_id"
FORMATS_IN = ("csv", "json", "avro", "parquet", "orc", "tfrecord")
FORMATS_OUT = ("csv", "json", "parquet", "avro", "tfrecord")
EXTENSIONS = {name: name for name in (*FORMATS_IN, *FORMATS_OUT)} | {"json": "jsonl"}
DEFAULTS = {"alcohol_use": "Unknown", "cigarette_use": "Unknown", "gestation_weeks": "NaN"}
TEXTS = ("is_male", "mother_race", "mother_married", "cigarette_use", "alcohol_use")
NUMBERS = ("mother_age", "plurality", "gestation_weeks")
COLUMNS = (KEY, *TEXTS, *NUMBERS, "note")

Row = dict[str, Any]

SCHEMA = pa.schema(
    [(KEY, pa.string())]
    + [(name, pa.string()) for name in TEXTS]
    + [(name, pa.float64()) for name in NUMBERS]
    + [("note", pa.string())]
)
AVRO_SCHEMA = {
    "type": "record",
    "name": "birth",
    "fields": [
        {"name": field.name, "type": ["null", "double" if pa.types.is_floating(field.type) else "string"]}
        for field in SCHEMA
    ],
}


def births(count: int, seed: int, prefix: str = "r") -> list[Row]:
    """Rows for the packaged model. `note` is fed to nobody; it holds what is hard to read."""
    rng = random.Random(seed)
    notes = ("", "plain", 'says "hi"', "a,b", "two\nlines", "x\r\ny", "ünïcödé ☃", '"', ",", "r1,True,White,20")
    return [
        {
            KEY: f"{prefix}{number:06d}",
            "is_male": rng.choice(["True", "False", "Unknown"]),
            "mother_race": rng.choice(["White", "Black", "Chinese", "not heard of"]),
            "mother_married": rng.choice(["True", "False"]),
            "cigarette_use": rng.choice(["True", "False", None]),
            "alcohol_use": rng.choice(["True", "False", None]),
            "mother_age": float(rng.randint(13, 50)),
            "plurality": float(rng.randint(1, 5)),
            "gestation_weeks": rng.choice([None, rng.randint(200, 450) / 10]),
            "note": rng.choice(notes),
        }
        for number in range(count)
    ]


def csv_field(value: Any, rng: random.Random | None = None) -> str:
    """A value as a CSV field, quoted where it must be, and sometimes where it need not."""
    if value is None:
        return ""
    text = str(value)
    if any(c in text for c in ',"\r\n') or (rng is not None and text and rng.random() < 0.2):
        return '"' + text.replace('"', '""') + '"'
    return text


def csv_row(row: Mapping[str, Any], rng: random.Random | None = None, columns: Sequence[str] = COLUMNS) -> bytes:
    """A row as CSV, without its line end."""
    return ",".join(csv_field(row[name], rng) for name in columns).encode()


def json_row(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON, without its line end."""
    return json.dumps(row, ensure_ascii=False).encode()


def example(row: Mapping[str, Any]) -> bytes:
    """A row as a serialized tf.Example; a missing value is a missing feature."""
    import tensorflow as tf

    features = {}
    for name, value in row.items():
        if isinstance(value, float):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        elif value is not None:
            data = value if isinstance(value, bytes) else str(value).encode()
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True))


def lines(rows: Iterable[bytes], header: bytes | None = None, end: bytes = b"\n") -> bytes:
    """Rows of text as the content of a file."""
    return b"".join(row + end for row in ([header] if header is not None else []) + list(rows))


HEADER = ",".join(COLUMNS).encode()


def table(rows: Sequence[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as an Arrow table."""
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema)


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """A TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_rows(path: Path, format: str, rows: Sequence[Row]) -> Path:
    """A file of rows, in many blocks, row groups or stripes where the format has such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "csv":
        path.write_bytes(compressed(path, lines(map(csv_row, rows), HEADER)))
    elif format == "json":
        path.write_bytes(compressed(path, lines(map(json_row, rows))))
    elif format == "parquet":
        pq.write_table(table(rows), path, row_group_size=150)
    elif format == "orc":
        orc.write_table(table(rows), path, stripe_size=4_000, batch_size=64)
    elif format == "avro":
        with path.open("wb") as file:
            fastavro.writer(file, AVRO_SCHEMA, rows, codec="deflate", sync_interval=2_000)
    else:
        write_records(path, map(example, rows))
    return path


def compressed(path: Path, content: bytes) -> bytes:
    """Content as the file's extension asks for it."""
    if path.suffix == ".gz":
        return gzip.compress(content)
    if path.suffix == ".bz2":
        return bz2.compress(content)
    if path.suffix == ".zst":
        return bytes(pa.compress(content, codec="zstd", asbytes=True))
    return content


def document(format: str, payload: bytes) -> list[Row]:
    """The rows of a dead letter's payload."""
    if format == "parquet":
        return list(pq.read_table(io.BytesIO(payload)).to_pylist())
    if format == "orc":
        return list(orc.read_table(io.BytesIO(payload)).to_pylist())
    return [dict(row) for row in fastavro.reader(io.BytesIO(payload))]


def shards(prefix: str | Path, *, replays: bool = False) -> list[Path]:
    """The published shards under a prefix."""
    prefix = str(prefix)
    stem = glob.escape(prefix) + ("" if prefix.endswith("/") else "-")
    found = glob.glob(f"{stem}?????-of-?????.*")
    return [Path(path) for path in sorted(found + (glob.glob(f"{stem}replay-*") if replays else []))]


def plant(prefix: str | Path, shards: Mapping[str, str]) -> list[Path]:
    """Writes shards and their manifest as an earlier run would have left them: {name behind the prefix: content}."""
    from pipelines.connectors.files.publishing import manifest

    folder, stem = Path(prefix).parent, Path(prefix).name
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, content in shards.items():
        path = folder / f"{stem}{name}"
        path.write_text(content)
        made.append(path)
    listed = [manifest.Shard(name=path.name, size=path.stat().st_size, rows=1, run="01234567") for path in made]
    manifest.write(
        str(prefix),
        manifest.Manifest(
            run="01234567", name="earlier", rows_read=1, rows_written=1, rows_dead_lettered=0, shards=tuple(listed)
        ),
    )
    return made


def recounted(prefix: str | Path) -> int:
    """Counts the rows in all shards of a prefix, replays' too; the manifest must list just these, with these counts."""
    from pipelines.connectors.files.publishing import manifest

    found = manifest.read(str(prefix))
    assert found is not None
    counts = {path.name: len(read_shard(path)) for path in shards(prefix, replays=True)}
    assert counts == {shard.name: shard.rows for shard in found.shards}
    return sum(counts.values())


def read_shard(path: Path) -> list[Row]:
    """The rows of one shard of output."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".avro":
        with path.open("rb") as file:
            return [dict(row) for row in fastavro.reader(file)]
    return list(_records(path))


def _records(path: Path) -> Iterable[Row]:
    import tensorflow as tf

    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        row: Row = {}
        for name, feature in tf.train.Example.FromString(record).features.feature.items():
            kind = feature.WhichOneof("kind")
            value = getattr(feature, kind).value[0]
            row[name] = value.decode() if kind == "bytes_list" else value
        yield row


def dead_letters(prefix: str | Path) -> list[Row]:
    """The dead letters under a prefix, payloads as bytes."""
    found = []
    for path in shards(prefix):
        for line in path.read_bytes().splitlines():
            dead_letter = json.loads(line)
            dead_letter["payload"] = base64.b64decode(dead_letter["payload"], validate=True)
            found.append(dead_letter)
    return found


@dataclass(frozen=True)
class Books:
    """What a run left.

    Attributes:
      output: rows of all shards, replays' too.
      dead_letters: dead letters.
    """

    output: list[Row]
    dead_letters: list[Row]

    @property
    def keys(self) -> Counter[str]:
        """Keys of the output."""
        return Counter(str(row.get(KEY, row.get("key"))) for row in self.output)

    @property
    def letter_keys(self) -> Counter[str]:
        """Keys of the dead letters."""
        return Counter(dead_letter["key"] for dead_letter in self.dead_letters)

    @property
    def letter_rows(self) -> int:
        """Rows that the dead letters stand for: a range that cannot be read is one of them."""
        return sum(dead_letter.get("rows", 1) for dead_letter in self.dead_letters)

    @property
    def predictions(self) -> dict[str, np.float32]:
        """Prediction by key."""
        return {str(row.get(KEY, row.get("key"))): np.float32(row["predictions"]) for row in self.output}


def read_books(output: str | Path, dead_letters_at: str | Path) -> Books:
    """Reads what a run left."""
    rows = [row for path in shards(output, replays=True) for row in read_shard(path)]
    return Books(rows, dead_letters(dead_letters_at))


def assert_balanced(books: Books, good: Sequence[Row], bad: Mapping[str, bytes | None], model: str = MODEL) -> None:
    """Every row in is in the output or in the dead letters, once; and what came out is right.

    Args:
      books: what the run left.
      good: rows that must have a prediction.
      bad: key of each row that must be a dead letter -> its bytes; None where there is no telling.
      model: the SavedModel.
    """
    expected = Counter(row[KEY] for row in good)
    assert books.keys - expected == Counter(), "rows in the output that should not be there, or twice"
    assert expected - books.keys == Counter(), "rows missing from the output"
    assert books.letter_keys == Counter(list(bad)), "the dead letters are not the bad rows"
    assert not set(books.keys) & set(books.letter_keys)
    for dead_letter in books.dead_letters:
        payload = bad[dead_letter["key"]]
        if payload is not None:
            assert dead_letter["payload"] == payload, dead_letter["key"]
        assert dead_letter["message"], dead_letter
        assert dead_letter["stage"] in ("decode", "coerce", "predict", "encode", "write")
        assert dead_letter["attempts"] >= 1
        assert model in dead_letter["model"]
    assert_predictions(books, good, model)


def assert_predictions(books: Books, rows: Sequence[Row], model: str = MODEL) -> None:
    """The predictions of `rows` are those of the model itself, to the last bit."""
    found = books.predictions
    for row, wanted in zip(rows, direct(rows, model), strict=True):
        assert found[row[KEY]] == wanted, row


@functools.cache
def _signature(model: str) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    return loaded, loaded.signatures["serving_default"]


def direct(rows: Sequence[Row], model: str = MODEL) -> list[np.float32]:
    """The model's own answer, without any of our code; missing values as DEFAULTS has them."""
    import tensorflow as tf

    if not rows:
        return []
    _, signature = _signature(model)
    tensors = {}
    for name, spec in signature.structured_input_signature[1].items():
        values = [DEFAULTS[name] if row[name] is None else row[name] for row in rows]
        if spec.dtype == tf.string:
            tensors[name] = tf.constant(values)
        else:
            tensors[name] = tf.constant(np.array([float(value) for value in values], np.float32))
    return list(signature(**tensors)["predictions"].numpy().reshape(-1))


def write_config(folder: Path, format: str, path: Any, output_format: str = "csv", **changes: Any) -> str:
    """A config of a run in `folder`; returns its path. `changes` are laid over its parts."""
    config: dict[str, Any] = {
        "name": "births",
        "source": {"type": "file", "format": format, "path": path, "key": KEY, "defaults": DEFAULTS},
        "model": {"type": "saved_model", "path": MODEL},
        "batching": {"max_rows": 512},
        "output": {"type": "file", "format": output_format, "path": str(folder / "out" / "p")},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 1},
    }
    for part, values in changes.items():
        config[part] = {**config[part], **values} if isinstance(values, dict) else values
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return str(file)


def books_of(folder: Path) -> Books:
    """What a run with `write_config(folder, ...)` left."""
    return read_books(folder / "out" / "p", folder / "out" / "dead")
