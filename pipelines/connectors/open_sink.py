"""Where a stream's rows go, by its config: looked at before anything slow is imported; mistakes show at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.bigtable import BigtableOutput
from pipelines.config.console import ConsoleOutput
from pipelines.config.errors import ConfigError
from pipelines.config.files import FileOutput
from pipelines.config.kafka import KafkaOutput
from pipelines.config.pubsub import PubSubOutput
from pipelines.connectors.base import Destination
from pipelines.connectors.bigquery import tables as bigquery_tables
from pipelines.connectors.bigtable import tables as bigtable_tables
from pipelines.connectors.files import rolling
from pipelines.connectors.files import written_keys as written
from pipelines.connectors.kafka import client as kafka_client
from pipelines.connectors.pubsub import client as pubsub
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.formats import writer_class
from pipelines.plan import KEY

if TYPE_CHECKING:
    from pipelines.connectors.writing.rows import WriteRows
    from pipelines.plan import Plan


def destination(plan: Plan) -> Destination:
    """The destination that a plan's config names."""
    output = plan.config.output
    if isinstance(output, FileOutput):
        return _Files(plan, output)
    if isinstance(output, PubSubOutput):
        return _PubSub(plan, output)
    if isinstance(output, KafkaOutput):
        return _Kafka(plan, output)
    if isinstance(output, BigQueryOutput):
        return _BigQuery(plan, output)
    if isinstance(output, BigtableOutput):
        return _Bigtable(plan, output)
    return _Console(output)


class _Console(Destination):
    def __init__(self, output: ConsoleOutput) -> None:
        self._output = output

    def check(self) -> None:
        """It takes anything."""

    def sink(self, dead_letters: DeadLetterPlace) -> None:
        return None

    def describe(self) -> str:
        return self._output.describe()


class _Files(Destination):
    def __init__(self, plan: Plan, output: FileOutput) -> None:
        self._plan = plan
        self._output = output
        self._extension = writer_class(output.format).extension

    def check(self) -> None:
        # The plan has looked at the folder.
        if self._plan.config.dedupe is not None:
            self._key_name()

    def recover(self) -> list[str]:
        return rolling.recovered(self._output.path, self._extension)

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        output = self._output
        yield from written.keys(
            output.path, self._extension, self._key_name(), seconds, output.window_s, output.delimiter
        )

    def _key_name(self) -> str:
        """The column of the files with the key."""
        name = next((column.name for column in self._plan.output if column.origin == "key"), None)
        if name is None:
            key = self._plan.key_column or KEY
            raise ConfigError([f"output.columns: add '{key}': dedupe reads it from the files after a restart"])
        return name

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.files.rolling_sink import WriteRolling
        from pipelines.plan import output_options

        return WriteRolling(self._plan, output_options(self._plan), self._output.window_s, dead_letters)

    def describe(self) -> str:
        return rolling.pattern(self._output.path, self._extension)


class _PubSub(Destination):
    def __init__(self, plan: Plan, output: PubSubOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        column = self._output.ordering_key
        known = {KEY, *self._plan.read.columns.names, *(each.name for each in self._plan.output)}
        if column is not None and column not in known:
            raise ConfigError(
                [f"output.ordering_key: no row has '{column}'; name a column that the model reads or that is written"]
            )
        pubsub.check_topic("output.topic", self._output.topic)

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.pubsub.sink import WritePubSub

        return WritePubSub(self._plan, self._output, dead_letters)

    def describe(self) -> str:
        return self._output.describe()


class _Kafka(Destination):
    def __init__(self, plan: Plan, output: KafkaOutput) -> None:
        self._plan = plan
        self._output = output
        self._cluster = kafka_client.Cluster(output.bootstrap_servers, output.security)
        self._partitions: list[kafka_client.Partition] = []

    def check(self) -> None:
        self._partitions = kafka_client.partitions_of("output", self._cluster, [self._output.topic])

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        from pipelines.connectors.kafka import written_keys as kafka_keys

        yield from kafka_keys.written_keys("output.topic", self._cluster, self._partitions, seconds)

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.kafka.sink import WriteKafka

        return WriteKafka(self._plan, self._output, self._cluster, dead_letters)

    def describe(self) -> str:
        return self._output.describe()


class _BigQuery(Destination):
    def __init__(self, plan: Plan, output: BigQueryOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        columns, added = bigquery_tables.table_columns(self._plan), self._output.event_time
        if added in [column.name for column in columns]:
            raise ConfigError([f"output.event_time: '{added}' is one of output.columns already; take another name"])
        schema = bigquery_tables.table_schema(columns, added)
        bigquery_tables.ready_table(
            bigquery_tables.Table.parse(self._output.table), schema, "output", self._output.create
        )

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.bigquery.sink import WriteBigQuery

        return WriteBigQuery(self._plan, self._output, dead_letters)

    def describe(self) -> str:
        return self._output.describe()


class _Bigtable(Destination):
    def __init__(self, plan: Plan, output: BigtableOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        problems = bigtable_tables.key_problems(self._plan, self._output.row_key)
        if problems:
            raise ConfigError(problems)
        bigtable_tables.ready_table(self._output)

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.bigtable.sink import WriteBigtable

        return WriteBigtable(self._plan, self._output, dead_letters)

    def describe(self) -> str:
        return self._output.describe()
