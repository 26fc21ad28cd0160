"""Pulls of Avro and protobuf messages: each message by itself, however bad the others are."""

from __future__ import annotations

import json
import pickle
import random
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

from pipelines.flows.decode import READERS, MessageDecoder
from pipelines.formats import ReadSpec, row_reader_class
from pipelines.formats.avro.message import AvroMessageReader
from pipelines.formats.protobuf.descriptor import MessageType
from pipelines.rows.origin import Block, RejectedRow
from tests.support.decoding import assert_each_by_itself, outcomes, pull
from tests.support.message_samples import AVRO_BIRTH, BIRTH, datum, descriptors, message_class, mutated

KINDS = [(format, framing) for format in ("avro", "protobuf") for framing in ("none", "confluent")]
KINDS.append(("avro", "single_object"))
Birth = dict[str, Any]


def decoder(format: str, framing: str = "none", names: tuple[str, ...] = tuple(BIRTH)) -> MessageDecoder:
    options: dict[str, Any] = {"framing": framing}
    if format == "avro":
        options["schema"] = AVRO_BIRTH
        columns = AvroMessageReader.columns(AVRO_BIRTH)
    else:
        options |= {"descriptor": descriptors(), "message": "shop.v1.Birth"}
        columns = MessageType(descriptors(), "shop.v1.Birth").schema
    wanted = pa.schema([columns.field(name) for name in names])
    return MessageDecoder(row_reader_class(READERS[format])(ReadSpec(wanted, options, "source_id")), format)


def birth(n: int) -> Birth:
    return {
        "source_id": f"b{n:09d}",
        "is_male": "True",
        "mother_race": "é",
        "mother_age": 20.5 + n % 9,
        "plurality": n % 3,
        "gestation_weeks": 39.25,
        "mother_married": "",
        "cigarette_use": "False",
        "alcohol_use": "Unknown",
    }


def message(format: str, framing: str, row: Birth) -> bytes:
    body: bytes = datum(AVRO_BIRTH, row) if format == "avro" else message_class("Birth")(**row).SerializeToString()
    if framing == "none":
        return body
    begin = decoder(format, framing)._reader.framed()  # type: ignore[attr-defined]
    return bytes(begin.begin + bytes(range(begin.id_bytes)) + begin.then + body)


@pytest.mark.parametrize(("format", "framing"), KINDS)
def test_good_messages_are_decoded_together(format: str, framing: str) -> None:
    found = pickle.loads(pickle.dumps(decoder(format, framing)))
    rows = [birth(n) for n in range(3_000)]
    with mock.patch.object(found._reader, "replay") as replay:
        (block,) = found.decode(pull([message(format, framing, row) for row in rows]))
    replay.assert_not_called()
    assert isinstance(block, Block)
    assert block.batch.to_pylist() == rows


@pytest.mark.parametrize(("format", "framing"), KINDS)
def test_malformed_messages_leave_their_neighbours_alone(format: str, framing: str) -> None:
    choose = random.Random(5)
    found = decoder(format, framing)
    bad = 0
    for _ in range(4):
        rows = [birth(n) for n in range(250)]
        payloads = [message(format, framing, row) for row in rows]
        spoilt = set(choose.sample(range(250), 40))
        payloads = [mutated(choose, each) if n in spoilt else each for n, each in enumerate(payloads)]
        became = assert_each_by_itself(found, payloads)
        for n, (row, outcome) in enumerate(zip(rows, became, strict=True)):
            bad += isinstance(outcome, RejectedRow)
            assert n in spoilt or outcome == tuple(row.values())
    assert bad > 60


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_messages_without_payload_and_too_long_ones(format: str) -> None:
    found = decoder(format)
    good = message(format, "none", birth(1))
    first, missing, huge, last = outcomes(found, pull([good, None, bytes(17 << 20), good]))
    assert first == last == tuple(birth(1).values())
    assert isinstance(missing, RejectedRow)
    assert "no payload" in missing.message
    assert isinstance(huge, RejectedRow)
    assert "17,825,792 bytes" in huge.message


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_pulls_larger_than_a_block(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decoder(format, names=("source_id", "plurality"))
    monkeypatch.setattr(found._reader, "block_bytes", 500)
    payloads = [message(format, "none", birth(n)) for n in range(200)]
    payloads[77] = payloads[77][:-2]
    became = assert_each_by_itself(found, payloads)
    assert [n for n, outcome in enumerate(became) if isinstance(outcome, RejectedRow)] == [77]


def test_dead_letters_say_how_they_are_read() -> None:
    assert json.loads(json.dumps(decoder("avro", "single_object").format)) == {
        "type": "avro",
        "framing": "single_object",
        "schema": AVRO_BIRTH,
        "message": True,
    }
    assert json.loads(json.dumps(decoder("protobuf", "confluent").format)) == {
        "type": "protobuf",
        "framing": "confluent",
        "name": "shop.v1.Birth",
        "message": True,
    }


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_any_exception_of_a_message_is_that_messages(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder with a mistake: it divides by what one message has."""
    found = decoder(format)
    payloads = [message(format, "none", birth(n)) for n in range(100)]
    decode = found._reader.decode  # type: ignore[attr-defined]

    def failing(bodies: pa.LargeBinaryArray) -> Any:
        if any(b"b000000042" in body for body in bodies.to_pylist()):
            raise ZeroDivisionError("division by zero")
        return decode(bodies)

    monkeypatch.setattr(found._reader, "decode", failing)
    became = outcomes(found, pull(list(payloads)))
    assert [n for n, outcome in enumerate(became) if isinstance(outcome, RejectedRow)] == [42]
    assert [outcome for n, outcome in enumerate(became) if n != 42] == [
        tuple(birth(n).values()) for n in range(100) if n != 42
    ]
