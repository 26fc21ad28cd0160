"""Reads formats whose rows are one value (a file, a line, a record), which a model's one text input gets by itself."""

from __future__ import annotations

from model.specs import Signature

CONTENT = {"bytes": "bytes", "text": "line", "tfrecord_raw": "record"}
"""The column that holds the value, by the format whose reader decodes it."""

PATH = "path"
"""The column with the path of a file that is one row."""


def fed(signature: Signature, reads: str) -> dict[str, str]:
    """Returns the model's input that a row's one value feeds, and its column; nothing where that is not clear.

    Args:
      signature: of the model.
      reads: the format whose reader decodes the rows.
    """
    texts = [spec.name for spec in signature.inputs if spec.dtype == "string"]
    # A line of text is no serialized tf.Example.
    if reads not in CONTENT or len(texts) != 1 or (reads == "text" and signature.examples_input):
        return {}
    return {texts[0]: CONTENT[reads]}
