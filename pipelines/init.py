"""Writes a ready config for a person's own model and data: the command `python -m pipelines.init`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model import terminal
from model.version import add_version
from pipelines import storage
from pipelines.cli import command
from pipelines.config import home

if TYPE_CHECKING:
    from pipelines.planning.found_source import FoundSource

_DESCRIPTION = """\
Looks at a SavedModel and at files, or a table of BigQuery, and writes a config that fits both: of files the format by
name or content, delimiter and encoding of text; each input of the model to the column that is named like it, an input
that takes a vector to the columns that are left if there are as many, the key to a column that identifies rows. It says
what it assumed. If an input is left without a column it says so and writes nothing, unless --force is given.

exit codes: 0 the config is there, 2 something is wrong or left to decide

examples:
  python -m pipelines.init --model exports/mymodel --source 'data/*.parquet' --output configs/mine.json
  python -m pipelines.init --model exports/mymodel --source bigquery:my-project.births.all --output configs/mine.json"""

_FORMATS = ("avro", "bytes", "csv", "json", "orc", "parquet", "text", "tfrecord")


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
    parser.add_argument(
        "--source",
        required=True,
        metavar="SOURCE",
        help="a file, glob or folder of data, or bigquery:<project>.<dataset>.<table>",
    )
    parser.add_argument("--signature", help="which signature to call (serving_default, or the only one)")
    parser.add_argument("--format", choices=_FORMATS, help="of files; by default from their name and content")
    parser.add_argument("--output", default="-", metavar="FILE", help="where to write the config (standard output)")
    parser.add_argument(
        "--force", action="store_true", help="replace a config that exists, and write one that lacks inputs"
    )
    add_version(parser)
    arguments = parser.parse_args(argv)
    return command.guarded(lambda: _init(arguments))


def _init(arguments: Any) -> int:
    from inference.saved_model import files as model_files
    from inference.stores.errors import StoreError
    from model import rows
    from model.errors import ModelError
    from model.signature import read_signature
    from pipelines.config.errors import ConfigError
    from pipelines.formats import detection
    from pipelines.planning import fed_inputs, found_source

    output, model = home.expanded(arguments.output), home.expanded(arguments.model)
    is_table = arguments.source.startswith(found_source.TABLE)
    if is_table and arguments.format:
        raise ConfigError(["--format: is for files; a table's columns have their types: remove it"])
    paths = {"--model": model, "--output": output}
    if not is_table:
        paths["--source"] = home.expanded(arguments.source)
    for option, path in paths.items():
        try:
            storage.look_at_store(path)
        except OSError as error:
            raise ConfigError([f"{option}: {error}"]) from None
    if output != "-" and _exists(output) and not arguments.force:
        raise ConfigError([f"{output} exists; choose another --output, or --force to replace it"])
    try:
        version = _version_of(model)
        path = model_files.resolve(model, version)
        signature = rows.with_rows(read_signature(path, arguments.signature, read_bytes=model_files.read_bytes))
    except ModelError as error:
        raise ConfigError([f"--model: {error}"]) from None
    problem = rows.problem(signature)
    if problem is not None:
        raise ConfigError([f"--signature: {problem}"])
    if is_table:
        found = found_source.of_table(arguments.source)
    else:
        found = found_source.of_files(arguments.source, arguments.format, signature)
    config, notes, missing = propose(signature, found, arguments.model)
    if version is not None:
        config["model"]["version"] = version
        notes.append(f"assumed: of the versions in {model} the newest (model.version)")
    notes = detection.complete(config, found.detected) + notes
    if missing:
        missing += fed_inputs.hints(found.detected.format, found.files[:1])
        if not arguments.force:
            for note in notes:
                terminal.print_line(note, stderr=True)
            raise ConfigError([*missing, "nothing was written; --force writes a config without these inputs"])
        notes += [f"decide: {line}" for line in missing]
    text = json.dumps(config, indent=2) + "\n"
    if output == "-":
        terminal.print_text(text.rstrip())
    else:
        try:
            _write(output, text)
        except StoreError as error:
            raise ConfigError([f"--output: {error}"]) from None
        except OSError as error:
            raise ConfigError([f"--output: cannot write {output}: {error.strerror or error}"]) from None
        notes.append(f"wrote {output}; next: python -m pipelines.check --config {output}")
    for note in notes:
        terminal.print_line(note, stderr=True)
    return command.OK


def _exists(path: str) -> bool:
    return storage.size_of(path) is not None if storage.is_remote(path) else os.path.exists(path)


def _write(path: str, text: str) -> None:
    if storage.is_remote(path):
        storage.write_whole(path, text.encode())
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, "utf-8")


def _version_of(model: str) -> str | None:
    """Returns "latest" for a local folder of versions, None for all else."""
    from model.other_formats import SAVED_MODEL_FILE
    from model.signature import latest_version

    if not os.path.isdir(model) or os.path.exists(os.path.join(model, SAVED_MODEL_FILE)):
        return None
    return "latest" if latest_version(entry.name for entry in os.scandir(model) if entry.is_dir()) else None


def propose(signature: Any, data: FoundSource, model: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """Returns a config, what was assumed for it, and what it lacks, one line each.

    Args:
      signature: of the model.
      data: the source, as it was found.
      model: path of the model.
    """
    import pyarrow as pa

    from inference.columns.binding import bind, wanted_inputs
    from inference.errors import BindingError
    from pipelines.planning import fed_inputs, source_columns
    from pipelines.planning.proposal import Proposal, propose_columns

    sample, format = data.sample, data.detected.format
    schema = sample.schema
    if format == "tfrecord" and signature.examples_input:
        schema = schema.append(pa.field(signature.examples_input, pa.binary()))
    missing: list[str] = []
    found, binding = Proposal(), None
    try:
        specs, optional, _ = wanted_inputs(signature, dict.fromkeys(schema.names), {})
        if schema is not sample.schema:
            specs = [spec for spec in specs if spec.name != signature.examples_input]
        found = propose_columns(specs, optional, signature, sample, ordered=format != "tfrecord")
        missing = list(found.missing.values())
        if not missing:
            binding = bind(signature, schema, found.columns)
            missing += fed_inputs.unfed(binding, schema.names)[1]
    except BindingError as error:
        missing += error.problems
    columns, key = found.columns, "path" if format == "bytes" else found.key
    notes = list(found.notes)
    name = _name_of(model)
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", data.name).strip("-")
    place = f"out/{name}-{stem}" if stem else f"out/{name}"
    source: dict[str, Any] = {**data.config, "key": key}
    source.update({"columns": columns} if columns else {})
    output: dict[str, Any] = {"type": "file", "format": format, "path": place}
    if key is not None:
        notes.append(f"assumed: '{key}' identifies a row")
    elif _can_all_be_written(sample.schema, signature):
        output["columns"] = ["*"]
        notes.append("no column identifies a row: all of them are written beside the outputs (output.columns)")
    else:
        notes.append(f"no column identifies a row: keys are {data.default_keys}")
    if data.columns is not None:
        notes += source_columns.notes_on(data.columns, format)
        if binding is not None:
            passed = sample.schema.names if "columns" in output else []
            notes += source_columns.differences(data.columns, binding, key, passed, format).notes
    config = {
        "$schema": "schema.json",
        "name": name,
        "source": {field: value for field, value in source.items() if value is not None},
        "model": {"type": "saved_model", "path": model, "signature": signature.name},
        "batching": {"max_rows": 16384, "max_wait_ms": 50},
        "output": output,
        "dead_letters": {"path": f"{place}-dead_letters", "max_fraction": 0.01},
    }
    return config, notes, missing


def _can_all_be_written(schema: Any, signature: Any) -> bool:
    """Tells whether every column is one that any format writes, and none is named like an output."""
    import pyarrow as pa

    outputs = {spec.name for spec in signature.outputs}
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_null)
    return len(schema) > 0 and all(
        field.name not in outputs and any(is_plain(field.type) for is_plain in plain) for field in schema
    )


def _name_of(model: str) -> str:
    """Returns a run's name: that of the model's folder, or of the one above if that is a version."""
    parts = [part for part in re.split(r"[/\\]", model) if re.search("[a-zA-Z0-9]", part)]
    named = [part for part in parts if not re.fullmatch(r"v?\d+", part)]
    name = re.sub(r"[^a-zA-Z0-9]+", "-", named[-1] if named else "").strip("-")
    return name if re.match("[a-zA-Z]", name) else "predict"


if __name__ == "__main__":
    sys.exit(main())
