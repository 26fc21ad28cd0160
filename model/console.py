"""Consoles of rich that take text for text: no markup, no emoji codes, no escape sequences in it."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from model.terminal import escaped, make_tolerant

_PIPE_COLUMNS = 1_000_000
"""A pipe has no width: rows must not be cut or wrapped to fit one."""


class Console(rich.console.Console):
    """Prints tables and lines that hold names and values of others.

    Args:
      stderr: print on standard error, in place of standard output.
      options: of rich's own console.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)
        make_tolerant(self.file)
        if not self.file.isatty():
            self.width = _PIPE_COLUMNS

    def render_str(self, text: str, **options: Any) -> Text:
        """Renders text as rich does, once it is escaped, so that its width is that of what is shown."""
        return super().render_str(escaped(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """Renders as rich does, and escapes what came by another way than `render_str`."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escaped(segment.text, keep="\n"), segment.style)
