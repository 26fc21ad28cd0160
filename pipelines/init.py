"""`python -m pipelines.init`: a ready config for a person's own model and data."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model import terminal
from pipelines import cli

_DESCRIPTION = """\
Looks at a SavedModel and at data, and writes a config that fits both: the format by the file's name, each input of
the model to the column that is named most like it, the key to a column that identifies rows.

example: python -m pipelines.init --model exports/mymodel --source 'data/*.parquet' --output configs/mine.json"""

_FORMATS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".avro": "avro",
    ".orc": "orc",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    import argparse

    parser = terminal.ArgumentParser(
        prog="python -m pipelines.init",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, metavar="PATH", help="folder of the SavedModel")
    parser.add_argument("--source", required=True, metavar="FILE", help="a file, glob or folder of data")
    parser.add_argument("--signature", help="which signature to call (serving_default, or the only one)")
    parser.add_argument("--format", choices=sorted(set(_FORMATS.values())), help="by default from the file's name")
    parser.add_argument("--output", default="-", metavar="FILE", help="where to write the config (standard output)")
    parser.add_argument("--force", action="store_true", help="replace a config that exists")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: _init(arguments))


def _init(arguments: Any) -> int:
    import pyarrow as pa

    from inference import model_files
    from model import rows
    from model.errors import ModelError
    from model.signature import read_signature
    from pipelines import source_files
    from pipelines.config import ConfigError
    from pipelines.formats import FormatError, reader_class
    from pipelines.partitions import partition_fields, with_columns

    output = arguments.output
    if output != "-" and os.path.exists(output) and not arguments.force:
        raise ConfigError([f"{output} exists; choose another --output, or --force to replace it"])
    try:
        signature = rows.with_rows(
            read_signature(arguments.model, arguments.signature, read_bytes=model_files.read_bytes)
        )
    except ModelError as error:
        raise ConfigError([f"--model: {error}"]) from None
    problem = rows.problem(signature)
    if problem is not None:
        raise ConfigError([f"--signature: {problem}"])
    source = source_files.find([arguments.source])
    found = source.files
    if not found:
        raise ConfigError([problem.replace("source.path:", "--source:") for problem in source.problems])
    format = arguments.format or format_of(found[0].path)
    if format is None:
        raise ConfigError([f"--source: the format of {found[0].path} does not show in its name; give --format"])
    try:
        sample = reader_class(format).sample(found[0].path, {}, 1000)
        sample = with_columns(sample, found[0].partition, pa.schema(partition_fields(found).values()))
    except (FormatError, OSError) as error:
        raise ConfigError([f"--source: {error}"]) from None
    config, notes = propose(signature, sample, format, arguments)
    text = json.dumps(config, indent=2) + "\n"
    if output == "-":
        terminal.print_text(text.rstrip())
    else:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(text, "utf-8")
        notes.append(f"wrote {output}; next: python -m pipelines.check --config {output}")
    for note in notes:
        terminal.print_line(note, stderr=True)
    return cli.OK


def format_of(path: str) -> str | None:
    """The format that a file's name stands for, compression aside."""
    base = re.sub(r"\.(gz|bz2|zst|zstd)$", "", path.lower())
    return _FORMATS.get(os.path.splitext(base)[1])


def propose(signature: Any, sample: Any, format: str, arguments: Any) -> tuple[dict[str, Any], list[str]]:
    """A config, and what a person has to decide, one line each."""
    notes: list[str] = []
    columns: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    features = signature.example_features if signature.examples_input and format != "tfrecord" else ()
    wanted = features or (() if signature.examples_input else signature.inputs)
    alike: dict[str, list[str]] = {}
    for name in sample.schema.names:
        alike.setdefault(_plain(name), []).append(name)
    for spec in wanted:
        column = _column_for(spec.name, alike)
        if column is None:
            defaults[spec.name] = "" if spec.dtype == "string" else 0
            notes.append(
                f"decide: no column for input '{spec.name}' ({spec.dtype}); source.defaults holds a placeholder"
            )
        elif column != spec.name:
            columns[spec.name] = column
            notes.append(f"assumed: input '{spec.name}' is column '{column}'")
    key = _key_of(sample, {columns.get(spec.name, spec.name) for spec in wanted})
    notes.append(
        f"assumed: '{key}' identifies a row" if key else "no column identifies a row: keys are <file>:<offset>"
    )
    name = re.sub(r"[^a-zA-Z0-9]+", "-", Path(arguments.model.rstrip("/")).parent.name or "predict").strip("-")
    source = {"type": "file", "format": format, "path": arguments.source, "key": key}
    source.update({"columns": columns} if columns else {})
    source.update({"defaults": defaults} if defaults else {})
    name = name if re.match(r"^[a-zA-Z]", name) else "predict"
    config = {
        "$schema": "schema.json",
        "name": name,
        "source": {field: value for field, value in source.items() if value is not None},
        "model": {"type": "saved_model", "path": arguments.model, "signature": signature.name},
        "batching": {"max_rows": 16384, "max_wait_ms": 50},
        "output": {
            "type": "file",
            "format": "json" if format == "orc" else format,
            "path": f"out/{name}",
        },
        "dead_letters": {"path": f"out/{name}-dead_letters", "max_fraction": 0.01},
    }
    return config, notes


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _column_for(name: str, alike: Mapping[str, Sequence[str]]) -> str | None:
    """The column with the input's name, or one that differs only in case and punctuation.

    Args:
      name: of the input.
      alike: columns by their names without case and punctuation.
    """
    same = alike.get(_plain(name), [])
    return name if name in same else same[0] if len(same) == 1 else None


def _key_of(sample: Any, inputs: set[str]) -> str | None:
    """A column that is named like a key, is no input, and holds another value in every row of the sample."""
    named = [n for n in sample.schema.names if re.search(r"(^|_)(id|key|uuid)$", n.lower()) and n not in inputs]
    for name in named:
        values = sample[name]
        if not values.null_count and len(values.unique()) == len(values) and not hasattr(values.type, "value_type"):
            return str(name)
    return None


if __name__ == "__main__":
    sys.exit(main())
