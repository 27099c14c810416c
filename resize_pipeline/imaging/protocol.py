"""The protocol between a renderer and its children: JSON and bytes, and nothing executable.

A message is the length of a JSON text as a 4-byte big-endian integer, then that text, then the
pictures whose sizes it names. A child decodes untrusted pictures and may have been taken over, so
its parent checks whatever arrives: its form, its sizes, and that it is what was asked for.
"""

import math
import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_serializer

from resize_pipeline.errors import PermanentError, TransformError, UserError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.renditions.analyses import SIDE_MAX as VIEW_SIDE_MAX
from resize_pipeline.renditions.analyses import Analysed, Analysis, is_answer
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import CONTENT_TYPES, Rendered
from resize_pipeline.renditions.spec import SIDE_MAX, Rendition

TEXT_MAX_BYTES = 2**20
"""Longest JSON text, which is enough for more than a thousand renditions."""
REASON_MAX = 2000
"""Most characters of an error's message."""
TRACE_MAX = 20_000
"""Most characters of a traceback."""

ERRORS: Mapping[str, type[Exception]] = {
    "TransformError": TransformError,
    "PermanentError": PermanentError,
    "UserError": UserError,
    "MemoryError": MemoryError,
}
"""The errors that a child may answer with, subclasses first."""

ViewSide = Annotated[int, Field(ge=1, le=VIEW_SIDE_MAX)]

_LENGTH = struct.Struct(">I")
_CLOSED = -1


class MalformedError(Exception):
    """The other end sent something that it must not send."""


class DeadlineError(Exception):
    """The other end took too long."""


class _Message(BaseModel):
    """A message, with the sizes of the pictures that follow it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=10_000)] = ()


class View(NamedTuple):
    """A picture as functions of the operator see it: upright, in sRGB, on white.

    Attributes:
        size: width and height in pixels.
        pixels: 3 bytes for each pixel, row by row.
    """

    size: tuple[int, int]
    pixels: bytes


class RenderPicture(_Message):
    """Ask for renditions of the picture that follows, and for a view if `view_side` is not zero.

    A child that takes more than `cpu_s` seconds of CPU time is ended by SIGPROF.
    """

    kind: Literal["render"] = "render"
    renditions: tuple[Rendition, ...]
    limits: RenderLimits
    analyses: tuple[Analysis, ...] = ()
    view_side: int = 0
    cpu_s: float | None = None

    @field_serializer("renditions")
    def _set_fields(self, renditions: Sequence[Rendition]) -> list[dict[str, Any]]:
        # A spec refuses fields that would have no effect, even with their default values.
        return [one.model_dump(exclude_defaults=True) for one in renditions]


class DescribePicture(_Message):
    """Ask what the picture that follows is like, and for a view, without renditions."""

    kind: Literal["describe"] = "describe"
    limits: RenderLimits
    analyses: tuple[Analysis, ...] = ()
    view_side: int = 0


class AnalyseViews(_Message):
    """Ask for the result of one function for each of the views that follow."""

    kind: Literal["analyse"] = "analyse"
    limits: RenderLimits
    analysis: Analysis
    views: tuple[tuple[int, int], ...]


class DrawThumbnail(_Message):
    """Ask for a thumbnail of the picture that follows."""

    kind: Literal["thumbnail"] = "thumbnail"
    limits: RenderLimits


class DrawContactSheet(_Message):
    """Ask for a sheet of the pictures that follow: in `format`, or a WebP up to `max_bytes`."""

    kind: Literal["contact sheet"] = "contact sheet"
    limits: RenderLimits
    format: str | None = None
    max_bytes: int = 0


class Reserve(_Message):
    """Ask the parent to reply once the child may hold this many pixels."""

    kind: Literal["reserve"] = "reserve"
    pixels: Annotated[int, Field(ge=0, lt=2**48)]


class Reserved(_Message):
    """Let a child hold the pixels that it asked for."""

    kind: Literal["reserved"] = "reserved"


class Transforming(_Message):
    """Report the transform that starts; an empty name reports its end."""

    kind: Literal["transforming"] = "transforming"
    transform: Annotated[str, Field(max_length=REASON_MAX)]


class Made(BaseModel):
    """One rendition without its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rendition: str
    width: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    height: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    format: str
    smaller: bool


class Renditions(_Message):
    """Answer with what the source is like, and with renditions, whose bytes follow in order.

    The pixels of the view follow them, if `view`, its size, is given.
    """

    kind: Literal["renditions"] = "renditions"
    made: tuple[Made, ...]
    source: Facts | None = None
    view: tuple[ViewSide, ViewSide] | None = None


class Described(_Message):
    """Answer with what a picture is like, and with the pixels of the view if `view` is given."""

    kind: Literal["described"] = "described"
    source: Facts
    view: tuple[ViewSide, ViewSide] | None = None


class ViewsAnalysed(_Message):
    """Answer with the result of the function for each view."""

    kind: Literal["analysed"] = "analysed"
    found: tuple[Analysed, ...]


class Drawn(_Message):
    """Answer with the picture that follows, or with none if none fits."""

    kind: Literal["drawn"] = "drawn"


class Failed(_Message):
    """Answer with an error, and with its traceback if it is a bug."""

    kind: Literal["failed"] = "failed"
    error: Literal["TransformError", "PermanentError", "UserError", "MemoryError"]
    reason: Annotated[str, Field(max_length=REASON_MAX)]
    trace: Annotated[str, Field(max_length=TRACE_MAX)] = ""


