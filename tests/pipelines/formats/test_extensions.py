"""What is known of a format without its modules agrees with them."""

from __future__ import annotations

from pipelines.formats import EXTENSIONS, WRITERS, writer_class


def test_extensions_are_those_of_the_writers() -> None:
    assert {name: writer_class(name).extension for name in WRITERS} == EXTENSIONS
