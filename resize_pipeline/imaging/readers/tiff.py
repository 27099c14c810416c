"""Reads TIFF as libtiff does, and says which kinds it can't read."""

from typing import IO, Any, cast

from PIL import ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COLORMAP,
    COMPRESSION,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILEOFFSETS,
)

from resize_pipeline.errors import PermanentError

_PHOTOMETRICS = {
    0: "grey (white is zero)",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "camera sensor",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear camera",
}
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "untyped", 6: "complex"}
_OPTIONAL = {34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}
"""Compressions that not every libtiff is built with."""
_SAMPLES_SHOWN = 16
_DEEP_GREY = {"I;16": 65535, "F": 0}
"""Pillow's modes of more than 8 bits, and what zero becomes when white is zero."""
_EXTRA_SAMPLES = {0: "unspecified", 1: "premultiplied alpha", 2: "alpha"}


_SEPARATE = 2
"""PlanarConfiguration of a picture that stores one channel after the other."""
_PLANES = frozenset({"CMYK", "RGB", "RGBA"})
"""The modes into whose channels Pillow's code for libtiff puts planes in order."""
_NEEDED = (
    (IMAGEWIDTH,),
    (IMAGELENGTH,),
    (BITSPERSAMPLE,),
    (PHOTOMETRIC_INTERPRETATION,),
    (STRIPOFFSETS, TILEOFFSETS),
    (STRIPBYTECOUNTS, TILEBYTECOUNTS),
)
"""Tags of which a directory has one each, almost up to its end."""
_PREMULTIPLIED = 1
_YCBCR = 6
"""PhotometricInterpretation of what libtiff converts to RGB."""
_BIG_BIG_ENDIAN = (
    "a BigTIFF whose numbers begin with their most significant byte, which is not read: save it as "
    "little-endian, or as a classic TIFF"
)
_NATIVE = {
    **dict.fromkeys(("I;16S", "I;16BS"), "I;16NS"),
    **dict.fromkeys(("I;32S", "I;32BS"), "I;32NS"),
    **dict.fromkeys(("F;32", "F;32B"), "F;32N"),
    **dict.fromkeys(("F;32F", "F;32BF"), "F;32NF"),
}
"""As Pillow names samples in the order of bytes of the file, and in that of this machine."""

# Pillow takes 8 signed bits for unsigned ones, and samples of 32 unsigned bits overflow in its own
# mode for them. The last kind is missing there although it reads the same in the other order of
# bytes.
TiffImagePlugin.OPEN_INFO |= {
    (b"II", 1, (2,), 1, (8,), ()): ("I", "I;8S"),
    (b"MM", 1, (2,), 1, (8,), ()): ("I", "I;8S"),
    (b"II", 1, (1,), 1, (32,), ()): ("F", "F;32"),
    (b"MM", 1, (1,), 1, (32,), ()): ("F", "F;32B"),
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16", "I;16B"),
}


