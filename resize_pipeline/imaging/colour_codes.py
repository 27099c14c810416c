"""Makes ICC profiles of colours that a file tells by code points or by numbers.

The code points are those of ITU-T H.273, which PNG's cICP chunk and AVIF's nclx boxes hold.
"""

import math
import struct
from collections.abc import Callable
from functools import lru_cache

from resize_pipeline.imaging.profile import written

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue (CIE 1931)."""
Matrix = tuple[tuple[float, float, float], ...]

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_NTSC_525: Chromaticities = (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: _NTSC_525,
    7: _NTSC_525,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    10: (1 / 3, 1 / 3, 1, 0, 0, 1, 0, 0),
    11: (*_DCI, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
"""H.273, table 2."""

SDR_WHITE_NITS = 203.0
"""Luminance of white among HDR pictures (ITU-R BT.2408, 2.1), which becomes sRGB's white."""
HDR_PEAK_NITS = 1000.0
"""Luminance up to which bright parts of PQ and HLG differ; that of HLG's reference display."""
_HLG_GAMMA = 1.2
_STEPS = 4 * 255 + 1
"""Entries of a curve; those of 8 bits are among them."""
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD: Matrix = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)
_NARROW = (16 / 255, 219 / 255)
"""Where black lies in narrow range, and how far away white is."""


def are_known(primaries: int, transfer: int) -> bool:
    """Return whether code points tell colours; reserved ones and "unspecified" tell none."""
    return primaries in _PRIMARIES and transfer in _CURVES


@lru_cache(16)
def profile_of_codes(
    primaries: int, transfer: int, *, is_narrow: bool = False, is_grey: bool
) -> bytes | None:
    """Return the profile of colours that code points tell.

    Brightness beyond white, which PQ and HLG can show, is compressed to sRGB's (`_tone_mapped`).

    Args:
        primaries: ColourPrimaries.
        transfer: TransferCharacteristics.
        is_narrow: whether black is 16 and white 235.
        is_grey: whether the pixels are grey.

    Returns:
        None if the colours are sRGB's, or if the code points are not known.
    """
    if not are_known(primaries, transfer):
        return None
    chromaticities, curve = _PRIMARIES[primaries], _CURVES[transfer]
    if chromaticities == SRGB and curve is _srgb and not is_narrow:
        return None
    if is_narrow:
        start, reach = _NARROW
        return _profile(
            chromaticities, lambda value: curve(min(max((value - start) / reach, 0), 1)), is_grey
        )
    return _profile(chromaticities, curve, is_grey)


@lru_cache(16)
def profile_of_gamma(
    exponent: float, chromaticities: Chromaticities | None, *, is_grey: bool
) -> bytes | None:
    """Return the profile of pixels that are light to the power of an exponent (PNG's gAMA).

    Args:
        exponent: of the encoding, 0.45455 for most pictures.
        chromaticities: PNG's cHRM; None stands for sRGB's.
        is_grey: whether the pixels are grey.

    Returns:
        None if this is about sRGB, which programs describe so, or if the numbers make no sense.
    """
    told = SRGB if chromaticities is None else chromaticities
    is_about_srgb = all(abs(a - b) < _ABOUT for a, b in zip(told, SRGB, strict=True))
    if not _LEAST_EXPONENT <= exponent <= 1 / _LEAST_EXPONENT:
        return None
    if (is_about_srgb or is_grey) and abs(exponent * _SRGB_GAMMA - 1) < _GAMMA_TOLERANCE:
        return None
    return _profile(told, lambda value: value ** (1 / exponent), is_grey)


_SRGB_GAMMA = 2.2
_GAMMA_TOLERANCE = 0.05
"""As libpng's PNG_GAMMA_THRESHOLD: files with 1/2.2 mean sRGB, and some round it coarsely."""
_ABOUT = 0.002
_LEAST_EXPONENT = 0.05


def _profile(
    chromaticities: Chromaticities,
    curve: Callable[[float], float],
    is_grey: bool,  # noqa: FBT001
) -> bytes | None:
    levels = (curve(step / (_STEPS - 1)) for step in range(_STEPS))
    table = [round(65535 * min(max(level, 0.0), 1.0)) for level in levels]
    element = b"curv" + bytes(4) + struct.pack(f">I{_STEPS}H", _STEPS, *table)
    tags = {b"wtpt": _xyz(_D50)}
    if is_grey:
        tags[b"kTRC"] = element
    else:
        columns = _columns(chromaticities)
        if columns is None:
            return None
        for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
            tags |= {name + b"XYZ": _xyz(column), name + b"TRC": element}
    space = b"GRAY" if is_grey else b"RGB "
    header = bytes(8) + bytes([2, 0x40, 0, 0]) + b"mntr" + space + b"XYZ " + bytes(104)
    return written(header, tags)


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * one) for one in value))


