"""Scales pixels with Lanczos: in SIMD code where its library is installed, and in Pillow elsewhere.

The library works on the memory of Pillow's images, so the versions of both are pinned, and a test
compares every mode with Pillow's own result.
"""

import threading
from importlib.metadata import version

from PIL import Image

from resize_pipeline.imaging.geometry import Box, Size

try:
    import cykooz_resizer as simd
except ImportError:  # Its wheels exist for x86-64 Linux and for Macs with Arm.
    simd = None

SIMD_MODES = frozenset({"CMYK", "L", "LA", "RGB", "RGBA"})
"""The working modes that the library scales; Lab, which is rare, is left to Pillow."""

FAST_FILTER = Image.Resampling.BICUBIC
FAST_FILTER_MARGIN = 2.0
"""Ratio from which on Pillow scales with the faster filter instead of Lanczos.

At a ratio of 2.13 bicubic takes 58 ms instead of 95 and loses 0.14 dB on sharp's benchmark
photograph; Hamming takes 41 and loses 0.4 there and up to 1.4 on Kodak's test pictures.
"""

REDUCING_GAP = 2.0
"""How many times the target size is left when Pillow first averages whole pixels of large ratios.

At a ratio of 8 Lanczos takes 12 ms instead of 50 and loses 0.04 dB.
"""

_threads = threading.local()


def resampler() -> str:
    """Return what scales pixels here: the library, its version and its processor extension."""
    if simd is None:
        return f"Pillow {version('pillow')}"
    return f"cykooz-resizer {version('cykooz-resizer')} ({simd.Resizer().cpu_extensions.name})"


def resize(image: Image.Image, size: Size, box: Box, *, is_small: bool = False) -> Image.Image:
    """Scale a part of an image. Safe to call from several threads.

    Args:
        image: in a working mode of `colour.working_mode`.
        size: width and height of the result in pixels.
        box: left, top, right and bottom of the part, in pixels of the image.
        is_small: whether the image is so small that Pillow's Lanczos is fast enough, too.

    Returns:
        A new image in the same mode.
    """
    if simd is None or image.mode not in SIMD_MODES:
        return _by_pillow(image, size, box, is_small=is_small)
    if image.mode == "LA":
        # Pillow stores both modes in four bytes, but the library does not know this one.
        return resize(image.convert("RGBA"), size, box).convert("LA")
    left, top, right, bottom = box
    options = simd.ResizeOptions(
        resize_alg=simd.ResizeAlg.convolution(simd.FilterType.lanczos3),
        # Rounding can place an edge outside the image, which the library refuses.
        crop_box=simd.CropBox(
            left, top, min(right, image.width) - left, min(bottom, image.height) - top
        ),
    )
    result = Image.new(image.mode, size)
    # A resizer keeps buffers between calls, so each thread has its own.
    if not hasattr(_threads, "resizer"):
        _threads.resizer = simd.Resizer()
    _threads.resizer.resize_pil(image, result, options)
    return result


def _by_pillow(image: Image.Image, size: Size, box: Box, *, is_small: bool) -> Image.Image:
    left, top, right, bottom = box
    margin = min((right - left) / size[0], (bottom - top) / size[1])
    is_fast = margin >= FAST_FILTER_MARGIN and not is_small
    resample = FAST_FILTER if is_fast else Image.Resampling.LANCZOS
    return image.resize(size, resample, box, REDUCING_GAP)