Request = RenderPicture | DescribePicture | AnalyseViews | DrawThumbnail | DrawContactSheet
Answer = Renditions | Described | ViewsAnalysed | Drawn | Failed

M = TypeVar("M", bound=_Message)

_KIND = Field(discriminator="kind")
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, _KIND])
"""The messages that a child accepts."""
ANSWER: TypeAdapter[Answer | Reserve | Transforming] = TypeAdapter(
    Annotated[Answer | Reserve | Transforming, _KIND]
)
"""The messages that its parent accepts."""
RESERVED: TypeAdapter[Reserved] = TypeAdapter(Reserved)
"""The message that a child accepts while it waits for pixels."""


class Channel:
    """One end of a socket that carries messages both ways."""

    def __init__(self, descriptor: int) -> None:
        """Take over the file descriptor."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._ready = select.poll()

    def close(self) -> None:
        """Close the file descriptor, if it is open. Whoever uses the channel next gets OSError."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)

    @property
    def has_message(self) -> bool:
        """Whether the other side has said something, and is not gone since."""
        if self._descriptor == _CLOSED:
            return False
        self._ready.register(self._descriptor, select.POLLIN)
        return [event for _, event in self._ready.poll(0)] == [select.POLLIN]

    def send(
        self, message: _Message, pictures: Sequence[bytes] = (), *, deadline: float = math.inf
    ) -> None:
        """Send a message, waiting until the other end has room for it.

        Args:
            message: the message.
            pictures: the pictures that follow it.
            deadline: latest time, by `time.monotonic`.

        Raises:
            OSError: the other end is gone.
            DeadlineError: the other end does not read.
        """
        sizes = tuple(len(one) for one in pictures)
        text = message.model_copy(update={"sizes": sizes}).model_dump_json().encode()
        for part in (_LENGTH.pack(len(text)) + text, *pictures):
            left = memoryview(part)
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline)

    def receive(
        self, kinds: TypeAdapter[M], *, max_bytes: int, deadline: float = math.inf
    ) -> tuple[M, list[bytes]]:
        """Wait for a message.

        Args:
            kinds: the messages that are accepted.
            max_bytes: most bytes of its pictures together.
            deadline: as in `send`.

        Raises:
            EOFError: the other end is closed.
            OSError: the other end is gone.
            DeadlineError: the other end sends nothing.
            MalformedError: the other end sends something else.
        """
        if time.monotonic() > deadline:
            raise DeadlineError
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > TEXT_MAX_BYTES:
            msg = f"a text of {length} bytes"
            raise MalformedError(msg)
        text = self._read(length, deadline)
        try:
            message = kinds.validate_json(text)
        except ValidationError as error:
            # Without the input and the context, which are untrusted.
            msg = f"a message that fails {error.errors(include_input=False)[0]['type']}"
            raise MalformedError(msg) from None
        if sum(message.sizes) > max_bytes:
            msg = f"{sum(message.sizes)} bytes, more than {max_bytes}"
            raise MalformedError(msg)
        return message, [self._read(size, deadline) for size in message.sizes]

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray(size)
        left = memoryview(data)
        while left:
            try:
                count = os.readv(self._descriptor, [left])
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            if not count:
                raise EOFError
            left = left[count:]
        return bytes(data)

    def _wait(self, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        self._ready.register(self._descriptor, event)
        if left <= 0 or not self._ready.poll(None if left == math.inf else left * 1000):
            raise DeadlineError


def check_analyses(analyses: Sequence[Analysis], source: Facts | None) -> None:
    """Check that a child's answer has the results of the analyses that it was asked for.

    Raises:
        MalformedError: it has others, or values that no column allows.
    """
    if source and not is_answer(analyses, source.analyses):
        msg = f"other analyses than {', '.join(one.name for one in analyses) or 'none'}"
        raise MalformedError(msg)


def split_view(
    view_side: int, size: tuple[int, int] | None, pictures: list[bytes]
) -> tuple[View | None, list[bytes]]:
    """Take the view from what follows a child's answer.

    Args:
        view_side: as it was asked for.
        size: of the view, as the child says.
        pictures: what follows the answer.

    Raises:
        MalformedError: the view is another one than was asked for.
    """
    if not view_side and size is None:
        return None, pictures
    if (
        size is None
        or not pictures
        or max(size) > view_side
        or len(pictures[-1]) != 3 * size[0] * size[1]
    ):
        msg = f"a view of {size} in place of one with {view_side} pixels a side at most"
        raise MalformedError(msg)
    return View(size, pictures[-1]), pictures[:-1]


def rendered(
    renditions: Sequence[Rendition], answer: Renditions, pictures: Sequence[bytes]
) -> list[Rendered]:
    """Convert a child's answer to the renditions that it was asked for.

    Raises:
        MalformedError: the answer is something else.
    """
    asked = [one.name for one in renditions]
    if [one.rendition for one in answer.made] != asked or len(pictures) != len(asked):
        msg = f"other renditions than {', '.join(asked)}"
        raise MalformedError(msg)
    for spec, made, picture in zip(renditions, answer.made, pictures, strict=True):
        is_right = spec.format == "same" or spec.format.upper() == made.format
        if not picture or made.format not in CONTENT_TYPES or not is_right:
            msg = f"{len(picture)} bytes of another format as rendition {spec.name!r}"
            raise MalformedError(msg)
    return [
        Rendered(
            rendition=made.rendition,
            data=picture,
            width=made.width,
            height=made.height,
            format=made.format,
            content_type=CONTENT_TYPES[made.format],
            smaller=made.smaller,
            source=answer.source,
        )
        for made, picture in zip(answer.made, pictures, strict=True)
    ]
