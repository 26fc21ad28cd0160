"""What TensorFlow's C++ core reports, as exceptions named as TensorFlow's own Python names them."""

from __future__ import annotations

from model.errors import ModelError


class UnsupportedModelError(ModelError):
    """The native runtime cannot do this; the Python runtime may. The message says why, without naming the model."""


class UnknownOperationError(UnsupportedModelError):
    """An operation of the graph is of no library that is loaded."""


class OpError(Exception):
    """A model failed on the values of a call.

    Attributes:
      message: what TensorFlow says.
      code: TensorFlow's number of the kind of error.
    """

    code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CancelledError(OpError):
    """The call was cancelled."""

    code = 1


class UnknownError(OpError):
    """TensorFlow does not say more."""


class InvalidArgumentError(OpError):
    """The values are not what an operation takes."""

    code = 3


class DeadlineExceededError(OpError):
    """The call took too long."""

    code = 4


class NotFoundError(OpError):
    """Something that the graph names is not there, such as a file or an operation."""

    code = 5


class AlreadyExistsError(OpError):
    """Something that the graph makes is there already."""

    code = 6


class PermissionDeniedError(OpError):
    """The process may not do what the graph does."""

    code = 7


class ResourceExhaustedError(OpError):
    """There is not enough memory."""

    code = 8


class FailedPreconditionError(OpError):
    """Something is not ready, such as a variable without a value."""

    code = 9


class AbortedError(OpError):
    """The call was ended by another one."""

    code = 10


class OutOfRangeError(OpError):
    """A value is beyond the range of an operation."""

    code = 11


class UnimplementedError(OpError):
    """An operation has no implementation for these types or this device."""

    code = 12


class InternalError(OpError):
    """Something in TensorFlow is broken."""

    code = 13


class UnavailableError(OpError):
    """Something that the graph needs is not available now."""

    code = 14


class DataLossError(OpError):
    """Data of the graph are damaged."""

    code = 15


class UnauthenticatedError(OpError):
    """The caller is not known."""

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
