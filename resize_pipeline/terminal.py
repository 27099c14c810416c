"""What this package prints, with escapes for all that a terminal would obey or hide.

Keys, file names, headers, reasons and servers' messages come from strangers, and libraries print
them, too. So the streams escape whatever is written to them, and the only way past them is a
`SafeConsole`, which escapes text before it adds its own styles.
"""

import io
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from resize_pipeline.errors import escaped

_LAYOUT = "\n\t"


def escaped_lines(text: str) -> str:
    """Return text with escapes for every character that is neither printable nor layout."""
    if text.isprintable():
        return text
    return "".join(one if one in _LAYOUT else escaped(one) for one in text)


class EscapingStream(io.TextIOWrapper):
    """A text stream that writes no control character but line feeds and tabs."""

    def write(self, text: str, /) -> int:
        """Write the text, escaped."""
        super().write(escaped_lines(text))
        return len(text)


class SafeConsole(Console):
    """A console that escapes the text it renders, for all that has styles, tables or progress."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(
            file=_unescaped.get("stderr" if stderr else "stdout"),
            stderr=stderr,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=soft_wrap,
        )

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render; the only control characters left are those of the console itself."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escaped_lines(text), style, control)


_unescaped: dict[str, TextIO] = {}
"""The streams for consoles, by their names in `sys`."""

errors = SafeConsole(stderr=True, soft_wrap=True)
"""For everything that is not a command's result: notes and errors."""


def guard_streams() -> None:
    """Escape what this process prints from now on, whoever prints it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, EscapingStream):
            continue
        # A name that is not UTF-8 must not end the program.
        stream.reconfigure(errors="backslashreplace")
        _unescaped[name] = stream
        # Both streams write through to the same buffer, so that their order is kept.
        stream.reconfigure(write_through=True)
        guarded = EscapingStream(
            stream.buffer, stream.encoding, "backslashreplace", write_through=True
        )
        guarded.reconfigure(line_buffering=stream.line_buffering)
        setattr(sys, name, guarded)
    errors.file = _unescaped.get("stderr", sys.stderr)
