"""Finds where source, renditions and dead letters disagree, for reconciliation and backfills.

S3 can't list by time, so a listing of one hour costs as much as a listing of everything. Last
modified is not the time of arrival, so a listing of one hour would miss replicated objects.
"""

import datetime as dt
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from resize_pipeline.delivery.batches import Status
from resize_pipeline.delivery.completions import completion_identity
from resize_pipeline.delivery.requests import letter_identity, letter_key
from resize_pipeline.delivery.row_states import ROW, RowWalk
from resize_pipeline.errors import PermanentError
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo, is_current, is_ours
from resize_pipeline.renditions.spec import Rendition, metadata_read, reads_metadata
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

CURRENT = "current"
ANSWERED = "answered by a dead letter"
OLDER = "older than PARTITIONS_START"

Lookup = Callable[[Rendition, str], ObjectInfo | None]
"""Stats an object in the bucket of a rendition, by its key there."""
_Passed = tuple[str, Rendition, ObjectInfo]
"""The key of a source that was not listed so far, with a rendition that belongs to it."""


class Letters(Protocol):
    """The current dead letters: `kafka.letter_index.LetterIndex`."""

    def __contains__(self, key: bytes) -> bool:
        """Return whether a key has a letter."""
        ...

    def answers(self, key: bytes, identity: str) -> bool:
        """Return whether a key's letter answers for this state."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether these are all letters of the topic."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects of the source bucket that a listing examines.

    Attributes:
        prefix: only keys that start with it.
        start_after: only keys after this one, in the order of a listing.
        window: only objects last modified from the first time on and before the second; None for
            all times.
        force: all of them, even if they lack nothing.
        rows: their rows in the catalogue; None if there is no catalogue.
        announced: the newest completion events; None if there are none, or if they are not
            compared.
    """

    prefix: str = ""
    start_after: str = ""
    window: tuple[dt.datetime, dt.datetime] | None = None
    force: bool = False
    rows: RowWalk | None = None
    announced: Letters | None = None


