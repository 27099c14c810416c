"""How similar a coded picture is to the pixels it was made from: SSIM, computed by Pillow alone.

The formula and its constants are those of Wang, Bovik, Sheikh and Simoncelli, "Image quality
assessment: from error visibility to structural similarity", IEEE Transactions on Image Processing
13 (2004), equation 13. It is taken of luma (ITU-R BT.601) in windows of 8 x 8 pixels, 4 pixels
apart, and averaged over all windows, as by x264 and by FFmpeg's filter `ssim`. The paper's own
windows, Gaussians of 11 x 11 around each pixel, cost several times as much.
"""

from typing import Any

from PIL import Image, ImageChops, ImageMath

STEP = 4
"""Pixels between two windows, and half the side of a window."""
BAND = 256
"""Rows that are compared at once, which bounds the memory of their numbers."""
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_VALUES = [float(value) for value in range(256)]
_SQUARES = [float(value**2) for value in range(256)]


class Reference:
    """The luma of a picture, to compare others with."""

    def __init__(self, luma: Image.Image) -> None:
        """Compute what each comparison needs.

        Args:
            luma: in mode L.
        """
        self._bands = _bands(luma)
        self._means = [_averaged(band, _VALUES) for band in self._bands]
        self._squares = [_averaged(band, _SQUARES) for band in self._bands]

    def similarity(self, luma: Image.Image) -> float:
        """Return the SSIM of another picture of the same size, at most 1.

        Args:
            luma: in mode L.
        """
        total, windows = 0.0, 0
        bands = zip(self._bands, self._means, self._squares, _bands(luma), strict=True)
        for ours, mean, square, other in bands:
            terms = ImageMath.lambda_eval(
                _ssim,
                x=mean,
                y=_averaged(other, _VALUES),
                xx=square,
                yy=_averaged(other, _SQUARES),
                # Of x - y, because a table gives squares, but no products.
                dd=_averaged(ImageChops.difference(ours, other), _SQUARES),
            )
            count = terms.width * terms.height
            total += count * terms.reduce(terms.size).getpixel((0, 0))
            windows += count
        return total / windows


def _bands(luma: Image.Image) -> list[Image.Image]:
    """Cut a picture into bands that overlap by half a window, so that no window is left out."""
    tops = range(0, max(luma.height - STEP, 1), BAND)
    return [luma.crop((0, top, luma.width, min(top + BAND + STEP, luma.height))) for top in tops]


def _averaged(luma: Image.Image, values: list[float]) -> Image.Image:
    """Return the average of a function of the pixels in each window."""
    # Pillow averages images of floats without rounding.
    small = luma.point(values, "F").reduce(STEP)
    width, height = max(small.width - 1, 1), max(small.height - 1, 1)
    # Halfway between pixels, this filter is the average of two by two of them.
    left, top = (small.width - width) / 2, (small.height - height) / 2
    box = (left, top, left + width, top + height)
    return small.resize((width, height), Image.Resampling.BILINEAR, box)


def _ssim(images: dict[str, Any]) -> Any:
    x, y, xx, yy, dd = (images[name] for name in ("x", "y", "xx", "yy", "dd"))
    covariance = (xx + yy - dd) / 2 - x * y
    variances = xx - x * x + yy - y * y
    alike = (2 * x * y + _C1) * (2 * covariance + _C2)
    return alike / ((x * x + y * y + _C1) * (variances + _C2))
