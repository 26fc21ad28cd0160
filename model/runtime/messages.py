"""TensorFlow's own protobuf messages, imported from its wheel without running the package.

`import tensorflow.core...` would run `tensorflow/__init__.py`, which takes many times as long as all of the messages.
They are the same messages: TensorFlow may be imported later, and finds them as its own.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

from model.runtime.errors import UnsupportedModelError
from model.runtime.library import tensorflow_folder


@contextmanager
def _without_the_package() -> Iterator[None]:
    """Lets modules below `tensorflow` be imported while the block runs, unless the package has been imported."""
    if "tensorflow" in sys.modules:
        yield
        return
    try:
        folder = tensorflow_folder()
    except UnsupportedModelError as error:
        raise ImportError(str(error)) from error
    package = types.ModuleType("tensorflow")
    package.__path__ = [str(folder)]
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".", 1)[0] == "tensorflow"]:
            del sys.modules[name]


with _without_the_package():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        predict_pb2,
        regression_pb2,
    )

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "predict_pb2",
    "regression_pb2",
    "saved_model_pb2",
    "tensor_pb2",
    "types_pb2",
]
