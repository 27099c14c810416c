"""Objects as they are passed around, and what makes a rendition the current one. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from resize_pipeline.renditions.spec import Rendition

SOURCE_ETAG = "source-etag"
SOURCE_VERSION_ID = "source-version-id"
SPEC_DIGEST = "spec-digest"

CONTENT_TYPES = {
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
"""The formats that are decoded and encoded, by Pillow's names, with their media types."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or a stat shows it.

    `metadata` is the user metadata, its names in lower case and without prefix; None when a listing
    does not tell.
    """

    key: str
    etag: str
    version_id: str | None
    size: int
    last_modified: dt.datetime
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Original:
    """A source object in memory; `metadata` as in `ObjectInfo`."""

    key: str
    etag: str
    version_id: str | None
    data: bytes
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def identity(original: Original, rendition: Rendition) -> dict[str, str]:
    """Give the metadata that says what a rendition was made from, and by which spec.

    The digest is that of the resolved spec, so it stands for the metadata that the spec reads too.
    """
    version = {SOURCE_VERSION_ID: original.version_id} if original.version_id else {}
    digest = rendition.resolved(original.metadata).digest
    return {SOURCE_ETAG: original.etag, SPEC_DIGEST: digest, **version}


def is_ours(found: ObjectInfo) -> bool:
    """Tell whether this pipeline wrote the object, and not somebody else."""
    return {SOURCE_ETAG, SPEC_DIGEST} <= (found.metadata or {}).keys()


def is_current(found: ObjectInfo | None, source: ObjectInfo, rendition: Rendition) -> bool:
    """Tell whether a rendition is made of this source, by this spec.

    The version is no part of it: the same bytes under a new version give the same rendition.

    Raises:
        PermanentError: the source's metadata is not what the spec reads.
    """
    made_of = (found and found.metadata) or {}
    return (
        made_of.get(SOURCE_ETAG) == source.etag
        and made_of.get(SPEC_DIGEST) == rendition.resolved(source.metadata or {}).digest
    )


@dataclass(frozen=True)
class Rendered:
    """One encoded rendition.

    Attributes:
        rendition: name of the rendition.
        data: the encoded picture.
        width: its width in pixels.
        height: its height in pixels.
        format: Pillow's name of its format.
        content_type: its media type.
        smaller: whether the source had too few pixels, so that it has those of the source.
    """

    rendition: str
    data: bytes
    width: int
    height: int
    format: str
    content_type: str
    smaller: bool = False
