"""Defines what can be wrong with a model, as exceptions whose message is one line for a person.

ModelError (a ValueError)
├── ModelNotFoundError        the path holds no SavedModel
├── ModelFormatError          the file is there, but is not a SavedModel that can be read
│   └── ExampleFormatError    bytes that are not a tf.Example
├── ModelLoadError            the signatures can be read, but TensorFlow cannot load the model
├── SignatureNotFoundError    the model has no signature of that name
└── ModelInputError           a call does not match the signature
"""


class ModelError(ValueError):
    """Raised when something is wrong with a model, its files, or the way it is called."""


class ModelNotFoundError(ModelError):
    """Raised when the path holds no SavedModel."""


class ModelFormatError(ModelError):
    """Raised when the file exists but is not a SavedModel that can be read."""


class ExampleFormatError(ModelFormatError):
    """Raised when bytes are not a serialized tf.Example."""


class ModelLoadError(ModelError):
    """Raised when TensorFlow cannot load the model, although its signatures can be read."""


class SignatureNotFoundError(ModelError):
    """Raised when the model has no signature of that name."""


class ModelInputError(ModelError):
    """Raised when the tensors of a call do not match the inputs of the signature."""
