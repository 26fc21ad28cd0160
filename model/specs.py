"""Describes what a signature is made of: plain values, free of protobuf and of TensorFlow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """Describes one input or output of a signature.

    Attributes:
      name: the key in the signature, for example "mother_age".
      dtype: TensorFlow's name of the type of the values: "float32", "int64", "string", "bool", "bfloat16", ...
      shape: the sizes, the batch first, None for a size that is not fixed; None for an unknown rank. A ragged
        dimension is not fixed either.
      kind: "dense", "sparse" or "ragged".
      components: of a sparse or ragged input, the keywords of the dense tensors that the loaded signature takes
        in its place, in order. Ragged: the flat values, then one vector of row splits a ragged dimension, the
        outermost first. Sparse: the indices (int64, [values, rank]), the values, the dense shape (int64,
        [rank]). Empty for a dense input and for outputs, which come back as composite tensors.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    kind: str = "dense"
    components: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExampleFeature:
    """Describes one feature that a tf.Example input is parsed into.

    Attributes:
      name: the feature's key in the tf.Example.
      dtype: "float32", "int64" or "string".
      kind: "dense", "sparse" or "ragged".
      shape: of a dense feature, the shape of one example's value, -1 for a variable length; () otherwise.
      has_default: whether a dense feature may be missing from an example; False for the other kinds, which
        always may.
    """

    name: str
    dtype: str
    kind: str
    shape: tuple[int, ...]
    has_default: bool


@dataclass(frozen=True)
class Signature:
    """Describes one way to call a model.

    Attributes:
      name: the signature's key, usually "serving_default".
      inputs: the inputs, sorted by name.
      outputs: the outputs, sorted by name.
      method_name: what TensorFlow Serving answers it by, "tensorflow/serving/predict" as a rule.
      examples_input: the name of the string input that the model parses as serialized tf.Examples, if there is
        one.
      example_features: what that input is parsed into; empty where the graph does not tell.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str
    examples_input: str | None = None
    example_features: tuple[ExampleFeature, ...] = ()
