"""Reads the size of frames from AV1 and HEVC bitstreams, without decoding them.

Decoders allocate by what the bitstream says, whatever its container claims.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER = 1, 3, 6, 7
"""Types of AV1's open bitstream units (AV1 specification, 6.2.2)."""
SWITCH_FRAME = 3
UNSPECIFIED = (2, 2)
"""Code points of primaries and transfer of a stream that does not tell its colours."""
HEVC_SPS = 33
"""Type of HEVC's sequence parameter sets (H.265, table 7-1); below 32 are slices."""
REFERENCES = {"AV1": 8, "HEVC": 16}
"""Most frames that a decoder keeps for reference."""


class BrokenError(Exception):
    """A bitstream or its container does not follow its specification."""


@dataclass(frozen=True)
class Coded:
    """What decoding a bitstream allocates.

    Attributes:
        width: of the largest frame, in pixels, as its sequence header says.
        height: as `width`.
        pixels: most pixels of a frame, where frames may differ from their sequence header.
        memory_bytes: of all frames that the decoder holds at the same time.
    """

    width: int
    height: int
    pixels: int
    memory_bytes: int


class _Bits:
    """Reads bits, the most significant one first."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._number = int.from_bytes(data)
        self._left = len(data) * 8

    def read(self, count: int = 1) -> int:
        if count > self._left:
            msg = "a header ends too early"
            raise BrokenError(msg)
        self._left -= count
        return self._number >> self._left & (1 << count) - 1

    def exponential(self) -> int:
        """Read an Exp-Golomb number, which AV1 calls uvlc and HEVC ue(v)."""
        zeros = 0
        while not self.read():
            zeros += 1
            if zeros > 32:
                msg = "a number has too many bits"
                raise BrokenError(msg)
        return (1 << zeros) - 1 + self.read(zeros)


@dataclass(frozen=True)
class _Sequence:
    """The fields of an AV1 sequence header that the size of frames depends on."""

    width: int
    height: int
    overridden: int
    is_reduced: bool
    presentation_time_bits: int
    screen_content_tools: int
    integer_vectors: int
    frame_id_bits: int
    bytes_per_pixel: float
    colour: tuple[int, int]


def av1_colour(sample: bytes) -> tuple[int, int]:
    """Return the code points of primaries and transfer that a sample tells; 2 if unspecified.

    Raises:
        BrokenError: its sequence header is broken.
    """
    for kind, content in _obus(sample):
        if kind == SEQUENCE_HEADER:
            return _av1_sequence(_Bits(content[:256])).colour
    return UNSPECIFIED


def av1(samples: Iterable[bytes]) -> Coded:
    """Return what decoding the samples of a track, or the one of an item, allocates.

    A frame that overrides the size in its sequence header counts with the largest size that its
    header could state.

    Raises:
        BrokenError: there is no sequence header, or a header is broken.
    """
    sequence: _Sequence | None = None
    width = height = pixels = frames = 0
    largest_bytes = 0.0
    for kind, content in itertools.chain.from_iterable(map(_obus, samples)):
        if kind == SEQUENCE_HEADER:
            sequence = _av1_sequence(_Bits(content[:256]))
            width, height = max(width, sequence.width), max(height, sequence.height)
        elif kind in {FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER} and sequence:
            is_overridden = _overrides_size(_Bits(content[:32]), sequence)
            size = sequence.overridden if is_overridden else sequence.width * sequence.height
            frames += 1
            pixels = max(pixels, size)
            largest_bytes = max(largest_bytes, size * sequence.bytes_per_pixel)
    if sequence is None:
        msg = "an AV1 stream without a sequence header"
        raise BrokenError(msg)
    # Besides the references, one frame is being decoded, and one may get film grain.
    held = min(frames + 1, REFERENCES["AV1"] + 2)
    return Coded(width, height, max(pixels, width * height), int(largest_bytes * held))


def _obus(data: bytes) -> Iterator[tuple[int, memoryview]]:
    view, at = memoryview(data), 0
    while at < len(view):
        header = view[at]
        at += 2 if header & 4 else 1
        size = len(view) - at
        if header & 2:
            size, at = _leb128(view, at)
        yield header >> 3 & 15, view[at : at + size]
        at += size


def _leb128(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(view[at : at + 8]):
        value |= (byte & 127) << 7 * index
        if not byte & 128:
            return value, at + index + 1
    msg = "the size of an AV1 unit is broken"
    raise BrokenError(msg)


def _av1_sequence(bits: _Bits) -> _Sequence:
    """Read a sequence header (AV1 specification, 5.5.1)."""
    profile = bits.read(3)
    bits.read()
    is_reduced = bool(bits.read())
    presentation_time_bits = 0
    if is_reduced:
        bits.read(5)
    else:
        presentation_time_bits = _operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    frame_id_bits = 0
    if not is_reduced and bits.read():
        frame_id_bits = bits.read(4) + bits.read(3) + 3
    bits.read(3)
    tools, vectors = (2, 2) if is_reduced else _av1_tools(bits)
    bits.read(3)
    bytes_per_pixel, colour = _av1_colour_config(bits, profile)
    return _Sequence(
        width=width,
        height=height,
        overridden=1 << width_bits + height_bits,
        is_reduced=is_reduced,
        presentation_time_bits=presentation_time_bits,
        screen_content_tools=tools,
        integer_vectors=vectors,
        frame_id_bits=frame_id_bits,
        bytes_per_pixel=bytes_per_pixel,
        colour=colour,
    )


def _operating_points(bits: _Bits) -> int:
    """Read up to the operating points; return the bits of a frame's presentation time."""
    has_model, is_equal = 0, 0
    delay_bits = presentation_time_bits = 0
    if bits.read():
        bits.read(64)
        is_equal = bits.read()
        if is_equal:
            bits.exponential()
        has_model = bits.read()
        if has_model:
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5)
            presentation_time_bits = bits.read(5) + 1
    has_display_delay = bits.read()
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read()
        if has_model and bits.read():
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read():
            bits.read(4)
    return 0 if is_equal else presentation_time_bits


