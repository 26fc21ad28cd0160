"""Signatures are read without TensorFlow, from the packaged model and from odd ones."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import (
    ExampleFormatError,
    ModelFormatError,
    ModelNotFoundError,
    SignatureNotFoundError,
)
from model.example_proto import parse_example
from model.signature import latest_version, read_signature, read_signatures
from model.specs import ExampleFeature, Signature, TensorSpec
from tests.support import processes

PACKAGED = str(Path(__file__).parents[2] / "model" / "trained" / "v1")
STRINGS = ("alcohol_use", "cigarette_use", "is_male", "mother_married", "mother_race")
FLOATS = ("gestation_weeks", "mother_age", "plurality")
NUMERIC = (
    *("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "complex64"),
)


def test_packaged_model_named_features():
    signature = read_signature(PACKAGED)
    assert signature.name == "serving_default"
    assert signature.method_name == "tensorflow/serving/predict"
    expected = [TensorSpec(n, "string" if n in STRINGS else "float32", (None,)) for n in sorted(STRINGS + FLOATS)]
    assert signature.inputs == tuple(expected)
    assert signature.outputs == (TensorSpec("predictions", "float32", (None, 1)),)
    assert (signature.examples_input, signature.example_features) == (None, ())


def test_packaged_model_examples():
    signature = read_signature(PACKAGED, "serving_examples")
    assert signature.inputs == (TensorSpec("examples", "string", (None,)),)
    assert signature.examples_input == "examples"
    assert signature.example_features == tuple(
        ExampleFeature(n, "string" if n in STRINGS else "float32", "dense", (), True) for n in sorted(STRINGS + FLOATS)
    )


def test_internal_signature_is_left_out():
    assert list(read_signatures(PACKAGED)) == ["serving_default", "serving_examples"]


@pytest.fixture(scope="module")
def signature_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Signature]:
    """Exports a function with the given input types and reads its signature; named: a method of the model."""
    import tensorflow as tf

    def export(function, *specs, named=False, **keywords):
        path = str(tmp_path_factory.mktemp("model"))
        root = tf.Module()
        traced = tf.function(function, autograph=False).get_concrete_function(*specs, **keywords)
        if named:
            root.function = tf.function(function, input_signature=specs, autograph=False)
            traced = root.function
        tf.saved_model.save(root, path, signatures=traced)
        return read_signature(path)

    return export


def test_every_dtype_and_shape(signature_of):
    import tensorflow as tf

    keywords = {dtype: tf.TensorSpec([None], dtype) for dtype in (*NUMERIC, "bool", "string")}
    keywords["vector"] = tf.TensorSpec([None, 3], tf.float32)
    keywords["matrix"] = tf.TensorSpec([None, 2, None], tf.float32)
    keywords["fixed"] = tf.TensorSpec([5, 2], tf.float32)
    keywords["scalar"] = tf.TensorSpec([], tf.float32)
    keywords["any"] = tf.TensorSpec(None, tf.float32)
    signature = signature_of(lambda **inputs: {f"{k}_out": tf.identity(v) for k, v in inputs.items()}, **keywords)
    shapes = {
        "vector": (None, 3),
        "matrix": (None, 2, None),
        "fixed": (5, 2),
        "scalar": (),
        "any": None,
    }
    assert signature.inputs == tuple(
        TensorSpec(name, "float32" if name in shapes else name, shapes.get(name, (None,))) for name in sorted(keywords)
    )
    assert [spec.dtype for spec in signature.outputs] == [spec.dtype for spec in signature.inputs]
    assert [spec.name for spec in signature.outputs] == [f"{name}_out" for name in sorted(keywords)]


@pytest.mark.parametrize("named", [True, False])
def test_ragged_and_sparse(signature_of, named):
    import tensorflow as tf

    def function(r, s, x):
        return {"ragged": r * 2.0, "sparse": s, "sum": x + tf.cast(tf.sparse.reduce_sum(s, 1), tf.float32)}

    signature = signature_of(
        function,
        tf.RaggedTensorSpec([None, None, None], tf.float32, 2, tf.int32),
        tf.SparseTensorSpec([None, 4], tf.int64),
        tf.TensorSpec([None], tf.float32),
        named=named,
    )
    assert signature.inputs == (
        TensorSpec("r", "float32", (None, None, None), "ragged", ("r", "r_1", "r_2")),
        # The size is part of the type, which only an exported method keeps.
        TensorSpec("s", "int64", (None, 4 if named else None), "sparse", ("s", "s_1", "s_2")),
        TensorSpec("x", "float32", (None,)),
    )
    assert [(spec.name, spec.kind, spec.dtype) for spec in signature.outputs] == [
        ("ragged", "ragged", "float32"),
        ("sparse", "sparse", "int64"),
        ("sum", "dense", "float32"),
    ]
    assert signature.outputs[1].shape == (None, 4)


def test_named_arguments_that_look_like_parts(signature_of):
    import tensorflow as tf

    specs = {name: tf.TensorSpec([None], tf.int64) for name in ("a", "a_1", "a_2")}
    signature = signature_of(lambda **inputs: {"out": inputs["a"] + inputs["a_1"] + inputs["a_2"]}, **specs)
    assert [(spec.name, spec.kind) for spec in signature.inputs] == [
        ("a", "dense"),
        ("a_1", "dense"),
        ("a_2", "dense"),
    ]


def test_examples_parsed_two_calls_deep(signature_of):
    import tensorflow as tf

    features = {
        "words": tf.io.VarLenFeature(tf.string),
        "path": tf.io.RaggedFeature(tf.int64),
        "age": tf.io.FixedLenFeature([], tf.float32),
        "pair": tf.io.FixedLenFeature([2], tf.int64, [7, 7]),
        "pad": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    }
    inner = tf.function(lambda data: tf.io.parse_example(data, features), autograph=False)
    outer = tf.function(lambda data: inner(tf.identity(data))["age"], autograph=False)
    signature = signature_of(
        lambda label, records: {"age": outer(records), "label": label},
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([None], tf.string),
    )
    assert signature.examples_input == "records"
    assert signature.example_features == (
        ExampleFeature("age", "float32", "dense", (), False),
        ExampleFeature("pad", "float32", "dense", (-1,), True),
        ExampleFeature("pair", "int64", "dense", (2,), True),
        ExampleFeature("path", "int64", "ragged", (), False),
        ExampleFeature("words", "string", "sparse", (), False),
    )


def test_model_of_tensorflow_1(tmp_path):
    import tensorflow as tf

    v1 = tf.compat.v1
    path = str(tmp_path / "model")
    with tf.Graph().as_default(), v1.Session() as session:
        records = v1.placeholder(tf.string, [None], "records")
        sparse = v1.sparse_placeholder(tf.int64, [None, 4], "s")
        features = {"b": tf.io.FixedLenFeature([], tf.float32, 1.0), "a": tf.io.VarLenFeature(tf.int64)}
        parsed = v1.io.parse_example(records, features)
        inputs = {"records": records, "s": sparse}
        v1.saved_model.simple_save(session, path, inputs, {"b": parsed["b"], "d": tf.sparse.to_dense(sparse)})
    signature = read_signature(path)
    assert signature.inputs == (
        TensorSpec("records", "string", (None,)),
        TensorSpec("s", "int64", (None, 4), "sparse", ("s_indices", "s_values", "s_dense_shape")),
    )
    assert signature.example_features == (
        ExampleFeature("a", "int64", "sparse", (), False),
        ExampleFeature("b", "float32", "dense", (), True),
    )


def test_examples_without_tensorflow():
    import tensorflow as tf

    train = tf.train
    message = train.Example(
        features=train.Features(
            feature={
                "text": train.Feature(bytes_list=train.BytesList(value=[b"a", b"\xff"])),
                "floats": train.Feature(float_list=train.FloatList(value=[1.5, -2.0])),
                "ints": train.Feature(int64_list=train.Int64List(value=[-1, 2**62])),
                "nothing": train.Feature(),
            }
        )
    )
    assert parse_example(message.SerializeToString()) == {
        "text": [b"a", b"\xff"],
        "floats": [1.5, -2.0],
        "ints": [-1, 2**62],
        "nothing": [],
    }
    assert parse_example(b"") == {}
    with pytest.raises(ExampleFormatError, match="3 bytes are not a serialized tf.Example"):
        parse_example(b"\x0a\xff\xff")


def test_reads_through_the_given_function():
    asked = []

    def read(name: str) -> bytes:
        asked.append(name)
        return Path(PACKAGED, "saved_model.pb").read_bytes()

    assert read_signature("gs://bucket/model/", read_bytes=read) == read_signature(PACKAGED)
    assert asked == ["gs://bucket/model/saved_model.pb"]

    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(ModelNotFoundError, match="gs://bucket/model"):
        read_signatures("gs://bucket/model", read_bytes=missing)


def test_wrong_paths(tmp_path):
    with pytest.raises(ModelNotFoundError, match="there is no such folder"):
        read_signatures(str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFoundError, match="name the folder that an export wrote"):
        read_signatures(str(tmp_path))
    for version in ("v2", "v10", "logs"):
        (tmp_path / version).mkdir()
    with pytest.raises(ModelNotFoundError, match=r'versions \(v2, v10\); name one, .*v10, or use version "latest"'):
        read_signatures(str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="give its folder"):
        read_signatures(str(Path(PACKAGED, "saved_model.pb")))
    (tmp_path / "saved_model.pbtxt").write_text("")
    (tmp_path / "v2" / "saved_model.pb").mkdir()
    with pytest.raises(ModelFormatError, match="cannot be read"):
        read_signatures(str(tmp_path / "v2"))


def test_damaged_files(tmp_path):
    whole = Path(PACKAGED, "saved_model.pb").read_bytes()
    file = tmp_path / "saved_model.pb"
    for content in (whole[: len(whole) // 2], b"not a model", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(ModelFormatError, match="damaged or cut off"):
            read_signatures(str(tmp_path))
    file.write_bytes(b"")
    with pytest.raises(ModelFormatError, match="holds no graph"):
        read_signatures(str(tmp_path))
    file.write_bytes(whole.replace(b"\x22\x05serve", b"\x22\x05train"))
    with pytest.raises(ModelFormatError, match="no graph tagged 'serve' .tags found: 'train'."):
        read_signatures(str(tmp_path))
    with file.open("wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(ModelFormatError, match="limit of 2 GiB"):
        read_signatures(str(tmp_path))


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    whole = bytearray(Path(PACKAGED, "saved_model.pb").read_bytes())
    for place in range(0, len(whole), 211):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        try:
            read_signatures("x", read_bytes=lambda _, data=damaged: bytes(data))
        except ModelFormatError:
            pass


def test_wrong_signature_name():
    with pytest.raises(SignatureNotFoundError) as caught:
        read_signature(PACKAGED, "serving_defualt")
    message = str(caught.value)
    assert "did you mean 'serving_default'?" in message
    assert "available: 'serving_default', 'serving_examples'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["v1", "v10", "v2"], "v10"),
        (["1", "v2", "3"], "3"),
        (["v1/", "v2/"], "v2"),
        (["1700000000", "1600000000"], "1700000000"),
        (["v", "final", "v1.2", "-3", "v²"], None),
        ([], None),
    ],
)
def test_latest_version(names, expected):
    assert latest_version(names) == expected


def test_neither_reading_nor_showing_imports_tensorflow():
    program = (
        "import sys, model.signature, model.example_proto, model.show, model.savedmodel;"
        f"model.signature.read_signatures({PACKAGED!r}); model.show.main([{PACKAGED!r}]);"
        "heavy = {'tensorflow', 'tfx_bsl', 'keras', 'apache_beam'} & set(sys.modules); assert not heavy, heavy"
    )
    processes.run([sys.executable, "-c", program], check=True, capture_output=True)
