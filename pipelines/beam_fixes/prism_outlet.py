"""Gives a stage that has no output one, for Prism.

A stream is one stage, and nothing leaves it but what its sink writes. Prism waits for the end of a bundle and for the
end of its data by turns: where there are no data, it asks for their end again and again and keeps a core busy until the
bundle ends. With a way out, which nothing ever takes, their end comes with the end of the bundle.

Seen with Prism of Beam 2.77; test_prism_waits_without_working of tests/pipelines/streams/test_engines.py fails without
this.
"""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.transforms.window import FixedWindows

_WINDOW_S = 60
"""Grouping what is unbounded needs windows. These stay empty."""


def is_prism(options: PipelineOptions) -> bool:
    """Tells whether the runner is Prism."""
    return (options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower() == "prismrunner"


def give_outlet(rows: beam.PCollection) -> None:
    """Gives the stage that makes these rows a way out, if it runs on Prism."""
    if is_prism(rows.pipeline.options):
        _ = (
            rows
            | "Nothing" >> beam.ParDo(_Nothing()).with_output_types(tuple[bytes, bytes])
            | "Windows" >> beam.WindowInto(FixedWindows(_WINDOW_S))
            | "Outlet" >> beam.GroupByKey()
        )


class _Nothing(beam.DoFn):  # type: ignore[misc]
    def process(self, _: object) -> Iterator[tuple[bytes, bytes]]:
        yield from ()
