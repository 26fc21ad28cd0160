"""Keeps the texts of argparse's parsers: without this a run looks for files of translations 600 times as it starts.

Beam 2.77 makes a parser for each look at its options (options/pipeline_options.py, `view_as`), some 200 a run, and
argparse translates its own few headings for each of them; where there is no translation, gettext searches again.
"""

from __future__ import annotations

import argparse
import functools


def keep_texts() -> None:
    """Has argparse translate each of its texts once in this process. May be called again."""
    if not hasattr(argparse._, "cache_clear"):  # type: ignore[attr-defined]  # no stub has it
        argparse._ = functools.cache(argparse._)  # type: ignore[attr-defined]
