"""Why a request is not answered with predictions."""

from enum import Enum

from model import terminal


class Status(Enum):
    """The kinds of failure: the name that gRPC and Google's APIs give it, and HTTP's code."""

    INVALID = ("INVALID_ARGUMENT", 400)
    NOT_FOUND = ("NOT_FOUND", 404)
    TOO_LARGE = ("INVALID_ARGUMENT", 413)
    UNSUPPORTED = ("INVALID_ARGUMENT", 415)
    QUOTA = ("RESOURCE_EXHAUSTED", 429)
    INTERNAL = ("INTERNAL", 500)
    UNAVAILABLE = ("UNAVAILABLE", 503)

    @property
    def grpc(self) -> str:
        """The name of gRPC's status code."""
        return self.value[0]

    @property
    def http(self) -> int:
        """HTTP's status code."""
        return self.value[1]


class RequestError(Exception):
    """A request that is not answered with predictions.

    Attributes:
      status: the kind of failure.
      retry_after: seconds after which to come again, if the answer says so.
    """

    def __init__(self, status: Status, message: str, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)


def invalid(message: str) -> RequestError:
    """The request itself is wrong."""
    return RequestError(Status.INVALID, message)


def note(event: str) -> None:
    """Tells whoever runs the server about an event, in one line."""
    terminal.print_line(event, stderr=True)
