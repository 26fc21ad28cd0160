"""Lists the kinds of sources, models, outputs and dead letters: the one list of them."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Tag

from pipelines.config.base import Strict, variant
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.bigquery import BigQueryDeadLetters, BigQueryOutput, BigQuerySource
from pipelines.config.bigtable import BigtableOutput
from pipelines.config.console import ConsoleOutput
from pipelines.config.files import DeadLetters, FileOutput, FileSource
from pipelines.config.kafka import KafkaDeadLetters, KafkaOutput, KafkaSource
from pipelines.config.model import EndpointConfig, SavedModelConfig
from pipelines.config.pubsub import PubSubDeadLetters, PubSubOutput, PubSubSource
from pipelines.config.simulated import SimulatedSource

StreamSource = SimulatedSource | PubSubSource | KafkaSource
"""Sources without an end."""
SourceConfig = Annotated[
    Annotated[FileSource, Tag("file")]
    | Annotated[BigQuerySource, Tag("bigquery")]
    | Annotated[SimulatedSource, Tag("simulated")]
    | Annotated[PubSubSource, Tag("pubsub")]
    | Annotated[KafkaSource, Tag("kafka")],
    variant("file"),
]
ModelConfig = Annotated[
    Annotated[SavedModelConfig, Tag("saved_model")]
    | Annotated[EndpointConfig, Tag("endpoint")]
    | Annotated[BatchJobConfig, Tag("batch_job")],
    variant("saved_model"),
]
OutputConfig = Annotated[
    Annotated[FileOutput, Tag("file")]
    | Annotated[ConsoleOutput, Tag("console")]
    | Annotated[PubSubOutput, Tag("pubsub")]
    | Annotated[KafkaOutput, Tag("kafka")]
    | Annotated[BigQueryOutput, Tag("bigquery")]
    | Annotated[BigtableOutput, Tag("bigtable")],
    variant("file"),
]


DeadLettersConfig = Annotated[
    Annotated[DeadLetters, Tag("file")]
    | Annotated[PubSubDeadLetters, Tag("pubsub")]
    | Annotated[KafkaDeadLetters, Tag("kafka")]
    | Annotated[BigQueryDeadLetters, Tag("bigquery")],
    variant("file"),
]


def source_encodings(source: SourceConfig) -> dict[str, str]:
    """Returns the columns of a source whose text stands for bytes, and how."""
    return dict(getattr(source, "encodings", {}))


def _by_type(union: Any) -> dict[str, type[Strict]]:
    return {get_args(arm)[1].tag: get_args(arm)[0] for arm in get_args(get_args(union)[0])}


TYPES = {
    "source": _by_type(SourceConfig),
    "model": _by_type(ModelConfig),
    "output": _by_type(OutputConfig),
    "dead_letters": _by_type(DeadLettersConfig),
}
"""Key of a config -> `type` -> the object's class."""
