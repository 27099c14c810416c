"""The rendition specs: what is made of every picture, and where it goes."""

import hashlib
import json
import keyword
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from resize_pipeline.errors import PermanentError
from resize_pipeline.validators import checked_bucket

RENDERER_VERSION = 3
"""Part of every digest. Raise it when `imaging` makes other bytes of the same spec, so that
renditions made before count as outdated."""

SIDE_MAX = 16383
"""Largest width and height in pixels: WebP's, the smallest limit among the formats written."""


PREFIX_MAX_BYTES = 512
"""Largest prefix: half of the 1024 bytes that S3 allows a key, the rest is the source key's."""

CACHE_CONTROL_MAX = 256
"""Longest Cache-Control header in characters, which is plenty."""

EXTENSIONS = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "avif": ".avif",
    "gif": ".gif",
    "tiff": ".tiff",
}
"""What each format that can be set appends to the key."""

COMPASS = {
    "center": (0.5, 0.5),
    "north": (0.5, 0.0),
    "northeast": (1.0, 0.0),
    "east": (1.0, 0.5),
    "southeast": (1.0, 1.0),
    "south": (0.5, 1.0),
    "southwest": (0.0, 1.0),
    "west": (0.0, 0.5),
    "northwest": (0.0, 0.0),
}
"""Where each named position is, as fractions of width and height from the top left."""

FOCAL_POINT = "focal-point"
"""The position that is read from the object, and the user metadata that it is read from: its header
is `x-amz-meta-focal-point`."""

KEEPABLE = ("copyright", "profile")
"""The metadata that can be kept."""

_FIELDS_OF_FORMATS = {
    "quality": ("jpeg", "webp", "avif"),
    "lossless": ("webp",),
    "progressive": ("jpeg",),
    "effort": ("png", "webp", "avif"),
}
"""Encoder fields that mean something in some formats only."""

# Dagster refuses these as names of outputs (dagster/_core/definitions/utils.py, DISALLOWED_NAMES),
# and Python's keywords with them; `raw_images` is the asset that renditions are made from.
RESERVED_NAMES = frozenset(
    {"context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"}
    | {"int", "str", "float", "bool", "input", "output", "type", "raw_images"}
)

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = 100
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FRACTION = r"(0(\.\d{1,6})?|1(\.0{1,6})?|\.\d{1,6})"
_POINT = re.compile(f"{_FRACTION},{_FRACTION}")
_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _checked_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = "must be letters, digits and underscores and start with a letter"
        raise ValueError(msg)
    if keyword.iskeyword(value) or value in RESERVED_NAMES:
        msg = "is reserved by Python, by Dagster or by this project, take another name"
        raise ValueError(msg)
    return value


def _checked_prefix(value: str) -> str:
    # MinIO refuses keys with such segments; a prefix may end in the middle of a segment.
    *segments, _ = value.split("/")
    if (
        any(segment in {"", ".", ".."} for segment in segments)
        or not value.isprintable()
        or len(value.encode()) > PREFIX_MAX_BYTES
    ):
        msg = (
            f"must be the printable start of an S3 key, at most {PREFIX_MAX_BYTES} bytes, "
            "without a leading slash or '//', './', '../'"
        )
        raise ValueError(msg)
    return value


def _checked_position(value: str) -> str:
    if value not in COMPASS and value != FOCAL_POINT and not _POINT.fullmatch(value):
        msg = f"must be one of {', '.join(COMPASS)}, {FOCAL_POINT}, or X,Y from 0,0 to 1,1"
        raise ValueError(msg)
    return value


def _checked_colour(value: str) -> str:
    if not _COLOUR.fullmatch(value):
        msg = "must be '#rrggbb' or '#rrggbbaa', in quotes"
        raise ValueError(msg)
    return value.lower()


