"""Finds the caller's Google credentials when they are first needed, and refreshes them; they are never printed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx

from model.cloud.errors import ServiceError, ServiceUnavailableError, SettingError
from model.secrets import keep, masked

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class GoogleAuth(httpx.Auth):
    """Authenticates httpx requests by application default credentials. Its repr shows nothing."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def __repr__(self) -> str:
        return "GoogleAuth()"

    def credentials(self) -> Any:
        """Returns the credentials (google.auth.credentials.Credentials).

        Raises:
          SettingError: there are none.
        """
        if self._credentials is None:
            import google.auth
            from google.auth.exceptions import GoogleAuthError

            try:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            except (GoogleAuthError, ValueError, OSError) as error:
                # The text may quote the file.
                raise SettingError(
                    f"no Google credentials that can be used ({type(error).__name__}): run 'gcloud auth "
                    "application-default login', or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
                ) from None
        return self._credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Adds the token; once more with a fresh one if it is refused."""
        self._apply(request, fresh=False)
        response = yield request
        if response.status_code == 401:
            self._apply(request, fresh=True)
            yield request

    def _apply(self, request: httpx.Request, *, fresh: bool) -> None:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        credentials = self.credentials()
        try:
            if fresh:
                credentials.refresh(Request())
            credentials.before_request(Request(), request.method, str(request.url), request.headers)
            keep(str(credentials.token), recent=True)
        except TransportError as error:
            raise ServiceUnavailableError(
                f"the server of access tokens cannot be reached ({type(error).__name__})"
            ) from None
        except GoogleAuthError as error:
            # Its further arguments hold whole responses.
            reason = " ".join(masked(str(error.args[0] if error.args else "")).split())[:200]
            raise ServiceError(
                f"no access token for the Google credentials: {reason or type(error).__name__}; log in again with "
                "'gcloud auth application-default login', or check the key file"
            ) from None
