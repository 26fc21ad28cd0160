"""Decides what of a source feeds the model without a word in the config, and checks its encoded columns."""

from __future__ import annotations

import pyarrow as pa

from inference.columns.bound import did_you_mean
from pipelines.config.registry import SourceConfig, source_encodings
from pipelines.config.run import RunConfig
from pipelines.formats import content
from pipelines.plan import PlannedModel


def with_content(config: RunConfig, model: PlannedModel | None) -> RunConfig:
    """Maps the one text input of the model to the one value that rows of some formats are."""
    fed = content.fed(model.signature, config.source.reads) if model is not None else {}
    if not fed:
        return config
    source = config.source.model_copy(update={"columns": {**fed, **config.source.columns}})
    return config.model_copy(update={"source": source})


def unknown_encodings(source: SourceConfig, schema: pa.Schema) -> list[str]:
    """Returns columns that are said to be encoded, and are not there, one line each."""
    return [
        f"source.encodings: no column '{name}' in the source{did_you_mean(name, schema.names)}"
        for name in source_encodings(source)
        if name not in schema.names
    ]
