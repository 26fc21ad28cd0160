"""Says which keys of a comparison its kind of run does not take."""

from __future__ import annotations

from pipelines.config.comparison import OF_BATCH_RUNS, OF_STREAMS, ComparisonConfig
from pipelines.config.files import FileSource
from pipelines.plan import Plan


def problems_of_loads(config: ComparisonConfig, plan: Plan) -> list[str]:
    """Returns a line for each key that would be ignored, as it is for the other kind of run.

    Args:
      config: of the comparison.
      plan: of the run.
    """
    source = plan.config.source
    given = config.model_fields_set
    if not plan.config.is_batch:
        return [
            f"{key}: for batch runs alone, and the source of {config.config} is a stream; leave {key} out, and say in "
            "rates how many messages a second are sent"
            for key in OF_BATCH_RUNS
            if key in given
        ]
    problems = [
        f"{key}: for streams alone, and the source of {config.config} has an end; leave {key} out, and say in sizes "
        "how many rows are read"
        for key in OF_STREAMS
        if key in given
    ]
    if "sizes" in given and not config.inputs and not isinstance(source, FileSource):
        problems.append(
            f"sizes: rows of files alone are repeated, and the source is {source.type}; leave sizes out, and say in "
            'inputs what each size reads, such as {"1000": {"source.table": "p.d.thousand"}}'
        )
    return problems
