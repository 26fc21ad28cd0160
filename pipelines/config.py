"""A run's config: one JSON file, checked as a whole, with every mistake named by its path.

`configs/schema.json` is generated from the models here (`python -m pipelines.config --write`).
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from model import terminal
from pipelines import environment, home
from pipelines.model_config import EndpointConfig, ModelConfig, SavedModelConfig
from pipelines.output_config import (
    BigQueryDeadLetters,
    BigQueryOutput,
    BigtableOutput,
    ConsoleOutput,
    DeadLetters,
    DeadLettersConfig,
    FileOutput,
    KafkaDeadLetters,
    KafkaOutput,
    OutputConfig,
    PubSubDeadLetters,
    PubSubOutput,
)
from pipelines.source_config import FileSource, KafkaSource, PubSubSource, SimulatedSource, SourceConfig
from pipelines.streams.dedupe import Window
from pipelines.variants import Strict

__all__ = ["ConfigError", "FileSource", "KafkaSource", "PubSubSource", "RunConfig", "SimulatedSource", "load"]

SCHEMA_PATH = Path(__file__).resolve().parent.parent / "configs" / "schema.json"
PACKAGED = "configs/natality.json"
PACKAGED_STREAM = "configs/natality-stream.json"


class ConfigError(ValueError):
    """The config, the command line, or what they name, is wrong. Shows no secret, and no value of the environment.

    Attributes:
      problems: one line each: where, what, and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [environment.hidden(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


_PULLED_WHEN_SINGLE = 64


class Batching(Strict):
    """How many rows the model gets at a time."""

    max_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        16384,
        description="Rows in a call of the model; 1 is single-record mode: a stream's messages are taken as they come, "
        "without waiting, and predicted one by one.",
    )
    max_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Bytes in a call of a SavedModel; 256 MiB by default. They are estimated: inputs, outputs whose "
        "sizes the signature tells, and 20 times the bytes of strings larger than 1 KiB, such as images that the model "
        "decodes. A request to a server is bounded by model.max_request_bytes instead.",
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(
        50, description="How long a stream waits for a batch to fill; a batch run never waits."
    )
    latency_budget_ms: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Of a stream, in place of max_wait_ms: rows are to be written within this time of their events. "
        "How long batches wait and how large they get, up to max_rows, is chosen as the stream goes, and reported.",
    )

    @property
    def pulled_rows(self) -> int:
        """How many messages a source hands on at a time, at most."""
        return self.max_rows if self.max_rows > 1 else _PULLED_WHEN_SINGLE

    @property
    def pulled_wait_ms(self) -> float:
        """How long a source waits for them."""
        return self.max_wait_ms if self.max_rows > 1 else 0.0

    @property
    def bundle_s(self) -> float:
        """How long a source hands on messages until they are acknowledged: a pause, which single messages feel."""
        return 0.5 if self.max_rows > 1 else 2.0


class Dedupe(Strict):
    """Of a stream: messages with a key that came before are dropped."""

    window_s: Annotated[float, Field(gt=0)] = Field(600, description="How long a key is remembered.")
    max_keys: Annotated[int, Field(ge=1)] = Field(
        10_000_000, description="How many keys are remembered; about 120 bytes each. The oldest are forgotten first."
    )


class RunConfig(Strict):
    """One run: where rows come from, the model, where predictions go."""

    schema_: str | None = Field(None, alias="$schema", description="For editors: schema.json.")
    name: Annotated[str, Field(pattern=r"^[a-zA-Z]([-a-zA-Z0-9_]*[a-zA-Z0-9])?$")] = "predict"
    source: SourceConfig
    model: ModelConfig
    batching: Batching = Batching.model_construct(
        max_rows=16384, max_bytes=None, max_wait_ms=50, latency_budget_ms=None
    )
    output: OutputConfig
    dead_letters: DeadLettersConfig = DeadLetters.model_construct(path=None, max_fraction=0.01, permissions="0600")
    dedupe: Dedupe | None = Field(None, description="Of a stream: drop repeats of a key; by default they are kept.")

    @property
    def repeats_within(self) -> Window | None:
        """The window in which repeats are dropped, if they are."""
        return Window(self.dedupe.window_s, self.dedupe.max_keys) if self.dedupe else None

    @property
    def dead_letters_path(self) -> str:
        """Prefix of the dead letters' shards; empty if they go elsewhere."""
        if not isinstance(self.dead_letters, DeadLetters):
            return ""
        path = self.output.path or "out/"
        return self.dead_letters.path or (path + "dead_letters" if path.endswith("/") else path + "-dead_letters")


