"""Rebuilds colour profiles, so that only what describes colours gets out (ICC.1:2022)."""

import struct

_HEADER_BYTES = 128
_ENTRY_BYTES = 12
_TAGS_MAX = 100
"""Most tags of a profile that is read; profiles of cameras and presses have 10 to 20."""
_CLASSES = frozenset({b"mntr", b"scnr", b"prtr", b"spac"})
_PCS = frozenset({b"XYZ ", b"Lab "})
_VERSIONS = frozenset({2, 4})
_D50 = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
_KEPT = frozenset(
    {b"wtpt", b"chad", b"cicp", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC"}
    | {b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2"}
)
_TEXTS = ((b"desc", b"Colour profile"), (b"cprt", b"Not kept"))
"""Tags that the format demands, and what they say instead."""
_FIXED_BYTES = {b"XYZ ": 20, b"sf32": 44, b"cicp": 12}
_PARAMETERS = (1, 3, 4, 5, 7)
"""Numbers of a parametric curve, by its kind."""


def rebuilt(profile: bytes) -> bytes | None:
    """Return a profile with the same colours, and without text, private tags and gaps.

    Args:
        profile: an ICC profile as embedded in a picture.

    Returns:
        The profile, or None if it is broken or describes colours by elements (`mAB `) whose length
        is not computed here.
    """
    try:
        return written(profile, _tags(profile))
    except (ArithmeticError, LookupError, ValueError, struct.error):
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    if count > _TAGS_MAX:
        raise ValueError
    found: dict[bytes, bytes] = {}
    for index in range(count):
        place = _HEADER_BYTES + 4 + index * _ENTRY_BYTES
        name, start, length = struct.unpack_from(">4sII", profile, place)
        if name in _KEPT:
            element = profile[start : start + length]
            end = _element_bytes(element)
            if end > len(element):
                raise ValueError
            # The four bytes after the type are reserved.
            found[name] = element[:4] + bytes(4) + element[8:end]
    return found


def _element_bytes(element: bytes) -> int:
    kind = element[:4]
    match kind:
        case b"curv":
            (count,) = struct.unpack_from(">I", element, 8)
            return 12 + 2 * count
        case b"para":
            (function,) = struct.unpack_from(">H", element, 8)
            return 12 + 4 * _PARAMETERS[function]
        case b"mft1":
            inputs, outputs, grid = element[8], element[9], element[10]
            return 48 + 256 * (inputs + outputs) + outputs * grid**inputs
        case b"mft2":
            inputs, outputs, grid = element[8], element[9], element[10]
            before, after = struct.unpack_from(">HH", element, 48)
            return 52 + 2 * (inputs * before + outputs * after + outputs * grid**inputs)
        case _:
            return _FIXED_BYTES[kind]


def written(profile: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile with these elements, by their names.

    Args:
        profile: has a header whose version, class and colour spaces are kept.
        tags: all elements but texts.

    Raises:
        ValueError: profiles of that version, class or colour space are not supported.
    """
    version, minor = profile[8], profile[9]
    kind, space, pcs = profile[12:16], profile[16:20], profile[20:24]
    if version not in _VERSIONS or kind not in _CLASSES or pcs not in _PCS:
        raise ValueError
    texts = {name: _text(name, text, version) for name, text in _TEXTS}
    table, content = b"", b""
    start = _HEADER_BYTES + 4 + _ENTRY_BYTES * (len(tags) + len(texts))
    places: dict[bytes, int] = {}
    for name, element in {**texts, **tags}.items():
        # The three curves of most profiles are one.
        if element not in places:
            places[element] = start + len(content)
            content += element + bytes(-len(element) % 4)
        table += struct.pack(">4sII", name, places[element], len(element))
    header = struct.pack(">I4sBBH", start + len(content), b"", version, minor, 0)
    header += kind + space + pcs + _DATE + b"acsp" + bytes(24) + bytes([0, 0, 0, profile[67] & 3])
    header += _D50 + bytes(_HEADER_BYTES - 80)
    return header + struct.pack(">I", len(tags) + len(texts)) + table + content


def _text(name: bytes, text: bytes, version: int) -> bytes:
    if version == 4:  # noqa: PLR2004
        wide = text.decode().encode("utf-16-be")
        return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(wide), 28) + wide
    if name == b"cprt":
        return b"text" + bytes(4) + text + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(79)
