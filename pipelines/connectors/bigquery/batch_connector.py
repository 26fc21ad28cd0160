"""Connects a batch run's output to BigQuery: files to write, the order to load them, what speaks against it."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.run import RunConfig
from pipelines.connectors.base import BatchSinkConnector
from pipelines.connectors.bigquery import batch_table, tables
from pipelines.connectors.bigquery.parquet import BigQueryParquetWriter
from pipelines.connectors.bigquery.settings import DeliverySettings
from pipelines.connectors.files.publishing.delivery import DeliveryOrder
from pipelines.formats.base import Writer
from pipelines.plan import OutputColumn, Plan


class BigQueryBatchSinkConnector(BatchSinkConnector):
    """Has BigQuery take over Parquet files as rows of a table.

    Args:
      plan: what is run.
      output: the output of its config.
      is_replay: whether the rows are those of dead letters: they are appended, whatever `output.write` says, as the
        table holds what the run has written.
    """

    def __init__(self, plan: Plan, output: BigQueryOutput, *, is_replay: bool = False) -> None:
        self._plan = plan
        self._output = output.model_copy(update={"write": "append"}) if is_replay else output
        self._is_replay = is_replay
        self._required: frozenset[str] = frozenset()

    def check(self) -> None:
        self._required = batch_table.check(self._output, tables.table_schema(self.columns(), None))

    def columns(self) -> tuple[OutputColumn, ...]:
        found = tables.table_columns(self._plan)
        return tuple(dataclasses.replace(each, required=each.name.lower() in self._required) for each in found)

    def writer(self) -> type[Writer]:
        return BigQueryParquetWriter

    def order(self) -> DeliveryOrder:
        schema = tables.table_schema(self.columns(), None)
        settings = DeliverySettings.of(self._output, [tables.column_of(field) for field in schema])
        return DeliveryOrder(
            service="bigquery",
            what=self.describe(),
            fingerprint=_of_replays(self._plan.config) if self._is_replay else fingerprint(self._plan),
            settings=settings.model_dump(mode="json"),
            run=self._plan.run_id,
            name=self._plan.config.name,
        )

    def describe(self) -> str:
        return self._output.describe()


def fingerprint(plan: Plan) -> str:
    """Returns a text that is equal for runs of one config over the same input: files, or a table of the same extent."""
    files = sorted((file.path, file.size, file.modified) for file in plan.files)
    extent = None if plan.extent is None else (plan.extent.rows, plan.extent.nbytes)
    return _digest(plan.config, files, extent)


def _of_replays(config: RunConfig) -> str:
    """Returns a text that is equal for replays of one config: the dead letters that one has read are gone after it."""
    return _digest(config, "replay")


def _digest(config: RunConfig, *others: object) -> str:
    found = [config.model_dump(mode="json", exclude={"schema_"}), *others]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:32]
