"""What the contestants that read from Kafka share: their command line, and the one line of JSON that each prints."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class KafkaJob:
    """Read births of JSON from a topic, predict each, write key and prediction as JSON to another topic.

    Attributes:
      servers: host:port of the broker.
      topic: what is read, from its beginning, as a group that has committed nothing.
      group: that group.
      output: the topic to write to; a record's key is the birth's.
      messages: how many there are.
      model: folder of the SavedModel.
    """

    servers: str
    topic: str
    group: str
    output: str
    messages: int
    model: str


def main(work: Callable[[KafkaJob], None]) -> None:
    """Does the job of the command line, and prints its wall time: from then on everything is imported."""
    parser = argparse.ArgumentParser()
    for name, kind in KafkaJob.__annotations__.items():
        parser.add_argument(f"--{name}", required=True, type=int if kind == "int" else str)
    job = KafkaJob(**vars(parser.parse_args()))
    started = time.time()
    work(job)
    print(json.dumps({"seconds": time.time() - started}), flush=True)
