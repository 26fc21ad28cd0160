"""Writes the schemas of configs, or checks them: the command `python -m pipelines.config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model import packaged, terminal
from model.version import add_version
from pipelines.config.base import Strict
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.run import RunConfig

_FOLDER = Path(packaged.find("configs") or "configs")
SCHEMA_PATH = _FOLDER / "schema.json"
COMPARE_SCHEMA_PATH = _FOLDER / "compare-schema.json"


def json_schema() -> str:
    """Returns the content of configs/schema.json."""
    return _schema_of(RunConfig, "A run's config")


def compare_schema() -> str:
    """Returns the content of configs/compare-schema.json."""
    return _schema_of(ComparisonConfig, "A comparison's config")


def _schema_of(kind: type[Strict], title: str) -> str:
    schema = kind.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    return json.dumps(schema, indent=2) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the schemas of configs, or checks that they are up to date."""
    parser = terminal.ArgumentParser(prog="python -m pipelines.config", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write configs/schema.json and compare-schema.json")
    action.add_argument("--check", action="store_true", help="fail if one of them is not up to date")
    add_version(parser)
    arguments = parser.parse_args(argv)
    for path, content in ((SCHEMA_PATH, json_schema()), (COMPARE_SCHEMA_PATH, compare_schema())):
        if arguments.write:
            path.write_text(content, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != content:
            terminal.print_error(f"{path.name} is not up to date: run `make schema`")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
