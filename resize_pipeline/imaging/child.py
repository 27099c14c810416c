"""The program of a rendering child, which `renderer.Renderer` starts and talks to by a pipe."""

import logging
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from resize_pipeline.errors import (
    PermanentError,
    UserError,
    one_line,
)
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition

if TYPE_CHECKING:  # A child reads no settings.
    pass
from resize_pipeline.imaging.limits import GRACE_S, Answer, RenderLimits


def serve(pipe: Connection, memory_bytes: int) -> None:
    """Render whatever arrives through the pipe until the parent closes it."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # A decoder that crashes leaves no gigabytes on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C in a terminal goes to all processes; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders tell of much that they can live with, the C libraries straight to the terminal.
    warnings.simplefilter("ignore", UserWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # The pipe ends with the parent, however that ends; the alarm is for a child that never looks.
    with suppress(EOFError, OSError):
        while True:
            data, renditions, limits = pipe.recv()
            answer = _answer(pipe, data, renditions, limits)
            del data
            pipe.send(answer)


def _answer(
    pipe: Connection, data: bytes, renditions: Sequence[Rendition], limits: RenderLimits
) -> Answer:
    seconds = limits.timeout_s + GRACE_S

    def reserve(pixels: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            pipe.send(pixels)
            pipe.recv()
        except (EOFError, OSError):
            sys.exit()  # The parent is gone.
        signal.setitimer(signal.ITIMER_REAL, seconds)

    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return render(
            data,
            renditions,
            max_pixels=limits.source_pixels,
            max_output_pixels=limits.output_pixels,
            on_transform=pipe.send,
            reserve=reserve,
        )
    except (MemoryError, PermanentError, UserError) as error:
        return error
    except Exception as error:  # noqa: BLE001
        # Something that nobody thought of, in Pillow's filters and encoders or here: who mends it
        # needs to see where, the batch needs to go on.
        traceback.print_exc()
        msg = f"can't be rendered: {type(error).__name__}: {one_line(str(error))}"
        return PermanentError(msg)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
