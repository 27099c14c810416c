"""Functions as an operator writes them for `analyses:`, good ones and bad ones."""

import os
import time
from typing import Any

from PIL import Image, ImageStat


def redness(image: Image.Image) -> dict[str, Any]:
    """Say how red an image is, how large, and who looked at it."""
    red, green, blue = ImageStat.Stat(image).mean
    return {"redness": red - (green + blue) / 2, "seen": f"{image.mode} {image.size}"}


def process(_: Image.Image) -> dict[str, Any]:
    return {"process": os.getpid()}


def counted(images: list[Image.Image]) -> list[dict[str, Any]]:
    time.sleep(0.5)
    return [{"together": len(images)} for _ in images]


def too_few(images: list[Image.Image]) -> list[dict[str, Any]]:
    return [{"together": 1} for _ in images[1:]]


def raises(image: Image.Image) -> dict[str, Any]:
    msg = f"no model\nfor {image.size}\x1b[31m\ud800"
    raise ValueError(msg)


def leaves(_: Image.Image) -> dict[str, Any]:
    raise SystemExit(3)


def dies(_: Image.Image) -> dict[str, Any]:
    os._exit(9)


def dies_of_red(images: list[Image.Image]) -> list[dict[str, Any]]:
    if any(redness(image)["redness"] > 100 for image in images):
        os._exit(9)
    return [{"together": 1} for _ in images]


def hangs(_: Image.Image) -> dict[str, Any]:
    time.sleep(60)
    return {}


def hoards(_: Image.Image) -> dict[str, Any]:
    return {"hoard": len(bytearray(2**40))}


def wrong(_: Image.Image) -> dict[str, Any]:
    return {"number": "no number"}


def reads(_: Image.Image) -> dict[str, Any]:
    with open("/etc/passwd") as file:  # noqa: PTH123
        return {"text": file.read(9)}
