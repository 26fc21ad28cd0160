"""Checks a config and shows what it will do, in seconds, without TensorFlow: `python -m pipelines.check`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from model import terminal
from model.argument_types import whole_number
from model.quiet import quiet_imports
from pipelines.cli import command

_DESCRIPTION = """\
Checks a config: that it is valid, that the source can be read and the output written, which column feeds which
input of the model and how, and what the output will look like. Shows the first rows, what the model would get of them,
and which of the first thousand would become dead letters. Runs nothing; with --model, the model is loaded (or its
server called) and predicts these rows.

exit codes: 0 the config is right, 2 it is not"""

_CELL_CHARACTERS = 40
_SHOWN = 100
"""Rows and columns of a table that are shown; --json has all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = command.parser("check", _DESCRIPTION)
    parser.add_argument("--rows", type=whole_number, default=3, metavar="N", help="rows to show (3)")
    parser.add_argument("--model", action="store_true", help="predict the first rows, with the model loaded")
    parser.add_argument("--offline", action="store_true", help="connect to no source and no output; show no rows")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    arguments = parser.parse_args(argv)
    return command.guarded(lambda: _check(arguments))


def _check(arguments: Any) -> int:
    from dataclasses import replace

    from pipelines.cli import sample_view
    from pipelines.config.load import load
    from pipelines.planning.planner import make_plan
    from pipelines.planning.sampling import Sample, take_sample

    config = load(arguments.config, arguments.set)
    plan = make_plan(config, offline=arguments.offline)
    looks = not arguments.offline
    if config.is_batch and config.output_path and looks:
        plan = replace(plan, notes=(*plan.notes, *_look_at_places(plan)))
    sample = _sample(plan, max(arguments.rows, 0)) if looks else []
    coerced = take_sample(plan) if looks else Sample()
    problems = sample_view.problems(plan, coerced)
    found = _findings(plan, sample) | sample_view.findings(coerced)
    out, err = command.consoles()
    if not arguments.json:
        _show(plan, sample, looks)
        sample_view.show(out, _table, coerced)
    if arguments.model and config.model.type == "batch_job":
        problems.append("--model: a batch prediction job is not tried with single rows; leave it out")
    if config.model.type == "batch_job" and not problems:
        found["batch_job"] = _job(plan, err, looks)
    if arguments.model and not problems:
        err.print(f"loading Beam and {plan.model.path} ...")
        with quiet_imports():
            from pipelines.cli import trial
        tried = trial.predict(plan, coerced, max(arguments.rows, 0))
        found["trial"] = tried.findings()
        problems = tried.problems(plan)
        if not arguments.json:
            trial.show(out, _table, tried)
    if arguments.json and not problems:
        terminal.print_line(json.dumps(found, default=str))
    return command.fail(problems) if problems else command.OK


def _job(plan: Any, err: Any, looks: bool) -> dict[str, Any]:
    """Returns what is known of a job before it is submitted. Raises ConfigError: it would cost too much."""
    from pipelines.config.errors import ConfigError
    from pipelines.connectors.batch_job.folder import folder_of
    from pipelines.cost import batch_job as costs
    from pipelines.cost.prices import load as load_prices
    from pipelines.planning.row_estimate import expected_rows

    folder = folder_of(plan)
    prepared, submitted = folder.prepared(), folder.submitted()
    err.print(f"the job's folder is {folder.path}")
    known: dict[str, Any] = {"folder": folder.path, "prepared": prepared is not None}
    if submitted is not None and submitted.resource:
        err.print(f"the job {submitted.resource} is submitted already: a run joins its results")
        return known | {"resource": submitted.resource}
    rows = prepared.instances if prepared is not None else expected_rows(plan) if looks else None
    if rows is None:
        err.print("what the job will cost is said when the rows are prepared, before it is submitted")
        return known
    estimate = costs.estimated(plan.config.model, rows, load_prices())
    about = "" if prepared is not None else f", for about {rows:,} rows; known better when they are prepared"
    err.print(f"estimated cost: {estimate.in_words()}{about}")
    if problems := costs.over(plan.config.model, estimate):
        raise ConfigError(problems)
    known["estimated_rows"] = rows
    return known | {"estimated_node_hours": estimate.node_hours, "estimated_cost": estimate.cost}


def _look_at_places(plan: Any) -> list[str]:
    """Completes what a stopped run left; tells what else a run would find where it publishes."""
    from pipelines.cli import run_batch
    from pipelines.connectors import registry
    from pipelines.connectors.files.publishing.completion import look_after
    from pipelines.planning.output_places import places

    notes = look_after(*places(plan.config), plan.run_id, plan.config.name)
    run_batch.check_places(plan, registry.batch_sink(plan))
    return notes