def _columns(chromaticities: Chromaticities) -> Matrix | None:
    """Return XYZ of red, green and blue, adapted to D50 by Bradford's matrix; None if absurd."""
    pairs = list(zip(chromaticities[::2], chromaticities[1::2], strict=True))
    if any(not y for _, y in pairs):
        return None
    white, *primaries = ((x / y, 1.0, (1 - x - y) / y) for x, y in pairs)
    inverse = _inverse(_transposed(primaries))
    if inverse is None or not all(0 < one <= _XYZ_MAX for one in white):
        return None
    scales = _applied(inverse, white)
    light, light_here = _applied(_BRADFORD, white), _applied(_BRADFORD, _D50)
    back = _inverse(_BRADFORD)
    if back is None or any(not one for one in light):
        return None
    columns: list[tuple[float, float, float]] = []
    for primary, scale in zip(primaries, scales, strict=True):
        cone = _applied(_BRADFORD, tuple(scale * one for one in primary))
        adapted = tuple(a * b / c for a, b, c in zip(cone, light_here, light, strict=True))
        columns.append(_applied(back, adapted))
    found = tuple(columns)
    return found if all(abs(one) < _XYZ_MAX for column in found for one in column) else None


_XYZ_MAX = 100.0


def _applied(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, float, float]:
    x, y, z = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return x, y, z


def _transposed(columns: list[tuple[float, float, float]]) -> Matrix:
    return tuple((a, b, c) for a, b, c in zip(*columns, strict=True))


def _inverse(matrix: Matrix) -> Matrix | None:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    minors = (e * i - f * h, c * h - b * i, b * f - c * e)
    determinant = a * minors[0] + d * minors[1] + g * minors[2]
    if abs(determinant) < 1e-9:  # noqa: PLR2004
        return None
    return tuple(
        (x / determinant, y / determinant, z / determinant)
        for x, y, z in (
            minors,
            (f * g - d * i, a * i - c * g, c * d - a * f),
            (d * h - e * g, b * g - a * h, a * e - b * d),
        )
    )


# Curves, from the level of a channel to light; both from 0 to 1. Constants without a name are those
# of H.273, table 3.


def _srgb(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4  # noqa: PLR2004


def _power(exponent: float) -> Callable[[float], float]:
    return lambda level: level**exponent


def _logarithmic(decades: float) -> Callable[[float], float]:
    return lambda level: 10 ** (decades * (level - 1)) if level else 0.0


def _pq_nits(level: float) -> float:
    root = level ** (32 / 2523)
    return 10_000 * (max(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)


def _pq_level(nits: float) -> float:
    root = (nits / 10_000) ** (1305 / 8192)
    return ((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)


def _hlg_nits(level: float) -> float:
    """Return what a display of 1000 cd/m² shows, channel by channel (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = level**2 / 3 if level <= 0.5 else (math.exp((level - c) / a) + b) / 12  # noqa: PLR2004
    return HDR_PEAK_NITS * min(scene, 1.0) ** _HLG_GAMMA


def _tone_mapped(nits: float) -> float:
    """Compress brightness to that of sRGB's white with the curve of ITU-R BT.2390, 5.4.1."""
    peak, white = _pq_level(HDR_PEAK_NITS), _pq_level(SDR_WHITE_NITS)
    level, most = min(_pq_level(nits) / peak, 1.0), white / peak
    knee = 1.5 * most - 0.5
    if level > knee:
        t = (level - knee) / (1 - knee)
        level = (
            (2 * t**3 - 3 * t**2 + 1) * knee
            + (t**3 - 2 * t**2 + t) * (1 - knee)
            + (3 * t**2 - 2 * t**3) * most
        )
    return _pq_nits(level * peak) / SDR_WHITE_NITS


_CURVES: dict[int, Callable[[float], float]] = {
    # Browsers show these curves of cameras as they show sRGB.
    **dict.fromkeys((1, 6, 7, 11, 12, 13, 14, 15), _srgb),
    4: _power(2.2),
    5: _power(2.8),
    8: _power(1),
    9: _logarithmic(2),
    10: _logarithmic(2.5),
    16: lambda level: _tone_mapped(_pq_nits(level)),
    17: lambda level: 52.37 / 48 * level**2.6,
    18: lambda level: _tone_mapped(_hlg_nits(level)),
}
"""By H.273's TransferCharacteristics."""
