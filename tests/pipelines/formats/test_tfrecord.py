from __future__ import annotations

import gzip
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2

from pipelines.formats.base import FormatError, ReadSpec, Split
from pipelines.formats.tfrecord import frames as tfrecord_frames
from pipelines.formats.tfrecord import reader as tfrecord
from pipelines.formats.tfrecord.reader import TFRecordReader
from pipelines.formats.tfrecord.writer import TFRecordWriter
from pipelines.rows.origin import Block, RejectedRow

COLUMNS = pa.schema(
    [("name", pa.string()), ("key", pa.int64()), ("v", pa.list_(pa.float32())), ("missing", pa.float32())]
)


def example(**features: Any) -> bytes:
    message = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = message.features.feature[name]
        if isinstance(values[0], float):
            feature.float_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
    serialized: bytes = message.SerializeToString()
    return serialized


def record(i: int) -> bytes:
    optional = {} if i % 7 == 0 else {"name": f"n{i % 5}"}
    return example(unused=f"u{i}", key=i, v=[float(i), 0.5], **optional)


RECORDS = [record(i) for i in range(1000)]


def framed(records: list[bytes]) -> bytes:
    return bytes(tfrecord_frames.frame(pa.array(records, pa.large_binary())))


CONTENT = framed(RECORDS)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def run(reader: TFRecordReader, splits: list[Split]) -> tuple[list[Block], list[RejectedRow]]:
    found = [item for split in splits for item in reader.read(split)]
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


def everything(file: str, columns: pa.Schema = COLUMNS, options: Any = None) -> tuple[list[Block], list[RejectedRow]]:
    reader = TFRecordReader(ReadSpec(columns, options or {}))
    return run(reader, reader.splits(file, Path(file).stat().st_size, 1 << 30))


def column(blocks: list[Block], name: str = "key") -> list[Any]:
    return [value for block in blocks for value in block.batch.column(name).to_pylist()]


def offsets(records: list[bytes]) -> list[int]:
    return [0, *np.cumsum([len(r) + 16 for r in records]).tolist()]


def test_framing_is_tensorflow_s(tmp_path: Path) -> None:
    file = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(file) as writer:
        for data in [b"", b"x" * 300, *RECORDS[:20]]:
            writer.write(data)
    assert Path(file).read_bytes() == framed([b"", b"x" * 300, *RECORDS[:20]])


@pytest.mark.parametrize("packed", [False, True])
def test_rows_come_out_as_they_were_written(tmp_path: Path, packed: bool) -> None:
    # Two gzip members, as concatenated files have.
    content = gzip.compress(CONTENT[:5000]) + gzip.compress(CONTENT[5000:]) if packed else CONTENT
    file = write(tmp_path / ("a.tfrecord.gz" if packed else "a.tfrecord"), content)
    blocks, rejected = everything(file)
    assert not rejected
    assert all(block.batch.schema.equals(COLUMNS) for block in blocks)
    assert column(blocks) == list(range(1000))
    assert column(blocks, "name") == [None if i % 7 == 0 else f"n{i % 5}" for i in range(1000)]
    assert column(blocks, "v") == [[float(i), 0.5] for i in range(1000)]
    assert column(blocks, "missing") == [None] * 1000
    assert blocks[0].origin.positions().tolist() == offsets(RECORDS)[:-1]


def test_schema_and_sample(tmp_path: Path) -> None:
    records = [*RECORDS[:3], example(raw=b"\xff", key=7)]
    file = write(tmp_path / "a.tfrecord", framed(records))
    expected = {
        "key": pa.int64(),
        "name": pa.string(),
        "raw": pa.binary(),
        "unused": pa.string(),
        "v": pa.list_(pa.float32()),
    }
    schema = TFRecordReader.schema(file, {})
    assert dict(zip(schema.names, schema.types, strict=True)) == expected
    assert TFRecordReader.schema(file, {"record_column": "r"}).field("r").type == pa.binary()
    assert TFRecordReader.sample(file, {}, 2).column("key").to_pylist() == [0, 1]
    assert TFRecordReader.sample(file, {}, 99).column("raw").to_pylist() == [None, None, None, b"\xff"]


@pytest.mark.parametrize("split_bytes", [1, 1000, 33_333, 1 << 30])
def test_splits_cover_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split_bytes: int) -> None:
    monkeypatch.setattr(tfrecord, "_HEAD_BYTES", 300)
    big = [*RECORDS[:500], example(key=-1, unused="x" * 5000), *RECORDS[500:]]
    content = framed(big)
    file = write(tmp_path / "a.tfrecord", content)
    reader = pickle.loads(pickle.dumps(TFRecordReader(ReadSpec(COLUMNS))))
    splits = reader.splits(file, len(content), split_bytes)
    assert len(splits) == {1: 1001, 1 << 30: 1}.get(split_bytes, len(splits))
    assert sum(split.nbytes for split in splits) == len(content)
    blocks, rejected = run(reader, splits)
    assert not rejected
    assert sorted(column(blocks)) == [-1, *range(1000)]
    assert [p for b in blocks for p in b.origin.positions().tolist()] == offsets(big)[:-1]


