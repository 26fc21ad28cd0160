"""Both runtimes keep one contract: every type, shape and kind of input, errors, threads, and memory."""

from __future__ import annotations

import gc
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model.errors import ModelInputError, ModelLoadError, SignatureNotFoundError
from model.runtime import library, small_graphs, strings
from model.runtime.arrays import Dense, Ragged, Sparse, Strings, numpy_type
from model.runtime.errors import UnsupportedModelError, is_op_error
from model.runtime.load import load, planned
from model.runtime.suitable import Operations
from model.signature import read_meta_graph, read_signature
from tests.support import processes, runtime_models

tf = pytest.importorskip("tensorflow")

PACKAGED = str(Path(__file__).parents[2] / "model" / "trained" / "v1")
RUNTIMES = ("native", "python")
BIRTHS = {
    "is_male": ["True", "False", "Unknown"],
    "mother_race": ["White", "Black", "a race of which the model has never heard"],
    "mother_married": ["True", "False", "True"],
    "cigarette_use": ["False", "True", "False"],
    "alcohol_use": ["False", "False", "True"],
    "mother_age": [32.0, 19.0, 44.0],
    "plurality": [1.0, 2.0, 3.0],
    "gestation_weeks": [40.0, 33.0, 28.0],
}
TWICE = """
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

using namespace tensorflow;

REGISTER_OP("TwiceOfT")
    .Input("features: T")
    .Output("activations: T")
    .Attr("T: {float}")
    .SetShapeFn([](shape_inference::InferenceContext* c) {
      c->set_output(0, c->input(0));
      return OkStatus();
    });

class Twice : public OpKernel {
 public:
  explicit Twice(OpKernelConstruction* context) : OpKernel(context) {}
  void Compute(OpKernelContext* context) override {
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &y));
    auto from = context->input(0).flat<float>();
    auto to = y->flat<float>();
    for (int i = 0; i < from.size(); ++i) to(i) = 2 * from(i);
  }
};

REGISTER_KERNEL_BUILDER(Name("TwiceOfT").Device(DEVICE_CPU), Twice);
"""
Make = Callable[..., str]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a model of `runtime_models`, once."""
    made: dict[Any, str] = {}
    root = tmp_path_factory.mktemp("runtimes")

    def once(name: str, *arguments: Any) -> str:
        key = (name, *map(str, arguments))
        if key not in made:
            made[key] = getattr(runtime_models, name)(root / str(len(made)), *arguments)
        return made[key]

    return once


def text(*values: str | bytes, shape: tuple[int, ...] | None = None) -> Strings:
    return Strings(pa.array(list(values)), shape or (len(values),))


def floats(*values: float) -> Dense:
    return np.array(values, np.float32)


def births(rows: int) -> dict[str, Dense]:
    taken = {name: [values[i % 3] for i in range(rows)] for name, values in BIRTHS.items()}
    return {
        name: Strings(pa.array(values), (rows,)) if isinstance(values[0], str) else floats(*values)
        for name, values in taken.items()
    }


def values_of(value: Any) -> Any:
    """An output as plain lists."""
    if isinstance(value, Strings):
        return [item if isinstance(item, bytes) else item.encode() for item in value.values.to_pylist()], value.shape
    if isinstance(value, Ragged):
        return values_of(value.values), [splits.tolist() for splits in value.splits]
    if isinstance(value, Sparse):
        return value.indices.tolist(), values_of(value.values), value.dense_shape.tolist()
    return value.tolist(), value.dtype, value.shape


@pytest.mark.parametrize("dtype", runtime_models.DTYPES)
def test_every_dtype_comes_back_as_it_went_in(make: Make, dtype: str) -> None:
    path = make("identity", dtype)
    if dtype == "string":
        given: Dense = text("", "a", "b" * 22, "c" * 23, "d" * 10_000, "é")
    else:
        kind = numpy_type(dtype)
        given = np.array([0, 1, 1, 0, 1] if dtype == "bool" else [0, 1, 2, 100, 127]).astype(kind)
    found = {runtime: load(path, "serving_default", runtime=runtime)({"x": given}) for runtime in RUNTIMES}
    native, python = ({name: values_of(value) for name, value in found[runtime].items()} for runtime in RUNTIMES)
    assert native == python
    assert native["same"] == values_of(given)
    assert native["turned"][0] == values_of(given)[0][::-1]


@pytest.mark.parametrize("dtype", ["float64", "int8", "bool"])
def test_numbers_may_begin_anywhere(make: Make, dtype: str) -> None:
    model = load(make("identity", dtype), "serving_default", runtime="native")
    kind = np.dtype(dtype)
    memory = np.arange(4096, dtype=np.uint8) % 2
    for offset in (*range(70), 128, 1000):
        given = np.frombuffer(memory, kind, 100, offset)
        for array in (given, given[::2]):
            found = model({"x": array})
            assert found["same"].tobytes() == array.tobytes()
            assert found["turned"].tobytes() == array[::-1].tobytes()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_rows_at_all(make: Make, runtime: Any) -> None:
    for dtype in ("float32", "string"):
        given = text() if dtype == "string" else floats()
        if isinstance(given, Strings):
            given = Strings(pa.array([], pa.string()), (0,))
        found = load(make("identity", dtype), "serving_default", runtime=runtime)({"x": given})
        assert [tuple(found[name].shape) for name in ("same", "twice")] == [(0,), (0, 2)]


def test_predictions_of_the_packaged_model_are_equal_bit_for_bit() -> None:
    native, python = (load(PACKAGED, "serving_default", runtime=runtime) for runtime in RUNTIMES)
    for rows in (1, 3, 1000, 16_384):
        given = births(rows)
        first, second = native(given)["predictions"], python(given)["predictions"]
        assert isinstance(first, np.ndarray)
        assert isinstance(second, np.ndarray)
        assert first.tobytes() == second.tobytes()
        encoded = {
            name: Strings(value.values.dictionary_encode(), value.shape) if isinstance(value, Strings) else value
            for name, value in given.items()
        }
        assert native(encoded)["predictions"].tobytes() == second.tobytes()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["half_plus_two", "half_plus_two_v1"])
def test_half_plus_two_of_both_makers(make: Make, runtime: Any, name: str) -> None:
    model = load(make(name), "serving_default", runtime=runtime)
    assert model.runtime == runtime
    assert values_of(model({"x": floats(1, 2, 5)})["y"])[0] == [2.5, 3.0, 4.5]
    if name == "half_plus_two":
        pairs = model.with_signature("pairs")
        assert values_of(pairs({"x": np.array([[1, 2], [3, 4]], np.float32)})["sum"])[0] == [3.5, 5.5]
        assert values_of(model({"x": floats(2)})["y"])[0] == [3.0]
        with pytest.raises(SignatureNotFoundError, match="did you mean 'pairs'"):
            model.with_signature("pair")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_table_that_is_filled_from_an_asset(make: Make, runtime: Any) -> None:
    model = load(make("table_v1", ["a", "bb", "ccc"]), "serving_default", runtime=runtime)
    bags = {"indices": np.array([[0, 0], [2, 1]]), "values": np.array([5, 6]), "dense_shape": np.array([3, 2])}
    found = model({"word": text("a", "ccc", "no"), **{f"bags_{part}": value for part, value in bags.items()}})
    assert values_of(found["id"])[0] == [0, 2, -1]
    assert values_of(found["sum"])[0] == [5, 0, 6]
    assert values_of(found["word"])[0] == [b"a", b"ccc", b"no"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_a_graph_keeps_outlives_the_memory_that_it_came_in(make: Make, runtime: Any) -> None:
    model = load(make("counter"), "serving_default", runtime=runtime)
    before: list[Any] = []
    for turn in range(1, 20):
        numbers = [float(turn)] * 5000
        words = [f"{turn} " * length for length in (1, 8, 20, 2000)]
        found = model({"by": floats(*numbers), "word": text(*words)})
        if before:
            assert values_of(found["last"])[0] == before[0]
            assert values_of(found["said"])[0] == [word.encode() for word in before[1]]
            assert values_of(found["total"])[0] == before[2] + turn * 5000
        before = [numbers, words, values_of(found["total"])[0]]
        # What was there is written over, if anything still is.
        del found
        np.full(200_000, 7.0).sum()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ragged_and_sparse_by_their_components(make: Make, runtime: Any) -> None:
    model = load(make("composites"), "serving_default", runtime=runtime)
    parts = {spec.name: spec.components for spec in model.signature.inputs}
    given: dict[str, Dense] = dict(
        zip(parts["r"], [floats(1, 2, 3, 4), np.array([0, 2, 3]), np.array([0, 1, 3, 4])], strict=True)
    )
    given |= zip(parts["s"], [np.array([[0, 0], [1, 2]]), np.array([5, 6]), np.array([2, 4])], strict=True)
    given |= zip(parts["w"], [text("p", "q"), np.array([0, 0, 2])], strict=True)
    found = model(given)
    assert values_of(found["ragged"]) == (values_of(floats(2, 4, 6, 8)), [[0, 2, 3], [0, 1, 3, 4]])
    assert values_of(found["sparse"])[0] == [[0, 0], [1, 2]]
    assert values_of(found["sum"])[0] == [5, 6]
    assert values_of(found["words"]) == (([b"p", b"q"], (2,)), [[0, 0, 2]])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_parses_examples(make: Make, runtime: Any) -> None:
    model = load(make("composites"), "examples", runtime=runtime)
    feature = tf.train.Feature
    example = tf.train.Example()
    example.features.feature["x"].CopyFrom(feature(float_list=tf.train.FloatList(value=[1, 2])))
    example.features.feature["w"].CopyFrom(feature(bytes_list=tf.train.BytesList(value=[b"w" * 30])))
    found = model({"records": text(example.SerializeToString(), example.SerializeToString())})
    assert values_of(found["x"])[0] == [[1, 2], [1, 2]]
    assert values_of(found["w"])[0] == [b"w" * 30] * 2
    with pytest.raises(Exception, match="Could not parse example") as raised:
        model({"records": text(b"no example")})
    assert is_op_error(raised.value)
    assert type(raised.value).__name__ == "InvalidArgumentError"


def test_models_of_keras_two_and_three(make: Make) -> None:
    outputs = []
    for runtime in RUNTIMES:
        two = load(make("keras_two"), "serving_default", runtime=runtime)
        three = load(make("keras_three"), "serving_default", runtime=runtime)
        [only] = two.signature.inputs
        [first] = two({only.name: np.ones((2, 4), np.float32)}).values()
        given = {"word": text("bb", "zz", shape=(2, 1)), "numbers": np.ones((2, 2), np.float32)}
        [second] = three(given).values()
        outputs.append((values_of(first), values_of(second)))
    assert np.array(outputs[0][0][0]) == pytest.approx(np.array(outputs[1][0][0]))
    assert outputs[0][1][0] == outputs[1][1][0]


def test_a_model_of_200_megabytes(tmp_path: Path) -> None:
    model = load(runtime_models.large(tmp_path / "large"), "serving_default", runtime="native")
    found = model({"row": np.array([0, 499_999, 7], np.int64)})["values"]
    assert found[:, 0].tolist() == [0, 49_999_900, 700]
    assert found.shape == (3, 100)


def test_dictionaries_that_take_the_place_of_others_in_memory(make: Make) -> None:
    model = load(make("identity", "string"), "serving_default", runtime="native")
    for turn in range(300):
        words = pa.array([f"{turn}-{i}" for i in range(7 + turn % 3)])
        column = pa.DictionaryArray.from_arrays(pa.array(np.arange(40) % len(words), pa.int32()), words)
        for part in (column, column.slice(9), column):
            found = model({"x": Strings(part, (len(part),))})["same"]
            assert found.values.cast(pa.string()).to_pylist() == part.to_pylist()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pipeline_of_datasets_inside_of_the_graph(make: Make, runtime: Any) -> None:
    model = load(make("with_dataset"), "serving_default", runtime=runtime)
    for _ in range(20):
        assert values_of(model({"x": floats(*range(100))})["total"])[0] == 14_850


def test_operations_that_read_up_to_a_zero_get_no_further_than_the_string(tmp_path: Path) -> None:
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": tf.strings.upper(x, "utf-8")}, input_signature=[tf.TensorSpec([None], tf.string, "x")]
    )
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.f})
    model = load(str(tmp_path), "serving_default", runtime="native")
    for count in (3, 300):
        words = ["é", "", "null" * 20] * count
        for array in (pa.array(words), pa.array(words).dictionary_encode(), pa.array(["-", *words]).slice(1)):
            found = values_of(model({"x": Strings(array, (len(words),))})["y"])[0]
            assert found == [word.upper().encode() for word in words]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_raises(make: Make, runtime: Any) -> None:
    model = load(make("strict"), "serving_default", runtime=runtime)
    with pytest.raises(Exception, match="a negative age") as raised:
        model({"x": floats(1, -4)})
    assert is_op_error(raised.value)
    assert type(raised.value).__name__ == "InvalidArgumentError"
    assert values_of(model({"x": floats(1, 4)})["y"])[0] == [1, 2]


def test_what_does_not_suit_the_signature_is_refused(make: Make) -> None:
    model = load(make("half_plus_two"), "pairs", runtime="native")
    with pytest.raises(ModelInputError, match=r"shape \[2\]; the model takes \[\?, 2\]"):
        model({"x": floats(1, 2)})
    with pytest.raises(ModelInputError, match=r"shape \[1, 3\]"):
        model({"x": np.ones((1, 3), np.float32)})
    with pytest.raises(ModelInputError, match="type float64; the model takes float32"):
        model({"x": np.ones((1, 2))})
    with pytest.raises(ModelInputError, match="type string"):
        model({"x": text("a")})
    words = load(make("identity", "string"), "serving_default", runtime="native")
    for wrong in (text("a", shape=(2,)), Strings(pa.array(["a", None]), (2,))):
        with pytest.raises(ModelInputError, match=r"not one string for each place of shape \[2\]"):
            words({"x": wrong})
    with pytest.raises(ModelInputError, match="missing: x; unknown: y"):
        model({"y": floats(1)})


@pytest.mark.parametrize("name", ["identity", "counter"])
def test_eight_threads_at_once(make: Make, name: str) -> None:
    model = load(make(name, *(["string"] if name == "identity" else [])), "serving_default", runtime="native")
    wrong: list[Any] = []

    def call(number: int) -> None:
        for turn in range(100):
            words = [f"{number}-{turn}-{'x' * (i % 40)}" for i in range(50)]
            if name == "identity":
                found = values_of(model({"x": text(*words)})["turned"])[0]
                if found != [word.encode() for word in reversed(words)]:
                    wrong.append(found)
            else:
                model({"by": floats(1), "word": text(*words)})

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    if name == "counter":
        total = model({"by": floats(0), "word": text("")})["total"]
        assert values_of(total)[0] >= 700  # an `assign_add` of a reference variable does not lock: some may be lost


def test_arrays_of_outputs_live_as_long_as_anybody_has_them(make: Make) -> None:
    model = load(make("identity", "float32"), "serving_default", runtime="native")
    kept = []
    for turn in range(200):
        given = np.full(10_000, turn, np.float32)
        found = model({"x": given})
        given[:] = -1
        kept.append((turn, found["same"], found["turned"]))
    del found
    gc.collect()
    assert all((same == turn).all() and (turned == turn).all() for turn, same, turned in kept)


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells the memory of a process on Linux only")
@pytest.mark.parametrize("count", [80_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_memory_stays_flat_over_many_calls(make: Make, count: int) -> None:
    strict = load(make("strict"), "serving_default", runtime="native")
    words = load(make("identity", "string"), "serving_default", runtime="native")
    counter = load(make("counter"), "serving_default", runtime="native")
    rows, bad, long = floats(1, 4, 9), floats(-1), text("a", "b" * 40, "c" * 3000)

    def calls(count: int) -> None:
        for turn in range(count):
            strict({"x": rows})
            if turn % 10 == 0:
                words({"x": long})
                counter({"by": rows, "word": long})
                with pytest.raises(Exception, match="negative"):
                    strict({"x": bad})

    calls(5_000)
    gc.collect()
    before = _resident()
    calls(count)
    gc.collect()
    # 100 bytes a call would be 8 MB and 100 MB.
    assert _resident() - before < 8 << 20


def test_the_python_runtime_takes_over_where_the_native_one_cannot(make: Make, tmp_path: Path) -> None:
    path = make("with_python")
    said: list[str] = []
    model = load(path, "serving_default", note=said.append)
    assert model.runtime == "python"
    assert said == [
        f"{path} is run by TensorFlow's Python, which starts and answers more slowly: its graph runs Python (PyFunc)"
    ]
    assert values_of(model({"x": floats(1, 2)})["y"])[0] == [2, 4]
    with pytest.raises(ModelLoadError, match="its graph runs Python"):
        load(path, "serving_default", runtime="native")
    assert load(make("half_plus_two"), "serving_default", note=said.append).runtime == "native"
    assert len(said) == 1


def test_missing_variables_are_found_before_anything_is_loaded(make: Make, tmp_path: Path) -> None:
    source = Path(make("half_plus_two"))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").write_bytes((source / "saved_model.pb").read_bytes())
    path = str(tmp_path / "m")
    meta_graph, signature = read_meta_graph(path), read_signature(path)
    runtime, reason = planned(meta_graph, signature, path, None)
    assert runtime == "python"
    assert reason == f"its variables are missing: there is no {path}/variables/variables.index"
    with pytest.raises(ModelLoadError, match="variables are missing"):
        planned(meta_graph, signature, path, "native")
    with pytest.raises(ModelLoadError, match="TensorFlow cannot load"):
        load(path, "serving_default", note=lambda line: None)


def test_an_operation_that_nobody_knows(make: Make, tmp_path: Path) -> None:
    source = Path(make("identity", "float32"))
    (tmp_path / "m" / "variables").mkdir(parents=True)
    data = (source / "saved_model.pb").read_bytes()
    assert b"GatherV2" in data
    (tmp_path / "m" / "saved_model.pb").write_bytes(data.replace(b"GatherV2", b"GatherX2"))
    with pytest.raises(ModelLoadError, match="the native runtime cannot run the model .*GatherX2"):
        load(str(tmp_path / "m"), "serving_default", runtime="native")
    said: list[str] = []
    with pytest.raises(ModelLoadError, match="GatherX2 is in no library that is loaded") as raised:
        load(str(tmp_path / "m"), "serving_default", note=said.append)
    assert "model.op_libraries" in str(raised.value)
    assert len(said) == 1


def test_libraries_of_further_operations(make: Make, tmp_path: Path) -> None:
    path = make("half_plus_two")
    missing, broken = tmp_path / "missing.so", tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    for runtime in RUNTIMES:
        with pytest.raises(ModelLoadError, match=r"op_libraries: there is no file .*missing\.so"):
            load(path, "serving_default", runtime=runtime, op_libraries=(str(missing),))
        with pytest.raises(ModelLoadError, match=r"op_libraries: .*broken\.so cannot be loaded"):
            load(path, "serving_default", runtime=runtime, op_libraries=(str(broken),))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_library_of_an_operation_of_ones_own(tmp_path: Path) -> None:
    source, compiled, path = tmp_path / "twice.cc", tmp_path / "twice.so", str(tmp_path / "m")
    source.write_text(TWICE)
    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    processes.run(["g++", "-shared", "-fPIC", "-w", "-o", compiled, source, *flags], check=True, timeout=300)
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": tf.nn.softsign(x)}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, path, {"serving_default": module.f.get_concrete_function()})
    # Here the native runtime is to be the first that loads the library, so Python does not make the graph with it.
    file = tmp_path / "m" / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"Softsign", b"TwiceOfT"))
    with pytest.raises(ModelLoadError, match="its operation TwiceOfT is in no library"):
        load(path, "serving_default", runtime="native")
    for runtime in RUNTIMES:
        model = load(path, "serving_default", runtime=runtime, op_libraries=(str(compiled),))
        assert values_of(model({"x": floats(1, 2)})["y"])[0] == [2, 4]


def test_operations_that_keep_values_are_told_from_those_that_do_not(make: Make) -> None:
    for name, arguments, keeps in (
        ("counter", (), True),
        ("with_dataset", (), True),
        ("half_plus_two", (), False),
        ("half_plus_two_v1", (), False),
        ("keras_three", (), False),
        ("table_v1", (["a", "bb", "ccc"],), False),
    ):
        model = load(make(name, *arguments), "serving_default", runtime="native")
        assert model._keeps is keeps, name  # type: ignore[attr-defined]
    assert not Operations(read_meta_graph(PACKAGED)).keep_values(["StatefulPartitionedCall:0"])


def test_a_library_with_other_strings_is_not_used(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    small_graphs.self_test.cache_clear()
    # As if this TensorFlow had the length elsewhere.
    monkeypatch.setattr(strings, "_VIEW", 1)
    try:
        said: list[str] = []
        assert load(make("half_plus_two"), "serving_default", note=said.append).runtime == "python"
        assert "its strings lie otherwise in memory" in said[0]
    finally:
        small_graphs.self_test.cache_clear()


def test_a_tensorflow_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_NAMES", {sys.platform: "libtensorflow_none.so"})
    with pytest.raises(UnsupportedModelError, match=r"the installed tensorflow has no libtensorflow_none\.so"):
        library.library_path()
    signature = read_signature(PACKAGED)
    found = planned(read_meta_graph(PACKAGED), signature, PACKAGED, None)
    assert found == ("python", "the installed tensorflow has no libtensorflow_none.so")


def test_tensorflow_may_be_imported_after_its_messages_and_its_library(make: Make) -> None:
    code = """
import sys
from model.runtime import messages
from model.serving import app, servable
model = servable.Version("default", 1, "model/trained/v1", "serving_default", servable.LoadSettings())
assert model.runtime == "native"
assert "tensorflow" not in sys.modules
request = messages.predict_pb2.PredictRequest()
import tensorflow as tf
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.5]))
assert tf.make_ndarray(request.inputs["x"]).tolist() == [1.5]
from model.runtime.load import load
import numpy as np
given = {"x": np.ones(3, np.float32)}
both = [load(sys.argv[1], "serving_default", runtime=runtime)(given)["y"].tolist() for runtime in ("native", "python")]
assert both == [[2.5] * 3] * 2
import hashlib
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
"""
    command = [sys.executable, "-c", code, make("half_plus_two")]
    done = processes.run(command, capture_output=True, check=False, cwd=Path(PACKAGED).parents[2])
    assert done.returncode == 0, done.stderr.decode()
