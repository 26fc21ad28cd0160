"""Google's JSON over HTTP: errors, retries, pages and long-running operations."""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

from model.cloud.api import ABSENT, PRESENT, Api, Json
from model.cloud.credentials import GoogleAuth
from model.cloud.errors import ServiceError, ServiceUnavailableError, SettingError, UnclearError
from model.http_client import EncodedAnswerError, LargeAnswerError, make_client, read_body, within
from model.secrets import masked

T = TypeVar("T")

ATTEMPTS = 8
TRANSIENT = frozenset({429, 500, 502, 503, 504})

_MAX_PAUSE = 30.0
_MAX_RETRY_AFTER = 300.0
_MAX_ANSWER = 32 << 20
_TIMEOUT_S = 120.0
"""Of a whole call, from connecting to the last byte of the answer."""
_MAX_PAGES = 1_000
_QUOTED = 1 << 16
_PATH = re.compile(r"[A-Za-z0-9_.:@/-]+", re.ASCII)


def check_url(url: str) -> str:
    """Returns a service's address, without the slash or the API's version behind.

    Raises:
      SettingError: it is not one, or would carry an access token in the clear.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise SettingError("--url is not an address; it looks like https://ml.googleapis.com") from None
    if parts.username or parts.password:
        raise SettingError("--url holds a user or password; credentials are Google's application default ones")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingError(f"--url {url} is not an address; it looks like https://ml.googleapis.com")
    if parts.scheme == "http" and not is_loopback(url):
        raise SettingError(f"--url {url} would carry the access token in the clear: use https://")
    return url.rstrip("/").removesuffix("/v1")


def is_loopback(url: str) -> bool:
    """Tells whether it is http:// to this machine, where no credentials are needed or sent."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


