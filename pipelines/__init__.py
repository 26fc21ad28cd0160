"""Runs TensorFlow predictions as Beam pipelines from one JSON config; gives transforms for pipelines of one's own.

Importing a name imports what it needs (Beam, about 4 s).
"""

from __future__ import annotations

# Not that of typing: every command imports this module first, and until it is there Ctrl-C shows a traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from pipelines.io import DeadLetter, ReadRecordBatches, WriteRecordBatches

__all__ = ["DeadLetter", "ReadRecordBatches", "WriteRecordBatches"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("pipelines.io"), name)
