"""The program that renders pictures for `renderer.Renderer`, one after another.

Run as `python -m resize_pipeline.imaging.child FILE_DESCRIPTOR MEMORY_BYTES [READ_PATH]...`. It
confines itself before it reads a request. For each request of `protocol.py` it sends:

1. the name of each transform before calling it, and an empty name afterwards;
2. once, before decoding, the number of pixels it will hold; it then waits for a reply;
3. the answer: the pictures, or the error that ended the work.
"""

import logging
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

from PIL import Image

from resize_pipeline.errors import PermanentError, UserError, one_line
from resize_pipeline.imaging import sandbox, thumbnails
from resize_pipeline.imaging.own_analyses import results
from resize_pipeline.imaging.protocol import (
    ERRORS,
    REASON_MAX,
    REQUEST,
    RESERVED,
    TRACE_MAX,
    AnalyseViews,
    Answer,
    Channel,
    Described,
    DescribePicture,
    DrawContactSheet,
    Drawn,
    DrawThumbnail,
    Failed,
    Made,
    RenderPicture,
    Renditions,
    Request,
    Reserve,
    Transforming,
    View,
    ViewsAnalysed,
)
from resize_pipeline.imaging.render import describe, render

GRACE_S = 5.0
"""Seconds past the time limit after which a child ends itself, as its parent may be dead."""


def serve(channel: Channel, memory_bytes: int, read_paths: Sequence[str]) -> None:
    """Render whatever is asked for until the other end closes the channel.

    Args:
        channel: this process's end.
        memory_bytes: address space that this process may use.
        read_paths: files and folders that transforms may read, RENDER_READ_PATHS.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # A crashing decoder must not leave gigabytes on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C in a terminal reaches every process; the parent decides which ones end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders warn about much that is harmless, the C libraries straight to the terminal.
    warnings.simplefilter("ignore", UserWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    sandbox.enter(read_paths)
    # Up to here errors of the installation must be visible. From here on no untrusted text may
    # reach a terminal, which obeys escape sequences.
    os.dup2(0, 2)
    # The channel closes when the parent dies, however it dies. The alarm in `_answer` covers a
    # child that is too busy to look at it.
    with suppress(EOFError, OSError):
        while True:
            request, pictures = channel.receive(REQUEST, max_bytes=memory_bytes)
            answer, made = _answer(channel, request, pictures)
            del pictures
            channel.send(answer, made)


def _answer(
    channel: Channel, request: Request, pictures: list[bytes]
) -> tuple[Answer, Sequence[bytes]]:
    seconds = request.limits.timeout_s + GRACE_S

    def reserve(pixels: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            channel.send(Reserve(pixels=pixels))
            channel.receive(RESERVED, max_bytes=0)
        except (EOFError, OSError):
            sys.exit()  # The parent is gone.
        signal.setitimer(signal.ITIMER_REAL, seconds)

    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        if isinstance(request, RenderPicture):
            # Unlike RLIMIT_CPU, it starts anew with each picture. SIGPROF ends the process.
            signal.setitimer(signal.ITIMER_PROF, request.cpu_s or 0)
            return _renditions(channel, request, pictures[0], reserve)
        if isinstance(request, DescribePicture):
            limit = request.limits.source_pixels
            views = _Views()
            facts = describe(
                pictures[0],
                max_pixels=limit,
                analyses=request.analyses,
                view_side=request.view_side,
                on_view=views.append,
                reserve=reserve,
            )
            return Described(source=facts, view=views.size), views.pixels
        if isinstance(request, AnalyseViews):
            found = results(request.analysis, list(map(View, request.views, pictures)))
            return ViewsAnalysed(found=tuple(found)), []
        return Drawn(), _drawn(request, pictures, reserve)
    except (MemoryError, PermanentError, UserError) as error:
        [kind, *_] = (name for name, one in ERRORS.items() if isinstance(error, one))
        return Failed.model_validate({"error": kind, "reason": str(error)[:REASON_MAX]}), []
    except Exception as error:  # noqa: BLE001
        # A bug in Pillow's filters or encoders, or in this package: the traceback shows where to
        # fix it, and the rest of the batch continues.
        reason = f"can't be rendered: {type(error).__name__}: {one_line(str(error))}"
        trace = traceback.format_exc()[-TRACE_MAX:]
        return Failed(error="PermanentError", reason=reason, trace=trace), []
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Views(list[Image.Image]):
    """Receives at most one view."""

    @property
    def size(self) -> tuple[int, int] | None:
        return self[0].size if self else None

    @property
    def pixels(self) -> list[bytes]:
        return [one.tobytes() for one in self]


def _renditions(
    channel: Channel, request: RenderPicture, picture: bytes, reserve: Callable[[int], None]
) -> tuple[Answer, Sequence[bytes]]:
    views = _Views()
    rendered = render(
        picture,
        request.renditions,
        max_pixels=request.limits.source_pixels,
        max_output_pixels=request.limits.output_pixels,
        analyses=request.analyses,
        view_side=request.view_side,
        on_view=views.append,
        on_transform=lambda name: channel.send(Transforming(transform=name)),
        reserve=reserve,
    )
    made = tuple(
        Made(
            rendition=one.rendition,
            width=one.width,
            height=one.height,
            format=one.format,
            smaller=one.smaller,
        )
        for one in rendered
    )
    source = rendered[0].source if rendered else None
    answer = Renditions(made=made, source=source, view=views.size)
    return answer, [*(one.data for one in rendered), *views.pixels]


def _drawn(
    request: DrawThumbnail | DrawContactSheet,
    pictures: list[bytes],
    reserve: Callable[[int], None],
) -> list[bytes]:
    limit = request.limits.output_pixels
    reserve(thumbnails.largest(pictures, max_pixels=limit))
    if isinstance(request, DrawThumbnail):
        return [thumbnails.thumbnail(pictures[0], max_pixels=limit)]
    if request.format is not None:
        sheet = thumbnails.contact_sheet_picture(pictures, request.format, max_pixels=limit)
    else:
        sheet = thumbnails.contact_sheet(pictures, max_bytes=request.max_bytes, max_pixels=limit)
    return [] if sheet is None else [sheet]


if __name__ == "__main__":
    serve(Channel(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
