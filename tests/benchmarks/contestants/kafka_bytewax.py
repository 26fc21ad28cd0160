"""Bytewax on Kafka: its source's batches, decoded row by row, one call of the model for each batch, its Kafka sink.

One worker. Bytewax keeps no offsets with the broker; without its recovery store nothing is kept at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import tensorflow as tf
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from tests.benchmarks.contestants.common import NUMBERS, STRINGS
from tests.benchmarks.contestants.kafka_job import KafkaJob, main

_BATCH = 4096


def run(job: KafkaJob) -> None:
    """Builds the dataflow and waits for its end."""
    model = tf.saved_model.load(job.model)

    def predict(messages: list[KafkaSourceMessage]) -> Iterable[KafkaSinkMessage]:
        rows = [json.loads(message.value) for message in messages]
        tensors = {name: tf.constant([row[name] for row in rows]) for name in STRINGS}
        tensors |= {name: tf.constant([row[name] for row in rows], tf.float32) for name in NUMBERS}
        predictions = model.signatures["serving_default"](**tensors)["predictions"].numpy().reshape(-1)
        for row, prediction in zip(rows, predictions.tolist(), strict=True):
            key = row["source_id"]
            value = json.dumps({"source_id": key, "predictions": prediction})
            yield KafkaSinkMessage(key.encode(), value.encode())

    flow = Dataflow("births")
    read = kafka.input("read", flow, brokers=[job.servers], topics=[job.topic], tail=False, batch_size=_BATCH)
    predicted = op.flat_map_batch("predict", read.oks, predict)
    kafka.output("write", predicted, brokers=[job.servers], topic=job.output)
    run_main(flow)


if __name__ == "__main__":
    main(run)
