"""Reads the bodies of responses: JSON or not, and what an error says."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import orjson

from inference.endpoint.protocols.base import Response
from inference.endpoint.protocols.json_read import kind
from inference.errors import ForeignAnswerError, NoPredictionError, RequestRefusedError, ResponseError

_MOST = 500
_MOST_PARSED = 3 << 29
"""Bytes of memory that the values of an answer may take: 1.5 GiB."""
_SURELY_SMALL = 16 << 20
"""Bytes of JSON; no value takes more than 32 times its text."""
_NOT_JSON = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_READ = 1 << 13
_ONE_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TITLE = re.compile(r"<title[^<>]*>([^<]*)<", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")


def one_line(text: str, most: int = _MOST) -> str:
    """Returns the text without line breaks and control characters, cut to `most` characters."""
    text = _ONE_LINE.sub(" ", text[: 4 * most]).strip()
    return text if len(text) <= most else f"{text[: most - 3]}..."


def object_in(response: Response, *, tokens: bool = False) -> dict[str, Any]:
    """Returns the JSON object in a response.

    Args:
      response: the response.
      tokens: whether NaN, Infinity and -Infinity may stand for numbers.

    Raises:
      ResponseError: it is something else, or broken off.
      NoPredictionError: it has NaN or an infinity, and must not.
      RequestRefusedError: it is an error, although its status says success.
    """
    found = parse(response.body, response, tokens=tokens)
    if type(found) is not dict:
        raise ForeignAnswerError(f"the answer is {kind(found)}, not an object: {_start(response.body)}")
    if found.get("error") and not found.keys() & {"predictions", "outputs"}:
        raise RequestRefusedError(said_in(found["error"]) or "the server answers with an error that says nothing")
    return found


def parse(body: bytes, response: Response, *, tokens: bool = False) -> Any:
    """Returns the JSON value in (a part of) the body of a response. Raises ResponseError."""
    if len(body) > _SURELY_SMALL and _memory(body) > _MOST_PARSED:
        raise ResponseError(f"the answer's values would take more than {_MOST_PARSED >> 20} MiB of memory")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _lenient(body, response, str(error), tokens)


def _memory(body: bytes) -> int:
    """About how many bytes the values in a JSON text take: its lists, objects, texts and numbers."""
    large = body.count(b"[") + body.count(b"{") + body.count(b'"') // 2
    return 64 * large + 32 * body.count(b",")


def _lenient(body: bytes, response: Response, reason: str, tokens: bool) -> Any:
    """Python's parser knows NaN and the infinities; anything else that it takes and orjson does not is refused."""
    seen: list[str] = []

    def constant(token: str) -> float:
        # The same value each time: an object of its own for each would be many times as large as the text.
        if not seen:
            seen.append(token)
        return _NOT_JSON[token]

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError):
        pass
    else:
        if seen and tokens:
            return value
        if seen:
            raise NoPredictionError(f"the answer has {seen[0]}, which JSON does not have")
    sent = response.headers.get("content-type", "no content type")
    if _is_page(response):
        what = one_line(_html_text(body[:_READ].decode("utf-8", "replace")), 200)
        raise ForeignAnswerError(one_line(f"the answer is an HTML page, perhaps a sign-in page: {what!r}"))
    # Broken JSON may be due to a row.
    error = ResponseError if "json" in sent.lower() or not body.strip() else ForeignAnswerError
    raise error(one_line(f"the answer is not JSON ({reason}): {one_line(sent, 60)}, {_start(body)}"))


def _is_page(response: Response) -> bool:
    """Whether a response that is not JSON is HTML, as its headers or its beginning say."""
    sent = response.headers.get("content-type", "").lower()
    return "html" in sent or response.body[:320].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _start(body: bytes) -> str:
    """The first 80 characters, and how many bytes there are."""
    return f"{len(body)} bytes: {one_line(body[:320].decode('utf-8', 'replace')[:80], 80)!r}"


def error_message(response: Response) -> str:
    """Returns what the body of an error says: its JSON's error, its HTML's title, or its text."""
    text = response.body[:_READ].decode("utf-8", "replace").strip()
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        if text.startswith("Traceback "):  # MLServer's; its last line is what went wrong
            return one_line(response.body[-_READ:].decode("utf-8", "replace").strip().rpartition("\n")[2])
        return one_line(_html_text(text) if text.startswith("<") else text)
    return said_in(found) or one_line(text)


def said_in(found: object, depth: int = 0) -> str:
    """Returns the message in the JSON of an error; "" if there is none."""
    if isinstance(found, str):
        return one_line(found)
    if depth > 4:
        return ""
    if isinstance(found, list):
        return one_line("; ".join(filter(None, (said_in(item, depth + 1) for item in found[:10]))))
    if not isinstance(found, dict):
        return ""
    where = found.get("loc")
    if isinstance(found.get("msg"), str):
        place = ".".join(str(part)[:40] for part in where[:10]) if isinstance(where, list) else ""
        return one_line(f"{place}: {found['msg']}" if place else found["msg"])
    parts = [said_in(found.get(key), depth + 1) for key in ("error", "message", "detail")]
    return one_line(": ".join(dict.fromkeys(filter(None, parts))))


def _html_text(text: str) -> str:
    title = _TITLE.search(text)
    if title and title[1].strip():
        return html.unescape(title[1])
    return html.unescape(_TAG.sub(" ", _HIDDEN.sub(" ", text)))
