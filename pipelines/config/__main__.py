"""Writes configs/schema.json, or checks it: the command `python -m pipelines.config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model import packaged, terminal
from model.version import add_version
from pipelines.config.run import RunConfig

SCHEMA_PATH = Path(packaged.find("configs") or "configs") / "schema.json"


def json_schema() -> str:
    """Returns the content of configs/schema.json."""
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
    add_version(parser)
    arguments = parser.parse_args(argv)
    if arguments.write:
        SCHEMA_PATH.write_text(json_schema(), "utf-8")
    elif not SCHEMA_PATH.exists() or SCHEMA_PATH.read_text("utf-8") != json_schema():
        terminal.print_error(f"{SCHEMA_PATH.name} is not up to date: run `make schema`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
