"""Defines a run's config: one JSON file, checked as a whole, with every mistake named by its path.

`configs/schema.json` is generated from the models here (`python -m pipelines.config --write`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipelines.config.base import Strict
from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.files import DeadLetters, FileOutput
from pipelines.config.registry import DeadLettersConfig, ModelConfig, OutputConfig, SourceConfig, StreamSource

_PULLED_WHEN_SINGLE = 64


@dataclass(frozen=True)
class Window:
    """Says which messages count as repeats: those whose key came within so many seconds.

    Attributes:
      seconds: how long a key is remembered.
      most: how many keys are; if more come in that time, the oldest are forgotten, and a warning says so.
    """

    seconds: float
    most: int


class Batching(Strict):
    """Says how many rows the model gets at a time."""

    max_rows: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        16384,
        description="Rows in a call of the model; 1 is single-record mode: a stream's messages are taken as they come, "
        "without waiting, and predicted one by one.",
    )
    max_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Bytes in a call of a SavedModel; 256 MiB by default. They are estimated: inputs, outputs whose "
        "sizes the signature tells, and 20 times the bytes of strings larger than 1 KiB, such as images that the model "
        "decodes. A request to a server is bounded by model.max_request_bytes instead.",
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(
        50, description="Milliseconds that a stream waits for a batch to fill, 50 by default; a batch run never waits."
    )
    latency_budget_ms: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description=(
            "Milliseconds within which a stream is to write rows after their events; use it instead of "
            "max_wait_ms. How long batches wait and how large they get, up to max_rows, is then chosen as the "
            "stream goes, and reported."
        ),
    )

    @property
    def pulled_rows(self) -> int:
        """Returns how many messages a source hands on at a time, at most."""
        return self.max_rows if self.max_rows > 1 else _PULLED_WHEN_SINGLE

    @property
    def pulled_wait_ms(self) -> float:
        """Returns how long a source waits for them."""
        return self.max_wait_ms if self.max_rows > 1 else 0.0

    @property
    def bundle_s(self) -> float:
        """Returns how long a source hands on messages until they are acknowledged: a pause, which single
        messages feel.
        """
        return 0.5 if self.max_rows > 1 else 2.0


class Dedupe(Strict):
    """Drops messages of a stream whose key came before."""

    window_s: Annotated[float, Field(gt=0)] = Field(600, description="Seconds that a key is remembered.")
    max_keys: Annotated[int, Field(ge=1)] = Field(
        10_000_000, description="How many keys are remembered; about 120 bytes each. The oldest are forgotten first."
    )


class RunConfig(Strict):
    """Describes one run: where rows come from, the model, where predictions go."""

    schema_: str | None = Field(
        None, alias="$schema", description="Path of schema.json, for editors; the run does not read it."
    )
    name: Annotated[str, Field(pattern=r"^[a-zA-Z]([-a-zA-Z0-9_]*[a-zA-Z0-9])?$")] = "predict"
    source: SourceConfig
    model: ModelConfig
    batching: Batching = Batching.model_construct(
        max_rows=16384, max_bytes=None, max_wait_ms=50, latency_budget_ms=None
    )
    output: OutputConfig
    dead_letters: DeadLettersConfig = DeadLetters.model_construct(path=None, max_fraction=0.01, permissions="0600")
    dedupe: Dedupe | None = Field(None, description="Drops repeats of a key in a stream; by default they are kept.")

    @property
    def repeats_within(self) -> Window | None:
        """Returns the window in which repeats are dropped, if they are."""
        return Window(self.dedupe.window_s, self.dedupe.max_keys) if self.dedupe else None

    @property
    def output_path(self) -> str:
        """Returns the prefix of the output's files, or of those that a batch run loads; empty if there are none."""
        if isinstance(self.output, FileOutput):
            return self.output.path
        return self.output.staging_prefix if self.is_batch and isinstance(self.output, BigQueryOutput) else ""

    @property
    def output_path_key(self) -> str:
        """Returns the key that `output_path` comes from."""
        return "output.path" if isinstance(self.output, FileOutput) else "output.staging"

    @property
    def is_batch(self) -> bool:
        """Tells whether the source has an end."""
        return not isinstance(self.source, StreamSource)

    @property
    def dead_letters_path(self) -> str:
        """Returns the prefix of the dead letters' shards; empty if they go elsewhere."""
        if not isinstance(self.dead_letters, DeadLetters):
            return ""
        path = self.output_path or "out/"
        return self.dead_letters.path or (path + "dead_letters" if path.endswith("/") else path + "-dead_letters")
