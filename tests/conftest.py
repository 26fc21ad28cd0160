"""Holds what the end-to-end tests share: quiet libraries, commands run in this process, small models, small pieces."""

from __future__ import annotations

import os

# Before anything imports TensorFlow.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from model import secrets
from tests.support import processes
from tests.support.commands import ROOT, Command, Result, save
from tests.support.pythons import skip_streams

pytest.register_assert_rewrite("tests.support.ledger")
# Where the tests run in the background of a shell's script, Ctrl-C is ignored; tests send it to this process too.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Few users have it installed, and TensorFlow uses it, where it is, to load what Keras 2 saved.
sys.modules["tf_keras"] = None  # type: ignore[assignment]
# Machines under load are slow, and a failure must come back when the test is run again.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """A secret of one test is an ordinary word in the next."""
    yield
    secrets.forget()


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `pipelines.<module>` in this process: TensorFlow is imported once, not once a test."""

    def run(module: str, *arguments: str) -> Result:
        skip_streams(module)
        capfd.readouterr()
        try:
            code = importlib.import_module(f"pipelines.{module}").main(list(arguments))
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Cuts files into many splits and blocks, so that rows meet every kind of boundary."""

    def cut(split_bytes: int, block_bytes: int) -> None:
        monkeypatch.setattr("pipelines.connectors.files.source.split_bytes_for", lambda total: split_bytes)
        for format in ("text_blocks", "avro.decoder", "tfrecord.reader"):
            module = importlib.import_module(f"pipelines.formats.{format}")
            monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)

    cut(6_000, 1_500)
    return cut


@pytest.fixture(scope="session")
def strict_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that fails on a whole batch if one age in it is negative."""
    import tensorflow as tf

    class Strict(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.float32, "mother_age"),
                tf.TensorSpec([None], tf.float32, "plurality"),
            ]
        )
        def __call__(self, mother_age: Any, plurality: Any) -> dict[str, Any]:
            with tf.control_dependencies([tf.debugging.assert_non_negative(mother_age, "a negative age")]):
                return {"predictions": tf.identity(mother_age) / 3 + plurality}

    return save(Strict(), tmp_path_factory.mktemp("strict"))


@pytest.fixture(scope="session")
def lying_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that leaves out the rows of mothers over 40, and says nothing."""
    import tensorflow as tf

    class Lying(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "mother_age")])
        def __call__(self, mother_age: Any) -> dict[str, Any]:
            return {"predictions": tf.boolean_mask(mother_age, mother_age <= 40) * 2}

    return save(Lying(), tmp_path_factory.mktemp("lying"))


@pytest.fixture(scope="session")
def old_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that older TensorFlow and Keras write; beside each, rows and what it gives for them."""
    folder = tmp_path_factory.mktemp("old_models")
    script = ROOT / "tests" / "support" / "old_models.py"
    processes.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=300)
    return folder
