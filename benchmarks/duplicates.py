"""Finds near-duplicates among pictures with made copies, and says how many it finds.

`python -m benchmarks.duplicates [PICTURES] [--random N]` makes PICTURES pictures (10,000), a
fifth of them copies of others: rescaled to half, compressed at quality 30, or cropped by 5 %. Each
is analysed as in a run. Pictures are noise with the spectrum of photographs, with discs on it.
`--random N` also times N random hashes.
"""

import argparse
import io
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from resize_pipeline.catalog.near_duplicates import near_duplicates
from resize_pipeline.imaging.analysing import analysed
from resize_pipeline.renditions.analyses import SIDE, Analysis

PICTURES = 10_000
ANALYSES = (Analysis(name="perceptual_hash"),)


def _rescaled(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def _recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


def _cropped(left: float, top: float, right: float, bottom: float) -> Callable[..., Image.Image]:
    def crop(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (left * width, top * height, width - right * width, height - bottom * height)
        return image.crop(tuple(map(round, box)))

    return crop


COPIES: dict[str, Callable[..., Image.Image]] = {
    "rescaled to half": _rescaled,
    "recompressed at quality 30": _recompressed,
    "cropped by 5 %, evenly": _cropped(0.025, 0.025, 0.025, 0.025),
    "cropped by 5 % at the left": _cropped(0.05, 0, 0, 0),
    "cropped by 5 % at the left and the top": _cropped(0.05, 0.05, 0, 0),
}


class Made(NamedTuple):
    """The hash of a picture, and those of its copies by what was done to them."""

    original: str
    copies: dict[str, str]


def picture(number: int) -> Image.Image:
    """Return noise whose amplitude falls with the frequency, as that of photographs, with discs."""
    rng = np.random.default_rng(number)
    width, height = (320, 240) if rng.random() < 0.7 else (240, 320)  # noqa: PLR2004
    frequency = np.hypot(
        np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width
    )
    frequency[0, 0] = np.inf
    shared = rng.normal(size=(2, *frequency.shape))
    slope = rng.uniform(1.0, 1.4)
    channels: list[np.ndarray] = []
    for _ in range(3):
        real, imaginary = shared + 0.5 * rng.normal(size=shared.shape)
        spectrum = (real + 1j * imaginary) / frequency**slope
        channels.append(np.fft.irfft2(spectrum, s=(height, width)))
    pixels = np.stack(channels, -1)
    pixels = pixels / pixels.std() * 50 + rng.uniform(90, 160)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 6)):
        x, y, radius = (int(one) for one in rng.integers((0, 0, 10), (width, height, 90)))
        red, green, blue = (int(one) for one in rng.integers(0, 256, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (red, green, blue))
    return image


def hash_of(image: Image.Image) -> str:
    """Return the perceptual hash, as the pipeline computes it."""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return str(analysed(image, ANALYSES)[0].values["perceptual_hash"])


def made(number: int) -> Made:
    """Return the hash of a picture; each fourth has a copy, of one kind after the other."""
    image = picture(number)
    kinds = [list(COPIES)[number // 4 % len(COPIES)]] if number % 4 == 0 else []
    copies = {kind: hash_of(COPIES[kind](image)) for kind in kinds}
    return Made(hash_of(image), copies)


def main() -> None:
    """Make the pictures, and print precision and recall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="?", type=int, default=PICTURES)
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(made, range(round(options.pictures * 0.8)), chunksize=50))
    hashes = [one.original for one in found]
    pairs: dict[tuple[int, int], str] = {}
    for number, one in enumerate(found):
        for kind, copy in one.copies.items():
            pairs[number, len(hashes)] = kind
            hashes.append(copy)
    groups = timed(hashes)
    members: dict[int, list[int]] = defaultdict(list)
    for member, first in zip(groups.members.tolist(), groups.first.tolist(), strict=True):
        members[first].append(member)
    told = {
        (one, other)
        for group in members.values()
        for one in group
        for other in group
        if one < other
    }
    right = told & pairs.keys()
    print(f"precision {len(right) / max(1, len(told)):.4f}: {len(told) - len(right)} wrong pairs")
    print(f"recall {len(right) / len(pairs):.4f}: of {len(pairs)} copies")
    for kind in COPIES:
        of_kind = [pair for pair, one in pairs.items() if one == kind]
        share = len(told & set(of_kind)) / max(1, len(of_kind))
        print(f"  {kind:40} {share:.3f} of {len(of_kind)}")
    if options.random:
        data = np.random.default_rng(0).integers(0, 256, (options.random, 32), np.uint8)
        timed([one.tobytes().hex() for one in data])


def timed(hashes: list[str]):  # noqa: ANN201
    """Group hashes, and print what that took."""
    started, used = time.monotonic(), time.process_time()
    groups = near_duplicates(hashes)
    took, cpu = time.monotonic() - started, time.process_time() - used
    print(
        f"{len(hashes):,} hashes: {took:.1f} s, {cpu:.1f} s of CPU, {groups.comparisons:.2e} "
        "comparisons"
    )
    return groups


if __name__ == "__main__":
    main()
