"""Prints the signatures of a SavedModel: `python -m model.show PATH [--json]`. Does not import TensorFlow.

Says too what the model's graph does beside computing, such as reading files.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from model import packaged, terminal
from model.errors import ModelError
from model.outside import describe
from model.rows import shape_text
from model.signature import Contents, read_contents
from model.specs import ExampleFeature, Signature, TensorSpec
from model.version import add_version


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the command line's arguments; those of the process by default.

    Returns:
      The exit code: 0, or 2 if there is no model that can be read.
    """
    parser = terminal.ArgumentParser(prog="python -m model.show", description="Print a SavedModel's signatures.")
    parser.add_argument("path", help="the folder that holds saved_model.pb")
    parser.add_argument("--json", action="store_true", help="print one JSON object, by signature")
    add_version(parser)
    options = parser.parse_args(arguments)
    try:
        contents = read_contents(packaged.located(options.path))
    except ModelError as error:
        terminal.print_error(str(error))
        return 2
    if options.json:
        terminal.print_text(json.dumps(_as_json(contents), indent=2))
    else:
        _print_tables(contents.signatures.values())
        if contents.outside:
            terminal.print_line(f"note: {describe(contents.outside)}")
    return 0


def _as_json(contents: Contents) -> dict[str, Any]:
    """The signatures by name; what the graph does beside computing stands in each, with what runs it."""
    outside = [dataclasses.asdict(operation) for operation in contents.outside]
    return {
        name: {**dataclasses.asdict(each), "reaches_outside": outside} for name, each in contents.signatures.items()
    }


def _print_tables(signatures: Iterable[Signature]) -> None:
    from rich import box
    from rich.table import Table

    from model.console import Console

    console = Console()
    for signature in signatures:
        table = Table(title=signature.name, title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("", "name", "dtype", "shape", "kind"):
            table.add_column(column)
        for role, name, dtype, shape, kind in _rows(signature):
            table.add_row(role, name, dtype, shape, kind)
        console.print(table)


def _rows(signature: Signature) -> Iterable[tuple[str, str, str, str, str]]:
    for spec in signature.inputs:
        yield "input", spec.name, spec.dtype, shape_text(spec.shape), _kind(spec, signature.examples_input)
        if spec.name == signature.examples_input:
            for feature in signature.example_features:
                shape = f"[{', '.join('?' if size < 0 else str(size) for size in feature.shape)}]"
                yield "feature", f"  {feature.name}", feature.dtype, shape, _feature_kind(feature)
    for spec in signature.outputs:
        yield "output", spec.name, spec.dtype, shape_text(spec.shape), spec.kind


def _kind(spec: TensorSpec, examples_input: str | None) -> str:
    if spec.name == examples_input:
        return "serialized tf.Example"
    return f"{spec.kind} ({', '.join(spec.components)})" if spec.components else spec.kind


def _feature_kind(feature: ExampleFeature) -> str:
    return (
        f"{feature.kind}, {'has a default' if feature.has_default else 'required'}"
        if (feature.kind == "dense")
        else feature.kind
    )


if __name__ == "__main__":
    sys.exit(main())