def _checked_function(value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        msg = "must be package.module:function"
        raise ValueError(msg)
    return value


def _checked_header(value: str) -> str:
    if not (value.isascii() and value.isprintable() and value.strip() == value and value):
        msg = "must be the printable ASCII text of a Cache-Control header"
        raise ValueError(msg)
    return value


def _kept(value: object) -> object:
    if value == "strip":
        return ()
    kept = cast("list[object]", value) if isinstance(value, list) else None
    if not kept or any(one not in KEEPABLE for one in kept) or len(kept) > len(KEEPABLE):
        msg = f"must be strip, or a list of what is kept out of {', '.join(KEEPABLE)}"
        raise ValueError(msg)
    return tuple(sorted({str(one) for one in kept}))


class Rendition(BaseModel):
    """One output spec, and the asset of the same name; docs/renditions.md says more of each field.

    Attributes:
        name: name of the rendition and of its asset.
        width: width in pixels of the box that the picture is fitted into.
        height: height in pixels of that box.
        fit: how it is fitted.
        position: which part `cover` keeps: a compass point, `X,Y` as fractions of width and height
            from the top left, or `focal-point`: those of the object's metadata, if it has them.
        enlarge: whether a picture that is smaller than the box is enlarged.
        format: format that is written; `same` is the source's own.
        quality: of lossy encoders, 1 to 100.
        lossless: whether WebP is written without loss.
        progressive: whether JPEG is written progressively.
        effort: 0 to 9, the more the smaller and slower; None is 2 for PNG, else the encoder's own.
        background: colour of what `contain` adds and of what shows through transparency in formats
            without it.
        metadata: what is kept of the source's metadata, sorted; nothing by default.
        animation: whether all frames are kept, where both formats have them, or the first.
        cache_control: the object's Cache-Control header.
        bucket: bucket that the rendition is written to.
        prefix: put in front of the source's key, as it is.
        transform: `package.module:function` that is given the picture before it is encoded.
        version: of the transform, to be raised when its code changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_checked_name)]
    width: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    height: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    fit: Literal["inside", "outside", "cover", "contain", "fill"] = "inside"
    position: Annotated[str, AfterValidator(_checked_position)] = "center"
    enlarge: bool = False
    format: Literal["same", "jpeg", "png", "webp", "avif", "gif", "tiff"] = "same"
    quality: Annotated[int, Field(ge=1, le=100)] = 80
    lossless: bool = False
    progressive: bool = False
    effort: Annotated[int, Field(ge=0, le=9)] | None = None
    background: Annotated[str, AfterValidator(_checked_colour)] = "#ffffff"
    metadata: Annotated[tuple[str, ...], BeforeValidator(_kept)] = ()
    animation: Literal["keep", "first"] = "keep"
    cache_control: (
        Annotated[str, Field(max_length=CACHE_CONTROL_MAX), AfterValidator(_checked_header)] | None
    ) = None
    bucket: Annotated[str, AfterValidator(checked_bucket)]
    prefix: Annotated[str, AfterValidator(_checked_prefix)] = ""
    transform: Annotated[str, AfterValidator(_checked_function)] | None = None
    version: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        problems = list(self._conflicts())
        if problems:
            # Of another type than a ValueError, because it is not about one field's value.
            raise PydanticCustomError("conflict", "{problems}", {"problems": problems})
        return self

    def _conflicts(self) -> Iterable[str]:
        """Find fields that would be ignored in silence next to others."""
        given = self.model_fields_set
        if "position" in given and self.fit != "cover":
            yield f"position: {self.position!r} must be left out, or fit be cover"
        for name, formats in _FIELDS_OF_FORMATS.items():
            if name in given and self.format not in {"same", *formats}:
                yield (
                    f"{name}: {getattr(self, name)!r} must be left out, or format be one of "
                    f"{', '.join(('same', *formats))}"
                )
        if "background" in given and self.fit != "contain" and self.format not in {"same", "jpeg"}:
            yield (
                f"background: {self.background!r} must be left out, or fit be contain, or format "
                "one of same, jpeg"
            )
        if self.transform is not None and self.version is None:
            yield "version: missing, must be given with a transform, raised when its code changes"
        if self.version is not None and self.transform is None:
            yield f"version: {self.version!r} must be left out without a transform"
        if self.transform is not None and "profile" in self.metadata:
            yield "metadata: 'profile' must be left out with a transform, which is given sRGB"

    @property
    def digest(self) -> str:
        """16 hex digits that change when the rendition's bytes, headers or place may change.

        The name is not part of it: renaming a rendition leaves its objects current.
        """
        spec = {**self.model_dump(exclude={"name"}), "renderer": RENDERER_VERSION}
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def point(self) -> tuple[float, float]:
        """Where the position is, as fractions of width and height from the top left."""
        if self.position in COMPASS:
            return COMPASS[self.position]
        x, y = self.position.split(",")
        return float(x), float(y)

    def resolved(self, metadata: Mapping[str, str]) -> "Rendition":
        """Give the spec for one object: with what it reads from the object's metadata filled in.

        Its digest says what a rendition was made by, so that new metadata makes it anew.

        Args:
            metadata: the source object's user metadata, names in lower case without prefix.

        Raises:
            PermanentError: the metadata is not what it should be.
        """
        if self.position != FOCAL_POINT:
            return self
        value = metadata.get(FOCAL_POINT, "").replace(" ", "")
        if value and not _POINT.fullmatch(value):
            msg = (
                f"metadata x-amz-meta-{FOCAL_POINT}: {shown(metadata[FOCAL_POINT])} must be X,Y, "
                "fractions of the upright picture's width and height from 0,0 (top left) to 1,1"
            )
            raise PermanentError(msg)
        return self.model_copy(update={"position": value or "center"})

    def key_for(self, source_key: str) -> str:
        """Give the key of the rendition of the object with this key."""
        return self.prefix + source_key + EXTENSIONS.get(self.format, "")

    def source_key_of(self, key: str) -> str:
        """Give the key of the object of which this is the rendition's key."""
        return key.removeprefix(self.prefix).removesuffix(EXTENSIONS.get(self.format, ""))


def reads_metadata(renditions: Iterable[Rendition]) -> bool:
    """Tell whether any of the specs reads the object's user metadata."""
    return any(rendition.position == FOCAL_POINT for rendition in renditions)


def metadata_read(renditions: Iterable[Rendition], metadata: Mapping[str, str]) -> str:
    """Give what the specs read of an object's user metadata, as one short string to compare."""
    value = metadata.get(FOCAL_POINT)
    return shown(value) if value and reads_metadata(renditions) else ""


def specs_digest(renditions: Iterable[Rendition]) -> str:
    """Name a set of rendition specs; another digest means that something else is asked for."""
    parts = sorted(f"{rendition.name} {rendition.digest}" for rendition in renditions)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def shown(value: object) -> str:
    """Show a value in one short line, however large or self-referring it is."""
    return _REPR.repr(value)