def unreconciled_objects(
    minio: MinioResource,
    pipeline: PipelineResource,
    letters: Letters,
    renditions: Sequence[Rendition],
    scope: Scope,
    listed: Counter[str],
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """List source and renditions once, as streams; yield the objects that a run must process.

    A run must process an object that lacks a rendition and has no dead letter, and an object that
    has a dead letter and lacks nothing, because the run that wrote the letter was killed before it
    checked the source again. With DELETE_RENDITIONS and no time window it must also process
    renditions without a source. With a catalogue it must also process an object whose row is not
    up to date, and the row of an object that is gone. With completion events it must also process
    an object whose newest event is about another state, because the run that had to send one was
    killed before it did.

    Args:
        minio: the server that holds the objects.
        pipeline: the settings.
        letters: all dead letters.
        renditions: the selected renditions; only their buckets are listed.
        scope: the objects that are examined.
        listed: counts the images that need nothing, by reason, and the old ones.

    Returns:
        Each such object, with the names of the renditions that it lacks, and `ROW`.

    Raises:
        TransientError: the server is unreachable.
        UserError: a bucket is missing, or access to it is refused.
    """

    def look_up(rendition: Rendition, key: str) -> ObjectInfo | None:
        return minio.stat(rendition.bucket, key)

    listings = [
        (
            spec,
            minio.list_objects(
                spec.bucket,
                spec.prefix + scope.prefix,
                start_after=spec.prefix + scope.start_after if scope.start_after else "",
                with_metadata=True,
            ),
        )
        for spec in renditions
    ]
    return unreconciled(
        _source(minio, pipeline, scope, listed),
        listings,
        partial(_is_open, pipeline, letters, scope, listed),
        look_up,
        rows=scope.rows,
        # A listing of one hour leaves out the sources of other hours' renditions.
        find_source=(lambda key: minio.stat(pipeline.source_bucket, key))
        if pipeline.delete_renditions and scope.window is None
        else None,
    )


def _is_open(
    pipeline: PipelineResource,
    letters: Letters,
    scope: Scope,
    listed: Counter[str],
    item: ObjectInfo,
    lacking: Sequence[str],
) -> bool:
    """Return whether a run must process an object that lacks these renditions, or its row."""
    lacks_picture = set(lacking) - {ROW}
    key = letter_key(pipeline.source_bucket, item.key)
    if not pipeline.is_picture(item.key):
        return not lacks_picture and key in letters
    if scope.force:
        return True
    state = identity_of(item, pipeline)

    def is_announced(status: Status) -> bool:
        announced = scope.announced
        # An incomplete index can't tell.
        return announced is None or (
            announced.answers(key, completion_identity(status, state)) or not announced.is_complete
        )

    if not lacking:
        is_open = key in letters or not is_announced(Status.RENDERED)
        listed[CURRENT] += not is_open
        return is_open
    if ROW not in lacking and letters.answers(key, state) and is_announced(Status.REJECTED):
        listed[ANSWERED] += 1
        return False
    return True


def identity_of(item: ObjectInfo, pipeline: PipelineResource) -> str:
    """Return the identity of an object's state, which its dead letter answers for."""
    read = metadata_read(pipeline.renditions, item.metadata or {})
    return letter_identity(item.etag, pipeline.spec_digest, read)


def _source(
    minio: MinioResource, pipeline: PipelineResource, scope: Scope, listed: Counter[str]
) -> Iterator[ObjectInfo]:
    bucket = pipeline.source_bucket
    with_metadata = reads_metadata(pipeline.renditions)
    for item in minio.list_objects(
        bucket, scope.prefix, start_after=scope.start_after, with_metadata=with_metadata
    ):
        if scope.window and not scope.window[0] <= item.last_modified < scope.window[1]:
            continue
        if item.last_modified < pipeline.first_partition and pipeline.is_picture(item.key):
            listed[OLDER] += 1
        # Only MinIO's listing has the metadata; on other servers each object needs a stat.
        found = minio.stat(bucket, item.key) if with_metadata and item.metadata is None else item
        if found:
            yield found


def unreconciled(
    source: Iterable[ObjectInfo],
    listings: Sequence[tuple[Rendition, Iterable[ObjectInfo]]],
    is_open: Callable[[ObjectInfo, Sequence[str]], bool],
    look_up: Lookup,
    *,
    find_source: Callable[[str], ObjectInfo | None] | None,
    rows: RowWalk | None = None,
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Find the objects that a run must process, in one pass over all listings.

    Args:
        source: a listing of the source, in order of keys.
        listings: for each rendition a listing below its prefix, in order of keys; both orders are
            those of the keys' UTF-8 bytes, as S3 lists (Amazon S3 API, ListObjectsV2).
        is_open: returns whether a run must process an object that lacks these renditions, possibly
            none.
        look_up: stats a rendition; called when the listing has no metadata, as on servers other
            than MinIO.
        find_source: stats a source object; None to leave out renditions without a source.
        rows: the rows of the catalogue; None if there is no catalogue.

    Returns:
        Each such object, with the names of the renditions that it lacks, and `ROW` if its row is
        not up to date. A rendition without a source is yielded under the key that its source had.
    """
    walks = [_Walk(rendition, iter(listing), look_up) for rendition, listing in listings]
    for item in source:
        yield from _orphans([walk.up_to(item) for walk in walks], look_up, find_source)
        yield from _gone(rows, item)
        # Each walk moves on, whether or not its rendition is made of this object.
        without = [walk.rendition for walk in walks if not walk.has_current(item)]
        lacking = [one.name for one in without if one.wants(item.key)]
        if rows and not rows.agrees(item):
            lacking.append(ROW)
        if is_open(item, lacking):
            yield item, lacking
    yield from _orphans([walk.up_to(None) for walk in walks], look_up, find_source)
    yield from _gone(rows, None)


def _gone(rows: RowWalk | None, item: ObjectInfo | None) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Yield the objects that have a row and are not listed before an item."""
    for row in rows.up_to(item) if rows else ():
        yield ObjectInfo(row.key, row.etag or "", None, 0, row.last_modified or EPOCH, None), []


def _orphans(
    passed: Sequence[Iterator[_Passed]],
    look_up: Lookup,
    find_source: Callable[[str], ObjectInfo | None] | None,
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    in_order = heapq.merge(*passed, key=lambda one: one[0].encode())
    for key, group in itertools.groupby(in_order, key=lambda one: one[0]):
        if find_source is None:
            continue
        found = [
            info if info.metadata is not None else look_up(rendition, info.key)
            for _, rendition, info in group
        ]
        ours = next((one for one in found if one and is_ours(one)), None)
        # The source may come later in the listing.
        if ours and find_source(key) is None:
            yield replace(ours, key=key), []


class _Walk:
    """The listing of a rendition, read in step with the listing of the source."""

    def __init__(
        self, rendition: Rendition, listing: Iterator[ObjectInfo], look_up: Lookup
    ) -> None:
        self.rendition = rendition
        self._listing = listing
        self._look_up = look_up
        self._head = next(listing, None)
        self._furthest = b""

    def up_to(self, source: ObjectInfo | None) -> Iterator[_Passed]:
        """Advance to the place of this object's rendition, or to the end; yield what is passed."""
        wanted = self.rendition.key_for(source.key).encode() if source else None
        while self._head and (wanted is None or self._head.key.encode() < wanted):
            yield self.rendition.source_key_of(self._head.key), self.rendition, self._head
            self._head = next(self._listing, None)

    def has_current(self, source: ObjectInfo) -> bool:
        """Return whether the object has its current rendition; call `up_to` first."""
        wanted = self.rendition.key_for(source.key)
        # An appended extension changes the order: `a` comes before `a!`, but `a!.webp` before
        # `a.webp`. Keys behind the walk are looked up.
        is_behind = wanted.encode() < self._furthest
        self._furthest = max(self._furthest, wanted.encode())
        listed = self._head if self._head and self._head.key == wanted else None
        if listed:
            # Its source exists, so it is no orphan.
            self._head = next(self._listing, None)
        found = listed
        if is_behind or (listed and listed.metadata is None):
            found = self._look_up(self.rendition, wanted)
        try:
            return is_current(found, source, self.rendition)
        except PermanentError:
            return False
