"""Runs a workflow of Google Cloud Workflows: the part of its language that examples/workflows uses.

Syntax and library: https://cloud.google.com/workflows/docs/reference/syntax and .../reference/stdlib/overview.
Steps that are not known here are errors.
"""

from __future__ import annotations

import ast
import json
import operator
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import httpx

MOST_EXPRESSION = 400
"""Characters of an expression: https://cloud.google.com/workflows/quotas"""
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda value, many: value in many,
}  # fmt: skip
_WORDS = {"null": None, "true": True, "false": False}

Call = Callable[..., Any]


class WorkflowError(Exception):
    """Raised when a workflow fails, with what it has raised: a text or a map."""

    def __init__(self, value: Any) -> None:
        super().__init__(value if isinstance(value, str) else value["message"])
        self.value = value


class _Next(Exception):
    """Raised to go on with another step of the same list or one around it."""


class _Return(Exception):
    """Raised to end a workflow with a value."""


def _decoded(value: Any) -> Any:
    if not isinstance(value, (str, bytes)):
        raise WorkflowError({"message": "json.decode takes a text, or bytes", "tags": ["TypeError"]})
    return json.loads(value)


class Workflows:
    """Runs the workflows of a file.

    Args:
      source: the file's content.
      hosts: addresses by the beginning of the URLs that stand for them.
      connectors: functions by the names that they are called by.

    Attributes:
      slept: seconds of each pause; none is made unless `sleep` does.
    """

    def __init__(self, source: Mapping[str, Any], hosts: Mapping[str, str], connectors: Mapping[str, Call]) -> None:
        self._source = source
        self._hosts = hosts
        self.slept: list[float] = []
        self.sleep: Callable[[float], None] = lambda seconds: None
        self._calls: dict[str, Call] = {
            "sys.sleep": self._pause,
            **{f"http.{method}": self._http(method) for method in ("get", "post", "delete")},
            **connectors,
        }
        self._functions: dict[str, Call] = {
            "default": lambda value, other: other if value is None else value,
            "if_": lambda condition, value, other: value if condition else other,
            "json.decode": _decoded,
            "json.encode": lambda value: json.dumps(value).encode(),
            "len": len,
            "map.get": lambda found, key: found.get(key),
            "math.min": min,
            "sys.get_env": lambda name: {"GOOGLE_CLOUD_PROJECT_ID": "test-project"}[name],
            "sys.now": time.time,
            "text.substring": lambda text, start, end: text[start:end],
            "text.url_encode": lambda text: quote(text, safe=""),
            "time.format": lambda seconds: datetime.fromtimestamp(seconds, timezone.utc).isoformat(),
            "time.parse": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp(),
            "uuid.generate": lambda: str(uuid.uuid4()),
        }

    @property
    def functions(self) -> set[str]:
        """The functions that expressions may call."""
        return {"if" if name == "if_" else name for name in self._functions}

    def run(self, name: str = "main", /, **arguments: Any) -> Any:
        """Runs a workflow; gives what it returns. Raises WorkflowError."""
        workflow = self._source[name]
        assert set(arguments) == set(workflow["params"]), name
        try:
            self._steps(workflow["steps"], dict(arguments))
        except _Return as returned:
            return returned.args[0]
        return None

    def _steps(self, steps: list[dict[str, Any]], known: dict[str, Any]) -> None:
        names = [next(iter(step)) for step in steps]
        place = 0
        while place < len(steps):
            try:
                self._step(steps[place][names[place]], known)
                place += 1
            except _Next as wanted:
                if wanted.args[0] not in names:
                    raise
                place = names.index(wanted.args[0])

    def _step(self, step: dict[str, Any], known: dict[str, Any]) -> None:
        rest = dict(step)
        if "try" in rest:
            self._try(rest.pop("try"), rest.pop("retry", None), rest.pop("except", None), known)
        if "for" in rest:
            loop = rest.pop("for")
            # What is new in a loop is not known behind it.
            inner = dict(known)
            for value in self._value(loop["in"], known):
                inner[loop["value"]] = value
                self._steps(loop["steps"], inner)
            known |= {name: value for name, value in inner.items() if name in known}
        for assigned in rest.pop("assign", ()):
            [(name, value)] = assigned.items()
            known[name] = self._value(value, known)
        if "call" in rest:
            found = self._called(rest.pop("call"), self._value(rest.pop("args", {}), known))
            if "result" in rest:
                known[rest.pop("result")] = found
        for branch in rest.pop("switch", ()):
            if self._value(branch["condition"], known):
                self._step({name: value for name, value in branch.items() if name != "condition"}, known)
                break
        if "steps" in rest:
            self._steps(rest.pop("steps"), known)
        if "raise" in rest:
            raise WorkflowError(self._value(rest["raise"], known))
        if "return" in rest:
            raise _Return(self._value(rest["return"], known))
        if "next" in rest:
            raise _Next(rest.pop("next"))
        assert not rest, f"not known here: {rest}"

    def _try(self, tried: dict[str, Any], retry: Any, caught: Any, known: dict[str, Any]) -> None:
        left, pause = (retry["max_retries"], retry["backoff"]["initial_delay"]) if retry else (0, 0)
        while True:
            try:
                return self._step(tried, known)
            except WorkflowError as error:
                value = error.value
                if left and self._may_pass(retry["predicate"], value):
                    self._pause(pause)
                    left, pause = left - 1, min(pause * retry["backoff"]["multiplier"], retry["backoff"]["max_delay"])
                    continue
                if caught is None:
                    raise
            inner = {**known, caught["as"]: value}
            try:
                self._steps(caught["steps"], inner)
            finally:
                known |= {name: found for name, found in inner.items() if name in known}
            return None

    def _may_pass(self, predicate: str, value: Any) -> bool:
        name = predicate[2:-1]
        if name == "http.default_retry_predicate":
            return isinstance(value, dict) and value.get("code") in (429, 502, 503, 504)
        return bool(self.run(name, **dict.fromkeys(self._source[name]["params"], value)))

    def _called(self, name: str, arguments: dict[str, Any]) -> Any:
        return self.run(name, **arguments) if name in self._source else self._calls[name](**arguments)

    def _pause(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.sleep(seconds)

    def _http(self, method: str) -> Call:
        def call(
            url: str, auth: Any, query: Any = None, headers: Any = None, body: Any = None, timeout: int = 30
        ) -> dict[str, Any]:
            assert auth == {"type": "OAuth2"}
            [(host, place)] = [each for each in self._hosts.items() if url.startswith(each[0])]
            url, content = place + url.removeprefix(host), json.dumps(body) if isinstance(body, dict) else body
            sent = {"Content-Type": "application/json"} if isinstance(body, dict) else dict(headers or {})
            try:
                answer = httpx.request(method, url, params=query, headers=sent, content=content, timeout=timeout)
            except httpx.ConnectError as error:
                raise WorkflowError({"message": str(error), "tags": ["ConnectionFailedError"]}) from None
            except httpx.TransportError as error:
                raise WorkflowError({"message": str(error), "tags": ["ConnectionError"]}) from None
            is_json = answer.headers.get("Content-Type", "").startswith("application/json")
            found = answer.json() if is_json and answer.content else answer.content
            if answer.is_success:
                return {"body": found, "code": answer.status_code}
            message = f"HTTP server responded with error code {answer.status_code}"
            raise WorkflowError({"message": message, "code": answer.status_code, "tags": ["HttpError"], "body": found})

        return call

    def _value(self, value: Any, known: Mapping[str, Any]) -> Any:
        """A value of the file with its expressions computed."""
        if isinstance(value, dict):
            return {name: self._value(each, known) for name, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, known) for each in value]
        if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
            return value
        text = value[2:-1]
        assert len(text) <= MOST_EXPRESSION, text
        return self._computed(ast.parse(re.sub(r"\bif\(", "if_(", text), mode="eval").body, known)

    def _computed(self, node: ast.AST, known: Mapping[str, Any]) -> Any:
        def of(inner: ast.AST) -> Any:
            return self._computed(inner, known)

        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return _WORDS[name] if name in _WORDS else known[name]
            case ast.Attribute(of_what, name):
                return of(of_what)[name]
            case ast.Call(function, arguments):
                # As there, all arguments are computed, whatever the function needs.
                return self._functions[ast.unparse(function)](*map(of, arguments))
            case ast.UnaryOp(ast.Not(), operand):
                return not of(operand)
            case ast.BoolOp(how, operands):
                values = list(map(of, operands))
                assert all(isinstance(each, bool) for each in values), ast.unparse(node)
                return (all if isinstance(how, ast.And) else any)(values)
            case ast.BinOp(left, how, right):
                return _OPERATORS[type(how)](of(left), of(right))
            case ast.Compare(left, [how], [right]):
                return _OPERATORS[type(how)](of(left), of(right))
        raise AssertionError(f"not known here: {ast.unparse(node)}")