def _av1_tools(bits: _Bits) -> tuple[int, int]:
    """Read which tools are used; return which ones of them frame headers choose."""
    bits.read(4)
    has_order_hint = bits.read()
    if has_order_hint:
        bits.read(2)
    tools = 2 if bits.read() else bits.read()
    vectors = 2
    if tools:
        vectors = 2 if bits.read() else bits.read()
    if has_order_hint:
        bits.read(3)
    return tools, vectors


def _av1_colour_config(bits: _Bits, profile: int) -> tuple[float, tuple[int, int]]:
    """Read the colour configuration (AV1 specification, 5.5.2).

    Returns:
        Bytes of a pixel in all planes, and the code points of primaries and transfer.
    """
    is_deep = bits.read()
    is_12_bit = profile == 2 and is_deep and bits.read()
    is_grey = profile != 1 and bits.read()
    colour, matrix = UNSPECIFIED, None
    if bits.read():
        colour, matrix = (bits.read(8), bits.read(8)), bits.read(8)
    if is_grey:
        planes = 1.0
    elif profile == 1 or (colour, matrix) == ((1, 13), 0):  # sRGB in RGB, without subsampling
        planes = 3.0
    elif profile == 0:
        planes = 1.5
    else:
        planes = 3.0 if is_12_bit else 2.0
    return planes * (2 if is_deep else 1), colour


def _overrides_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Read a frame header (AV1 specification, 5.9.2) up to frame_size_override_flag."""
    if sequence.is_reduced or bits.read():  # or the header shows an existing frame
        return False
    frame_type, is_shown = bits.read(2), bits.read()
    bits.read(sequence.presentation_time_bits if is_shown else 1)
    if frame_type == SWITCH_FRAME:
        return True
    if frame_type or not is_shown:
        bits.read()
    bits.read()
    tools = sequence.screen_content_tools
    if (bits.read() if tools == 2 else tools) and sequence.integer_vectors == 2:
        bits.read()
    bits.read(sequence.frame_id_bits)
    return bool(bits.read())


def hevc(units: Iterable[memoryview]) -> Coded | None:
    """Return what decoding NAL units allocates, or None if no SPS is among them.

    Raises:
        BrokenError: an SPS is broken.
    """
    width = height = frames = 0
    bytes_per_pixel = 0.0
    for unit in units:
        kind = unit[0] >> 1 & 63 if len(unit) > 2 else -1
        if kind == HEVC_SPS:
            size = _hevc_sps(_Bits(_unescaped(unit[2:512])))
            width, height = max(width, size[0]), max(height, size[1])
            bytes_per_pixel = max(bytes_per_pixel, size[2])
        # The first bit after the header says that a slice is the first one of its frame.
        frames += 0 <= kind < 32 and unit[2] >> 7
    if not width:
        return None
    held = min(frames + 1, REFERENCES["HEVC"] + 1)
    pixels = width * height
    return Coded(width, height, pixels, int(pixels * bytes_per_pixel * held))


def _unescaped(unit: memoryview) -> bytes:
    """Remove the bytes that keep start codes out of a NAL unit (H.265, 7.3.1.1)."""
    return bytes(unit).replace(b"\0\0\3", b"\0\0")


def _hevc_sps(bits: _Bits) -> tuple[int, int, float]:
    """Read width, height and bytes per pixel (H.265, 7.3.2.2)."""
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 88 + 8)
    present = [(bits.read(), bits.read()) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)
    bits.exponential()
    chroma = bits.exponential()
    if chroma == 3:
        bits.read()
    width, height = bits.exponential(), bits.exponential()
    if bits.read():
        for _ in range(4):
            bits.exponential()
    depth = max(bits.exponential(), bits.exponential())
    planes = {0: 1.0, 1: 1.5, 2: 2.0}.get(chroma, 3.0)
    return width, height, planes * (2 if depth else 1)
