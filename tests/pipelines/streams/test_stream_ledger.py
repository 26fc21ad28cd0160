"""The ledger of a stream under faults: killed three times, its model and its disk away in between, repeats mixed in.

Keys in = keys out + dead letters, and with `dedupe` none of them twice.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.streams.births import births_at
from tests.conftest import ROOT
from tests.ledger import MODEL
from tests.model.serving_process import serving
from tests.pipelines.streams.test_stream import hidden, letters, sets, wait_for_rows, written
from tests.servers.pubsub_emulator import SUBSCRIPTION, Emulator, pubsub_emulator

MESSAGES = 50_000
MALFORMED = 120
REPEATED = 2_500


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
        yield made


def messages() -> tuple[list[bytes], list[dict[str, str]], set[str], set[str]]:
    """Payloads and attributes, repeats among them; the keys of the good and of the malformed."""
    generator = random.Random(11)
    payloads = [each.as_py() for each in births_at(np.arange(MESSAGES), 1, np.zeros(MESSAGES, np.int64))]
    bad = set(generator.sample(range(MESSAGES), MALFORMED))
    for n in bad:
        payloads[n] = payloads[n][: generator.randrange(len(payloads[n]))]
    order = [*range(MESSAGES), *generator.choices(range(MESSAGES), k=REPEATED)]
    # A repeat is anywhere behind the message that it repeats, or before.
    generator.shuffle(order)
    attributes = [{"k": f"k{n}"} for n in order]
    good = {f"k{n}" for n in range(MESSAGES) if n not in bad}
    return [payloads[n] for n in order], attributes, good, {f"k{n}" for n in bad}


def start(folder: Path, url: str, *, most_bytes: int | None = None) -> subprocess.Popen[str]:
    changes = {
        "source": {"type": "pubsub", "subscription": SUBSCRIPTION, "key_attribute": "k"},
        "model": {
            "type": "endpoint", "protocol": "tf_serving_rest", "url": url, "deadline_s": 300, "max_attempts": 1000,
        },
        "output__columns": ["key", "predictions"], "batching": {"max_rows": 500, "max_wait_ms": 20},
        "dedupe": {"window_s": 3600}, "dead_letters__max_fraction": 0.5,
    }  # fmt: skip

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.stream", *sets(folder, **changes), "--json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_nothing_is_lost_and_nothing_comes_twice(emulator: Emulator, tmp_path: Path) -> None:
    payloads, attributes, good, malformed = messages()
    published = emulator.publish(payloads, attributes)
    with serving(MODEL) as server:
        port = int(server.rest.rpartition(":")[2])
        process = start(tmp_path, server.rest)
        wait_for_rows(tmp_path, 8_000, process)
        kill(process)
        process = start(tmp_path, server.rest)
        wait_for_rows(tmp_path, 14_000, process)
        # The model's server dies under the stream.
        os.kill(server.process.pid, signal.SIGKILL)
        time.sleep(2)
        assert process.poll() is None
    with serving(MODEL, port=port) as server:
        wait_for_rows(tmp_path, 22_000, process)
        kill(process)
        # The disk takes no more.
        process = start(tmp_path, server.rest, most_bytes=100_000)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "File too large" in err.strip().splitlines()[-1]
        process = start(tmp_path, server.rest)
        wait_for_rows(tmp_path, 35_000, process)
        kill(process)
        process = start(tmp_path, server.rest)
        # What the killed ones held is delivered again when its deadline is over.
        emulator.wait_for_acknowledged(len(published), within_s=200)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["rows_repeated"] > 0
    rows = Counter(row["key"] for row in written(tmp_path))
    assert rows == Counter(good)
    assert Counter(letter["key"] for letter in letters(tmp_path)) == Counter(malformed)
    assert hidden(tmp_path) == []
