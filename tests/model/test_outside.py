"""What a model's graph does beside computing is found; what every model does is not reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.outside import describe
from model.saved_model_proto import parse_saved_model
from model.show import main
from model.signature import read_contents
from tests.support.commands import ROOT, Command, save

TEXTS = ["a", "b", "c"]


def found(model: Path | str) -> dict[str, tuple[str, ...]]:
    """Operation -> what runs it."""
    return {each.operation: each.where for each in read_contents(str(model)).outside}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("vocabulary") / "words.txt"
    file.write_text("\n".join(TEXTS))
    return str(file)


def keras_with_a_file(folder: Path, vocabulary: str) -> None:
    import keras

    words = keras.Input((1,), dtype="string")
    numbers = keras.layers.Embedding(6, 2)(keras.layers.StringLookup(vocabulary=vocabulary)(words))
    keras.Model(words, keras.layers.Dense(1)(numbers)).export(str(folder), verbose=False)


def keras_with_a_list(folder: Path, vocabulary: str) -> None:
    import keras

    words = keras.Input((), dtype="string")
    numbers = keras.layers.TextVectorization(vocabulary=TEXTS)(words)
    keras.Model(words, keras.layers.Embedding(6, 2)(numbers)).export(str(folder), verbose=False)


def module_with_assets(folder: Path, vocabulary: str) -> None:
    """Tables, an asset that is read at each call, and tf.print."""
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self) -> None:
            self.weight = tf.Variable(1.0)
            self.asset = tf.saved_model.Asset(vocabulary)
            indices = tf.lookup.TextFileIndex
            file = tf.lookup.TextFileInitializer(
                vocabulary, tf.string, indices.WHOLE_LINE, tf.int64, indices.LINE_NUMBER
            )
            self.table = tf.lookup.StaticHashTable(file, -1)
            self.mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
        def __call__(self, words: Any) -> dict[str, Any]:
            tf.print("words:", words)
            indices = tf.cast(self.table.lookup(words) + self.mutable.lookup(words), tf.float32)
            return {"out": indices * self.weight, "text": tf.io.read_file(self.asset)}

    save(Module(), folder)


def of_tensorflow_1(folder: Path, vocabulary: str) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None])
        indices = tf.lookup.TextFileIndex
        file = tf.lookup.TextFileInitializer(vocabulary, tf.string, indices.WHOLE_LINE, tf.int64, indices.LINE_NUMBER)
        table = v1.lookup.StaticHashTable(file, -1)
        out = tf.cast(table.lookup(words), tf.float32) * v1.get_variable("weight", initializer=1.0)
        v1.summary.scalar("mean", tf.reduce_mean(out))
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"words": words}, {"out": out})
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=v1.tables_initializer(),
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()


@pytest.mark.parametrize("build", [keras_with_a_file, keras_with_a_list, module_with_assets, of_tensorflow_1])
def test_ordinary_models_are_not_reported(tmp_path: Path, vocabulary: str, build: Callable[[Path, str], None]) -> None:
    """Their checkpoints, vocabularies and what they print."""
    build(tmp_path / "model", vocabulary)
    assert found(tmp_path / "model") == {}


def test_the_packaged_model_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(ROOT / "model" / "trained" / "v1") == {}
    assert describe(()) == ""
    assert main([str(ROOT / "model" / "trained" / "v1")]) == 0
    assert "reach outside" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def reaching(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that reads and writes files in functions of functions; and the file that it writes while it loads."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("reaching")
    written = folder / "written-while-loading"

    class Initializer(tf.lookup.KeyValueTensorInitializer):
        def initialize(self, table: Any) -> Any:
            tf.io.write_file(str(written), "x")
            return super().initialize(table)

    class Module(tf.Module):
        def __init__(self) -> None:
            self.table = tf.lookup.StaticHashTable(Initializer(["a"], [1]), -1)

        @tf.function
        def host(self, text: Any) -> Any:
            return tf.while_loop(lambda i, _: i < 1, lambda i, t: (i + 1, t + self.name_of(i)), [0, text])[1]

        @tf.function
        def name_of(self, _: Any) -> Any:
            return tf.io.read_file("/etc/hostname")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
        def __call__(self, words: Any) -> dict[str, Any]:
            lines = tf.data.TextLineDataset("/etc/hosts").map(lambda line: tf.strings.lower(line))
            tf.print(words, output_stream=f"file://{folder}/printed")
            first = lines.reduce("", lambda joined, line: joined + line)
            out = tf.cond(tf.size(words) > 0, lambda: self.host(words), lambda: words)
            return {"out": out, "first": first, "number": self.table.lookup(words)}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, "prefix")])
        def restore(self, prefix: Any) -> dict[str, Any]:
            return {"value": tf.raw_ops.RestoreV2(
                prefix=prefix, tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0]}  # fmt: skip

    module = Module()
    signatures = {"serving_default": module.__call__.get_concrete_function(), "other": module.restore}
    tf.saved_model.save(module, str(folder / "model"), signatures)
    written.unlink(missing_ok=True)
    return folder / "model", written


def test_what_reaches_outside(reaching: tuple[Path, Path]) -> None:
    """In functions that loops, branches and datasets call; with what runs them."""
    model, written = reaching
    assert found(model) == {
        "PrintV2": ("signature serving_default",),
        "ReadFile": ("signature serving_default",),
        "RestoreV2": ("signature other",),
        "TextLineDataset": ("signature serving_default",),
        "WriteFile": ("loading",),
    }
    import tensorflow as tf

    tf.saved_model.load(str(model))
    assert written.read_text() == "x"


def test_the_commands_tell(
    reaching: tuple[Path, Path], command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, _ = reaching
    assert main([str(model)]) == 0
    shown = capfd.readouterr().out
    assert "ReadFile (reads files; signature serving_default), " in shown
    assert "WriteFile (writes files; loading); load only models you trust" in shown
    assert main([str(model), "--json"]) == 0
    for signature in json.loads(capfd.readouterr().out).values():
        assert {"operation": "WriteFile", "effect": "writes files", "where": ["loading"]} in signature[
            "reaches_outside"
        ]

    (tmp_path / "in.csv").write_text("words\na\n")
    changes = {
        "source": {"type": "file", "format": "csv", "path": str(tmp_path / "in.csv")},
        "model": {"type": "saved_model", "path": str(model)},
        "output": {
            "type": "file",
            "format": "json",
            "path": str(tmp_path / "out"),
            "columns": ["key", "number", "out"],
        },
    }
    settings = [f"--set={name}={json.dumps(value)}" for name, value in changes.items()]
    result = command("check", *settings)
    assert result.code == 0, result
    assert "note     model: its graph has operations that reach outside: " in result.out
    result = command("check", *settings, "--json")
    assert {each["operation"] for each in result.summary["model_reaches_outside"]} == set(found(model))


def test_of_tensorflow_1_too(tmp_path: Path) -> None:
    """What the signature needs and what loading runs are in one graph there."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None])
        out = tf.io.read_file("/etc/hostname") + words
        write = tf.io.write_file(str(tmp_path / "written"), "x")
        tf.io.matching_files("/etc/*")
        v1.get_variable("weight", initializer=1.0)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        signature = v1.saved_model.predict_signature_def({"words": words}, {"out": out})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=write)
        builder.save()
    assert found(tmp_path / "model") == {
        "MatchingFiles": ("unused",),
        "ReadFile": ("signature serving_default",),
        "WriteFile": ("loading",),
    }


