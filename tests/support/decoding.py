"""Decodes messages, among others and alone."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.flows.decode import MessageDecoder
from pipelines.rows.messages import MessageOrigin, Messages
from pipelines.rows.origin import RejectedRow

Row = tuple[Any, ...]


def pull(payloads: list[bytes | None], keys: list[str | None] | None = None) -> Messages:
    count = len(payloads)
    return Messages(
        source="a-topic:0",
        payloads=pa.array(payloads, pa.binary()),
        positions=np.arange(count, dtype=np.int64) * 10 + 5,
        event_us=np.arange(count, dtype=np.int64) + 1_000_000,
        received_us=1,
        pulled_us=2,
        keys=None if keys is None else pa.array(keys, pa.string()),
    )


def values(batch: pa.RecordBatch) -> list[Row]:
    return list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def outcomes(decoder: MessageDecoder, messages: Messages) -> list[Row | RejectedRow]:
    """What became of each message; fails unless each of them became one thing."""
    by_position: dict[int, Row | RejectedRow] = {}
    seen: Counter[int] = Counter()
    index = {int(position): i for i, position in enumerate(messages.positions)}
    for item in decoder.decode(messages):
        if isinstance(item, RejectedRow):
            seen[item.position] += 1
            by_position[item.position] = item
            assert item.payload == (messages.payloads[index[item.position]].as_py() or b"")
            continue
        assert isinstance(item.origin, MessageOrigin)
        assert item.batch.schema.names == decoder._reader.spec.columns.names
        item.batch.validate(full=True)
        positions = item.origin.positions().tolist()
        assert positions == sorted(positions)
        assert len(positions) == item.batch.num_rows > 0
        assert item.origin.format == decoder.format
        for row, (position, found) in enumerate(zip(positions, values(item.batch), strict=True)):
            seen[position] += 1
            by_position[position] = found
            assert item.origin.payload(row) == messages.payloads[index[position]].as_py()
            assert item.origin.source(row) == f"a-topic:0:{position}"
            assert item.origin.event_us()[row] == messages.event_us[index[position]]
    assert seen == Counter(messages.positions.tolist())
    return [by_position[int(position)] for position in messages.positions]


def alone(decoder: MessageDecoder, payload: bytes) -> Row | RejectedRow:
    """What a replay of the payload's dead letter gives."""
    (found,) = decoder._reader.replay(payload, json.loads(json.dumps(decoder.format)), "a-topic:0")
    if isinstance(found, RejectedRow):
        return found
    assert found.batch.num_rows == 1
    return values(found.batch)[0]


def assert_each_by_itself(decoder: MessageDecoder, payloads: list[bytes]) -> list[Row | RejectedRow]:
    """Every message becomes among the others what it becomes alone."""
    found = outcomes(decoder, pull(list(payloads)))
    for payload, outcome in zip(payloads, found, strict=True):
        expected = alone(decoder, payload)
        if isinstance(outcome, RejectedRow):
            assert isinstance(expected, RejectedRow), (payload, outcome.message)
            told = (outcome.message, outcome.error, outcome.stage, outcome.key, outcome.payload)
            assert told == (expected.message, expected.error, expected.stage, expected.key, expected.payload)
        else:
            assert outcome == expected, payload
    return found
