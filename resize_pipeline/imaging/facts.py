"""Reads what is known of a picture beside its pixels: its size, its format and some metadata."""

import datetime as dt
import io
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from PIL import ExifTags, ImageCms

from resize_pipeline.errors import escaped
from resize_pipeline.imaging.jobs import Source
from resize_pipeline.renditions.facts import TEXT_MAX, Facts

COUNTED_MAX_BYTES = 8 * 2**20
"""Largest GIF whose frames are counted. Its count is not in its header, and each frame takes Pillow
20 µs."""
PROFILE_MAX_BYTES = 2**20
"""Largest colour profile whose name is read; those of presses have up to half of that."""
_OFFSET = re.compile(r"[+-]\d\d:\d\d", re.ASCII)
_EXIF_TIME = "%Y:%m:%d %H:%M:%S"

T = TypeVar("T")


def facts_of(source: Source) -> Facts:
    """Return what is known of an opened picture; broken metadata counts as none."""
    image = source.image
    exif: Mapping[int, Any] = _or_none(image.getexif) or {}
    details: Mapping[int, Any] = _or_none(lambda: _directory(exif, ExifTags.IFD.Exif)) or {}
    place: Mapping[int, Any] = _or_none(lambda: _directory(exif, ExifTags.IFD.GPSInfo)) or {}
    latitude, longitude = _or_none(lambda: _position(place)) or (None, None)
    width, height = source.size
    return Facts(
        width=width,
        height=height,
        format=str(image.format),
        mode=image.mode,
        frames=_frames(source),
        orientation=source.orientation,
        profile=_or_none(lambda: _profile_name(image.info.get("icc_profile"))),
        camera_make=_text(exif.get(ExifTags.Base.Make)),
        camera_model=_text(exif.get(ExifTags.Base.Model)),
        taken=_or_none(lambda: _time(details)),
        latitude=latitude,
        longitude=longitude,
    )


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  The pixels are fine even if the metadata breaks the parser.
        return None


def _directory(exif: Any, tag: int) -> Mapping[int, Any]:
    return exif.get_ifd(tag) if tag in exif else {}


def _frames(source: Source) -> int | None:
    if not source.is_animated:
        return 1
    if source.frames > 1:
        return source.frames
    if source.format == "GIF" and len(source.data) > COUNTED_MAX_BYTES:
        return None
    return _or_none(lambda: int(getattr(source.image, "n_frames", 1)))


def _profile_name(profile: object) -> str | None:
    if not isinstance(profile, bytes) or len(profile) > PROFILE_MAX_BYTES:
        return None
    opened: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return _text(opened.profile.profile_description)


def _text(value: object) -> str | None:
    """Return a text of the metadata as one short printable line; None if it is none."""
    if not isinstance(value, str):
        return None
    # C strings end with a zero byte, and some cameras pad with blanks.
    line = " ".join(value.split("\0", 1)[0][: 4 * TEXT_MAX].split())
    return escaped(line)[:TEXT_MAX] or None


def _time(details: Mapping[int, Any]) -> str | None:
    text = _text(details.get(ExifTags.Base.DateTimeOriginal))
    if text is None:
        return None
    taken = dt.datetime.strptime(text, _EXIF_TIME)  # noqa: DTZ007  EXIF's is a local time.
    offset = _text(details.get(ExifTags.Base.OffsetTimeOriginal)) or ""
    return taken.isoformat() + (offset if _OFFSET.fullmatch(offset) else "")


def _position(place: Mapping[int, Any]) -> tuple[float, float] | None:
    tags = ExifTags.GPS
    if not {tags.GPSLatitude, tags.GPSLongitude} <= place.keys():
        return None
    latitude = _degrees(place[tags.GPSLatitude], is_negative=place.get(tags.GPSLatitudeRef) == "S")
    longitude = _degrees(
        place[tags.GPSLongitude], is_negative=place.get(tags.GPSLongitudeRef) == "W"
    )
    is_possible = -90 <= latitude <= 90 and -180 <= longitude <= 180  # noqa: PLR2004
    return (latitude, longitude) if is_possible else None


def _degrees(parts: Any, *, is_negative: bool) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return round(-value if is_negative else value, 6)
