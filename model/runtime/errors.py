"""Names what TensorFlow's C++ core reports as TensorFlow's own Python names it."""

from __future__ import annotations

from model.errors import ModelError


class UnsupportedModelError(ModelError):
    """Raised when the native runtime cannot run a model, and the Python runtime may. The message says why,
    without naming the model.
    """


class UnknownOperationError(UnsupportedModelError):
    """Raised when an operation of the graph is of no library that is loaded."""


class OpError(Exception):
    """Raised when a model failed on the values of a call.

    Attributes:
      message: what TensorFlow says.
      code: TensorFlow's number of the kind of error.
    """

    code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CancelledError(OpError):
    """Raised when the call was cancelled."""

    code = 1


class UnknownError(OpError):
    """Raised when TensorFlow does not say what went wrong."""


class InvalidArgumentError(OpError):
    """Raised when the values are not what an operation takes."""

    code = 3


class DeadlineExceededError(OpError):
    """Raised when the call took too long."""

    code = 4


class NotFoundError(OpError):
    """Raised when something that the graph names is not there, such as a file or an operation."""

    code = 5


class AlreadyExistsError(OpError):
    """Raised when something that the graph makes is there already."""

    code = 6


class PermissionDeniedError(OpError):
    """Raised when the process may not do what the graph does."""

    code = 7


class ResourceExhaustedError(OpError):
    """Raised when there is not enough memory."""

    code = 8


class FailedPreconditionError(OpError):
    """Raised when something is not ready, such as a variable without a value."""

    code = 9


class AbortedError(OpError):
    """Raised when the call was ended by another one."""

    code = 10


class OutOfRangeError(OpError):
    """Raised when a value is beyond the range of an operation."""

    code = 11


class UnimplementedError(OpError):
    """Raised when an operation has no implementation for these types or this device."""

    code = 12


class InternalError(OpError):
    """Raised when something in TensorFlow is broken."""

    code = 13


class UnavailableError(OpError):
    """Raised when something that the graph needs is not available now."""

    code = 14


class DataLossError(OpError):
    """Raised when data of the graph are damaged."""

    code = 15


class UnauthenticatedError(OpError):
    """Raised when the caller is not known."""

    code = 16


def is_op_error(error: BaseException) -> bool:
    """Tells whether an exception is an OpError, of the native runtime or of TensorFlow's Python."""
    return isinstance(error, OpError) or any(
        kind.__name__ == "OpError" and kind.__module__.startswith("tensorflow.") for kind in type(error).__mro__
    )


_BY_CODE: dict[int, type[OpError]] = {kind.code: kind for kind in OpError.__subclasses__()}


def op_error(code: int, message: str) -> OpError:
    """Returns the exception for a status of TensorFlow's C API.

    >>> op_error(3, "assertion failed")
    InvalidArgumentError('assertion failed')
    """
    return _BY_CODE.get(code, UnknownError)(message)
