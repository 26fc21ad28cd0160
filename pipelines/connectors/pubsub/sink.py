"""Writes rows of a stream to a Pub/Sub topic. At least once: readers that drop repeated keys see each once.

A message is one object of JSON. Its attribute `source_id` is the row's key, the same whenever the row is written again:
Dataflow's `id_label` drops repeats by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pyarrow as pa

from pipelines.clock import timestamps
from pipelines.config.pubsub import PubSubOutput
from pipelines.connectors.pubsub.publisher import Topic
from pipelines.connectors.writing.payloads import payloads
from pipelines.connectors.writing.row_writer import OutputRows, RowRefusedError, RowWriter
from pipelines.formats.output_values import to_output
from pipelines.plan import KEY, Plan
from pipelines.rows.messages import KEY_NAME, MessageOrigin

_PUBSUB_OWN = "goog"
"""Attributes that begin like this are Pub/Sub's own; it refuses a message that brings them."""


class PubSubRowWriter(RowWriter):
    """Publishes each row as a message; when `write` returns, Pub/Sub has them.

    Args:
      plan: the plan of the run.
      output: the topic to publish to.
    """

    def __init__(self, plan: Plan, output: PubSubOutput) -> None:
        self.columns = plan.output
        self._output = output
        self._time_attribute: str | None = getattr(plan.config.source, "timestamp_attribute", None)

    def open(self) -> None:
        self._topic = Topic(self._output.topic)

    def close(self) -> None:
        self._topic.close()

    def write(self, rows: OutputRows) -> dict[int, str]:
        origin = rows.origin
        assert isinstance(origin, MessageOrigin)
        keys = rows.keys.to_pylist()
        passed = origin.attributes(rows.rows) if self._output.attributes else None
        attributes = [{} for _ in keys] if passed is None else [_as_text(each) for each in passed.to_pylist()]
        for each, key in zip(attributes, keys, strict=True):
            each[KEY_NAME] = key
        if self._time_attribute is not None:
            times = timestamps(origin.event_us()[rows.rows]).to_pylist()
            for each, time in zip(attributes, times, strict=True):
                each[self._time_attribute] = time
        messages = map(self._topic.message, payloads(rows.encoded), attributes, self._ordering_keys(rows))
        return self._topic.publish(list(messages))

    def _ordering_keys(self, rows: OutputRows) -> Iterable[str]:
        column = self._output.ordering_key
        if column is None:
            return itertools.repeat("")
        found = rows.keys if column in (KEY, rows.key_column) else to_output(rows.batch[column], pa.string())
        keys: list[str] = found.fill_null("").to_pylist()
        return keys


def _as_text(attributes: list[tuple[str, bytes | None]] | None) -> dict[str, str]:
    found = {}
    for name, value in attributes or ():
        if name.startswith(_PUBSUB_OWN):
            continue
        try:
            found[name] = (value or b"").decode()
        except UnicodeDecodeError:
            raise RowRefusedError(
                f"{name} came with the message, but is no text, as attributes must be; output.attributes: false "
                "leaves out all that came"
            ) from None
    return found
