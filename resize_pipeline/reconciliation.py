"""Finds what the bucket holds that has no current rendition and no dead letter: the second layer.

S3 can't list by time, so looking at everything costs the same as looking at one hour; and
last-modified is not arrival time, so looking at one hour only would miss replicated objects.
"""

from collections.abc import Iterator, Mapping

from resize_pipeline.dead_letters import DeadLetter
from resize_pipeline.objects import ObjectInfo
from resize_pipeline.planning import letter_identity, letter_key, outdated
from resize_pipeline.renditions import Rendition
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource


def outdated_objects(
    minio: MinioResource, pipeline: PipelineResource, letters: Mapping[bytes, DeadLetter]
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """List the source and each rendition once, as streams, and give what lacks renditions.

    Raises:
        TransientError: the server can't be reached.
        UserError: a bucket is missing or refused.
    """

    def answered(item: ObjectInfo) -> bool:
        letter = letters.get(letter_key(pipeline.source_bucket, item.key))
        identity = letter_identity(item.etag, pipeline.spec_digest)
        return letter is not None and letter.identity == identity

    def look_up(rendition: Rendition, key: str) -> ObjectInfo | None:
        return minio.stat(rendition.bucket, key)

    source = (
        item for item in minio.list_objects(pipeline.source_bucket) if pipeline.is_picture(item.key)
    )
    listings = [
        (spec, minio.list_objects(spec.bucket, spec.prefix, with_metadata=True))
        for spec in pipeline.renditions
    ]
    return outdated(source, listings, answered, look_up)
