"""Rendition specs: what to make of every picture, and where to store it."""

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
from resize_pipeline.renditions.selection import checked_globs, is_selected
from resize_pipeline.validators import checked_bucket

RENDERER_VERSION = 4
"""Part of every digest, so a higher one makes all existing renditions outdated. docs/renditions.md
says when it is raised."""

SIDE_MAX = 16383
"""Largest width and height in pixels: WebP's, the smallest limit among the formats written."""

PREFIX_MAX_BYTES = 512
"""Longest prefix: half of the 1024 bytes that S3 allows for a key; the source key gets the rest."""

CACHE_CONTROL_MAX = 256
"""Longest Cache-Control header in characters, more than any real one."""

EXTENSIONS = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "avif": ".avif",
    "gif": ".gif",
    "tiff": ".tiff",
}
"""What each format but `same` appends to the key."""

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
"""Each named position as fractions of width and height from the top left."""

FOCAL_POINT = "focal-point"
"""The position that is read from the object, and the name of the user metadata that holds it; its
header is `x-amz-meta-focal-point`."""

KEEPABLE = ("copyright", "profile")
"""The metadata that a rendition can keep."""

_FIELDS_OF_FORMATS = {
    "quality": ("jpeg", "webp", "avif"),
    "lossless": ("webp",),
    "progressive": ("jpeg",),
    "jpeg_encoder": ("jpeg",),
    "effort": ("png", "webp", "avif"),
}
"""Encoder fields that apply to some formats only."""

_LATER_FIELDS = frozenset({"jpeg_encoder"})
"""Fields that count in a digest only with another value than their default, so that the renditions
from before they existed stay current."""

# Dagster refuses these names for outputs (dagster/_core/definitions/utils.py, DISALLOWED_NAMES) and
# Python's keywords, too; `raw_images`, `catalog` and `near_duplicates` are assets.
RESERVED_NAMES = frozenset(
    {"context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"}
    | {
        "int",
        "str",
        "float",
        "bool",
        "input",
        "output",
        "type",
        "raw_images",
        "catalog",
        "near_duplicates",
    }
)

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = 100
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FRACTION = r"(0(\.\d{1,6})?|1(\.0{1,6})?|\.\d{1,6})"
_POINT = re.compile(f"{_FRACTION},{_FRACTION}")
_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


DEFAULT_QUALITY, QUALITY_MAX = 80, 100

SSIM_MIN, SSIM_MAX = 0.8, 0.999
"""Range of a target of quality: visibly damaged, and more than the largest quality reaches."""


class SsimTarget(BaseModel):
    """A quality told by its result.

    Attributes:
        ssim: the least structural similarity to the pixels that are encoded
            (`imaging/similarity.py`).
    """

    model_config = ConfigDict(frozen=True)

    ssim: float


def _checked_quality(value: object) -> int | SsimTarget:
    match value:
        case SsimTarget() as target:
            return target
        case {"ssim": float(ssim), **others} if not others and SSIM_MIN <= ssim <= SSIM_MAX:
            return SsimTarget(ssim=ssim)
        case int(number) if not isinstance(value, bool) and 1 <= number <= QUALITY_MAX:
            return number
        case _:
            msg = (
                f"must be an integer from 1 to {QUALITY_MAX}, or {{ssim: S}} with S from "
                f"{SSIM_MIN} to {SSIM_MAX}"
            )
            raise ValueError(msg)


def _checked_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = "must be letters, digits and underscores and start with a letter"
        raise ValueError(msg)
    if keyword.iskeyword(value) or value in RESERVED_NAMES:
        msg = "is reserved by Python, Dagster or this project, choose another name"
        raise ValueError(msg)
    return value


def _checked_prefix(value: str) -> str:
    # MinIO refuses keys with such segments. A prefix may end in the middle of a segment.
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


def checked_function(value: str) -> str:
    """Return the path of a function, unchanged.

    Raises:
        ValueError: it has another form than `package.module:function`.
    """
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
        msg = f"must be strip, or a list of what to keep, from {', '.join(KEEPABLE)}"
        raise ValueError(msg)
    return tuple(sorted({str(one) for one in kept}))