class TiffReader(TiffImagePlugin.TiffImageFile):
    """A TIFF. What Pillow would show as noise is left to libtiff, or refused."""

    def _open(self) -> None:
        file = cast("IO[bytes]", self.fp)
        if file.read(4) == b"MM\0+":
            raise PermanentError(_BIG_BIG_ENDIAN)
        file.seek(0)
        super()._open()

    def _setup(self) -> None:
        try:
            super()._setup()
        except (IndexError, KeyError, SyntaxError) as error:
            # A directory that is cut says nothing about the kind.
            if not all(any(tag in self.tag_v2 for tag in tags) for tags in _NEEDED):
                raise
            raise PermanentError(_refusal(self.tag_v2)) from error
        # XMP's orientation does not count, and Pillow would turn the picture by it.
        self.info.pop("xmp", None)
        colours = self.tag_v2.get(COLORMAP)
        # Some writers store 8 of the 16 bits; libtiff tells so, too (Pillow's issue 2157).
        if self.mode in {"P", "PA"} and colours and max(colours) < 256:  # noqa: PLR2004
            self.palette = ImagePalette.raw("RGB;L", tuple(colours))
        if self._planar_configuration == _SEPARATE and self.tag_v2.get(SAMPLESPERPIXEL, 1) > 1:
            self._read_planes()
        elif self.use_load_libtiff:
            # libtiff turns the bytes itself.
            coding = cast("tuple[str, ...]", self.tile[0].args)[0]
            self._read_by_libtiff(_NATIVE.get(coding))

    def _read_planes(self) -> None:
        """Read planes by libtiff: Pillow's own code takes two bytes of a sample for two samples."""
        if self.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _YCBCR:
            return
        extra = _numbers(self.tag_v2.get(EXTRASAMPLES, ()))
        # Pillow leaves out extra planes only if no plane says what it means.
        if self.mode not in _PLANES or (len(extra) > 1 and any(extra)):
            raise PermanentError(_refusal(self.tag_v2))
        coding = "RGBa" if extra == (_PREMULTIPLIED,) else self.mode
        is_deep = max(_numbers(self.tag_v2.get(BITSPERSAMPLE, (1,)))) > 8  # noqa: PLR2004
        self._read_by_libtiff(f"{coding};16N" if is_deep else coding)

    def _read_by_libtiff(self, coding: str | None) -> None:
        if coding is None:
            return
        self.use_load_libtiff = True
        args = (coding, False, self.tag_v2.offset)
        extents = (0, 0, *self._tile_size)
        self.tile = [
            self.tile[0]._replace(codec_name="libtiff", extents=extents, offset=0, args=args)
        ]

    def load(self) -> Any:
        """Decode it, and name a compression that libtiff was built without."""
        try:
            return super().load()
        except OSError as error:
            compression = self.tag_v2.get(COMPRESSION, 1)
            if compression not in _OPTIONAL:
                raise
            raise PermanentError(_compression_refusal(compression)) from error

    def load_end(self) -> None:
        """Scale grey of 12 bits, and invert grey whose zero is white, if it is above 8 bits."""
        super().load_end()
        if self.mode == "I;16" and _numbers(self.tag_v2.get(BITSPERSAMPLE)) == (12,):
            self.im = self.point(lambda level: level * (65535 / 4095) + 0.5).im
        if self.tag_v2.get(PHOTOMETRIC_INTERPRETATION) != 0 or self.mode not in _DEEP_GREY:
            return
        white = _DEEP_GREY[self.mode]
        self.im = self.point(lambda level: level * -1 + white).im


def _refusal(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Describe a picture whose kind Pillow can't read."""
    compression = tags.get(COMPRESSION, 1)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return _compression_refusal(compression)
    bits = _numbers(tags.get(BITSPERSAMPLE, (1,)))
    formats = [
        _SAMPLE_FORMATS.get(one, "unknown") for one in _numbers(tags.get(SAMPLEFORMAT, (1,)))
    ]
    extra = [_EXTRA_SAMPLES.get(one, "unknown") for one in _numbers(tags.get(EXTRASAMPLES, ()))]
    photometric = tags.get(PHOTOMETRIC_INTERPRETATION, 0)
    kind = _PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
    depth = "/".join(map(str, sorted(set(bits))))
    found = f"a TIFF in {kind} of {depth} {'/'.join(sorted(set(formats)))} bits a sample"
    if tags.get(PLANAR_CONFIGURATION, 1) == _SEPARATE:
        found += " in planes of their own"
    if extra:
        found += f" with {' and '.join(extra)} beside the colours"
    return f"{found}, which is not read: save it in RGB, grey or CMYK of 8 or 16 unsigned bits"


def _compression_refusal(compression: object) -> str:
    name = _OPTIONAL.get(compression, compression) if isinstance(compression, int) else compression
    return f"a TIFF with compression {name}, which is not read: save it with deflate or LZW"


def _numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(one for one in values if isinstance(one, int))[:_SAMPLES_SHOWN]
