"""Makes the tables of whether ways agree, of what failed or was left out, of all runs, and of how to repeat them."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.comparison.report import words
from pipelines.comparison.report.data_table import DataTable, Heading, RowGroup, TableValue, headings, text, words_table
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import Parity, Results


def parity(results: Results) -> DataTable | None:
    """Returns which ways agree with the first one, and which rows differ; None if nothing was compared."""
    rows = tuple(
        (
            text(each.way),
            text("not known" if each.error else "yes" if each.agrees else "no"),
            TableValue(words.count(each.rows)),
            _greatest(each),
            TableValue(words.count(sum(difference.over for difference in each.differences))),
            TableValue(words.count(each.missing)),
            TableValue(words.count(each.extra)),
            TableValue(words.count(each.repeated)),
            TableValue(words.count(each.failed_here_only)),
            TableValue(words.count(each.failed_in_reference_only)),
            TableValue(words.count(each.failed_in_both)),
        )
        for each in results.parity
        if each.error or each.way != each.reference
    )
    if not rows:
        return None
    failed = "rows that failed"
    titles = (
        Heading("way", number=False),
        Heading("agrees", number=False),
        Heading("rows in both"),
        Heading("greatest difference"),
        Heading("above tolerance"),
        Heading("missing"),
        Heading("extra"),
        Heading("repeated"),
        Heading("here only", group=failed),
        Heading("in the reference only", group=failed),
        Heading("in both", group=failed),
    )
    caption = f"Outputs, compared row by row with those of {results.parity[0].reference}"
    return DataTable(caption, titles, (RowGroup("", rows),), " ".join(_parity_errors(results)))


def _greatest(found: Parity) -> TableValue:
    if not found.differences:
        return TableValue(words.NONE)
    return TableValue(f"{max(each.greatest for each in found.differences):.2g}")


def _parity_errors(results: Results) -> Iterator[str]:
    for each in results.parity:
        if each.error:
            yield words.full_stop(f"{each.way} could not be compared: {each.error}")


def outputs(results: Results) -> DataTable | None:
    """Returns how far each output is from the reference; None if no values were compared."""
    groups = tuple(
        RowGroup(
            each.way,
            tuple(
                (
                    text(one.output),
                    TableValue(words.count(one.rows)),
                    TableValue(f"{one.greatest:.2g}"),
                    TableValue(f"{one.typical:.2g}"),
                    TableValue(f"{one.greatest_relative:.2g}"),
                    TableValue(words.count(one.over)),
                    TableValue(f"{one.absolute:.2g} + {one.relative:.2g} × reference"),
                )
                for one in each.differences
            ),
        )
        for each in results.parity
        if each.differences
    )
    titles = headings(
        "output", "rows", "greatest", "typical", "greatest, relative", "rows above tolerance", "tolerance"
    )
    return DataTable("Differences of each output", titles, groups) if groups else None


def differing_rows(results: Results) -> DataTable | None:
    """Returns examples of rows that differ; None if there are none."""
    groups = tuple(
        RowGroup(
            each.way,
            tuple((text(one.key), text(one.what), text(one.reference), text(one.here)) for one in each.examples),
        )
        for each in results.parity
        if each.examples
    )
    titles = tuple(Heading(each, number=False) for each in ("row", "what differs", "reference", "this way"))
    return DataTable("Some of the rows that differ", titles, groups) if groups else None


def left_out(results: Results) -> DataTable | None:
    """Returns what was not run or not counted, and why; None if all was."""
    subject = subject_of(results)
    rows = [(each.way, words.count(each.load), each.left_out) for each in results.cells if each.left_out]
    return words_table("What was left out, and why", ("way", subject.load, "why"), rows) if rows else None


def failures(results: Results) -> DataTable | None:
    """Returns the runs that failed; None if none did."""
    rows = [
        (each.way, words.count(each.load), _round(each.round), str(each.exit_code), each.error)
        for each in results.runs
        if each.error
    ]
    titles = ("way", subject_of(results).load, "round", "exit code", "error")
    return words_table("Runs that failed: no figure has them", titles, rows) if rows else None


def outliers(results: Results) -> DataTable | None:
    """Returns the runs that are far from the other rounds; None if none is."""
    rows = [
        (each.way, words.count(each.load), _round(each.round), each.outlier)
        for each in results.runs
        if each.outlier and each.ok
    ]
    titles = ("way", subject_of(results).load, "round", "figure that is far off")
    return words_table("Runs far from the other rounds: all figures include them", titles, rows) if rows else None


def _round(number: int) -> str:
    return str(number) if number else "warming up"


def runs(results: Results) -> DataTable | None:
    """Returns all runs in their order; None if there are none."""
    rows = tuple(
        (
            text(each.begun),
            text(each.way),
            TableValue(words.count(each.load)),
            text(_round(each.round)),
            TableValue(words.number(each.elapsed_s)),
            TableValue(words.number(each.pipeline_cpu_s)),
            TableValue(words.NONE if each.server_cpu_s is None else words.number(each.server_cpu_s)),
            TableValue(words.count(each.rows_written)),
            TableValue(words.count(each.rows_dead_lettered)),
            text("failed" if each.error else "outlier" if each.outlier else "counted" if each.round else "not counted"),
        )
        for each in results.runs
    )
    titles = (
        Heading("begun", number=False),
        Heading("way", number=False),
        Heading(subject_of(results).load),
        Heading("round"),
        Heading("elapsed, s"),
        Heading("CPU s, pipeline"),
        Heading("CPU s, server"),
        Heading("predicted"),
        Heading("dead-lettered"),
        Heading("figures", number=False),
    )
    return DataTable("All runs, in the order in which they ran", titles, (RowGroup("", rows),)) if rows else None


def manifest(results: Results) -> DataTable:
    """Returns what is needed to repeat the comparison."""
    found = results.manifest
    rows = [
        ("command", found.command),
        ("config", found.config),
        ("SHA-256 of the config", found.config_hash),
        ("model", found.model),
        ("SHA-256 of the model", found.model_hash),
        ("source", found.source),
        ("machine", f"{found.machine.cpu}, {words.plural(found.machine.cores, 'core', 'cores')}"),
        ("memory", f"{words.number(found.machine.memory_gb)} GB"),
        ("system", found.machine.system),
        ("begun", found.begun),
        ("ended", found.ended),
        ("all runs took", f"{words.count(round(found.seconds))} s"),
        *((f"version of {name}", version) for name, version in sorted(found.versions.items())),
    ]
    return words_table("How this comparison was made", ("what", "value"), rows)
