"""Compares the bytes of JPEG encoders at equal SSIM, and measures quality by a target.

    python -m benchmarks.bytes [PICTURE ...] [--out FOLDER]

The pictures (without arguments the photograph and those of the wheel scikit-image) are scaled to
1280, 640 and 160 pixels with Lanczos. All encoders get these same pixels, at a sweep of qualities:
Pillow's as the pipeline uses it by default and with `progressive`, jpegli as with `jpeg_encoder`,
sharp's, and sharp's with `mozjpeg`. SSIM is scikit-image's, of all channels. For each picture the
bytes of an encoder are interpolated where its SSIM is that of Pillow at quality 80, and divided by
Pillow's; the mean of these ratios is geometric. CPU time is of one encoding at quality 80, without
sharp, which runs in a process of its own.

Then each picture is encoded by `quality: {ssim: S}` as JPEG, WebP and AVIF: how many encodings that
took, what SSIM came out, and CPU time against one encoding at quality 80.
"""

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import skimage
import typer
from PIL import Image
from skimage.metrics import structural_similarity

from benchmarks.rendering import HERE, QUALITY, SIDES, has_sharp
from benchmarks.stack import OUT, PHOTOGRAPH, machine
from resize_pipeline.imaging import encoding
from resize_pipeline.imaging.encoding import encode
from resize_pipeline.imaging.similarity import Reference
from resize_pipeline.renditions.spec import Rendition

QUALITIES = (55, 60, 65, 70, 75, 80, 84, 88, 92, 95)
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
"""Photographs of the wheel scikit-image."""
TARGETS = (0.95, 0.97, 0.98)
OURS: dict[str, dict[str, object]] = {
    "Pillow": {},
    "Pillow, progressive": {"progressive": True},
    "jpegli": {"jpeg_encoder": "jpegli"},
}
SHARPS = {"sharp": "false", "sharp, mozjpeg": "true"}

Curve = list[tuple[float, int]]
"""SSIM and bytes at each quality."""


def pixels(paths: Sequence[Path]) -> Iterator[tuple[int, Image.Image]]:
    """Give each picture in each size that it reaches."""
    for path in paths:
        with Image.open(path) as image:
            full = image.convert("RGB")
        for side in SIDES:
            if max(full.size) >= side:
                scaled = full.copy()
                scaled.thumbnail((side, side), Image.Resampling.LANCZOS)
                yield side, scaled


def ssim(image: Image.Image, data: bytes) -> float:
    """Give scikit-image's SSIM of a coded picture."""
    with Image.open(io.BytesIO(data)) as coded:
        pair = np.asarray(image), np.asarray(coded.convert("RGB"))
    return float(structural_similarity(*pair, channel_axis=2, data_range=255))


def written(image: Image.Image, spec_format: str = "jpeg", **fields: object) -> bytes:
    """Encode as the pipeline does."""
    spec = Rendition.model_validate(
        {"name": "r", "width": 1, "height": 1, "bucket": "out", "format": spec_format, **fields}
    )
    return encode([image], spec_format.upper(), spec)


