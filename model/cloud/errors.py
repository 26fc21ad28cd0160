"""Defines what can go wrong while a model is deployed; each message is one line for the person who asked for it.

DeploymentError
├── SettingError      what was asked for cannot be done as asked
└── ServiceError      a cloud service refused, failed, or could not be reached
    └── ServiceUnavailableError    it may do better the next time
        └── UnclearError      it may have done what it was asked, or not: look before asking again
"""

from __future__ import annotations


class DeploymentError(Exception):
    """Raised when a model is not deployed, or not deleted, as asked."""


class SettingError(DeploymentError):
    """Raised when the command line does not fit itself, the model, or what is there already."""


class ServiceError(DeploymentError):
    """Raised when a cloud service refused, failed, or could not be reached.

    Args:
      message: what happened, on one line.
      status: of the HTTP response, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServiceUnavailableError(ServiceError):
    """Raised when the service may succeed the next time.

    Args:
      message: what happened, on one line.
      status: of the HTTP response, if there was one.
      retry_after: seconds that the service asks to wait, if it says so.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status)
        self.retry_after = retry_after


class UnclearError(ServiceUnavailableError):
    """Raised when the service may have done what it was asked, or not."""