@pytest.mark.parametrize("block_bytes", [1, 100, 5000])
def test_block_sizes_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(tfrecord, "BLOCK_BYTES", block_bytes)
    records = [*RECORDS[:30], example(key=-1, unused="x" * 5000), *RECORDS[30:60]]
    blocks, rejected = everything(write(tmp_path / "a.tfrecord", framed(records)))
    assert not rejected
    assert column(blocks) == [*range(30), -1, *range(30, 60)]


def test_the_whole_record_can_be_a_column(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tfrecord", framed([*RECORDS, b"not an example"]))
    alone, rejected = everything(file, pa.schema([("r", pa.binary())]), {"record_column": "r"})
    assert not rejected
    assert column(alone, "r") == [*RECORDS, b"not an example"]
    both = pa.schema([("key", pa.int64()), ("r", pa.binary())])
    blocks, rejected = everything(file, both, {"record_column": "r"})
    assert [r.payload for r in rejected] == [b"not an example"]
    assert (column(blocks), column(blocks, "r")) == (list(range(1000)), RECORDS)


def test_the_kind_in_the_file_counts(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tfrecord", framed([example(i=3, f=1.5), example(i=4, f=2.5)]))
    asked = pa.schema([("i", pa.float32()), ("f", pa.float64())])
    blocks, _ = everything(file, asked)
    assert blocks[0].batch.schema.types == [pa.int64(), pa.float64()]
    assert blocks[0].batch.to_pylist() == [{"i": 3, "f": 1.5}, {"i": 4, "f": 2.5}]


def test_bad_records_are_rejected_alone(tmp_path: Path) -> None:
    records = list(RECORDS)
    records[3] = b"not an example"
    records[50] = example(key=[1, 2], v=[1.0])
    records[51] = example(key=51, name=b"\xff")
    records[700] = example(key="text")
    blocks, rejected = everything(write(tmp_path / "a.tfrecord", framed(records)))
    bad = (3, 50, 51, 700)
    assert column(blocks) == [i for i in range(1000) if i not in bad]
    starts = offsets(records)
    assert {r.position: r.payload for r in rejected} == {starts[i]: records[i] for i in bad}
    messages = {r.position: r.message for r in rejected}
    assert "2 values" in messages[starts[50]]
    assert 'column "name"' in messages[starts[51]]
    positions = [p for block in blocks for p in block.origin.positions().tolist()]
    assert positions == [starts[i] for i in range(1000) if i not in bad]


def test_a_payload_is_the_record_and_replays(tmp_path: Path) -> None:
    blocks, _ = everything(write(tmp_path / "a.tfrecord", CONTENT))
    origin = pickle.loads(pickle.dumps(blocks[0].origin))
    assert origin.payload(11) == RECORDS[11]
    reader = TFRecordReader(ReadSpec(COLUMNS))
    (again,) = reader.replay(origin.payload(11), origin.format, "dead letter")
    assert isinstance(again, Block)
    assert again.batch.to_pylist() == blocks[0].batch.slice(11, 1).to_pylist()
    assert again.origin.payload(0) == RECORDS[11]


def test_a_file_without_bytes_has_no_rows(tmp_path: Path) -> None:
    for name in ("a.tfrecord", "a.tfrecord.gz"):
        file = write(tmp_path / name, b"")
        assert everything(file) == ([], [])
        assert TFRecordReader.schema(file, {}) == pa.schema([])
        assert TFRecordReader.sample(file, {}, 3).num_rows == 0


def test_wrong_data_is_one_dead_letter_that_stays_wrong_when_replayed(tmp_path: Path) -> None:
    starts = offsets(RECORDS)
    content = bytearray(CONTENT)
    content[starts[5] + 20] ^= 1
    blocks, (rejected,) = everything(write(tmp_path / "a.tfrecord", bytes(content)))
    assert column(blocks) == [i for i in range(1000) if i != 5]
    assert rejected.payload == content[starts[5] : starts[6]]
    assert rejected.position == starts[5]
    (again,) = TFRecordReader(ReadSpec(COLUMNS)).replay(rejected.payload, {}, "x")
    assert isinstance(again, RejectedRow)
    assert "checksum" in again.message


@pytest.mark.parametrize("kind", ["length", "truncated", "truncated in a header", "huge"])
def test_what_follows_a_broken_frame_is_one_dead_letter(tmp_path: Path, kind: str) -> None:
    at = offsets(RECORDS)[600]
    content = bytearray(CONTENT)
    if kind == "length":
        content[at] ^= 1
    elif kind == "huge":
        content[at : at + 8] = b"\xff" * 7 + b"\x7f"
    else:
        del content[at + (5 if "header" in kind else 20) :]
    file = write(tmp_path / "a.tfrecord", bytes(content))
    for split_bytes in (10_000, 1 << 30):
        reader = TFRecordReader(ReadSpec(COLUMNS))
        blocks, rejected = run(reader, reader.splits(file, len(content), split_bytes))
        assert column(blocks) == list(range(600))
        assert [(r.position, r.truncated) for r in rejected] == [(at, False)]
        assert rejected[0].payload == content[at:]
        assert all(isinstance(i, RejectedRow) for i in reader.replay(rejected[0].payload, {}, "x"))


def test_a_long_record_is_passed_and_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "MAX_ROW_BYTES", 20_000)
    monkeypatch.setattr(tfrecord, "MAX_PAYLOAD_BYTES", 30_000)
    monkeypatch.setattr(tfrecord, "BLOCK_BYTES", 700)
    records = [*RECORDS[:5], b"a" * 25_000, RECORDS[5], b"b" * 40_000, *RECORDS[6:20], b"c" * 21_000]
    blocks, rejected = everything(write(tmp_path / "a.tfrecord", framed(records)))
    assert column(blocks) == list(range(20))
    assert [r.payload for r in rejected] == [b"a" * 25_000, b"b" * 30_000, b"c" * 21_000]
    assert [r.truncated for r in rejected] == [False, True, False]
    starts = offsets(records)
    assert [r.position for r in rejected] == [starts[5], starts[7], starts[-2]]


@pytest.mark.parametrize("kind", ["truncated", "corrupt"])
def test_a_damaged_gzip_file_keeps_what_was_unpacked(tmp_path: Path, kind: str) -> None:
    content = bytearray(gzip.compress(b"".join(framed([r]) for r in RECORDS), 1))
    if kind == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2 :] = b"\xff" * (len(content) // 2)
    blocks, rejected = everything(write(tmp_path / "a.tfrecord.gz", bytes(content)))
    good = column(blocks)
    assert 0 < len(good) < 1000
    assert good == list(range(len(good)))
    assert rejected
    assert rejected[-1].truncated
    assert "gzip" in rejected[-1].message


@pytest.mark.parametrize("content", [b"a", b"junk" * 100, b"\0" * 64])
def test_another_file_is_one_dead_letter(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "a.tfrecord", content)
    blocks, (rejected,) = everything(file)
    assert not blocks
    assert rejected.payload == content
    with pytest.raises(FormatError, match="a.tfrecord"):
        TFRecordReader.schema(file, {})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_corruption_raises(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(framed(RECORDS[:30]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = write(tmp_path_factory.getbasetemp() / "fuzz.tfrecord", bytes(content))
    blocks, rejected = everything(file)
    keys = column(blocks)
    assert len(keys) == len(set(keys))
    assert len(keys) == 30 or rejected


SCALAR = {
    "i": st.integers(-(1 << 63), (1 << 63) - 1),
    "b": st.booleans(),
    "f": st.floats(width=32, allow_nan=False),
    "s": st.text(max_size=200),
    "raw": st.binary(max_size=5),
}
ROW = st.fixed_dictionaries(
    {name: st.none() | values for name, values in SCALAR.items()}
    | {f"{name}s": st.none() | st.lists(values, max_size=3) for name, values in SCALAR.items()}
)
TYPES = {"i": pa.int64(), "b": pa.bool_(), "f": pa.float32(), "s": pa.string(), "raw": pa.binary()}
TABLE = pa.schema([*TYPES.items(), *((f"{name}s", pa.list_(type)) for name, type in TYPES.items())])


def written(batches: list[pa.RecordBatch], options: dict[str, Any]) -> list[bytes]:
    sink = io.BytesIO()
    writer = TFRecordWriter(sink, batches[0].schema, options)
    for batch in batches:
        writer.write(batch)
    writer.close()
    assert not sink.closed
    data = sink.getvalue()
    found, good = tfrecord_frames.records(data, np.array(tfrecord_frames.walk(data)))
    assert good.all()
    return found


def features(data: bytes) -> dict[str, list[Any]]:
    parsed = tf.train.Example.FromString(data).features.feature
    return {name: list(getattr(f, f.WhichOneof("kind")).value) for name, f in parsed.items()}


def expected_features(row: dict[str, Any]) -> dict[str, list[Any]]:
    lists = {k: v if isinstance(v, list) else [v] for k, v in row.items() if v is not None}
    return {k: [v.encode() if isinstance(v, str) else v for v in values] for k, values in lists.items()}


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.integers(0, 2), st.integers(1, 5))
def test_any_rows_become_their_examples(rows: list[Any], skip: int, size: int) -> None:
    batches = pa.Table.from_pylist(rows, TABLE).slice(skip).to_batches(max_chunksize=size)
    if batches:
        assert [features(r) for r in written(batches, {})] == [expected_features(r) for r in rows[skip:]]


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.integers(0, 2))
def test_any_rows_become_their_prediction_logs(rows: list[Any], skip: int) -> None:
    batches = pa.Table.from_pylist(rows, TABLE).slice(skip).to_batches()
    outputs = ["f", "fs", "i", "is", "s", "ss", "b", "bs"]
    options = {"record": "prediction_log", "outputs": outputs, "model": "m", "signature": "s"}
    if not batches:
        return
    for row, data in zip(rows[skip:], written(batches, options), strict=True):
        log = prediction_log_pb2.PredictionLog.FromString(data).predict_log
        assert (log.request.model_spec.name, log.request.model_spec.signature_name) == ("m", "s")
        (serialized,) = tf.make_ndarray(log.request.inputs["examples"])
        inputs = {name: value for name, value in row.items() if name not in outputs}
        assert features(serialized) == expected_features(inputs)
        assert set(log.response.outputs) == {name for name in outputs if row[name] is not None}
        for name, tensor in log.response.outputs.items():
            values = tf.make_ndarray(tensor)
            wanted = row[name] if isinstance(row[name], list) else [row[name]]
            assert values.shape == ((1, len(wanted)) if isinstance(row[name], list) else (1,))
            assert [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()] == wanted


def test_tensorflow_reads_what_is_written(tmp_path: Path) -> None:
    batch = pa.record_batch({"key": list(range(1000)), "text": [f"é{i}" * (i % 300) for i in range(1000)]})
    with open(tmp_path / "a.tfrecord", "wb") as file:
        TFRecordWriter(file, batch.schema, {}).write(batch)
    read = list(tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord")).as_numpy_iterator())
    assert [features(r)["key"] for r in read] == [[i] for i in range(1000)]
    blocks, rejected = everything(str(tmp_path / "a.tfrecord"), batch.schema)
    assert not rejected
    assert blocks[0].batch.equals(batch)


def test_float64_and_other_types_are_written_as_documented() -> None:
    values = [0.1, None]
    batch = pa.record_batch(
        {
            "d": pa.array(values, pa.float64()),
            "h": pa.array(np.array([1.5, 2.5], np.float16)),
            "u": pa.array([1, 2], pa.uint8()),
            "c": pa.array(["a", None]).dictionary_encode(),
            "x": pa.array([1.25, 2.5]).cast(pa.decimal128(5, 2)),
        }
    )
    first, second = (features(r) for r in written([batch], {}))
    (rounded,) = struct.unpack("<f", struct.pack("<f", 0.1))
    assert first == {"d": [rounded], "h": [1.5], "u": [1], "c": [b"a"], "x": [b"1.25"]}
    assert second == {"h": [2.5], "u": [2], "x": [b"2.50"]}
    (log, _) = written([batch], {"record": "prediction_log", "outputs": ["d"]})
    outputs = prediction_log_pb2.PredictionLog.FromString(log).predict_log.response.outputs
    assert tf.make_ndarray(outputs["d"]).tolist() == [0.1]


def test_writer_refuses_a_bad_batch_before_anything_is_in_the_file() -> None:
    sink = io.BytesIO()
    writer = TFRecordWriter(sink, pa.schema([("v", pa.list_(pa.float32()))]), {})
    with pytest.raises(pa.ArrowInvalid, match="null within a list"):
        writer.write(pa.record_batch({"v": pa.array([[1.0], [None]], pa.list_(pa.float32()))}))
    with pytest.raises(FormatError):
        writer.write(pa.record_batch({"t": ["a"]}))
    assert sink.getvalue() == b""


def test_wrong_options_and_types_are_named() -> None:
    schema = pa.schema([("a", pa.int64())])
    with pytest.raises(FormatError, match="'json'"):
        TFRecordWriter(io.BytesIO(), schema, {"record": "json"})
    with pytest.raises(FormatError, match="columns b"):
        TFRecordWriter(io.BytesIO(), schema, {"record": "prediction_log", "outputs": ["b"]})
    with pytest.raises(FormatError, match="struct"):
        TFRecordWriter(io.BytesIO(), pa.schema([("a", pa.struct([("x", pa.int64())]))]), {})
    assert TFRecordWriter.output_type(pa.float16()) == pa.float32()
    assert TFRecordWriter.output_type(pa.date32()) == pa.string()
