"""No byte of a stranger reaches the terminal as anything but text."""

import io

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from resize_pipeline.terminal import EscapingStream, SafeConsole, escaped_lines
from tests.support.controls import controls
from tests.unit.test_imports import FILES, imports, names

HOSTILE = (
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "\x90q\x9c",
    "\x85next",
    "over\rwritten",
    "back\x08\x7f",
    "\u202etxt.exe",
    "\u2066\u2069",
    "\u2028\u2029",
    "\udcff\ud800",
    "\ufeff\u200b",
    "\x00",
)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_stream_writes_text_only(text: str) -> None:
    written = io.BytesIO()
    stream = EscapingStream(written, "utf-8", "backslashreplace", write_through=True)
    assert stream.write(f"é\t{text}\n") == len(text) + 3
    shown = written.getvalue().decode()
    assert shown.startswith("é\t")
    assert not controls(shown)
    assert escaped_lines(shown) == shown, "escaping twice changes nothing"


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_console_styles_escaped_text_only(text: str) -> None:
    """Colours and cursor movements are those of the console itself."""

    def printed(what: str) -> str:
        console = SafeConsole()
        console.file = file = io.StringIO()
        console._force_terminal = True
        table = Table("key", title=what, box=None)
        table.add_column("reason", overflow="fold")
        table.add_row(what, Text(what, style="red"))
        console.print(table)
        console.print(what, style="red")
        console.print(Text(what), soft_wrap=True)
        with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
            bar.add_task(what)
        return file.getvalue()

    def sequences(shown: str) -> set[str]:
        return {part.partition("m")[0] for part in shown.split("\x1b")[1:] if "m" in part[:6]}

    shown, plain = printed(text), printed("plain")
    assert controls(shown) <= controls(plain)
    assert "\x1b]" not in shown
    assert sequences(shown) <= sequences(plain)


def test_nothing_else_makes_a_console() -> None:
    users = {
        name
        for file, name in zip(FILES, names(FILES), strict=True)
        if "rich.console" in imports(file)
    }
    assert users == {"terminal.py"}
