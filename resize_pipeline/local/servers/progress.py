"""Shows the progress of a download or a build on standard error."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from resize_pipeline.terminal import SafeConsole

PLAIN_INTERVAL_S = 15.0

Update = Callable[[str], None]
"""Accepts a few words about the progress."""


@contextlib.contextmanager
def progress(what: str) -> Generator[Update]:
    """Show that `what` is in progress: a spinner on a terminal, otherwise a line every 15 s.

    Yields:
        A function that replaces the words shown after `what`.
    """
    if sys.stderr.isatty():
        with _spinner(what) as update:
            yield update
    else:
        with _lines(what) as update:
            yield update


@contextlib.contextmanager
def _spinner(what: str) -> Generator[Update]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=SafeConsole(stderr=True)) as bar:
        task = bar.add_task(what)
        yield lambda words: bar.update(task, description=f"{what}: {words}")


@contextlib.contextmanager
def _lines(what: str) -> Generator[Update]:
    started = time.monotonic()
    latest = [""]
    done = threading.Event()

    def say(words: str) -> None:
        line = f"{what}: {words}" if words else what
        print(f"{line} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)  # noqa: T201

    def repeat() -> None:
        while not done.wait(PLAIN_INTERVAL_S):
            say(latest[0] or "still running")

    say("")
    reporter = threading.Thread(target=repeat, daemon=True)
    reporter.start()
    try:
        yield lambda words: latest.__setitem__(0, words)
        say("done")
    finally:
        done.set()
        reporter.join()