def _sample(plan: Any, rows: int) -> list[dict[str, Any]]:
    """The first rows of the source's files."""
    from pipelines.connectors.files.partitions import with_columns
    from pipelines.formats import FormatError, reader_class
    from pipelines.formats.output_values import shown_values
    from pipelines.planning.planner import source_options
    from pipelines.rows.origin import Block

    if plan.extent is not None:
        from pipelines.connectors.registry import bounded_source

        pieces = bounded_source(plan.config.source).sample(plan, rows)
        batch = next((piece.batch for _, piece in pieces if isinstance(piece, Block)), None)
        return [] if batch is None else batch.slice(0, rows).to_pylist()
    if not plan.files:
        return []
    reader = reader_class(plan.config.source.reads)
    for file in plan.files:
        try:
            read = reader.sample(file.path, source_options(plan.config.source), rows)
            found = with_columns(read, file.partition, plan.source_schema).slice(0, rows)
        except (FormatError, OSError):
            continue
        if found.num_rows:
            columns = [shown_values(column) for column in found.columns]
            return [dict(zip(found.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
    return []


def _mapping(plan: Any) -> list[dict[str, str]]:
    """What feeds each input; of a vector, each of its elements."""
    from inference.columns.shapes import in_words

    rows = []
    for bound in plan.binding.inputs:
        takes = f"{bound.spec.dtype} {in_words(bound.spec)}"
        missing = "left out" if bound.optional else "dead letter"
        if bound.vector:
            for place, element in enumerate(bound.vector):
                name = f"{bound.spec.name}[{place}]"
                rows.append(_fed_by(plan, name, takes, element, "dead letter"))
        elif bound.column is None:
            default = missing if bound.default is None else repr(bound.default)
            rows.append(_row(bound.spec.name, takes, "-", "-", bound.coercion, default))
        else:
            rows.append(_fed_by(plan, bound.spec.name, takes, bound.elements[0], missing))
    return rows


def _fed_by(plan: Any, name: str, takes: str, element: Any, missing: str) -> dict[str, str]:
    """One column of the source that feeds an input."""
    known = plan.source_schema.names
    column_type = plan.source_schema.field(element.column).type if element.column in known else element.type
    default = missing if element.default is None else repr(element.default)
    return _row(name, takes, element.column, str(column_type or "-"), element.coercion, default)


def _row(name: str, takes: str, column: str, type: str, coercion: str, missing: str) -> dict[str, str]:
    return {"input": name, "takes": takes, "column": column, "type": type, "coercion": coercion, "missing": missing}


def _findings(plan: Any, sample: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ok": True,
        "name": plan.config.name,
        "files": len(plan.files),
        "bytes": plan.nbytes,
        "model": plan.model.path,
        "signature": plan.signature.name,
        "runtime": plan.model.runtime,
        "model_reaches_outside": [asdict(operation) for operation in plan.model.outside],
        "inputs": _mapping(plan),
        "output": [{"column": c.name, "type": str(c.type), "from": c.origin} for c in plan.output],
        "output_path": plan.config.output_path,
        "dead_letters_path": plan.config.dead_letters_path,
        "notes": list(plan.notes),
        "sample": sample,
    }


def _show(plan: Any, sample: list[dict[str, Any]], looked: bool) -> None:

    out, _ = command.consoles()
    config = plan.config
    out.print(f"config   {config.name}: valid")
    out.print(f"source   {_source(plan)}, {config.source.format}; key: {_key(plan)}")
    runtime = f", {plan.model.runtime} runtime" if plan.model.runtime else ""
    out.print(f"model    {plan.model.path}, signature {plan.signature.name}{runtime}")
    for note in plan.notes:
        out.print(f"note     {note}")
    inputs = _mapping(plan)
    _table(out, "column -> model input", list(inputs[0]) if inputs else [], [list(row.values()) for row in inputs])
    written = [[column.name, str(column.type), column.origin] for column in plan.output]
    _table(out, f"output: {config.output.describe()}", ["column", "type", "from"], written)
    if not config.is_batch:
        if config.source.format not in ("avro", "protobuf"):
            out.print("what messages have shows when they come; these fields are presumed")
    elif sample:
        names = list(sample[0])
        cells = [[_cell(row[name]) for name in names[:_SHOWN]] for row in sample]
        _table(out, "first rows of the source", names, cells)
    elif not looked:
        out.print("--offline: the rows of the source were not looked at")
    elif config.source.type == "bigquery":
        out.print("no rows are shown: the table has none, or a query's rows would cost what the query costs")
    else:
        out.print("the source has no rows")


def _key(plan: Any) -> str:
    """Returns what identifies a row: a column's name, or how rows are named without one."""
    return plan.config.source.key or ("<table>/<piece>:<row>" if plan.extent is not None else "<file>:<offset>")


def _source(plan: Any) -> str:
    """The source in words."""
    if plan.config.source.type != "file":
        size = f", about {plan.extent.rows:,} rows before any filter" if plan.extent and plan.extent.rows else ""
        return str(plan.config.source.describe()) + size
    size = sum(file.size for file in plan.files)
    return f"{len(plan.files):,} file{'s' * (len(plan.files) != 1)}, {size / 1e6:,.1f} MB"


def _cell(value: Any) -> str:
    text = "" if value is None else terminal.escaped(str(value)[: _CELL_CHARACTERS + 1])
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 3] + "..."


def _table(console: Any, title: str, names: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    left_out = max(len(names), len(rows)) - _SHOWN
    names, rows = names[:_SHOWN], [row[:_SHOWN] for row in rows[:_SHOWN]]
    simple = not console.is_terminal
    table = Table(box=box.SIMPLE_HEAD if simple else box.ROUNDED)
    for name in names:
        # A pipe has no width: names stay whole there, for grep and other programs.
        table.add_column(name, overflow="fold", no_wrap=not console.file.isatty())
    for row in rows:
        table.add_row(*row)
    # A title of the table's own would be wrapped to the table's width.
    console.print(title)
    console.print(table)
    if left_out > 0:
        console.print(f"and {left_out:,} more, which --json shows")


if __name__ == "__main__":
    sys.exit(main())
