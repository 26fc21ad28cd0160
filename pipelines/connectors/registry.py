"""Lists the connector of each kind of source, output and dead letters: the one list of them.

Connectors are imported when a config names them, before anything slow is; mistakes show at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipelines.config.run import RunConfig
from pipelines.connectors.base import BoundedSourceConnector, SinkConnector, SourceConnector
from pipelines.dead_letters.place import DeadLetterPlace

if TYPE_CHECKING:
    from pipelines.connectors.base import BatchSinkConnector
    from pipelines.connectors.files.publishing.delivery import Delivery
    from pipelines.plan import Plan

_BOUNDED_SOURCES = {
    "file": "files.source_connector.FilesSourceConnector",
    "bigquery": "bigquery.source_connector.BigQuerySourceConnector",
}
"""Sources that have an end."""
_SOURCES = {
    "simulated": "simulated.connector.SimulatedSourceConnector",
    "pubsub": "pubsub.connector.PubSubSourceConnector",
    "kafka": "kafka.connector.KafkaSourceConnector",
}
_NATIVE_SOURCES = {
    "pubsub": "pubsub.connector.DataflowPubSubConnector",
}
"""Sources that Dataflow reads itself."""
_SINKS = {
    "file": "files.connector.FilesSinkConnector",
    "console": "console.connector.ConsoleSinkConnector",
    "pubsub": "pubsub.connector.PubSubSinkConnector",
    "kafka": "kafka.connector.KafkaSinkConnector",
    "bigquery": "bigquery.connector.BigQuerySinkConnector",
    "bigtable": "bigtable.connector.BigtableSinkConnector",
}
_DEAD_LETTERS = {
    "pubsub": "pubsub.dead_letters.PubSubDeadLetterPlace",
    "kafka": "kafka.dead_letters.KafkaDeadLetterPlace",
    "bigquery": "bigquery.dead_letters.BigQueryDeadLetterPlace",
}
_BATCH_SINKS = {"bigquery": "bigquery.batch_connector.BigQueryBatchSinkConnector"}
"""Of outputs that take over the files of a batch run; all others are those files."""
_DELIVERIES = {"bigquery": "bigquery.delivery.BigQueryDelivery"}


def bounded_source(source: Any) -> BoundedSourceConnector:
    """Returns the connector of a source that has an end."""
    found: BoundedSourceConnector = _class(_BOUNDED_SOURCES[source.type])(source)
    return found


def open_source(source: Any) -> SourceConnector:
    """Looks at the source of a stream, and holds it ready until the block ends.

    Args:
      source: the object of the config.

    Raises:
      ConfigError: it is not there, or cannot be read.
    """
    found: SourceConnector = _class(_SOURCES[source.type])(source)
    return found


def open_native_source(source: Any, looks: bool) -> SourceConnector:
    """Makes ready a source that the runner reads itself.

    Args:
      source: the object of the config.
      looks: whether it is looked at; otherwise nothing is connected to.

    Raises:
      ConfigError: it is not there, or cannot be read.
    """
    found: SourceConnector = _class(_NATIVE_SOURCES[source.type])(source, looks)
    return found


def stream_sink(plan: Plan) -> SinkConnector:
    """Returns the sink that a plan's config names."""
    found: SinkConnector = _class(_SINKS[plan.config.output.type])(plan, plan.config.output)
    return found


def batch_sink(plan: Plan, *, is_replay: bool = False) -> BatchSinkConnector | None:
    """Returns the sink that takes over the files of a batch run, or of a replay; None if the output is those files."""
    place = _BATCH_SINKS.get(plan.config.output.type)
    return None if place is None else _class(place)(plan, plan.config.output, is_replay=is_replay)


def delivery(service: str) -> Delivery:
    """Returns what delivers a run's shards to a service."""
    found: Delivery = _class(_DELIVERIES[service])()
    return found


def stream_dead_letters(config: RunConfig) -> DeadLetterPlace:
    """Returns the place for a stream's dead letters that a config names."""
    dead_letters = config.dead_letters
    if dead_letters.type == "file":
        from pipelines.connectors.files.dead_letters import RollingDeadLetters

        return RollingDeadLetters(config.dead_letters_path, config.output.window_s, dead_letters.file_mode)
    found: DeadLetterPlace = _class(_DEAD_LETTERS[dead_letters.type])(dead_letters)
    return found


def _class(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)