class RestApi(Api):
    """Calls a service over HTTP.

    Args:
      root: scheme, host and version.
      auth: credentials; None to send none.
      timeout: seconds for all long-running operations together, from the first wait on.
      tell: takes the lines of progress.
      attempts: how often a call is tried that fails for a reason that may pass.
      sleep: waits some seconds.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        root: str,
        auth: GoogleAuth | None,
        *,
        timeout: float,
        tell: Callable[[str], None],
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(root)
        self._auth, self._timeout, self._tell, self._sleep, self._clock = auth, timeout, tell, sleep, clock
        self._attempts = attempts
        self._deadline: float | None = None
        # A proxy from the environment cannot reach this machine's loopback.
        self._client = make_client(
            auth=auth,
            timeout=httpx.Timeout(60, connect=10),
            trust_env=not is_loopback(root),
            headers={"Accept": "application/json"},
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def get(self, path: str, *, dry: Json | None = None) -> Json | None:
        return self._get(self.url(path))

    def list_all(self, path: str, key: str, query: Mapping[str, str], *, dry: Sequence[Json] = ()) -> list[Json]:
        found: list[Json] = []
        page = dict(query)
        for _ in range(_MAX_PAGES):
            answer = self._get(self.url(path, page)) or {}
            items = answer.get(key) or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ServiceError(f"{self.url(path)} answered with no list of {key}")
            found += items
            token = answer.get("nextPageToken")
            if not token:
                return found
            page["pageToken"] = str(token)
        raise ServiceError(f"{self.url(path)} does not end: {_MAX_PAGES} pages read")

    def send(
        self,
        method: str,
        path: str,
        body: Json,
        *,
        query: Mapping[str, str] | None = None,
        repeatable: bool = False,
        when: str = ABSENT,
        dry: Json | None = None,
    ) -> Json:
        return self._call(method, self.url(path, query), body, repeatable)

    def delete(self, path: str, *, when: str = PRESENT) -> Json | None:
        try:
            return self._call("DELETE", self.url(path), None, True)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """Returns the whole address of a path; names in it may come from the service."""
        if not _PATH.fullmatch(path) or ".." in path:
            raise ServiceError(f"the service named a resource that is none: {path[:200]!r}")
        return super().url(path, query)

    def wait(self, operation: Json, doing: str) -> Json:
        def read() -> Json:
            got = self.get(str(operation.get("name") or ""))
            if got is None:
                raise ServiceError(f"{doing}: the service no longer knows its operation {operation.get('name')}")
            return got

        ended = operation
        if not operation.get("done"):
            ended = self.until(read, lambda got: bool(got.get("done")), doing)
        if ended.get("error"):
            raise ServiceError(f"{doing} failed: {self._message(ended) or 'the service does not say why'}")
        response = ended.get("response")
        return response if isinstance(response, dict) else {}

    def until(self, read: Callable[[], T], done: Callable[[T], bool], doing: str) -> T:
        start = self._clock()
        if self._deadline is None:
            self._deadline = start + self._timeout
        pause = 1.0
        while True:
            left = self._deadline - self._clock()
            if left <= 0:
                raise ServiceError(
                    f"{doing} did not end within {self._timeout:g} s (--timeout); it may yet: run the same command "
                    "again later"
                )
            self._sleep(min(pause, left))
            pause = min(pause * 1.5, 20.0)
            got = read()
            if done(got):
                return got
            self._tell(f"{doing} ... {self._clock() - start:.0f} s")

    def ensure(self, found: T | None, find: Callable[[], T | None], make: Callable[[], T]) -> tuple[T, bool]:
        tries = 0

        def once() -> tuple[T, bool]:
            nonlocal tries
            tries += 1
            known = found if tries == 1 else find()
            return (make(), True) if known is None else (known, tries > 1)

        return self._retrying(lambda error: isinstance(error, UnclearError))(once)

    def _get(self, url: str) -> Json | None:
        try:
            return self._call("GET", url, None, True)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def _call(self, method: str, url: str, body: Json | None, repeatable: bool) -> Json:
        again = self._retrying(
            lambda error: isinstance(error, ServiceUnavailableError) and not isinstance(error, UnclearError)
        )
        return again(self._once, method, url, body, repeatable)

    def _retrying(self, wanted: Callable[[BaseException], bool]) -> tenacity.Retrying:
        jittered = tenacity.wait_random_exponential(multiplier=1, max=_MAX_PAUSE)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", None) or 0.0
            return max(min(asked, _MAX_RETRY_AFTER), jittered(state))

        def stop(state: tenacity.RetryCallState) -> bool:
            late = self._deadline is not None and self._clock() + state.upcoming_sleep > self._deadline
            return late or state.attempt_number >= self._attempts

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._tell(f"{error}; again in {state.upcoming_sleep:.0f} s")

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(wanted),
            wait=wait,
            stop=stop,
            sleep=self._sleep,
            before_sleep=tell,
            reraise=True,
        )

    def _once(self, method: str, url: str, body: Json | None, repeatable: bool) -> Json:
        where = f"{method} {url}"
        unclear = ServiceUnavailableError if repeatable else UnclearError
        try:
            with within(_TIMEOUT_S), self._client.stream(method, url, json=body) as response:
                content = read_body(response, _MAX_ANSWER)
        except LargeAnswerError:
            raise ServiceError(f"{where}: the answer has more than {_MAX_ANSWER >> 20} MiB") from None
        except EncodedAnswerError as error:
            raise ServiceError(f"{where}: {error}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServiceUnavailableError(f"{where}: no connection: {self._line(str(error))}") from None
        except httpx.HTTPError as error:
            raise unclear(f"{where}: {type(error).__name__} {self._line(str(error))}".rstrip()) from None
        except httpx.InvalidURL as error:
            raise ServiceError(f"{where}: {self._line(str(error))}") from None
        answer: object = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(content or b"{}")
        if response.is_success:
            if not isinstance(answer, dict):
                raise unclear(f"{where}: the answer is not a JSON object: {self._line(content[:_QUOTED])[:200]}")
            return answer
        status = response.status_code
        reason = (self._message(answer) if isinstance(answer, dict) else "") or self._line(content[:_QUOTED])[:200]
        text = f"{where}: {status} {reason or self._line(response.reason_phrase)}".rstrip()
        if status == 429:
            raise ServiceUnavailableError(text, status, _retry_after(response))
        if status in TRANSIENT:
            raise unclear(text, status, _retry_after(response))
        # An earlier try, or somebody else, may have made it.
        if status == 409:
            raise unclear(text, status)
        raise ServiceError(text, status)

    def _message(self, answer: Json) -> str:
        error = answer.get("error")
        if not isinstance(error, dict):
            return self._line(str(error)) if error else ""
        status = self._line(str(error.get("status") or "")) or (f"code {error['code']}" if "code" in error else "")
        message = self._line(str(error.get("message") or ""))
        return f"{message} ({status})" if status else message

    def _line(self, text: str | bytes) -> str:
        """On one line, without the access token, not too long."""
        if not isinstance(text, str):
            text = text.decode("utf-8", "replace")
        line = " ".join("".join(c if c.isprintable() else " " for c in masked(text)[:2_000]).split())
        return line if len(line) <= 500 else line[:499] + "…"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds in the header Retry-After: a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError):
        return None
