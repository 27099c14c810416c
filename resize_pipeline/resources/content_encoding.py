"""Undoes an object's Content-Encoding, unless its bytes show that it was never encoded.

Whoever uploads an object may claim any encoding, and clients often claim one that they did not
apply. So the bytes decide first: a picture is a picture, whatever the header says.
"""

import re
import zlib
from collections.abc import Callable

from resize_pipeline.errors import PermanentError, one_line

PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|.{4}ftyp", re.DOTALL
)
"""The first bytes of the formats that are rendered; no compressed data begins like that."""

ENCODINGS_MAX = 3
"""Most encodings that are undone one after another; each may multiply the size by a thousand."""

MEMBERS_MAX = 100
"""Most members of a gzip file (RFC 1952, 2.2); what follows a member is copied for each of them."""

_AS_IT_IS = frozenset({"", "identity", "aws-chunked"})
"""`aws-chunked` describes an upload and not the object, but some servers store it."""


def without_encoding(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return an object's bytes without its Content-Encoding.

    Args:
        data: the object as it is stored.
        encoding: its Content-Encoding; empty if it has none.
        max_bytes: the result is at most one byte longer, which tells that it is too large.

    Raises:
        PermanentError: the bytes do not match the encoding, or the encoding is not supported.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    names = [name for name in names if name not in _AS_IT_IS]
    for name in reversed(names):
        if PICTURE.match(data):
            return data
        decode = _DECODERS.get(name)
        if decode is None or len(names) > ENCODINGS_MAX:
            msg = (
                f"its Content-Encoding {one_line(encoding)!r} is not supported: upload it without, "
                "or with gzip or deflate"
            )
            raise PermanentError(msg)
        try:
            data = decode(data, max_bytes + 1)
        except zlib.error as error:
            msg = "its content does not match its Content-Encoding"
            raise PermanentError(msg) from error
    return data


def _gzip(data: bytes, max_length: int) -> bytes:
    decoded = bytearray()
    for _ in range(MEMBERS_MAX):
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        decoded += member.decompress(data, max_length - len(decoded))
        if not member.eof and not member.unconsumed_tail:
            raise zlib.error("truncated")
        data = member.unused_data
        if not data or len(decoded) >= max_length:
            return bytes(decoded)
    raise zlib.error("too many members")


def _deflate(data: bytes, max_length: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, max_length)
    except zlib.error:
        # Some clients leave out the zlib header (RFC 9110, 8.4.1.2).
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max_length)


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
}
