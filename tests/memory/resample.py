"""Scales pictures of odd sizes, crops and strides; run by `make test-memory` below Valgrind.

With an argument it reads one byte behind a block of memory instead, which Valgrind must see.
"""

import ctypes
import random
import sys

from PIL import Image

from resize_pipeline.imaging.resampling import SIMD_MODES, resampler, resize

SIZES = ((1, 1), (3, 2), (7, 5), (16, 9), (31, 17), (33, 64), (65, 3), (127, 31), (1025, 2))
TARGETS = ((1, 1), (5, 3), (17, 13), (40, 33), (255, 1))


def boxes(width: int, height: int) -> list[tuple[float, float, float, float]]:
    """Return the whole of a picture, and crops at each corner by parts of pixels."""
    right, bottom = float(width), float(height)
    return [
        (0.0, 0.0, right, bottom),
        (0.0, 0.0, right + 1e-14, bottom + 1e-14),
        (width * 0.3, height * 0.3, right, bottom),
        (0.0, 0.0, max(width * 0.6, 1.0), max(height * 0.7, 1.0)),
        (right - 1, bottom - 1, right, bottom),
    ]


def pictures(mode: str, width: int, height: int) -> list[Image.Image]:
    """Return noise in Pillow's memory, and in memory of another whose rows are further apart."""
    generator = random.Random(1)  # noqa: S311
    bands = len(Image.new(mode, (1, 1)).getbands())
    made = [Image.frombytes(mode, (width, height), generator.randbytes(width * height * bands))]
    if mode in {"L", "RGBA", "CMYK"}:
        stride = width * bands + 4
        data = generator.randbytes(stride * height)
        raw = ("raw", mode, stride, 1)
        made.append(Image.frombuffer(mode, (width, height), data, *raw))
    return made


def main() -> None:
    count = 0
    for mode in sorted(SIMD_MODES):
        for width, height in SIZES:
            for image in pictures(mode, width, height):
                for target in TARGETS:
                    for box in boxes(width, height):
                        resize(image, target, box).tobytes()
                        count += 1
    print(f"{count} pictures by {resampler()}")  # noqa: T201


def read_behind() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(24))
    ctypes.string_at(block, 25)


if __name__ == "__main__":
    if sys.argv[1:]:
        read_behind()
    else:
        main()
