"""Where a stream's dead letters go, by its config."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.letters import LetterPlace
from pipelines.output_config import BigQueryDeadLetters, KafkaDeadLetters, PubSubDeadLetters


def letter_place(config: RunConfig) -> LetterPlace:
    """The place that a config names."""
    letters = config.dead_letters
    if isinstance(letters, PubSubDeadLetters):
        from pipelines.streams.letters_pubsub import PubSubLetters

        return PubSubLetters(letters)
    if isinstance(letters, KafkaDeadLetters):
        from pipelines.streams.letters_kafka import KafkaLetters

        return KafkaLetters(letters)
    if isinstance(letters, BigQueryDeadLetters):
        from pipelines.streams.letters_bigquery import BigQueryLetters

        return BigQueryLetters(letters)
    from pipelines.streams.letters_file import FileLetters

    return FileLetters(config.dead_letters_path, config.output.window_s, letters.file_mode)
