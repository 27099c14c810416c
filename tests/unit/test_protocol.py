"""What a renderer and its children say to each other, and what a parent accepts of a child."""

import json
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.protocol import (
    ANSWER,
    REQUEST,
    TEXT_MAX_BYTES,
    Channel,
    DeadlineError,
    Drawn,
    Failed,
    Made,
    MalformedError,
    RenderPicture,
    Renditions,
    Reserve,
    rendered,
)
from resize_pipeline.renditions.spec import Rendition

LIMITS = RenderLimits(60, 2**30, 10**8, 10**8, 10**8)
SPECS = (
    Rendition(name="large", width=100, height=50, bucket="large-bucket"),
    Rendition(
        name="small",
        width=20,
        height=20,
        fit="cover",
        position="0.3,0.7",
        format="webp",
        lossless=True,
        metadata=["copyright"],
        bucket="small-bucket",
    ),
)
MIB = 2**20


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = Channel(one.detach()), Channel(other.detach())
    yield channels
    for channel in channels:
        channel.close()


@pytest.fixture
def parent(ends: tuple[Channel, Channel]) -> Channel:
    return ends[0]


@pytest.fixture
def child(ends: tuple[Channel, Channel]) -> int:
    """The other end, as a child that was taken over may write to it."""
    return ends[1]._descriptor


def framed(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def made(name: str, picture_format: str) -> Made:
    return Made(rendition=name, width=9, height=9, format=picture_format, smaller=False)


def test_a_request_arrives_as_it_was_sent(ends: tuple[Channel, Channel]) -> None:
    request = RenderPicture(renditions=SPECS, limits=LIMITS)
    ends[0].send(request, [b"picture"])
    arrived, pictures = ends[1].receive(REQUEST, max_bytes=MIB)
    assert isinstance(arrived, RenderPicture)
    assert (arrived.renditions, arrived.limits) == (SPECS, LIMITS)
    assert [one.digest for one in arrived.renditions] == [one.digest for one in SPECS]
    assert pictures == [b"picture"]


def test_pictures_larger_than_the_socket_s_buffer_arrive(ends: tuple[Channel, Channel]) -> None:
    pictures = [os.urandom(5 * MIB), b"", os.urandom(3)]
    thread = threading.Thread(target=ends[1].send, args=(Drawn(), pictures))
    thread.start()
    answer, arrived = ends[0].receive(ANSWER, max_bytes=6 * MIB)
    thread.join()
    assert isinstance(answer, Drawn)
    assert arrived == pictures


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(framed(pickle.dumps([1])), id="pickle"),
        pytest.param(framed(b"{"), id="no JSON"),
        pytest.param(framed(b"[" * 100_000), id="nested"),
        pytest.param(framed(b"null"), id="null"),
        pytest.param(framed(b'{"kind": "render", "renditions": []}'), id="a request"),
        pytest.param(framed(b'{"kind": "other"}'), id="an unknown kind"),
        pytest.param(framed(b'{"kind": "drawn", "more": 1}'), id="a field too many"),
        pytest.param(framed(b'{"kind": "drawn", "sizes": [-1]}'), id="a negative size"),
        pytest.param(framed(b'{"kind": "drawn", "sizes": ["1"]}'), id="a size in words"),
        pytest.param(framed(b'{"kind": "drawn", "sizes": [2000000]}'), id="too many bytes"),
        pytest.param(framed(b'{"kind": "drawn", "sizes": [1e300]}'), id="an endless size"),
        pytest.param(framed(b'{"kind": "reserve", "pixels": -5}'), id="negative pixels"),
        pytest.param(framed(b'{"kind": "reserve", "pixels": true}'), id="no number of pixels"),
        pytest.param(framed(b'{"kind": "failed", "error": "SystemExit", "reason": ""}'), id="exit"),
        pytest.param(
            framed(
                json.dumps({"kind": "failed", "error": "UserError", "reason": "a" * 5000}).encode()
            ),
            id="an endless reason",
        ),
        pytest.param(struct.pack(">I", TEXT_MAX_BYTES + 1), id="an endless text"),
    ],
)
def test_anything_else_is_refused(parent: Channel, child: int, sent: bytes) -> None:
    os.write(child, sent)
    with pytest.raises(MalformedError) as caught:
        parent.receive(ANSWER, max_bytes=MIB, deadline=time.monotonic() + 60)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_a_message_that_never_ends_meets_the_deadline(parent: Channel, child: int) -> None:
    text = b'{"kind": "drawn", "sizes": [3]}'
    os.write(child, framed(text) + b"ab")
    with pytest.raises(DeadlineError):
        parent.receive(ANSWER, max_bytes=MIB, deadline=time.monotonic() + 0.1)