def by_sharp(image: Image.Image, mozjpeg: str) -> list[bytes]:
    """Encode by sharp at all qualities."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        image.save(picture, compress_level=1)
        command = ["node", HERE / "sharp" / "encode.mjs", picture, mozjpeg, folder]
        subprocess.run([*command, *map(str, QUALITIES)], check=True)
        return [Path(folder, f"{quality}.jpg").read_bytes() for quality in QUALITIES]


def curves(image: Image.Image, *, with_sharp: bool) -> dict[str, Curve]:
    """Give the curve of each encoder."""
    coded = {
        name: [written(image, quality=quality, **fields) for quality in QUALITIES]
        for name, fields in OURS.items()
    }
    if with_sharp:
        coded |= {name: by_sharp(image, mozjpeg) for name, mozjpeg in SHARPS.items()}
    return {name: [(ssim(image, one), len(one)) for one in ones] for name, ones in coded.items()}


def bytes_at(curve: Curve, wanted: float) -> float:
    """Interpolate the bytes at an SSIM, between the logarithms of bytes and of what is lost."""
    lost, size = zip(*((-np.log(1 - one), np.log(count)) for one, count in curve), strict=True)
    return float(np.exp(np.interp(-np.log(1 - wanted), lost, size)))


def cpu_ms(encoding_: Callable[[], object]) -> float:
    """Give the CPU time of the fastest of three calls."""
    found: list[float] = []
    for _ in range(3):
        started = time.process_time()
        encoding_()
        found.append(1000 * (time.process_time() - started))
    return min(found)


def compare(paths: Sequence[Path], *, with_sharp: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Compare encoders: by size of the rendition, the ratio of bytes and the CPU time."""
    ratios: dict[tuple[int, str], list[float]] = defaultdict(list)
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for side, image in pixels(paths):
        found = curves(image, with_sharp=with_sharp)
        wanted, base = found["Pillow"][QUALITIES.index(QUALITY)]
        for name, curve in found.items():
            ratios[side, name].append(bytes_at(curve, wanted) / base)
        for name, fields in OURS.items():
            times[side, name].append(
                cpu_ms(lambda image=image, fields=fields: written(image, quality=QUALITY, **fields))
            )
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for (side, name), of_pictures in ratios.items():
        figures.setdefault(f"{side} pixels", {})[name] = {
            "pictures": len(of_pictures),
            "bytes_over_pillow": statistics.geometric_mean(of_pictures),
            "worst": max(of_pictures),
            **({"cpu_ms": statistics.median(times[side, name])} if (side, name) in times else {}),
        }
    return figures


def at_target(image: Image.Image, spec_format: str, target: float) -> dict[str, float]:
    """Measure quality by a target on one picture."""
    asked = {"quality": {"ssim": target}}
    with patch.object(encoding, "_luma", wraps=encoding._luma) as decoded:  # noqa: SLF001
        data = written(image, spec_format, **asked)
    plain = written(image, spec_format, quality=QUALITY)
    with Image.open(io.BytesIO(data)) as coded:
        reached = Reference(image.convert("L")).similarity(coded.convert("L"))
    cost = cpu_ms(lambda: written(image, spec_format, **asked))
    return {
        "encodings": decoded.call_count,
        "ssim": reached,
        "cpu_ms": cost,
        "cpu_over_quality_80": cost / cpu_ms(lambda: written(image, spec_format, quality=QUALITY)),
        "bytes_over_quality_80": len(data) / len(plain),
    }


def targets(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Measure quality by a target over all pictures and sizes."""
    figures: dict[str, dict[str, float]] = {}
    for spec_format in ("jpeg", "webp", "avif"):
        for target in TARGETS:
            found = [at_target(image, spec_format, target) for _, image in pixels(paths)]
            medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
            figures[f"{spec_format}, ssim {target}"] = medians | {
                "most_encodings": max(one["encodings"] for one in found),
                "least_ssim": min(one["ssim"] for one in found),
            }
    return figures


def main(
    pictures: Annotated[list[Path] | None, typer.Argument(help="Photographs.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    data = Path(skimage.__file__).parent / "data"
    paths = pictures or [
        *([PHOTOGRAPH] if PHOTOGRAPH.exists() else []),
        *(data / name for name in PHOTOGRAPHS),
    ]
    figures = {
        "encoders": compare(paths, with_sharp=has_sharp()),
        "quality by a target": {"all sizes": targets(paths)},
    }
    for title, tables in figures.items():
        print(f"\n{title}")
        for table, rows in tables.items():
            for row, values in rows.items():
                shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                print(f"  {table:12} {row:20} {shown}")
    out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m benchmarks.bytes", *sys.argv[1:]])
    text = json.dumps({"command": command, "machine": machine(), "figures": figures}, indent=2)
    (out / "bytes.json").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