class Rendition(BaseModel):
    """One output spec, and the asset of the same name; docs/renditions.md describes each field.

    Attributes:
        name: name of the rendition and of its asset.
        width: width in pixels of the box that the picture is fitted to.
        height: height in pixels of that box.
        fit: how the picture is fitted to the box.
        position: which part `cover` keeps: a compass point, `X,Y` as fractions of width and height
            from the top left, or `focal-point`: the fractions in the object's metadata, if any.
        enlarge: whether a picture smaller than the box is enlarged.
        format: output format; `same` is the source's own.
        quality: quality of lossy encoders, 1 to 100, or the similarity that it must reach.
        lossless: whether WebP is written without loss.
        progressive: whether JPEG is written progressively.
        jpeg_encoder: what writes JPEG in RGB: Pillow's libjpeg-turbo, or jpegli, an extra.
        effort: 0 (fast) to 9 (small); None is 2 for PNG, else the encoder's default.
        background: colour of the area that `contain` adds, and behind transparency in formats
            without it.
        metadata: which metadata of the source is kept, sorted; none by default.
        animation: whether to keep all frames, if both formats are animated, or the first only.
        cache_control: the object's Cache-Control header.
        bucket: bucket that the rendition is written to.
        prefix: prepended to the source's key, unchanged.
        match: globs of the keys that it is made for; none for all.
        exclude: globs of keys that it is not made for.
        transform: `package.module:function` to apply to the picture before it is encoded.
        version: version of the transform, to raise when its code changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_checked_name)]
    width: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    height: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    fit: Literal["inside", "outside", "cover", "contain", "fill"] = "inside"
    position: Annotated[str, AfterValidator(_checked_position)] = "center"
    enlarge: bool = False
    format: Literal["same", "jpeg", "png", "webp", "avif", "gif", "tiff"] = "same"
    quality: Annotated[int | SsimTarget, BeforeValidator(_checked_quality)] = DEFAULT_QUALITY
    lossless: bool = False
    progressive: bool = False
    jpeg_encoder: Literal["libjpeg", "jpegli"] = "libjpeg"
    effort: Annotated[int, Field(ge=0, le=9)] | None = None
    background: Annotated[str, AfterValidator(_checked_colour)] = "#ffffff"
    metadata: Annotated[tuple[str, ...], BeforeValidator(_kept)] = ()
    animation: Literal["keep", "first"] = "keep"
    cache_control: (
        Annotated[str, Field(max_length=CACHE_CONTROL_MAX), AfterValidator(_checked_header)] | None
    ) = None
    bucket: Annotated[str, AfterValidator(checked_bucket)]
    prefix: Annotated[str, AfterValidator(_checked_prefix)] = ""
    match: Annotated[tuple[str, ...], BeforeValidator(checked_globs)] = ()
    exclude: Annotated[tuple[str, ...], BeforeValidator(checked_globs)] = ()
    transform: Annotated[str, AfterValidator(checked_function)] | None = None
    version: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        problems = list(self._conflicts())
        if problems:
            # Not a ValueError, because it is not about the value of a single field.
            raise PydanticCustomError("conflict", "{problems}", {"problems": problems})
        return self

    def _conflicts(self) -> Iterable[str]:
        """Describe fields that would silently have no effect."""
        given = self.model_fields_set
        if "position" in given and self.fit != "cover":
            yield f"position: {self.position!r} must be removed, or fit set to cover"
        for name, formats in _FIELDS_OF_FORMATS.items():
            if name in given and self.format not in {"same", *formats}:
                yield (
                    f"{name}: {getattr(self, name)!r} must be removed, or format set to one of "
                    f"{', '.join(('same', *formats))}"
                )
        if "background" in given and self.fit != "contain" and self.format not in {"same", "jpeg"}:
            yield (
                f"background: {self.background!r} must be removed, or fit set to contain, or "
                "format set to one of same, jpeg"
            )
        if self.jpeg_encoder == "jpegli" and self.progressive:
            yield "progressive: True must be removed, as jpegli writes none, or jpeg_encoder"
        if self.lossless and isinstance(self.quality, SsimTarget):
            yield f"quality: {{ssim: {self.quality.ssim}}} must be removed, or lossless"
        if self.transform is not None and self.version is None:
            yield "version: missing, must be set for a transform and raised when its code changes"
        if self.version is not None and self.transform is None:
            yield f"version: {self.version!r} must be removed, as there is no transform"
        if self.transform is not None and "profile" in self.metadata:
            yield "metadata: 'profile' must be removed, as the transform receives sRGB"

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever the rendition's bytes, headers or key may change.

        The name does not count, nor which keys it is made for: both leave its objects current.
        """
        left_out = {"name", "match", "exclude"}
        spec = {**self.model_dump(exclude=left_out), "renderer": RENDERER_VERSION}
        for field in _LATER_FIELDS:
            if spec[field] == Rendition.model_fields[field].default:
                del spec[field]
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def code_version(self) -> str:
        """16 hex digits that change with the digest, and with the keys that it is made for."""
        if not self.match and not self.exclude:
            return self.digest
        canonical = json.dumps([self.digest, self.match, self.exclude], separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def wants(self, key: str) -> bool:
        """Return whether the rendition is made of a source object with this key."""
        return is_selected(key, self.match, self.exclude)

    @property
    def point(self) -> tuple[float, float]:
        """The position as fractions of width and height from the top left."""
        if self.position in COMPASS:
            return COMPASS[self.position]
        x, y = self.position.split(",")
        return float(x), float(y)

    def resolved(self, metadata: Mapping[str, str]) -> "Rendition":
        """Return the spec for one object, with the values that it reads from the object's metadata.

        Its digest therefore changes with that metadata, so that the rendition is made again.

        Args:
            metadata: the source object's user metadata, names in lower case without prefix.

        Raises:
            PermanentError: the object's metadata has an invalid value.
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
        """Return the key of the rendition of a source object."""
        return self.prefix + source_key + EXTENSIONS.get(self.format, "")

    def source_key_of(self, key: str) -> str:
        """Return the key of the source object of a rendition."""
        return key.removeprefix(self.prefix).removesuffix(EXTENSIONS.get(self.format, ""))


def reads_metadata(renditions: Iterable[Rendition]) -> bool:
    """Return whether any of the specs reads the object's user metadata."""
    return any(rendition.position == FOCAL_POINT for rendition in renditions)


def metadata_read(renditions: Iterable[Rendition], metadata: Mapping[str, str]) -> str:
    """Return what the specs read of an object's user metadata, as one short string to compare."""
    value = metadata.get(FOCAL_POINT)
    return shown(value) if value and reads_metadata(renditions) else ""


def specs_digest(renditions: Iterable[Rendition]) -> str:
    """Return a digest of a set of specs, which differs if they ask for something different."""
    parts = sorted(f"{rendition.name} {rendition.code_version}" for rendition in renditions)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def shown(value: object) -> str:
    """Return a value as one short line, however large or self-referring it is."""
    return _REPR.repr(value)
