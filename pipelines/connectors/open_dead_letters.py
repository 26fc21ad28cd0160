"""Where a stream's dead letters go, by its config."""

from __future__ import annotations

from pipelines.config.bigquery import BigQueryDeadLetters
from pipelines.config.kafka import KafkaDeadLetters
from pipelines.config.pubsub import PubSubDeadLetters
from pipelines.config.run import RunConfig
from pipelines.dead_letters.place import DeadLetterPlace


def stream_dead_letters(config: RunConfig) -> DeadLetterPlace:
    """The place that a config names."""
    letters = config.dead_letters
    if isinstance(letters, PubSubDeadLetters):
        from pipelines.connectors.pubsub.dead_letters import PubSubDeadLetterPlace

        return PubSubDeadLetterPlace(letters)
    if isinstance(letters, KafkaDeadLetters):
        from pipelines.connectors.kafka.dead_letters import KafkaDeadLetterPlace

        return KafkaDeadLetterPlace(letters)
    if isinstance(letters, BigQueryDeadLetters):
        from pipelines.connectors.bigquery.dead_letters import BigQueryDeadLetterPlace

        return BigQueryDeadLetterPlace(letters)
    from pipelines.connectors.files.dead_letters import RollingDeadLetters

    return RollingDeadLetters(config.dead_letters_path, config.output.window_s, letters.file_mode)
