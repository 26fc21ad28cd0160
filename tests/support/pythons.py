"""Says what this version of Python can run."""

from __future__ import annotations

import sys

import pytest

HAS_STREAMS = sys.version_info >= (3, 11)
"""Streams need what Beam has since 2.77, which needs Python 3.11 (pipelines.stream says so)."""

needs_streams = pytest.mark.skipif(not HAS_STREAMS, reason="streams need Python 3.11")


def skip_streams(module: str) -> None:
    """Skips the test that runs it, if the module of a command is that of streams and they cannot run."""
    if module == "stream" and not HAS_STREAMS:
        pytest.skip("streams need Python 3.11")
