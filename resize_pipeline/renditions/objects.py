"""Source objects and renditions in memory, and what makes a stored rendition current. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.spec import Rendition

SOURCE_ETAG = "source-etag"
SOURCE_VERSION_ID = "source-version-id"
SPEC_DIGEST = "spec-digest"

EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)

CONTENT_TYPES = {
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
"""The media types of the formats that are decoded and encoded, by Pillow's names."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as returned by a listing or a stat.

    `metadata` is the user metadata, with names in lower case and without prefix; None if a listing
    does not include it. `content_type` is empty if a listing does not include it.
    """

    key: str
    etag: str
    version_id: str | None
    size: int
    last_modified: dt.datetime
    metadata: Mapping[str, str] | None
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """A source object in memory; `metadata` and `content_type` as in `ObjectInfo`.

    `size` is that of the stored object, which its Content-Encoding may have made smaller than
    `data`. `last_modified` is 1970 if the server does not say.
    """

    key: str
    etag: str
    version_id: str | None
    data: bytes
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    size: int = 0
    last_modified: dt.datetime = EPOCH
    content_type: str = ""

    @property
    def info(self) -> ObjectInfo:
        """The object without its data."""
        return ObjectInfo(
            key=self.key,
            etag=self.etag,
            version_id=self.version_id,
            size=self.size,
            last_modified=self.last_modified,
            metadata=self.metadata,
            content_type=self.content_type,
        )


def identity(original: Original, rendition: Rendition) -> dict[str, str]:
    """Return the metadata that records what a rendition was made from, and by which spec.

    The digest is that of the resolved spec, so it also covers the metadata that the spec reads.
    """
    version = {SOURCE_VERSION_ID: original.version_id} if original.version_id else {}
    digest = rendition.resolved(original.metadata).digest
    return {SOURCE_ETAG: original.etag, SPEC_DIGEST: digest, **version}


def is_ours(found: ObjectInfo) -> bool:
    """Return whether this pipeline wrote the object."""
    return {SOURCE_ETAG, SPEC_DIGEST} <= (found.metadata or {}).keys()


def is_current(found: ObjectInfo | None, source: ObjectInfo, rendition: Rendition) -> bool:
    """Return whether a rendition was made from this source, by this spec.

    The version does not count: the same bytes under a new version make the same rendition.

    Raises:
        PermanentError: the source's metadata has an invalid value that the spec reads.
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
        smaller: whether the source has fewer pixels than the spec asks for.
        source: what its original is like.
    """

    rendition: str
    data: bytes
    width: int
    height: int
    format: str
    content_type: str
    smaller: bool = False
    source: Facts | None = None


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the user metadata among an object's headers, with names in lower case."""
    # A stat returns all headers; a listing returns X-Amz-Meta-*, in the case they were sent.
    prefix = "x-amz-meta-"
    return {
        name.lower().removeprefix(prefix): value
        for name, value in headers.items()
        if name.lower().startswith(prefix)
    }
