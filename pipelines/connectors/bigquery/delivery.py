"""Delivers the files of a batch run to a table: exactly once, all rows at once or none."""

from __future__ import annotations

from pipelines.connectors.bigquery import load_job, pending_stream
from pipelines.connectors.bigquery.settings import DeliverySettings
from pipelines.connectors.files.publishing.delivery import Delivery, DeliveryOrder


class BigQueryDelivery(Delivery):
    """Delivers by one load job, or by one pending stream and its commit."""

    def deliver(self, order: DeliveryOrder, folder: str, note: str) -> int:
        settings = DeliverySettings.model_validate(order.settings)
        if settings.method == "load":
            return load_job.load(order, settings, folder)
        return pending_stream.write(order, settings, folder, note)
