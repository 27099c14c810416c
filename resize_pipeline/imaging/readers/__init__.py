"""Pillow's readers, corrected for the kinds of files that they would show wrong.

Each corrects what its file says: pixels, transparency, colours and orientation.
"""

from contextlib import suppress

from PIL import Image, ImageFile

from resize_pipeline.imaging.readers.avif import AvifReader
from resize_pipeline.imaging.readers.gif import GifReader
from resize_pipeline.imaging.readers.jpeg import read_jpeg
from resize_pipeline.imaging.readers.png import PngReader
from resize_pipeline.imaging.readers.tiff import TiffReader
from resize_pipeline.imaging.readers.webp import WebPReader


def register() -> None:
    """Load all of Pillow's readers, and replace these in this process."""
    Image.init()
    readers: list[type[ImageFile.ImageFile]] = [
        *(AvifReader, GifReader, PngReader, TiffReader, WebPReader)
    ]
    with suppress(ImportError):
        # Installed with the extra `heic`.
        from pillow_heif import register_heif_opener  # noqa: PLC0415

        from resize_pipeline.imaging.readers.heif import HeifReader  # noqa: PLC0415

        register_heif_opener(thumbnails=False)
        readers.append(HeifReader)
    for reader in readers:
        if reader.format in Image.OPEN:
            Image.register_open(reader.format, reader, Image.OPEN[reader.format][1])
    Image.register_open("JPEG", read_jpeg, Image.OPEN["JPEG"][1])
