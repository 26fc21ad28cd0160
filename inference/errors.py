"""Defines what can go wrong between a record batch and its predictions.

InferenceError
├── BindingError      the model's inputs and the columns do not fit: a mistake of the config
├── RowError          one row cannot be predicted; the others can
│   ├── CoercionError a value does not fit the model's input
│   └── PredictionError the model fails on this row
├── OutputError       the model gave something that cannot be laid beside the rows
├── TooManyFailuresError  so many rows fail that the run cannot end well: it ends now
└── EndpointError     a model server did not answer as hoped
    ├── EndpointConfigError  it refuses the caller, or does not know the model: the run stops
    ├── RequestRefusedError  it refuses these rows: they are tried apart
    │   └── RequestTooLargeError  it takes fewer bytes at a time
    └── TransientError       it may do better the next time
        ├── QuotaError       it is asked too often
        ├── ServerError      it fails, for whatever reason
        └── ResponseError    its answer is not one: truncated, for other rows, not in the protocol
            ├── ForeignAnswerError  it is no answer of the model at all: a page, or without the outputs
            └── NoPredictionError  it has null, or NaN in JSON, in place of a prediction: it would again

A row's error travels with the result batch, beside its columns: see `inference.marks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.secrets import masked

ENDPOINT_METRICS = "endpoint"
"""Namespace of the counters of requests."""


class InferenceError(Exception):
    """Raised when anything goes wrong between a record batch and its predictions."""


class BindingError(InferenceError):
    """Raised when the columns do not give what the model's signature needs.

    Attributes:
      problems: one line each, all that were found.
    """

    def __init__(self, problems: list[str] | str) -> None:
        # Beam makes an error anew from its text alone.
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("; ".join(self.problems))

    def __reduce__(self) -> tuple[type[BindingError], tuple[list[str]]]:
        return BindingError, (self.problems,)


class RowError(InferenceError):
    """Raised when one row cannot be predicted."""


class CoercionError(RowError):
    """Raised when a value does not fit the model's input without losing something."""


class PredictionError(RowError):
    """Raised when the model fails on the row, or when rows failed and the run has no dead letters."""


class OutputError(InferenceError):
    """Raised when the model's outputs cannot be laid beside the rows, for example because there are fewer of them."""


class TooManyFailuresError(InferenceError):
    """Raised when so many rows have no prediction that the run cannot end well, whatever becomes of the rows
    that are left.
    """


class EndpointError(InferenceError):
    """Raised when a model server did not answer as hoped. Its text is without the secrets that the server repeated.

    Attributes:
      attempts: how often the request was sent.
    """

    attempts: int = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class EndpointConfigError(EndpointError):
    """Raised when the server refuses the caller, or does not know the model: no row could ever succeed."""


class RequestRefusedError(EndpointError):
    """Raised when the server refuses these rows."""


class RequestTooLargeError(RequestRefusedError):
    """Raised when the rows make a larger request than the server takes.

    Attributes:
      parts: in how many requests they would fit.
    """

    parts: int = 2


class TransientError(EndpointError):
    """Raised when the service may succeed the next time.

    Attributes:
      parts: 1: if it does not, that is no fault of single rows.
      retry_after: seconds that the server asks to wait, if it says so.
    """

    parts: int = 1
    retry_after: float | None = None


class QuotaError(TransientError):
    """Raised when the server gets requests too often."""


class ServerError(TransientError):
    """Raised when the server fails; if it goes on failing, perhaps because of one of the rows."""

    parts = 2


class ResponseError(TransientError):
    """Raised when the server's answer cannot be read as the predictions of the rows that were sent."""

    parts = 2


class ForeignAnswerError(ResponseError):
    """Raised when the server's answer is none of a model at all, whatever the rows: a page, no JSON, without
    the outputs.
    """


class NoPredictionError(ResponseError):
    """Raised when the server's answer has something in place of a row's prediction that cannot be one, such as null.

    Not worth another try: the model predicts it.
    """


@dataclass(frozen=True)
class Failure:
    """Describes why one row has no prediction.

    Attributes:
      stage: coerce or predict.
      error: class of the error.
      message: what was wrong, on one line.
      attempts: how often the row was tried.
    """

    stage: str
    error: str
    message: str
    attempts: int = 1
