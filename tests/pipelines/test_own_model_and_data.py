"""A person's own model and table: what they did, what they are told, and the exit code; then predictions."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tests.support.commands import Command, Result, save
from tests.support.ledger import EXTENSIONS, FORMATS_IN

WEIGHTS = np.array([1, 10, 100, 1000], np.float32)
NUMBERS = {name: [float(4 * row + place) for row in range(3)] for place, name in enumerate(("age", "height", "x", "z"))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One of each of the common kinds."""
    import tensorflow as tf

    class Vector(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "features")])
        def __call__(self, features: Any) -> dict[str, Any]:
            return {"predictions": tf.linalg.matvec(features, WEIGHTS)}

    class Mixed(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 2], tf.float32, "x"),
                tf.TensorSpec([None], tf.int64, "age"),
            ]
        )
        def __call__(self, x: Any, age: Any) -> dict[str, Any]:
            return {"predictions": tf.reduce_sum(x, 1) + tf.cast(age, tf.float32)}

    class Image(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2, 2], tf.float32, "image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"predictions": tf.linalg.matvec(tf.reshape(image, [-1, 4]), WEIGHTS)}

    class Taxi(tf.Module):
        """Parses tf.Examples of single values into sparse features, as the serving signatures of TFX do."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def __call__(self, examples: Any) -> dict[str, Any]:
            kinds = {"fare": tf.float32, "hour": tf.int64, "company": tf.string}
            parsed = tf.io.parse_example(examples, {name: tf.io.VarLenFeature(kind) for name, kind in kinds.items()})
            fare = tf.reduce_sum(tf.sparse.to_dense(parsed["fare"]), 1)
            hour = tf.sparse.to_dense(parsed["hour"], default_value=-1)[:, 0]
            company = tf.sparse.to_dense(parsed["company"], default_value="none")[:, 0]
            return {"fare": fare, "hour": hour, "company": company}

    kinds = {"vector": Vector(), "mixed": Mixed(), "image": Image(), "taxi": Taxi()}
    return {name: save(module, tmp_path_factory.mktemp(name)) for name, module in kinds.items()}


@pytest.fixture
def config(tmp_path: Path, models: dict[str, str]) -> Callable[..., str]:
    """Writes a config."""

    def write(model: str, format: str, path: Path, **source: Any) -> str:
        content = {
            "name": "mine",
            "source": {"type": "file", "format": format, "path": str(path), **source},
            "model": {"path": models[model]},
            "output": {"type": "file", "format": "json", "path": str(tmp_path / "out" / "p")},
            "dead_letters": {"path": str(tmp_path / "out" / "dead"), "max_fraction": 0.5},
        }
        (tmp_path / "mine.json").write_text(json.dumps(content))
        return str(tmp_path / "mine.json")

    return write


def predictions(tmp_path: Path, name: str = "predictions") -> list[Any]:
    shards = sorted((tmp_path / "out").glob("p-*"))
    return [json.loads(line)[name] for shard in shards for line in shard.read_text().splitlines()]


def dead_letters(tmp_path: Path) -> list[str]:
    shards = sorted((tmp_path / "out").glob("dead-*"))
    return [json.loads(line)["message"] for shard in shards for line in shard.read_text().splitlines()]


def write_columns(path: Path, format: str, columns: dict[str, list[Any]]) -> Path:
    """Writes a table; lists are JSON text in CSV."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    table = pa.Table.from_pydict(columns)
    if format == "csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([json.dumps(v) if isinstance(v, list) else "" if v is None else v for v in row.values()])
        path.write_text(text.getvalue())
    elif format == "json":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif format == "parquet":
        pq.write_table(table, path)
    elif format == "orc":
        orc.write_table(table, str(path))
    elif format == "avro":
        kind: Any = {"type": "array", "items": "double"}
        fields = [
            {"name": name, "type": ["null", kind if isinstance(column[0], list) else "double"]}
            for name, column in columns.items()
        ]
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema({"type": "record", "name": "r", "fields": fields}), rows)
    else:
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as records:
            for row in rows:
                values = {n: v if isinstance(v, list) else [v] for n, v in row.items() if v is not None}
                features = {n: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for n, v in values.items()}
                records.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


