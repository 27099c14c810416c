"""Objects as they are passed around, and what makes a rendition the current one. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from resize_pipeline.renditions import Rendition

SOURCE_ETAG = "source-etag"
SOURCE_VERSION_ID = "source-version-id"
SPEC_DIGEST = "spec-digest"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or a stat shows it; `metadata` keys are lower case, without prefix."""

    key: str
    etag: str
    version_id: str | None
    size: int
    last_modified: dt.datetime
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Original:
    """A source object in memory."""

    key: str
    etag: str
    version_id: str | None
    data: bytes


def identity(original: Original, rendition: Rendition) -> dict[str, str]:
    """Give the metadata that says what a rendition was made from, and by which spec."""
    version = {SOURCE_VERSION_ID: original.version_id} if original.version_id else {}
    return {SOURCE_ETAG: original.etag, SPEC_DIGEST: rendition.digest, **version}


def is_current(found: ObjectInfo | None, etag: str, rendition: Rendition) -> bool:
    """Tell whether a rendition is made of the source with this etag, by this spec.

    The version is no part of it: the same bytes under a new version give the same rendition.
    """
    return (
        found is not None
        and found.metadata.get(SOURCE_ETAG) == etag
        and found.metadata.get(SPEC_DIGEST) == rendition.digest
    )
