"""Lines of text, raw records and whole files through the commands: a model's one text input gets them by itself."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.formats import whole_files
from tests.support import ledger
from tests.support.commands import Command, Result, save
from tests.support.mutations import mutated

Cut = Callable[[int, int], None]


@pytest.fixture(scope="module")
def measuring_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Gives the bytes of a text, and refuses a whole batch if a text in it begins with BAD."""
    import tensorflow as tf

    class Measures(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "content")])
        def __call__(self, content: Any) -> dict[str, Any]:
            bad = tf.strings.regex_full_match(content, "BAD(?s:.*)")
            with tf.control_dependencies([tf.debugging.assert_equal(bad, False)]):
                return {"length": tf.strings.length(content), "hash": tf.strings.to_hash_bucket_fast(content, 1 << 40)}

    return save(Measures(), tmp_path_factory.mktemp("measures"))


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Gives the mean of an image's pixels."""
    import tensorflow as tf

    class Means(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def __call__(self, image_bytes: Any) -> dict[str, Any]:
            def mean(image: Any) -> Any:
                return tf.reduce_mean(tf.cast(tf.io.decode_image(image, 3, expand_animations=False), tf.float32))

            return {"mean": tf.map_fn(mean, image_bytes, fn_output_signature=tf.float32)}

    return save(Means(), tmp_path_factory.mktemp("means"))


def write_config(folder: Path, model: str, **source: Any) -> str:
    config = {
        "source": {"type": "file", **source},
        "model": {"type": "saved_model", "path": model},
        "batching": {"max_rows": 256},
        "output": {"type": "file", "format": "json", "path": str(folder / "out" / "p")},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "config.json")


def run(command: Command, folder: Path, model: str, **source: Any) -> tuple[Result, ledger.Books]:
    result = command("batch", "--config", write_config(folder, model, **source), "--json")
    assert result.code == 0, result
    assert "Traceback" not in result.err
    books = ledger.books_of(folder)
    summary = result.summary
    assert summary["rows_written"] == len(books.output) == ledger.recounted(folder / "out" / "p")
    assert summary["rows_dead_lettered"] == len(books.dead_letters)
    assert summary["rows_read"] == len(books.output) + len(books.dead_letters)
    return result, books


def hashed(contents: list[bytes]) -> list[int]:
    import tensorflow as tf

    return [int(n) for n in tf.strings.to_hash_bucket_fast(tf.constant(contents, tf.string), 1 << 40).numpy()]


# Text ---------------------------------------------------------------------------------------------------------------

WORDS = ("", "a", "two words", "ünïcödé ☃", '"quoted"', "a,b;c\td", " spaces ", "nul\0nul", "x" * 700, "{}", "BAD line")
ENDS = (b"\n", b"\n", b"\r\n", b"\r")


def text_file(rng: random.Random, rows: int, encoding: str = "utf-8") -> tuple[bytes, dict[int, bytes]]:
    """A file of lines, and its lines by their positions."""
    content, lines = b"", {}
    for _ in range(rows):
        line = rng.choice(WORDS).encode(encoding, "replace")
        if rng.random() < 0.03:
            line = b"not UTF-8 \xff" if encoding == "utf-8" else line
        lines[len(content)] = line
        content += line + rng.choice(ENDS)
        if content.endswith(b"\r") and rng.random() < 0.5:
            # Before an empty line, a carriage return and a newline would be one line end.
            content = content[:-1] + b"\n"
        elif content.endswith(b"\r"):
            lines[len(content)] = b"."
            content += b".\n"
    return content, lines


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_text(command: Command, tmp_path: Path, measuring_model: str, small_pieces: Cut, packed: bool) -> None:
    expected: dict[str, bytes] = {}
    for number in range(3):
        content, lines = text_file(random.Random(number), 900)
        path = tmp_path / f"in-{number}.txt{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
        expected |= {f"{path}:{position}": line for position, line in lines.items()}
    (tmp_path / f"in-empty.txt{'.gz' if packed else ''}").write_bytes(gzip.compress(b"") if packed else b"")
    _, books = run(command, tmp_path, measuring_model, format="text", path=str(tmp_path / "in-*"))
    bad = {key: line for key, line in expected.items() if line.startswith(b"BAD") or b"\xff" in line}
    assert {dead_letter["key"]: dead_letter["payload"] for dead_letter in books.dead_letters} == bad
    assert len(bad) > 200
    good = {key: line for key, line in expected.items() if key not in bad}
    found = {row["key"]: row["hash"] for row in books.output}
    assert found == dict(zip(good, hashed(list(good.values())), strict=True))
    stages = {dead_letter["stage"] for dead_letter in books.dead_letters}
    assert stages == {"decode", "predict"}


def test_text_is_replayed(command: Command, tmp_path: Path, measuring_model: str, strict_model: str) -> None:
    content, lines = text_file(random.Random(9), 60)
    (tmp_path / "in.txt").write_bytes(content)
    bad = sum(line.startswith(b"BAD") or b"\xff" in line for line in lines.values())
    _, before = run(command, tmp_path, measuring_model, format="text", path=str(tmp_path / "in.txt"))
    (tmp_path / "in.txt").unlink()
    assert command("replay", "--config", str(tmp_path / "config.json")).code == 0
    books = ledger.books_of(tmp_path)
    assert len(books.dead_letters) == bad
    assert all(dead_letter["attempts"] == 2 for dead_letter in books.dead_letters)
    assert len(books.output) == len(before.output)


def test_a_row_and_a_line_of_text_in_another_encoding(command: Command, tmp_path: Path, measuring_model: str) -> None:
    lines = ["grüß", "", "€ 5", "naïve"]
    for encoding in ("cp1252", "utf-16", "utf-16-le"):
        (tmp_path / encoding).mkdir()
        (tmp_path / encoding / "in.txt").write_bytes("\r\n".join(lines).encode(encoding))
        _, books = run(
            command,
            tmp_path / encoding,
            measuring_model,
            format="text",
            path=str(tmp_path / encoding / "in.txt"),
            encoding=encoding,
        )
        assert sorted(row["hash"] for row in books.output) == sorted(hashed([line.encode() for line in lines]))


def test_text_of_a_long_line_and_very_many_short_ones(command: Command, tmp_path: Path, measuring_model: str) -> None:
    """The long one is a dead letter with its bytes; nothing of the others is lost."""
    giant = b"x" * (17 << 20)
    (tmp_path / "in.txt").write_bytes(b"first\n" + giant + b"\n" + b"\n" * 1_300_000 + b"last")
    result, *_ = [
        command(
            "batch",
            "--config",
            write_config(tmp_path, measuring_model, format="text", path=str(tmp_path / "in.txt")),
            "--json",
            "--set",
            "batching.max_rows=100000",
        )
    ]
    assert result.summary["rows_read"] == 1_300_003
    assert result.summary["rows_dead_lettered"] == 1
    (dead_letter,) = ledger.dead_letters(tmp_path / "out" / "dead")
    assert dead_letter["payload"] == giant
    assert dead_letter["key"] == f"{tmp_path / 'in.txt'}:6"


@pytest.mark.parametrize("format", ["text", "tfrecord"])
def test_broken_copies(command: Command, tmp_path: Path, measuring_model: str, format: str) -> None:
    """Whatever is in a file, what is read of it are beginnings of what was written, and nothing ends the run."""
    rng = random.Random(format)
    good = [f"line {n}, ünïcödé".encode() for n in range(8)]
    original = tmp_path / "original"
    if format == "text":
        original.write_bytes(gzip.compress(b"".join(line + b"\n" for line in good), mtime=0))
    else:
        ledger.write_records(original, good)
    content = original.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.gz").write_bytes(content)
    for number in range(1, 200):
        (tmp_path / "in" / f"{number}.gz").write_bytes(mutated(content, rng))
    source = {"record": "raw"} if format == "tfrecord" else {}
    _, books = run(command, tmp_path, measuring_model, format=format, path=str(tmp_path / "in"), **source)
    hashes = set(hashed(good))
    right = sum(row["hash"] in hashes for row in books.output)
    assert right >= 8
    if format == "tfrecord":  # it has checksums
        assert right == len(books.output)
    assert len(books.dead_letters) > 50


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "avro", "tfrecord"])
def test_content_is_written_to_every_format(
    command: Command, tmp_path: Path, measuring_model: str, format: str
) -> None:
    lines = ["", "a line", 'ünï, "quoted"']
    (tmp_path / "in.txt").write_text("\n".join(lines))
    config = write_config(tmp_path, measuring_model, format="text", path=str(tmp_path / "in.txt"))
    columns = json.dumps(["key", "line", "length"])
    result = command(
        "batch", "--config", config, "--set", f"output.format={format}", "--set", f"output.columns={columns}"
    )
    assert result.code == 0, result
    written = [row for path in ledger.shards(tmp_path / "out" / "p") for row in ledger.read_shard(path)]
    assert [row["line"] for row in written] == lines
    assert [int(row["length"]) for row in written] == [len(line.encode()) for line in lines]


