"""Defines why a request is not answered with predictions."""

from enum import Enum

from model import terminal

MESSAGE_CHARACTERS = 500
"""Most characters of an error's message, whatever the request repeats in it."""


class Status(Enum):
    """Names the kinds of failure as gRPC and Google's APIs do, with HTTP's code."""

    INVALID = ("INVALID_ARGUMENT", 400)
    PRECONDITION = ("FAILED_PRECONDITION", 400)
    FORBIDDEN = ("PERMISSION_DENIED", 403)
    NOT_FOUND = ("NOT_FOUND", 404)
    PRESENT = ("ALREADY_EXISTS", 409)
    TOO_LARGE = ("INVALID_ARGUMENT", 413)
    UNSUPPORTED = ("INVALID_ARGUMENT", 415)
    QUOTA = ("RESOURCE_EXHAUSTED", 429)
    INTERNAL = ("INTERNAL", 500)
    UNIMPLEMENTED = ("UNIMPLEMENTED", 501)
    UNAVAILABLE = ("UNAVAILABLE", 503)

    @property
    def grpc(self) -> str:
        """Returns the name of gRPC's status code."""
        return self.value[0]

    @property
    def http(self) -> int:
        """HTTP's status code."""
        return self.value[1]


class RequestError(Exception):
    """Raised for a request that is not answered with predictions.

    Its message is brief: see `brief`.

    Attributes:
      status: the kind of failure.
      retry_after: seconds after which to come again, if the answer says so.
    """

    def __init__(self, status: Status, message: str, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(brief(message))


def invalid(message: str) -> RequestError:
    """Returns the request itself is wrong."""
    return RequestError(Status.INVALID, message)


def too_large(message: str) -> RequestError:
    """Returns the request is beyond one of the server's limits: a smaller one is taken."""
    return RequestError(Status.TOO_LARGE, message)


def brief(text: str) -> str:
    """Returns a message that may repeat parts of a request as one line of at most MESSAGE_CHARACTERS.

    Control characters and lone surrogates are escaped. The middle of a long text is left out: its end often says
    what to do.
    """
    text = _cut(text)
    return _cut(terminal.escaped(text))


def _cut(text: str) -> str:
    if len(text) <= MESSAGE_CHARACTERS:
        return text
    end = MESSAGE_CHARACTERS // 3
    return f"{text[: MESSAGE_CHARACTERS - end - 5]} ... {text[-end:]}"


def note(event: str) -> None:
    """Tells whoever runs the server about an event, in one line."""
    terminal.print_line(brief(event), stderr=True)
