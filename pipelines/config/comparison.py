"""Defines a comparison's config: the run that it is based on, the ways to call its model, how much is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import Name, Strict
from pipelines.config.paths import AnyPath

SIZES = (10_000, 100_000, 1_000_000)
RATES = (50.0, 100.0, 500.0, 5_000.0)

OF_BATCH_RUNS = ("sizes", "inputs")
OF_STREAMS = ("rates", "seconds", "messages", "publish_to", "publish_rows")
_SHARED = (
    "a way changes model and batching alone, as all ways get the same rows and write alike; change it in the run's "
    "config"
)
_OF_THE_RUN = "it belongs in the run's config, the file that config names; change it there"

Load = Annotated[float, Field(gt=0, le=10_000_000_000)]


class LocalServer(Strict):
    """Says how the local server of a way is started, where the way names no address."""

    model: AnyPath | None = Field(None, description="Folder of the SavedModel to serve; that of the run by default.")
    latency_ms: Annotated[float, Field(ge=0)] = Field(
        0, description="Milliseconds added to each request, as a network would."
    )
    quota_qps: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Requests a second that are answered; more are refused with 429. No limit by default."
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Calls of the model at a time; by default as many as there are cores."
    )


class WayConfig(Strict):
    """Describes a way to call the model, as changes of model and batching of the run that is compared."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(("source", "output", "dead_letters", "dedupe"), _SHARED)

    model: dict[Name, Any] = Field(
        description="Keys of the run's model. Those that are not here are taken from the run, if its model has the "
        "same type. Without url, an endpoint and a batch_job call a local server, which is started for it."
    )
    batching: dict[Name, Any] = Field({}, description="Keys of the run's batching; max_rows 1 is single-record mode.")
    server: LocalServer | None = Field(None, description="How the local server is started.")
    max_load: Load | None = Field(
        None, description="The largest size or rate to run this way at, as larger ones would only take long."
    )


class Tolerance(Strict):
    """Says how far a value may be from the reference's."""

    absolute: Annotated[float, Field(ge=0)] = Field(0, description="Largest difference.")
    relative: Annotated[float, Field(ge=0)] = Field(
        0, description="Largest difference, relative to the reference's value; it is added to absolute."
    )


class ComparisonConfig(Strict):
    """Describes a comparison: ways to call the model of a run, over sizes or rates."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("source", "model", "batching", "dead_letters", "dedupe"), _OF_THE_RUN
    )

    schema_: str | None = Field(
        None, alias="$schema", description="Path of compare-schema.json, for editors; the comparison does not read it."
    )
    name: Annotated[str, Field(pattern=r"^[a-zA-Z]([-a-zA-Z0-9_]*[a-zA-Z0-9])?$")] = "compare"
    config: AnyPath = Field(description="The config of the run that the comparison is based on.")
    ways: dict[Annotated[str, Field(pattern=r"^\S(.{0,58}\S)?$")], WayConfig] = Field(
        {},
        description="The ways to compare, by name; the others are held against the first. By default: in the workers, "
        "at an endpoint with micro-batches and with single records, and by a batch prediction job.",
    )
    sizes: Annotated[list[Annotated[int, Field(ge=1, le=1_000_000_000)]], Field(min_length=1)] = Field(
        list(SIZES), description="Rows of batch runs. The source's rows are repeated where it has fewer."
    )
    inputs: dict[Annotated[str, Field(pattern=r"^[1-9]\d{0,11}$")], dict[Name, Any]] = Field(
        {},
        description="Input of each size, as changes of the run's config, in place of sizes and repeated rows: "
        '{"1000": {"source.table": "p.d.thousand"}}.',
    )
    rates: Annotated[list[Load], Field(min_length=1)] = Field(list(RATES), description="Messages a second of streams.")
    seconds: Annotated[float, Field(gt=0)] = Field(6, description="Seconds that messages are sent to a stream, a run.")
    messages: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Messages of a run of a stream, in place of seconds."
    )
    publish_to: str | None = Field(
        None,
        description="Of streams from Pub/Sub or Kafka: where the messages of a run are sent, as "
        "python -m pipelines.simulate has it: pubsub:projects/p/topics/t or kafka:topic.",
    )
    publish_rows: AnyPath | None = Field(
        None, description="File of the rows that are sent, CSV or an object of JSON a line; births by default."
    )
    minutes: Annotated[float, Field(gt=0)] = Field(
        5, description="Minutes that all runs may take together; none is begun that would take longer."
    )
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05,
        description="Half the width of a figure's 95% interval, relative to the figure, below which a way is not run "
        "again.",
    )
    rounds: Annotated[int, Field(ge=1, le=1000)] = Field(20, description="Most rounds.")
    parity_rows: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="Rows whose outputs are compared before anything is measured."
    )
    tolerance: dict[Name, Tolerance] = Field(
        {},
        description="How far values may differ, by output or by dtype such as float32; by default 1e-4 of a float32, "
        "and nothing where values are not numbers with a point.",
    )
    output: Literal["files", "as_configured"] = Field(
        "files",
        description="files: runs write files in the comparison's folder, whatever the run's output is. as_configured: "
        "they write to the run's output, again and again.",
    )
    volume: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Rows a day, or messages a second, that costs of a month are computed for; by default the largest "
        "size once a day, or the largest rate.",
    )
    prices: AnyPath | None = Field(
        None, description="File of your prices, which replace those of configs/prices.json by name."
    )
    folder: AnyPath = Field("out/compare", description="Local folder for results; each comparison has one in it.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.ways) == 1:
            raise ValueError("ways: one way cannot be compared; give two or more, or none for the usual ones")
        for name in ("sizes", "rates"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: the same number is there twice; remove one")
        return self