# Records ------------------------------------------------------------------------------------------------------------


def test_raw_records(command: Command, tmp_path: Path, measuring_model: str, small_pieces: Cut) -> None:
    rng = random.Random(1)
    records = [rng.choice([b"", b"BAD one", b"a record", rng.randbytes(rng.randint(1, 400))]) for _ in range(400)]
    ledger.write_records(tmp_path / "in.tfrecord", records)
    _, books = run(
        command, tmp_path, measuring_model, format="tfrecord", record="raw", path=str(tmp_path / "in.tfrecord")
    )
    bad = [record for record in records if record.startswith(b"BAD")]
    assert [dead_letter["payload"] for dead_letter in books.dead_letters] == bad
    assert sorted(row["hash"] for row in books.output) == sorted(hashed([r for r in records if r not in bad]))


def test_sequence_examples(command: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model that parses them takes raw records; `init` sees that."""
    import tensorflow as tf

    class Sums(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "sequences")])
        def __call__(self, sequences: Any) -> dict[str, Any]:
            def total(record: Any) -> Any:
                _, lists = tf.io.parse_single_sequence_example(
                    record, sequence_features={"n": tf.io.FixedLenSequenceFeature([], tf.int64)}
                )
                return tf.reduce_sum(lists["n"])

            return {"total": tf.map_fn(total, sequences, fn_output_signature=tf.int64)}

    model = save(Sums(), tmp_path_factory.mktemp("sums"))

    def sequence(values: list[int]) -> bytes:
        made = tf.train.SequenceExample()
        for value in values:
            made.feature_lists.feature_list["n"].feature.add().int64_list.value.append(value)
        return bytes(made.SerializeToString())

    ledger.write_records(tmp_path / "in.tfrecord-00000-of-00001", [sequence([1, 2]), sequence([4]), sequence([5])])
    config = tmp_path / "config.json"
    result = command("init", "--model", model, "--source", str(tmp_path / "in.tfrecord-*"), "--output", str(config))
    assert result.code == 0, result
    assert json.loads(config.read_text())["source"]["record"] == "raw"
    out = ("--set", f"output.path={tmp_path}/out/p", "--set", f"dead_letters.path={tmp_path}/out/dead")
    assert command("check", "--config", str(config), *out).code == 0
    assert command("batch", "--config", str(config), *out).code == 0
    assert [row["total"] for row in ledger.books_of(tmp_path).output] == [3, 4, 5]


# Files --------------------------------------------------------------------------------------------------------------


def png(red: int) -> bytes:
    """An image of one colour."""
    import tensorflow as tf

    return bytes(tf.io.encode_png(tf.fill([4, 5, 3], tf.constant(red, tf.uint8))).numpy())


def test_images_at_the_first_try(command: Command, tmp_path: Path, image_model: str) -> None:
    images = tmp_path / "images"
    for number in range(300):
        path = images / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number % 200) if number != 77 else b"no image")
    config = tmp_path / "config.json"
    source = ("--source", f"{images}/**/*.png")
    result = command("init", "--model", image_model, *source, "--output", str(config))
    assert result.code == 0, result
    written = json.loads(config.read_text())
    assert (written["source"]["format"], written["output"]["format"]) == ("bytes", "json")
    assert written["batching"]["max_rows"] < 1000
    out = ("--set", f"output.path={tmp_path}/out/p", "--set", f"dead_letters.path={tmp_path}/out/dead")
    checked = command("check", "--config", str(config), *out)
    assert checked.code == 0, checked
    assert "image_bytes" in checked.out
    result = command("batch", "--config", str(config), *out, "--json")
    assert result.code == 0, result
    books = ledger.books_of(tmp_path)
    found = {row["path"]: row["mean"] for row in books.output}
    assert found == {str(path): float(int(path.stem) % 200) for path in images.rglob("*.png") if path.stem != "77"}
    (dead_letter,) = books.dead_letters
    assert (dead_letter["key"], dead_letter["payload"]) == (str(images / "cat" / "77.png"), b"no image")
    assert dead_letter["source"] == f"{images}/cat/77.png:0"


def test_files_of_every_kind(
    command: Command, tmp_path: Path, measuring_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_files, "BATCH_BYTES", 1_000)
    monkeypatch.setattr(whole_files, "MAX_FILES", 20)
    monkeypatch.setattr(whole_files, "MAX_FILE_BYTES", 3_000)
    rng = random.Random(3)
    contents = {f"{number:03d}": rng.randbytes(rng.choice([0, 1, 50, 400, 2_000])) for number in range(150)}
    contents |= {"empty": b"", "packed.gz": gzip.compress(b"x"), "BAD": b"BAD file", "giant": b"x" * 3_001}
    folder = tmp_path / "in" / "label=a" / "n=7"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    config = write_config(tmp_path, measuring_model, format="bytes", path=str(tmp_path / "in"))
    columns = "output.columns=" + json.dumps(["path", "label", "n", "length", "hash"])
    result = command("batch", "--config", config, "--set", columns, "--json")
    assert result.code == 0, result
    books = ledger.books_of(tmp_path)
    bad = {str(folder / name) for name in ("BAD", "giant")}
    assert {dead_letter["key"] for dead_letter in books.dead_letters} == bad
    giant = next(dead_letter for dead_letter in books.dead_letters if dead_letter["key"].endswith("giant"))
    assert giant["payload"] == b""
    assert giant["payload_truncated"]
    assert "3,001 bytes" in giant["message"]
    good = {str(folder / name): content for name, content in contents.items() if str(folder / name) not in bad}
    found = {row["path"]: (row["length"], row["hash"], row["label"], row["n"]) for row in books.output}
    hashes = hashed(list(good.values()))
    assert found == {
        path: (len(content), hash, "a", 7) for (path, content), hash in zip(good.items(), hashes, strict=True)
    }
    assert result.summary["rows_read"] == len(contents) == len(found) + 2

    # What the model refused is run again from the dead letter alone, its columns included.
    shutil.rmtree(tmp_path / "in")
    assert command("replay", "--config", config, "--set", columns, "--set", "source.path=in").code == 0
    again = {dead_letter["key"]: dead_letter["attempts"] for dead_letter in ledger.books_of(tmp_path).dead_letters}
    assert again == dict.fromkeys(bad, 2)


def test_replayed_files_are_rows_of_their_paths(
    command: Command, tmp_path: Path, measuring_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model that takes what the first one refused."""
    import tensorflow as tf

    class Takes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "content")])
        def __call__(self, content: Any) -> dict[str, Any]:
            return {"length": tf.strings.length(content), "hash": tf.strings.to_hash_bucket_fast(content, 1 << 40)}

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a:b").write_bytes(b"BAD\0\xff")
    (tmp_path / "in" / "c").write_bytes(b"good")
    run(command, tmp_path, measuring_model, format="bytes", path=str(tmp_path / "in"))
    model = save(Takes(), tmp_path / "model")
    config = str(tmp_path / "config.json")
    assert command("replay", "--config", config, "--set", f"model.path={model}").code == 0
    found = {row["path"]: row["length"] for row in ledger.books_of(tmp_path).output}
    assert found == {str(tmp_path / "in" / "a:b"): 5, str(tmp_path / "in" / "c"): 4}


def test_a_file_that_changes_fails_the_run(
    command: Command, tmp_path: Path, measuring_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / str(number)).write_bytes(b"content")
    config = write_config(tmp_path, measuring_model, format="bytes", path=str(tmp_path / "in"))
    read = whole_files._contents

    def written_meanwhile(found: Any) -> Any:
        (tmp_path / "in" / "3").write_bytes(b"other content")
        return read(found)

    monkeypatch.setattr(whole_files, "_contents", written_meanwhile)
    result = command("batch", "--config", config)
    assert result.code == 1
    assert f"{tmp_path}/in/3 changed after the run was planned" in result.errors[0]
    assert not ledger.shards(tmp_path / "out" / "p")
