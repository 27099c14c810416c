"""Finds where source, renditions and dead letters disagree: the second layer, and backfills.

S3 can't list by time, so looking at everything costs the same as looking at one hour; and
last-modified is not arrival time, so looking at one hour only would miss replicated objects.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resize_pipeline.dead_letters import DeadLetter
from resize_pipeline.objects import ObjectInfo
from resize_pipeline.planning import letter_identity, letter_key, unreconciled
from resize_pipeline.renditions import Rendition, metadata_read, reads_metadata
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

CURRENT = "current"
ANSWERED = "answered by a dead letter"
OLDER = "older than PARTITIONS_START"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects of the source bucket are looked at.

    Attributes:
        prefix: only keys that start with it.
        start_after: only keys after this one, in the order of a listing.
        window: only objects last modified from the first time on and before the second; None for
            all, whatever their time.
        force: all of them, whether they lack anything or not.
    """

    prefix: str = ""
    start_after: str = ""
    window: tuple[dt.datetime, dt.datetime] | None = None
    force: bool = False


def unreconciled_objects(
    minio: MinioResource,
    pipeline: PipelineResource,
    letters: Mapping[bytes, DeadLetter],
    renditions: Sequence[Rendition],
    scope: Scope,
    listed: Counter[str],
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """List the source and each rendition once, as streams, and give what a run has to look at.

    That is an object that lacks a rendition and has no dead letter, or has a dead letter and lacks
    nothing, because the run that wrote the letter was killed before it looked again. Over all
    times, with DELETE_RENDITIONS, it is a rendition without a source, too.

    Args:
        minio: holds the objects.
        pipeline: the settings.
        letters: all dead letters.
        renditions: those that are wanted; only their buckets are listed.
        scope: which objects.
        listed: counts the pictures that need nothing, by why, and those that are old.

    Returns:
        Each such object with the names of the renditions that it lacks.

    Raises:
        TransientError: the server can't be reached.
        UserError: a bucket is missing or refused.
    """

    def is_open(item: ObjectInfo, lacking: Sequence[str]) -> bool:
        letter = letters.get(letter_key(pipeline.source_bucket, item.key))
        if not pipeline.is_picture(item.key):
            return letter is not None and not lacking
        if scope.force:
            return True
        if not lacking:
            listed[CURRENT] += letter is None
            return letter is not None
        read = metadata_read(pipeline.renditions, item.metadata or {})
        identity = letter_identity(item.etag, pipeline.spec_digest, read)
        if letter is not None and letter.identity == identity:
            listed[ANSWERED] += 1
            return False
        return True

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
        is_open,
        look_up,
        # An hour's listing leaves out the sources of others' renditions.
        find_source=(lambda key: minio.stat(pipeline.source_bucket, key))
        if pipeline.delete_renditions and scope.window is None
        else None,
    )


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
        # Only MinIO's listing tells; elsewhere each object is looked at, unless it is gone by now.
        found = minio.stat(bucket, item.key) if with_metadata and item.metadata is None else item
        if found:
            yield found