_TYPES: dict[str, dict[str, type[Strict]]] = {
    "source": {"file": FileSource, "simulated": SimulatedSource, "pubsub": PubSubSource, "kafka": KafkaSource},
    "model": {"saved_model": SavedModelConfig, "endpoint": EndpointConfig},
    "output": {
        "file": FileOutput,
        "console": ConsoleOutput,
        "pubsub": PubSubOutput,
        "kafka": KafkaOutput,
        "bigquery": BigQueryOutput,
        "bigtable": BigtableOutput,
    },
    "dead_letters": {
        "file": DeadLetters,
        "pubsub": PubSubDeadLetters,
        "kafka": KafkaDeadLetters,
        "bigquery": BigQueryDeadLetters,
    },
}
"""The variants of the objects that have a `type`."""


def load(path: str | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a config file, applies `--set` overrides and environment variables, and checks it.

    Args:
      path: the file; None for the packaged natality example.
      overrides: `KEY=VALUE` each, as from `--set`.

    Raises:
      ConfigError: with every mistake found.
    """
    file = _find(path)
    content = _parse(file)
    problems = [problem for override in overrides if (problem := _override(content, override))]
    written, content = content, environment.filled(content, problems)
    try:
        config = RunConfig.model_validate(home.with_home(content))
    except ValidationError as error:
        explained = [_explain(details, written) for details in error.errors()]
        # A value that suits neither arm of a union is one mistake.
        problems += {explanation.split(":", 1)[0]: explanation for explanation in explained}.values()
    if problems:
        raise ConfigError([f"{file}: {problem}" for problem in problems])
    return config


_Part = TypeVar("_Part", bound=Strict)


def load_part(path: str, kind: type[_Part]) -> _Part:
    """Reads a file that holds one object of a config alone, with environment variables as in configs.

    Raises:
      ConfigError: with every mistake found.
    """
    problems: list[str] = []
    content = environment.filled(_parse(path), problems)
    try:
        part = kind.model_validate(content)
    except ValidationError as error:
        for each in error.errors():
            where = "".join(f"{name}: " for name in each["loc"])
            problems.append(f"{where}{each['msg'].removeprefix('Value error, ')}")
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return part


def _find(path: str | None) -> str:
    path = home.expanded(path or PACKAGED)
    packaged = Path(__file__).resolve().parent.parent / path
    return str(packaged) if path in (PACKAGED, PACKAGED_STREAM) and not os.path.exists(path) else path


def _parse(file: str) -> dict[str, Any]:
    try:
        text = Path(file).read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{file}: no such file{_near_file(file)}"]) from None
    except (OSError, UnicodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from None
    try:
        content = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([f"{file}: not JSON ({at}): {error.msg}"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{file}: {error}"]) from None
    if not isinstance(content, dict):
        raise ConfigError([f"{file}: a config is a JSON object, {{...}}"])
    return content


def _near_file(file: str) -> str:
    folder = os.path.dirname(file) or "."
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json")) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(os.path.basename(file), names, n=1)
    return f"; did you mean {os.path.join(os.path.dirname(file), near[0])}?" if near else ""


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = sorted(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    if twins:
        raise ValueError(f"key '{twins[0]}' appears twice in one object; remove one")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is not JSON; write "{name}" in quotes')


def _override(content: dict[str, Any], override: str) -> str | None:
    """Applies one KEY=VALUE; returns what is wrong with it."""
    key, equals, text = override.partition("=")
    shown = f"--set {_KEY_START.match(key)[0]}"  # type: ignore[index]
    if not equals or not all(key.split(".")):
        return f"{shown}: give KEY=VALUE, such as --set source.path=data/new.csv"
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            return f"{shown}: '{parent}' is not an object"
    content[last] = value
    return None


_KEY_START = re.compile(r"[\w.$@/-]*")
"""What of a malformed --set is surely no value."""
_NOT_SHOWN = re.compile(r"headers|security|sasl", re.IGNORECASE)
_OBJECTS = ("model_type", "model_attributes_type", "dict_type", "list_type", "extra_forbidden")
"""Kinds of errors of a value that stands where an object should: it is likely to belong elsewhere."""
_USER = re.compile(r"[^\s/'\"@]+@")


def _explain(details: Any, written: Any) -> str:
    """One of pydantic's errors as a line: path, what is wrong, what would be right.

    Args:
      details: the error.
      written: the config as it stands in the file, without the values of the environment.
    """
    location = [part for part in details["loc"] if not _is_internal(str(part))]
    if len(location) > 1 and location[1] in _TYPES.get(str(location[0]), {}):
        variant_of = _TYPES[str(location[0])][str(location.pop(1))]
    else:
        variant_of = None
    places = [str(part) for part in location]
    for place in range(1, len(places)):
        if places[place - 1] == "headers":
            # What follows a header's name by mistake may be its value.
            places[place] = _KEY_START.match(places[place])[0]  # type: ignore[index]
    where = ".".join(places)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1], variant_of)
        return f"{where}: unknown key{_near(str(location[-1]), known)} (known here: {', '.join(known)})"
    if kind == "missing":
        return f"{where}: missing; it is required"
    given = details["input"]
    if kind == "union_tag_invalid":
        given, location = given.get("type") if isinstance(given, dict) else "", [*location, "type"]
        where, context = f"{where}.type", {"expected": "".join(f"'{type}'" for type in _TYPES[where])}
        kind = "literal_error"
    shown = _shown(given, _written(written, location), location)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{where}: {shown or 'its value'} is not one of {', '.join(choices)}{_near(str(given), choices)}"
    if kind == "value_error":
        said = str(context.get("error", ""))
        return f"{where}: {said.replace(repr(given), shown or 'its value') if isinstance(given, str) else said}"
    message = f"{where}: {details['msg'][0].lower()}{details['msg'][1:]}"
    return message if kind in _OBJECTS or not shown else f"{message}, not {shown}"[:400]


def _written(content: Any, location: Sequence[Any]) -> Any:
    """What stands at a place of a config."""
    for part in location:
        if isinstance(content, dict):
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            return None
    return content


def _shown(given: Any, written: Any, location: Sequence[Any]) -> str:
    """A value as an error may show it; empty if it is a secret or may hold one."""
    if any(_NOT_SHOWN.search(str(part)) or environment.is_secret_key(str(part)) for part in location):
        return ""
    if isinstance(given, dict | list):
        return "an object" if isinstance(given, dict) else "a list"
    if isinstance(written, str) and environment.is_variable(written):
        given = written
    return _USER.sub("***@", repr(given))


def _is_internal(part: str) -> bool:
    """Whether a part of pydantic's path names an arm of a union, not a key."""
    return part in ("str", "constrained-str", "DeclaredTensor") or part.startswith(("list[", "function-"))


def _known_keys(location: Sequence[Any], variant_of: type[Strict] | None) -> list[str]:
    model: Any = RunConfig
    for part in location:
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = variant_of if part in _TYPES else field.annotation
        if not isinstance(model, type):
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def json_schema() -> str:
    """The content of configs/schema.json."""
    schema = RunConfig.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A run's config"
    return json.dumps(schema, indent=2) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes configs/schema.json, or checks that it is up to date."""
    parser = terminal.ArgumentParser(prog="python -m pipelines.config", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write configs/schema.json")
    action.add_argument("--check", action="store_true", help="fail if configs/schema.json is not up to date")
    arguments = parser.parse_args(argv)
    if arguments.write:
        SCHEMA_PATH.write_text(json_schema(), "utf-8")
    elif not SCHEMA_PATH.exists() or SCHEMA_PATH.read_text("utf-8") != json_schema():
        terminal.print_error(f"{SCHEMA_PATH.name} is not up to date: run `make schema`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
