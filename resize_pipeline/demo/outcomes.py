"""The outcomes of the demonstration's objects, found in the topic, the buckets and the runs."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from resize_pipeline.defs.names import OFFSETS_TAG, Names
from resize_pipeline.delivery.events import ObjectCreated, parse_message
from resize_pipeline.demo.samples import Sample
from resize_pipeline.imaging.geometry import geometry
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.kafka.offsets import OffsetRange
from resize_pipeline.renditions.objects import SOURCE_ETAG
from resize_pipeline.renditions.spec import SIDE_MAX, Rendition
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

RUNS_MOST = 100
MATERIALIZATIONS_MOST = 100

_UNCHANGED = Rendition(name="unchanged", width=SIDE_MAX, height=SIDE_MAX, bucket="unused")
"""A rendition that has the size of its source."""


@dataclass(frozen=True, slots=True)
class Made:
    """A rendition as stored in its bucket: size in pixels, length in bytes."""

    size: tuple[int, int]
    length: int


@dataclass(slots=True)
class Outcome:
    """What is known about one object so far."""

    sample: Sample
    key: str
    etag: str
    event: str | None = None
    offset: tuple[int, int] | None = None
    run_id: str | None = None
    reason: str | None = None
    made: dict[str, Made] = field(default_factory=dict[str, Made])

    def is_over(self, renditions: Sequence[Rendition]) -> bool:
        """Return whether nothing more will happen to the object."""
        return self.run_id is not None and (
            self.reason is not None or len(self.made) == len(renditions)
        )

    def problems(self, renditions: Sequence[Rendition]) -> list[str]:
        """Return what differs from the expected outcome; empty if nothing does."""
        if self.sample.size is None:
            return [] if self.reason else ["it was not rejected"]
        if self.reason:
            return [self.reason]
        found: list[str] = []
        for rendition in renditions:
            expected = geometry(self.sample.size, rendition.resolved({})).size
            made = self.made.get(rendition.name)
            if made is None:
                found.append(f"{rendition.name} is missing")
            elif made.size != expected:
                found.append(f"{rendition.name} is {made.size}, not {expected}")
        return found


class Observer:
    """Observes objects, from the end that the topic had when the observer was created."""

    def __init__(
        self,
        *,
        settings: Settings,
        kafka: KafkaResource,
        minio: MinioResource,
        renditions: Sequence[Rendition],
        instance: dg.DagsterInstance,
        renderer: Renderer,
    ) -> None:
        self._kafka = kafka
        self._topic = settings.kafka_topic
        self._minio = minio
        self._source_bucket = settings.source_bucket
        self._renditions = renditions
        self._names = Names(settings.pipeline_name)
        self._instance = instance
        self._renderer = renderer
        self._next = kafka.topic_state(self._topic).ends

    def look(self, outcomes: Sequence[Outcome]) -> None:
        """Update the outcomes of the objects."""
        by_key = {outcome.key: outcome for outcome in outcomes}
        self._read_events(by_key)
        self._read_runs([one for one in outcomes if one.run_id is None])
        for outcome in outcomes:
            if not outcome.is_over(self._renditions):
                self._read_renditions(outcome)
        self._read_rejections(by_key)

    def failed_runs(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Return the ids of those runs of the objects that failed."""
        ids = list({one.run_id for one in outcomes if one.run_id})
        if not ids:
            return []
        failed = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.FAILURE])
        return [record.dagster_run.run_id for record in self._instance.get_run_records(failed)]

    def _read_events(self, by_key: Mapping[str, Outcome]) -> None:
        end = self._kafka.topic_state(self._topic).ends
        for message in self._kafka.read(self._topic, dict(self._next), end, position=self._next):
            for event in parse_message(message.value, source_bucket=self._source_bucket):
                outcome = by_key.get(event.key) if isinstance(event, ObjectCreated) else None
                if outcome and message.value:
                    name: str = json.loads(message.value)["Records"][0]["eventName"]
                    outcome.event = name.removeprefix("s3:ObjectCreated:")
                    outcome.offset = (message.partition, message.offset)

    def _read_runs(self, outcomes: Sequence[Outcome]) -> None:
        if not any(outcome.offset for outcome in outcomes):
            return
        runs = self._instance.get_runs(dg.RunsFilter(job_name=self._names.job), limit=RUNS_MOST)
        for run in runs:
            ranges = [
                OffsetRange.parse(text) for text in run.tags.get(OFFSETS_TAG, "").split(",") if text
            ]
            for outcome in outcomes:
                if outcome.offset and any(
                    offsets.partition == outcome.offset[0]
                    and offsets.start <= outcome.offset[1] < offsets.end
                    for offsets in ranges
                ):
                    outcome.run_id = run.run_id

    def _read_renditions(self, outcome: Outcome) -> None:
        for rendition in self._renditions:
            if rendition.name in outcome.made:
                continue
            found = self._minio.stat(rendition.bucket, rendition.key_for(outcome.key))
            # A rendition of an earlier object with this key does not count.
            if found is None or (found.metadata or {}).get(SOURCE_ETAG) != outcome.etag:
                continue
            got = self._minio.download(
                rendition.bucket, rendition.key_for(outcome.key), max_bytes=found.size
            )
            if got:
                # Only children decode pictures.
                [made] = self._renderer.render(got.data, [_UNCHANGED])
                outcome.made[rendition.name] = Made((made.width, made.height), len(got.data))

    def _read_rejections(self, by_key: Mapping[str, Outcome]) -> None:
        asset = self._names.asset(self._renditions[0].name)
        records = self._instance.fetch_materializations(asset, limit=MATERIALIZATIONS_MOST).records
        for record in records:
            materialization = record.asset_materialization
            rejected = materialization.metadata.get("rejected objects") if materialization else None
            if not isinstance(rejected, dg.TableMetadataValue):
                continue
            for row in rejected.records:
                outcome = by_key.get(str(row.data["key"]))
                if outcome:
                    outcome.reason = str(row.data["reason"])


def upload(minio: MinioResource, bucket: str, sample: Sample, prefix: str) -> str:
    """Create a sample's object with the S3 operation that the sample names.

    Args:
        minio: connected as a user who may write to the bucket.
        bucket: the source bucket.
        sample: what to upload.
        prefix: the demonstration's prefix, for the key and for the source of a copy.

    Returns:
        The object's ETag.

    Raises:
        TransientError: the server can't be reached.
        UserError: the bucket is missing or refused.
    """
    key = prefix + sample.key
    if sample.copy_of is not None:
        return minio.copy_object(bucket, key, prefix + sample.copy_of)
    # The client splits a large object into parts, unlike `MinioResource.upload`.
    with minio.errors(bucket):
        result = minio.client.put_object(
            bucket,
            key,
            io.BytesIO(sample.data),
            len(sample.data),
            content_type=sample.content_type,
        )
    return (result.etag or "").strip('"')
