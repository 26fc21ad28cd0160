"""Writes the API page: what other programs import, and what extensions implement, from the docstrings."""

from __future__ import annotations

_INTRODUCTION = """\
# API

What is not listed here may change in any version.
"""
_SECTIONS = {
    "In your own pipeline": [
        "pipelines.io.read.ReadRecordBatches",
        "pipelines.io.write.WriteRecordBatches",
        "inference.predict.Predict",
        "inference.predict.Rejected",
        "inference.saved_model.handler.SavedModelHandler",
        "inference.endpoint.handler.EndpointHandler",
        "inference.endpoint.client.Endpoint",
        "inference.endpoint.protocols.base.Target",
        "pipelines.rows.origin.DeadLetter",
    ],
    "What a format implements": ["pipelines.formats.base"],
    "What a connector implements": [
        "pipelines.connectors.base",
        "pipelines.connectors.writing.row_writer",
        "pipelines.dead_letters.place",
    ],
    "What a protocol implements": ["inference.endpoint.protocols.base.Protocol"],
    "Configs": ["pipelines.config.load.load", "pipelines.config.run.RunConfig"],
}


def api_page() -> str:
    """Returns the page, for mkdocstrings to fill."""
    parts = [_INTRODUCTION]
    for section, names in _SECTIONS.items():
        parts += [f"## {section}\n", *(f"::: {name}\n" for name in names)]
    return "\n".join(parts)
