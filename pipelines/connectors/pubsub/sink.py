"""Rows of a stream -> messages of a Pub/Sub topic. At least once: effectively once for readers that drop repeated keys.

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
from pipelines.connectors.writing.messages import WriteMessages
from pipelines.connectors.writing.payloads import payloads
from pipelines.connectors.writing.rows import RowRefusedError
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.formats.output_values import to_output
from pipelines.plan import KEY, Plan
from pipelines.rows.messages import KEY_NAME, MessageOrigin
from pipelines.rows.origin import Positions

_PUBSUB_OWN = "goog"
"""Attributes that begin like this are Pub/Sub's own; it refuses a message that brings them."""


class WritePubSub(WriteMessages):
    """(MessageOrigin, record batch) -> nothing. When `send` returns, Pub/Sub has its rows.

    Args:
      plan: what to do.
      output: where to.
      dead_letters: where rows go that are refused.
    """

    def __init__(self, plan: Plan, output: PubSubOutput, dead_letters: DeadLetterPlace) -> None:
        super().__init__(plan, dead_letters)
        self._output = output
        self._time_attribute: str | None = getattr(plan.config.source, "timestamp_attribute", None)

    def setup(self) -> None:
        self._topic = Topic(self._output.topic)

    def teardown(self) -> None:
        self._topic.close()
        super().teardown()

    def _ordering_keys(self, at: pa.Array) -> Iterable[str]:
        column = self._output.ordering_key
        if column is None:
            return itertools.repeat("")
        found = self.keys if column in (KEY, self._key_column) else to_output(self.batch[column], pa.string())
        keys: list[str] = found.fill_null("").take(at).to_pylist()
        return keys

    def send(self, encoded: pa.RecordBatch, origin: MessageOrigin, rows: Positions) -> dict[int, str]:
        at = self.at(rows)
        keys = self.keys.take(at).to_pylist()
        passed = origin.attributes(rows) if self._output.attributes else None
        attributes = [{} for _ in keys] if passed is None else [_as_text(each) for each in passed.to_pylist()]
        for each, key in zip(attributes, keys, strict=True):
            each[KEY_NAME] = key
        if self._time_attribute is not None:
            times = timestamps(origin.event_us()[rows]).to_pylist()
            for each, time in zip(attributes, times, strict=True):
                each[self._time_attribute] = time
        messages = map(self._topic.message, payloads(encoded), attributes, self._ordering_keys(at))
        return self._topic.publish(list(messages))


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