@pytest.mark.parametrize("format", FORMATS_IN)
def test_a_vector_of_columns_of_every_format(
    command: Command, config: Callable[..., str], tmp_path: Path, format: str
) -> None:
    columns: dict[str, list[Any]] = {**NUMBERS, "height": [1.0, None, 9.0]}
    file = write_columns(tmp_path / f"in.{EXTENSIONS[format]}", format, columns)
    result = command("batch", "--config", config("vector", format, file, columns={"features": list(columns)}))
    assert result.code == 0, result
    values = np.array([columns[name] for name in columns], np.float32).T
    assert sorted(predictions(tmp_path)) == sorted((values @ WEIGHTS)[[0, 2]].tolist())
    [message] = dead_letters(tmp_path)
    assert message.startswith("column 'height': a value is missing")


@pytest.mark.parametrize("format", FORMATS_IN)
def test_flat_lists_of_every_format_take_the_shape_of_the_input(
    command: Command, config: Callable[..., str], tmp_path: Path, format: str
) -> None:
    images = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0], [8.0, 8.5, 9.0, 9.5], [0.0, 0.0, 0.0, 1.0]]
    file = write_columns(tmp_path / f"in.{EXTENSIONS[format]}", format, {"image": images})
    result = command("batch", "--config", config("image", format, file))
    assert result.code == 0, result
    expected = [float(np.array(image) @ WEIGHTS) for image in images if len(image) == 4]
    assert sorted(predictions(tmp_path)) == sorted(expected)
    [message] = dead_letters(tmp_path)
    assert "3 values, and the model takes 2 x 2 = 4" in message


def test_what_the_csv_sink_writes_is_read_again(command: Command, config: Callable[..., str], tmp_path: Path) -> None:
    """Lists in cells, one of them damaged."""
    (tmp_path / "in.csv").write_text('image\n"[1.0, 2.0, 3.0, 4.0]"\n"[1.0, 2.0,"\n"[[1, 2], [3, 4]]"\n')
    result = command("batch", "--config", config("image", "csv", tmp_path / "in.csv"))
    assert result.code == 0, result
    assert predictions(tmp_path) == [4321, 4321]
    assert dead_letters(tmp_path) == ["column 'image': '[1.0, 2.0,' is not a list in JSON"]


