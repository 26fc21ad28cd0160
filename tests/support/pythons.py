"""Says what this version of Python can run."""

import sys

HAS_STREAMS = sys.version_info >= (3, 11)
"""Streams need what Beam has since 2.77, which needs Python 3.11 (pipelines.stream says so)."""
