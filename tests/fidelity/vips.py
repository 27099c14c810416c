"""libvips as an independent implementation, and photographs to compare with."""

import io
from importlib.util import find_spec
from pathlib import Path

import pyvips
from PIL import Image

# scikit-image's photographs; its module need not be imported.
PHOTOGRAPHS = Path(find_spec("skimage").origin).parent / "data"
NAMES = ["astronaut.png", "chelsea.png", "coffee.png", "retina.jpg", "rocket.jpg"]


def photograph(name: str, width: int | None = None) -> Image.Image:
    image = Image.open(PHOTOGRAPHS / name).convert("RGB")
    image.info = {}
    if width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image


def to_pillow(image: pyvips.Image) -> Image.Image:
    image = image.cast("uchar") if image.format != "uchar" else image
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK" if image.interpretation == "cmyk" else "RGBA"}
    return Image.frombytes(modes[image.bands], (image.width, image.height), image.write_to_memory())


def lanczos(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return the result of a full decode and one Lanczos step in floating point."""
    image = pyvips.Image.new_from_buffer(data, "").cast("float")
    scaled = image.resize(
        size[0] / image.width, vscale=size[1] / image.height, kernel="lanczos3", gap=0
    )
    return to_pillow(scaled.rint().cast("uchar"))


def thumbnail(data: bytes, size: tuple[int, int], quality: int) -> Image.Image:
    """Return the encoded result of libvips's fastest path."""
    image = pyvips.Image.thumbnail_buffer(data, size[0], height=size[1], size="force")
    return Image.open(io.BytesIO(image.jpegsave_buffer(Q=quality)))


def srgb(data: bytes, fallback: str = "srgb") -> Image.Image:
    """Return a picture's colours in sRGB, by its embedded profile or a built-in one."""
    image = pyvips.Image.new_from_buffer(data, "")
    return to_pillow(
        image.icc_transform("srgb", embedded=True, input_profile=fallback, intent="perceptual")
    )
