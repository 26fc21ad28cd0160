"""Serves classify and regress: the signatures that they call, and what they make of the outputs.

As TensorFlow Serving has it: one input, `inputs`, of serialized tf.Examples; outputs `classes` (labels) and `scores`,
or one of them, both [examples, classes]; or `outputs`, [examples] or [examples, 1]. A signature of TensorFlow 2 that
has these names will do, too, though its method is always predict.
"""

from dataclasses import dataclass

import numpy as np

from model.serving.errors import invalid
from model.serving.servable import Servable, Version
from model.serving.tensors import Array, Arrays
from model.specs import Signature

INPUT = "inputs"
_CLASSES = "classes"
_SCORES = "scores"
_OUTPUT = "outputs"


@dataclass(frozen=True)
class Verb:
    """Describes a way to call a signature with tf.Examples.

    Attributes:
      name: in the path of a request.
      method: the method's name in a signature.
      noun: in error messages.
    """

    name: str
    method: str
    noun: str


CLASSIFY = Verb("classify", "tensorflow/serving/classify", "classification")
REGRESS = Verb("regress", "tensorflow/serving/regress", "regression")


def servable_for(version: Version, name: str, verb: Verb) -> Servable:
    """Returns the signature of that name, to be called with the verb.

    Raises:
      RequestError: there is none of that name, or it is not for the verb.
    """
    if name not in version.signatures:
        known = ", ".join(version.signatures)
        raise invalid(f"No signature was found with the name: {name}; the model has {known}")
    servable = version.servable(name)
    signature = servable.signature
    problem = _problem(signature, verb)
    if problem is not None and signature.method_name != verb.method:
        raise invalid(
            f"Expected {verb.noun} signature method_name to be {verb.method}. Was: {signature.method_name} "
            f"(signature '{name}': {problem})"
        )
    if problem is not None:
        raise invalid(f"signature '{name}': {problem}")
    return servable


def classifications(outputs: Arrays) -> tuple[Array | None, Array | None]:
    """Returns labels and scores, each [examples, classes] or None.

    Raises:
      RequestError: the outputs have other shapes or types.
    """
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    for name, array, dtype in ((_CLASSES, classes, np.dtype(object)), (_SCORES, scores, np.dtype(np.float32))):
        if array is not None and array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)} of '{name}'")
        if array is not None and array.dtype != dtype:
            wanted = "DT_STRING" if name == _CLASSES else "DT_FLOAT"
            raise invalid(f"Expected {name} Tensor of {wanted}. Got: {array.dtype}")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    return classes, scores


def regressions(outputs: Arrays) -> Array:
    """Returns the values, [examples].

    Raises:
      RequestError: the output has another shape or type.
    """
    values = outputs[_OUTPUT]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got " + _shape(values)
        )
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    return values.reshape(-1)


def _problem(signature: Signature, verb: Verb) -> str | None:
    """Returns why a signature is not for the verb, in TensorFlow Serving's words; None if it is."""
    outputs = {spec.name for spec in signature.outputs}
    if len(signature.inputs) != 1:
        return "Expected one input Tensor."
    given = signature.inputs[0]
    if given.name != INPUT:
        return f"No {verb.noun} inputs found in SignatureDef: its input is '{given.name}', not '{INPUT}'"
    if verb is CLASSIFY:
        if len(outputs) > 2:
            return f"Expected one or two output Tensors, found {len(outputs)}"
        if not outputs & {_CLASSES, _SCORES}:
            return f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}"'
    else:
        if len(outputs) != 1:
            return "Expected one output Tensor."
        if outputs != {_OUTPUT}:
            return f"No regression outputs found in SignatureDef: its output is '{outputs.pop()}', not '{_OUTPUT}'"
    if given.dtype != "string":
        return f"its input is {given.dtype}, and {verb.name} sends serialized tf.Examples; send tensors with predict"
    return None


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"