def edited(model: Path, folder: Path, edit: Callable[[Any], None]) -> Path:
    """A copy of a model's graph with something changed in it, as only a hand would."""
    message = parse_saved_model((model / "saved_model.pb").read_bytes(), "")
    edit(message.meta_graphs[0])
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    return folder


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/hostname", "a/../../b", "gs://bucket/file"])
def test_an_asset_that_is_not_in_the_folder(tmp_path: Path, vocabulary: str, name: str) -> None:
    module_with_assets(tmp_path / "model", vocabulary)

    def rename(graph: Any) -> None:
        for asset in graph.asset_file_def:
            asset.filename = name

    changed = found(edited(tmp_path / "model", tmp_path / "edited", rename))
    assert changed[f"asset {name}"] == ("loading",)


def test_a_path_in_place_of_an_asset(tmp_path: Path, vocabulary: str) -> None:
    module_with_assets(tmp_path / "model", vocabulary)

    def forget(graph: Any) -> None:
        del graph.asset_file_def[:]
        for each in graph.object_graph_def.nodes:
            each.ClearField("asset")

    assert set(found(edited(tmp_path / "model", tmp_path / "edited", forget))) == {
        "InitializeTableFromTextFileV2",
        "ReadFile",
    }


def test_graphs_without_end(tmp_path: Path) -> None:
    """Functions that call each other in a ring and many signatures: an answer all the same, and not a long one."""

    def ring(graph: Any) -> None:
        for number in range(300):
            function = graph.graph_def.library.function.add()
            function.signature.name = f"ring{number}"
            function.signature.input_arg.add(name="path")
            call = function.node_def.add(name="call", op=f"ring{(number + 1) % 300}")
            call.input.append("path")
            function.node_def.add(name="again", op=f"ring{(number + 2) % 300}").input.append("path")
            function.node_def.add(name="read", op="ReadFile").input.append("path")
        graph.graph_def.node.add(name="first", op="ring0").input.append("first")
        for number in range(2_000):
            signature = graph.signature_def.add(key=f"s{number}").value
            signature.outputs.add(key="out").value.name = "first:0"

    model = edited(ROOT / "model" / "trained" / "v1", tmp_path / "ring", ring)
    [operation] = read_contents(str(model)).outside
    assert operation.operation == "ReadFile"
    assert "further signatures" in operation.where
    assert len(describe([operation])) < 300