def test_single_values_of_csv_are_features_of_sparse_tensors(
    command: Command, config: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text('fare,hour,company\n1.5,7,Red Cab\n"[1, 2]",,\n,8,"[""Blue""]"\nx,1,y\n')
    path = config("taxi", "csv", tmp_path / "in.csv")
    assert command("check", "--config", path).code == 0
    result = command("batch", "--config", path)
    assert result.code == 0, result
    assert predictions(tmp_path, "fare") == [1.5, 3, 0]
    assert predictions(tmp_path, "hour") == [7, -1, 8]
    assert predictions(tmp_path, "company") == ["Red Cab", "none", "Blue"]
    assert dead_letters(tmp_path) == ["column 'fare': 'x' is not a float"]


IRIS = "sepal_l,sepal_w,petal_l,petal_w"
ROWS = "1,2,3,4\n5,6,7,8\n"
ROW_IDS = "id,a,b,c,d,target\nq1,1,2,3,4,0\nq2,5,6,7,8,1\n"
# A file, the model, what `init` proposes as source.columns (None: it refuses), and words of what it says.
PROPOSED: dict[str, tuple[str, str, str, Any, list[str]]] = {
    "as many columns of numbers as the input has values": (
        "in.csv", f"{IRIS},species\n1,2,3,4,a\n5,6,7,8,b\n", "vector",
        {"features": IRIS.split(",")}, ["the 4 columns", "in the order of the source", IRIS.replace(",", ", ")],
    ),
    "one more, which is named like a label": (
        "in.csv", ROW_IDS, "vector", {"features": [*"abcd"]}, ["without target", "'id' identifies a row"],
    ),
    "columns with numbers behind the input's name": (
        "in.csv", "features_10,features_9,features_8,other,features_11\n10,9,8,1,11\n", "vector",
        {"features": ["features_8", "features_9", "features_10", "features_11"]}, ["order of their numbers"],
    ),
    "one column of lists": (
        "in.csv", 'id,emb,n\na,"[1, 2, 3, 4]",1\nb,"[5, 6, 7, 8]",2\n', "vector",
        {"features": "emb"}, ["column 'emb', the only one with such lists"],
    ),
    "lists of another length": (
        "in.jsonl", '{"emb": [1, 2, 3]}\n{"emb": [1, 2, 3]}\n', "vector", None,
        ["'features'", "[batch, 4]", "4 values"],
    ),
    "a vector beside another input": (
        "in.csv", "age,a,b\n1,2,3\n4,5,6\n", "mixed", {"x": ["a", "b"]}, ["the 2 columns"],
    ),
    "more columns than values": (
        "in.csv", "a,b,c,d,e\n1,2,3,4,5\n", "vector", None, ["4 values a row, and 5 columns", "a, b, c, d, e"],
    ),
    "fewer columns than values": ("in.csv", "a,b,c\n1,2,3\n", "vector", None, ["4 values a row, and 3 columns"]),
    "as many, but one is named like a label": (
        "in.csv", "a,b,c,label\n1,2,3,0\n", "vector", None, ["4 values a row, and 4 columns", "a, b, c, label"],
    ),
    "no column like an input": (
        "in.csv", "agge,a,b\n1,2,3\n", "mixed", None, ["no column for input 'age'", "the closest is 'agge'"],
    ),
    "none of the features that a model does without": (
        "in.csv", "other\n2\n", "taxi", None,
        ["no column feeds any input", "input 'company' is left out", "nothing was written"],
    ),
    "another separator": ("in.csv", "age;a;b\n1;2;3\n", "mixed", {"x": ["a", "b"]}, ["the delimiter is a semicolon"]),
    "decimal commas": (
        "in.csv", "age;a;b\n1;2,5;3\n2;1,5;2\n", "mixed", {"x": ["a", "b"]}, ["numbers have a decimal comma"],
    ),
    "lists without names": ("in.json", "[1, 2]\n[3, 4]\n", "mixed", None, ["its lines are lists", "write each as"]),
    "a request to a server": (
        "in.json", '{"instances": [{"features": [1, 2, 3, 4]}]}\n', "vector", None, ["request", "jq -c '.instances[]'"],
    ),
    "a request on several lines": (
        "in.json", '{\n"instances": [\n[1, 2, 3, 4]\n]\n}\n', "vector", None, ["request", '| {"<input>": .}'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PROPOSED)
def test_what_init_proposes(command: Command, tmp_path: Path, models: dict[str, str], what: str) -> None:
    name, content, model, columns, words = PROPOSED[what]
    (tmp_path / name).write_text(content)
    arguments = ["--model", models[model], "--source", str(tmp_path / name), "--output", str(tmp_path / "mine.json")]
    result = command("init", *arguments)
    assert result.code == (0 if columns else 2), result
    assert all(word in result.err for word in words), result
    assert (tmp_path / "mine.json").exists() == bool(columns)
    if columns:
        source = json.loads((tmp_path / "mine.json").read_text())["source"]
        assert source["columns"] == columns
        assert "defaults" not in source
        assert command("check", "--config", str(tmp_path / "mine.json")).code == 0


def test_init_writes_without_an_input_if_it_must(command: Command, tmp_path: Path, models: dict[str, str]) -> None:
    (tmp_path / "in.csv").write_text("agge,a,b\n1,2,3\n")
    result = command("init", "--model", models["mixed"], "--source", str(tmp_path / "in.csv"), "--force")
    assert result.code == 0, result
    source = result.summary["source"]
    assert "defaults" not in source
    assert "decide: no column for input 'age'" in result.err


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_what_init_proposes_suits_files_that_differ(
    command: Command, tmp_path: Path, models: dict[str, str], format: str
) -> None:
    """No key that one of them lacks; a column that only the last one has; whole numbers in one, others in another."""
    write_columns(tmp_path / f"a.{format}", format, {"id": [1, 2], "x1": [1, 2], "x2": [0.5, 1.5]})
    write_columns(tmp_path / f"b.{format}", format, {"x1": [1.5, 2.5], "x2": [0.5, 1.5], "note": ["n", "o"]})
    write_columns(tmp_path / f"c.{format}", format, {"id": [5, 6], "x1": [3, 4], "x2": [0.5, 1.5], "age": [30, 40]})
    arguments = ["--model", models["mixed"], "--source", f"{tmp_path}/*.{format}", "--output", f"{tmp_path}/mine.json"]
    result = command("init", *arguments)
    assert result.code == 0, result
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content["source"].get("columns") == {"x": ["x1", "x2"]}
    assert "key" not in content["source"]
    assert content["output"]["columns"] == ["*"]
    lines = result.err.splitlines()
    assert any("a." in line and "1 more" not in line and "no column 'age'" in line for line in lines), result
    assert any("no column 'id': it is null in their rows" in line for line in lines), result
    if format == "parquet":
        assert "column 'x1' is int64 in" in result.err, result
    output = ["--set", f"output.path={tmp_path}/out/p", "--set", f"dead_letters.path={tmp_path}/out/dead"]
    ran = command("batch", "--config", f"{tmp_path}/mine.json", *output, "--set", "dead_letters.max_fraction=1")
    assert ran.code == 0, ran
    assert "rows written:  2" in ran.out
    assert "dead-lettered: 4" in ran.out


def test_init_goes_on_where_a_later_file_cannot_be_read(
    command: Command, tmp_path: Path, models: dict[str, str]
) -> None:
    write_columns(tmp_path / "a.parquet", "parquet", {"id": [1, 2], "x1": [1, 2], "x2": [0.5, 1.5], "age": [30, 40]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    arguments = ["--model", models["mixed"], "--source", f"{tmp_path}/*.parquet", "--output", f"{tmp_path}/mine.json"]
    result = command("init", *arguments)
    assert result.code == 0, result
    assert "will become dead letters, as they cannot be read" in result.err
    assert "b.parquet" in result.err
    assert json.loads((tmp_path / "mine.json").read_text())["source"]["key"] == "id"


def test_init_looks_at_some_of_many_files(command: Command, tmp_path: Path, models: dict[str, str]) -> None:
    for number in range(20):
        columns = {"id": [number], "x1": [1.5], "x2": [0.5], **({"age": [30]} if number < 19 else {})}
        write_columns(tmp_path / f"{number:02}.csv", "csv", columns)
    arguments = ["--model", models["mixed"], "--source", f"{tmp_path}/*.csv", "--output", f"{tmp_path}/mine.json"]
    result = command("init", *arguments)
    assert result.code == 0, result
    assert "the columns of 8 of 20 files were looked at" in result.err
    assert "19.csv has no column 'age': their rows become dead letters" in result.err


def test_init_takes_the_newest_of_versions_and_tells_datasets_apart(
    command: Command, tmp_path: Path, models: dict[str, str]
) -> None:
    """No data set takes another one's place, and what no key tells apart is written whole."""
    for version in ("1", "2"):
        shutil.copytree(models["mixed"], tmp_path / "exports" / version)
    places = set()
    for name in ("first.csv", "second.csv"):
        (tmp_path / name).write_text("age,a,b\n1,2,3\n2,3,4\n")
        result = command("init", "--model", str(tmp_path / "exports"), "--source", str(tmp_path / name))
        assert result.code == 0, result
        assert result.summary["model"]["version"] == "latest"
        assert result.summary["name"] == "exports"
        assert result.summary["output"]["columns"] == ["*"]
        places.add(result.summary["output"]["path"])
    assert places == {"out/exports-first", "out/exports-second"}


def test_init_says_where_it_cannot_write(command: Command, tmp_path: Path, models: dict[str, str]) -> None:
    (tmp_path / "in.csv").write_text("age,a,b\n1,2,3\n")
    (tmp_path / "file").write_text("")
    wanted = ["--model", models["mixed"], "--source", str(tmp_path / "in.csv")]
    result = command("init", *wanted, "--output", str(tmp_path / "file" / "mine.json"))
    assert result.code == 2
    assert f"--output: cannot write {tmp_path}/file/mine.json" in result.err


# A file, the model, the source's settings, the exit codes of check and batch, and words of what check says.
CHECKED: dict[str, tuple[str, str, dict[str, Any], int, list[str]]] = {
    "too few columns": (
        f"{IRIS}\n{ROWS}", "vector", {"columns": {"features": ["sepal_l", "sepal_w"]}}, 2,
        ["source.columns.features: 2 columns", "[batch, 4]", "4 values"],
    ),
    "a column that is not there": (
        f"{IRIS}\n{ROWS}", "vector", {"columns": {"features": ["sepal_l", "sepal_w", "petal_l", "petal_ww"]}}, 2,
        ["no column 'petal_ww'", "did you mean 'petal_w'"],
    ),
    "nothing mapped": (f"{IRIS}\n{ROWS}", "vector", {}, 2, ["input 'features' of shape [batch, 4]", '["<column>"']),
    "one column of numbers for a vector": (
        f"{IRIS}\n{ROWS}", "vector", {"columns": {"features": "sepal_l"}}, 2,
        ["column 'sepal_l' holds single values such as '1'", "takes lists", '["sepal_l", "<column>", ...]'],
    ),
    "a default that does not fit": (
        f"{IRIS}\n{ROWS}", "vector", {"columns": {"features": IRIS.split(",")}, "defaults": {"features": [1, 2]}}, 2,
        ["source.defaults.features: 2 values", "4 columns"],
    ),
    "a default of another shape": (
        'image\n"[1, 2, 3, 4]"\n', "image", {"defaults": {"image": [1, 2, 3]}}, 2, ["3 values", "2 x 2 = 4"],
    ),
    "defaults alone": (
        f"{IRIS}\n{ROWS}", "mixed", {"defaults": {"x": 0, "age": 0}}, 2,
        ["no column feeds any input of the model", "same prediction", "columns: sepal_l"],
    ),
    "another separator and defaults": (
        "age;a;b\n1;2;3\n", "mixed", {"defaults": {"x": 0, "age": 0}}, 2, ["is the delimiter a semicolon?", '";"'],
    ),
    "one input that is the same in every row": (
        "a,b\n1,2\n", "mixed", {"columns": {"x": ["a", "b"]}, "defaults": {"age": 7}}, 0,
        ["warning: input 'age' is 7 in every row", "no column feeds it"],
    ),
    "all rows are no numbers": (
        "age,a,b\nx,1,2\ny,3,4\n", "mixed", {"columns": {"x": ["a", "b"]}}, 2,
        ["each of the first 2 rows would become a dead letter", "'x' is not a"],
    ),
    "some rows are no numbers": (
        "age,a,b\n7,1,2\n8,,4\n9,z,4\n1,2,3\n", "mixed", {"columns": {"x": ["a", "b"]}}, 0,
        ["of the first 4 rows, 2 would become dead letters:", "column 'a': a value is missing", "'z' is not a float"],
    ),
    "a vector that is right": (
        f"{IRIS}\n{ROWS}", "vector", {"columns": {"features": IRIS.split(",")}}, 0,
        ["what the model gets of the first 2 rows", "[2, 4]", "[1, 2, 3, 4], [5, 6, 7, 8]", "features[3]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHECKED)
def test_what_check_says(command: Command, config: Callable[..., str], tmp_path: Path, what: str) -> None:
    content, model, source, code, words = CHECKED[what]
    (tmp_path / "in.csv").write_text(content)
    path = config(model, "csv", tmp_path / "in.csv", **source)
    result: Result = command("check", "--config", path)
    assert result.code == code, result
    for word in words:
        assert word in result.out + result.err
    as_json = command("check", "--config", path, "--json")
    assert as_json.code == code
    if code == 0:
        assert len(as_json.summary["sampled_dead_letters"]) == (2 if "some rows" in what else 0)


def test_the_sampled_rows_are_those_that_reach_the_model(config: Callable[..., str], tmp_path: Path) -> None:
    from pipelines.config.load import load
    from pipelines.planning.planner import make_plan
    from pipelines.planning.sampling import sampled_batch

    (tmp_path / "in.csv").write_text("age,a,b\n7,1,2\n8,,4\n9,5,6\n1,2,3\n")
    plan = make_plan(load(config("mixed", "csv", tmp_path / "in.csv", columns={"x": ["a", "b"]})))
    batch = sampled_batch(plan, 3)
    assert batch is not None
    assert batch.to_pydict() == {"age": [7, 9], "a": [1, 5], "b": [2, 6]}
    (tmp_path / "in.csv").write_text("age,a,b\n")
    assert sampled_batch(plan, 3) is None


def test_batch_refuses_a_source_that_feeds_nothing(
    command: Command, config: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("other\n1\n")
    path = config("mixed", "csv", tmp_path / "in.csv", defaults={"x": 0, "age": 0})
    result = command("batch", "--config", path)
    assert result.code == 2, result
    assert "no column feeds any input" in result.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    path = config("mixed", "csv", tmp_path / "in.csv", columns={"x": ["a", "b"]}, defaults={"age": 7})
    result = command("batch", "--config", path)
    assert result.code == 0, result
    assert "input 'age' is 7 in every row" in result.out + result.err
    assert predictions(tmp_path) == [10]


def test_names_stay_whole_in_a_pipe(
    command: Command, config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    names = [f"a_name_that_is_as_long_as_names_of_columns_tend_to_be_{number}" for number in range(4)]
    (tmp_path / "in.csv").write_text(f"{','.join(names)}\n{ROWS}")
    result = command("check", "--config", config("vector", "csv", tmp_path / "in.csv", columns={"features": names}))
    assert result.code == 0, result
    assert all(result.out.count(name) == 2 for name in names)


def test_the_home_folder_in_paths(
    command: Command,
    config: Callable[..., str],
    tmp_path: Path,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(models["vector"])
    (tmp_path / "in.csv").write_text(f"{IRIS}\n{ROWS}")
    result = command("init", "--model=~/model", "--source=~/in.csv", "--output=~/mine.json")
    assert result.code == 0, result
    written = json.loads((tmp_path / "mine.json").read_text())
    assert written["source"]["path"] == "~/in.csv"
    for module in ("check", "batch"):
        result = command(
            module, "--config=~/mine.json", "--set=output.path=~/out/p", "--set=dead_letters.path=~/out/dead"
        )
        assert result.code == 0, result
    assert len(list((tmp_path / "out").glob("p-*"))) == 1
    assert not (tmp_path / "~").exists()


def test_a_stream_gathers_a_vector(command: Command, tmp_path: Path, models: dict[str, str]) -> None:
    fields = ["mother_age", "plurality", "gestation_weeks", "plurality"]
    path = tmp_path / "births.jsonl"
    rows = [{"source_id": str(n), "mother_age": n, "plurality": 1, "gestation_weeks": 30 + n} for n in range(5)]
    del rows[3]["plurality"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "source": {"type": "simulated", "path": str(path), "rate": 0, "messages": 5, "columns": {"features": fields}},
        "model": {"path": models["vector"]},
        "output": {"type": "file", "format": "json", "path": str(tmp_path / "out" / "p")},
        "dead_letters": {"path": str(tmp_path / "out" / "dead"), "max_fraction": 0.5},
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    result = command("stream", "--config", str(tmp_path / "mine.json"))
    assert result.code == 0, result
    expected = [n + 10 + 100 * (30 + n) + 1000 for n in range(5) if n != 3]
    assert sorted(predictions(tmp_path)) == expected
    [message] = dead_letters(tmp_path)
    assert message.startswith("column 'plurality': a value is missing")


@pytest.mark.parametrize("columns", [{"features": []}, {"features": ["a", 1]}, {"features": 5}, {"features": {"a": 1}}])
def test_what_is_no_list_of_columns_is_one_mistake(
    command: Command, config: Callable[..., str], tmp_path: Path, columns: Any
) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    result = command("check", "--config", config("vector", "csv", tmp_path / "in.csv", columns=columns))
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert "source.columns.features" in result.errors[0]
