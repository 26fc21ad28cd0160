"""Reads Pub/Sub by Dataflow itself; at least once, and once within ten minutes where messages have a key.

Dataflow acknowledges a message when it has committed the bundle that it was in. It drops repeats of a message's id, or
of an attribute that identifies it. Messages come one by one, so the micro-batch is formed behind the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.transforms.util import BatchElements

from inference.coders import typed
from pipelines.clock import now_us
from pipelines.config.pubsub import PubSubSource
from pipelines.rows.messages import Messages

Noted = tuple[bytes, int, str, int, int, dict[str, str]]
"""Payload, number, key, event and arrival in microseconds since the epoch, attributes."""


class ReadPubSubNative(beam.PTransform):  # type: ignore[misc]  # Beam's classes are untyped
    """Reads a subscription or a topic; gives `Messages`.

    Args:
      source: what is read.
      max_rows: of a micro-batch.
      max_wait_ms: how long a micro-batch waits to fill.
      attributes: whether the messages' attributes are kept beside their payloads.
    """

    def __init__(self, source: PubSubSource, max_rows: int, max_wait_ms: float, attributes: bool = False) -> None:
        super().__init__()
        self._source = source
        self._max_rows = max_rows
        self._max_wait_ms = max_wait_ms
        self._attributes = attributes

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection:
        source = self._source
        read = ReadFromPubSub(
            topic=source.topic,
            subscription=source.subscription,
            id_label=source.key_attribute,
            timestamp_attribute=source.timestamp_attribute,
            with_attributes=True,
        )
        noted = pbegin | "Read" >> read | "Note" >> beam.ParDo(Note(source.key_attribute))
        # A duration makes BatchElements keep the messages of several bundles; one message is no batch to wait for.
        wait_s = self._max_wait_ms / 1000 if self._max_rows > 1 else None
        batched = noted | "Batch" >> BatchElements(
            min_batch_size=self._max_rows, max_batch_size=self._max_rows, max_batch_duration_secs=wait_s
        )
        form = Form(source.subscription or str(source.topic), source.key is None, self._attributes)
        return typed(batched | "Form" >> beam.ParDo(form), Messages)


class Note(beam.DoFn):  # type: ignore[misc]
    """Notes what is needed later of each PubsubMessage, with its times.

    Args:
      key: the attribute that identifies a message; messages without it go by their ids.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key

    def process(self, message: PubsubMessage, timestamp: Any = beam.DoFn.TimestampParam) -> Iterator[Noted]:
        attributes = message.attributes or {}
        id = message.message_id or ""
        key = (self._key and attributes.get(self._key)) or id
        yield message.data, int(id) if id.isdecimal() else 0, key, timestamp.micros, now_us(), attributes


class Form(beam.DoFn):  # type: ignore[misc]
    """Lists of noted messages -> Messages.

    Args:
      source: where they come from.
      keyed: whether the messages carry their keys.
      attributes: whether their attributes are kept.
    """

    def __init__(self, source: str, keyed: bool, attributes: bool) -> None:
        self._source = source
        self._keyed = keyed
        self._attributes = attributes

    def process(self, noted: Iterable[Noted]) -> Iterator[Messages]:
        payloads, numbers, keys, event_us, received_us, attributes = zip(*noted, strict=True)
        came = [list(each.items()) for each in attributes]
        yield Messages(
            self._source,
            pa.array(payloads, pa.binary()),
            np.array(numbers, np.int64),
            np.array(event_us, np.int64),
            min(received_us),
            now_us(),
            pa.array(keys, pa.string()) if self._keyed else None,
            pa.array(came, pa.map_(pa.string(), pa.binary())) if self._attributes else None,
        )
