"""Changes boxes of an AVIF, without the library that reads them."""

import struct


def with_code_points(avif: bytes, primaries: int, transfer: int) -> bytes:
    """Return it with other code points in its nclx boxes."""
    at = avif.index(b"colrnclx") + 8
    assert avif.count(b"colrnclx") == 1
    return avif[:at] + struct.pack(">HH", primaries, transfer) + avif[at + 4 :]


def without_code_points(avif: bytes) -> bytes:
    """Return it with its nclx box renamed, so that its stream alone tells colours."""
    return avif.replace(b"colrnclx", b"freenclx")


def with_property(avif: bytes, kind: bytes, content: bytes) -> bytes:
    """Return a still AVIF with one more essential property of its first item."""
    box = struct.pack(">I4s", 8 + len(content), kind) + content
    grown = len(box) + 1
    found = bytearray(avif)
    # From the end to the start, so that the places before stay.
    ipma = avif.index(b"ipma")
    assert avif[ipma + 4 : ipma + 8] == bytes(4)
    count_at = ipma + 14
    count = avif[count_at]
    ipco = avif.index(b"ipco")
    (ipco_bytes,) = struct.unpack_from(">I", avif, ipco - 4)
    index = _boxes(avif[ipco + 4 : ipco - 4 + ipco_bytes]) + 1
    found[count_at + 1 + count : count_at + 1 + count] = bytes([0x80 | index])
    found[count_at] += 1
    _grow(found, ipma - 4, 1)
    end = ipco - 4 + ipco_bytes
    found[end:end] = box
    _grow(found, ipco - 4, len(box))
    _grow(found, avif.index(b"iprp") - 4, grown)
    _grow(found, avif.index(b"meta") - 4, grown)
    _move_extents(found, avif.index(b"iloc") - 4, grown)
    return bytes(found)


def _boxes(content: bytes) -> int:
    count = at = 0
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        at, count = at + size, count + 1
    return count


def _grow(data: bytearray, at: int, by: int) -> None:
    (size,) = struct.unpack_from(">I", data, at)
    struct.pack_into(">I", data, at, size + by)


def _move_extents(data: bytearray, at: int, by: int) -> None:
    """Move the extents of an iloc box of version 0 with offsets and lengths of 4 bytes."""
    assert data[at + 8] == 0
    assert data[at + 12] == 0x44
    (items,) = struct.unpack_from(">H", data, at + 14)
    at += 16
    for _ in range(items):
        (extents,) = struct.unpack_from(">H", data, at + 4)
        at += 6
        for _ in range(extents):
            _grow(data, at, by)
            at += 8
