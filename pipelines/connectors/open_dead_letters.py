"""Where a stream's dead letters go, by its config."""

from __future__ import annotations

from pipelines.config.bigquery import BigQueryDeadLetters
from pipelines.config.kafka import KafkaDeadLetters
from pipelines.config.pubsub import PubSubDeadLetters
from pipelines.config.run import RunConfig
from pipelines.dead_letters.place import LetterPlace


def letter_place(config: RunConfig) -> LetterPlace:
    """The place that a config names."""
    letters = config.dead_letters
    if isinstance(letters, PubSubDeadLetters):
        from pipelines.connectors.pubsub.dead_letters import PubSubLetters

        return PubSubLetters(letters)
    if isinstance(letters, KafkaDeadLetters):
        from pipelines.connectors.kafka.dead_letters import KafkaLetters

        return KafkaLetters(letters)
    if isinstance(letters, BigQueryDeadLetters):
        from pipelines.connectors.bigquery.dead_letters import BigQueryLetters

        return BigQueryLetters(letters)
    from pipelines.connectors.files.stream_dead_letters import FileLetters

    return FileLetters(config.dead_letters_path, config.output.window_s, letters.file_mode)
