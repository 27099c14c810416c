"""Finds the quality at which an encoder reaches a similarity, in few encodings.

The first quality is the one where pictures typically reach it. What that loses (1 - SSIM) shows
how much the picture differs from a typical one, and so the next quality; later ones lie between two
that were tried.
"""

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resize_pipeline.renditions.spec import QUALITY_MAX

ENCODINGS_MAX = 4
"""Most encodings of a picture."""
LEAST_USED = 0.8
"""Share of the allowed loss from which on a quality is accepted. JPEG's quality 81 loses 5 % less
than 80."""
_AIM = (1 + LEAST_USED) / 2
_SLOPE_MIN = 0.3
"""How much slower than typical the loss may seem to fall, or two close trials lead too far."""

TYPICAL: Mapping[str, Mapping[int, float]] = {
    "JPEG": {1: 0.456, 10: 0.188, 30: 0.0853, 50: 0.0627, 65: 0.0470, 75: 0.0350, 80: 0.0287}
    | {85: 0.0231, 90: 0.0161, 95: 0.0061, 98: 0.0019, 100: 0.0004},
    "WEBP": {1: 0.223, 10: 0.145, 30: 0.0811, 50: 0.0548, 75: 0.0340, 80: 0.0241, 85: 0.0165}
    | {90: 0.0103, 95: 0.0059, 98: 0.0040, 100: 0.0034},
    "AVIF": {1: 0.318, 20: 0.175, 40: 0.0906, 60: 0.0330, 70: 0.0204, 80: 0.0114, 90: 0.0048}
    | {95: 0.0023, 98: 0.0014, 100: 0.0002},
}
"""What each format loses by quality: the median of 13 photographs in up to three sizes, those of
`benchmarks/bytes.py` and others, of Kodak's test pictures and of scikit-image."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A quality that was tried, and what it lost: 1 - SSIM."""

    quality: int
    lost: float


def find_quality(picture_format: str, target: float, lost_at: Callable[[int], float]) -> int:
    """Return the lowest tried quality that reaches a target, or the highest if none does.

    Args:
        picture_format: Pillow's name of the format, one of `TYPICAL`.
        target: the least SSIM.
        lost_at: encodes at a quality and returns 1 - SSIM; called at most `ENCODINGS_MAX` times.
    """
    allowed = 1 - target
    trials: list[Trial] = []
    quality = next_quality(picture_format, allowed, trials)
    while quality is not None:
        trials.append(Trial(quality, lost_at(quality)))
        quality = next_quality(picture_format, allowed, trials)
    reaching = [one.quality for one in trials if one.lost <= allowed]
    return min(reaching) if reaching else max(one.quality for one in trials)


def next_quality(picture_format: str, allowed: float, trials: Sequence[Trial]) -> int | None:
    """Return the quality to try next, or None if the trials suffice.

    Args:
        picture_format: Pillow's name of the format, one of `TYPICAL`.
        allowed: the most that may be lost.
        trials: those before, in order.
    """
    curve = _Curve(TYPICAL[picture_format])
    aim = math.log(allowed * _AIM)
    if not trials:
        return curve.quality(aim)
    if len(trials) == ENCODINGS_MAX or allowed * LEAST_USED <= trials[-1].lost <= allowed:
        return None
    below = max((one.quality for one in trials if one.lost > allowed), default=0)
    above = min((one.quality for one in trials if one.lost <= allowed), default=QUALITY_MAX + 1)
    if above - below == 1:
        return None
    # On a curve that is typical but for its slope, the loss is what is aimed at here.
    last = trials[-1]
    away = (aim - _log(last.lost)) / _slope(curve, trials)
    found = curve.quality(curve.lost(last.quality) + away)
    return min(max(found, below + 1), above - 1)


def _slope(curve: "_Curve", trials: Sequence[Trial]) -> float:
    """Return how fast the loss falls between the last two trials; 1 is typical."""
    if len(trials) == 1:
        return 1
    one, two = trials[-2:]
    typical = curve.lost(two.quality) - curve.lost(one.quality)
    return max((_log(two.lost) - _log(one.lost)) / typical, _SLOPE_MIN)


def _log(lost: float) -> float:
    """Return the logarithm of a loss, which is 0 or an error of rounding for a flat picture."""
    return math.log(max(lost, 1e-6))


class _Curve:
    """The logarithm of a typical loss by quality, straight between the qualities of a table."""

    def __init__(self, table: Mapping[int, float]) -> None:
        self._qualities = list(table)
        self._losses = [-math.log(lost) for lost in table.values()]

    def lost(self, quality: int) -> float:
        return -_interpolated(quality, self._qualities, self._losses)

    def quality(self, lost: float) -> int:
        return round(_interpolated(-lost, self._losses, self._qualities))


def _interpolated(at: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate between ascending points; beyond them, return the nearest."""
    if at <= xs[0]:
        return ys[0]
    if at >= xs[-1]:
        return ys[-1]
    right = bisect(xs, at)
    share = (at - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