def test_messages_without_end_meet_the_deadline(parent: Channel, child: int) -> None:
    """They never let the parent wait, so it has to look at the clock itself."""
    os.write(child, framed(b'{"kind": "transforming", "transform": ""}') * 2)
    parent.receive(ANSWER, max_bytes=MIB, deadline=time.monotonic() + 60)
    with pytest.raises(DeadlineError):
        parent.receive(ANSWER, max_bytes=MIB, deadline=time.monotonic() - 1)


def test_a_child_that_does_not_read_meets_the_deadline(parent: Channel) -> None:
    request = RenderPicture(renditions=SPECS, limits=LIMITS)
    with pytest.raises(DeadlineError):
        parent.send(request, [bytes(50 * MIB)], deadline=time.monotonic() + 0.1)


def test_the_end_of_the_other_side_is_told() -> None:
    one, other = socket.socketpair()
    channel = Channel(one.detach())
    other.sendall(framed(b'{"kind": "drawn", "sizes": [3]}')[:-4])
    other.close()
    with pytest.raises((EOFError, ConnectionError)):
        channel.receive(ANSWER, max_bytes=MIB)
    with pytest.raises(OSError, match="Broken pipe"):
        channel.send(Reserve(pixels=1))
    channel.close()
    channel.close()
    assert not channel.has_message
    with pytest.raises(OSError, match="Bad file descriptor"):
        channel.send(Reserve(pixels=1))


def test_renditions_that_were_asked_for_are_taken() -> None:
    answer = Renditions(made=(made("large", "PNG"), made("small", "WEBP")))
    taken = rendered(SPECS, answer, [b"large", b"small"])
    assert [(one.rendition, one.data, one.content_type) for one in taken] == [
        ("large", b"large", "image/png"),
        ("small", b"small", "image/webp"),
    ]


@pytest.mark.parametrize(
    ("answer", "pictures"),
    [
        ([("large", "PNG")], [b"1"]),
        ([("small", "WEBP"), ("large", "PNG")], [b"1", b"2"]),
        ([("large", "PNG"), ("other", "WEBP")], [b"1", b"2"]),
        ([("large", "PNG"), ("small", "PNG")], [b"1", b"2"]),
        ([("large", "HTML"), ("small", "WEBP")], [b"1", b"2"]),
        ([("large", "PNG"), ("small", "WEBP")], [b"1"]),
        ([("large", "PNG"), ("small", "WEBP")], [b"1", b""]),
        ([("large", "PNG"), ("small", "WEBP")], [b"1", b"2", b"3"]),
    ],
)
def test_other_renditions_are_refused(answer: list[tuple[str, str]], pictures: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        rendered(SPECS, Renditions(made=tuple(made(*one) for one in answer)), pictures)


def test_an_error_arrives(ends: tuple[Channel, Channel]) -> None:
    ends[1].send(Failed(error="PermanentError", reason="it is ©\x1b"))
    answer, _ = ends[0].receive(ANSWER, max_bytes=0)
    assert answer == Failed(error="PermanentError", reason="it is ©\x1b")
