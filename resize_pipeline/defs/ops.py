"""The steps of a run: plan, then download, resize and upload each batch, then publish.

A picture that can't be decoded is reported and fails none of its neighbours; a server that is
away fails the run with one line that says which.
"""

import datetime as dt
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from resize_pipeline.batches import (
    Batch,
    Downloaded,
    Planned,
    Rejected,
    Resized,
    ResizedBatch,
    Uploaded,
    batches_of,
)
from resize_pipeline.contact_sheet import contact_sheet_markdown
from resize_pipeline.errors import PermanentError, TransientError, UserError
from resize_pipeline.events import Ignored, Malformed, ObjectCreated, ObjectRemoved, parse_message
from resize_pipeline.imaging import render
from resize_pipeline.offsets import OffsetRange
from resize_pipeline.renditions import Rendition
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import Download, MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

IO_THREADS = 16
REJECTED_SHOWN = 100

T = TypeVar("T")
R = TypeVar("R")


class PlanConfig(dg.Config):
    """What a run covers. Without any of it: every object of the run's partition.

    Attributes:
        topic_id: id of the topic that the offset ranges belong to.
        offset_ranges: each PARTITION:START-END, the end exclusive.
        objects: keys in the source bucket.
    """

    topic_id: str = ""
    offset_ranges: list[str] = Field(default_factory=list)
    objects: list[str] = Field(default_factory=list)


@contextmanager
def one_line_failures() -> Generator[None]:
    """Let a step fail with the one line of an error of ours."""
    try:
        yield
    except (TransientError, UserError) as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, TransientError)) from error


@dg.op(
    ins={"source": dg.In(dg.Nothing)},
    out={"planned": dg.Out(Planned), "batches": dg.DynamicOut(Batch)},
    tags={"dagster/priority": "0"},
)
def plan(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    kafka: KafkaResource,
    minio: MinioResource,
    pipeline: PipelineResource,
) -> Iterator[dg.Output[Planned] | dg.DynamicOutput[Batch]]:
    """Find the objects that the run answers for and cut them into batches."""
    with one_line_failures():
        planned = Planned(started=time.time())
        sizes = dict(_objects(context, config, kafka, minio, pipeline, planned))
        planned.objects = len(sizes)
        context.log.info(f"{planned.objects} objects; messages without one: {planned.skipped}")
        context.log_event(
            dg.AssetObservation(
                "raw_images",
                partition=context.partition_key if context.has_partition_key else None,
                metadata={
                    "objects": planned.objects,
                    "claimed bytes": sum(sizes.values()),
                    "offsets": ", ".join(config.offset_ranges) or "none",
                    **{f"messages: {reason}": count for reason, count in planned.skipped.items()},
                },
            )
        )
        yield dg.Output(planned, "planned")
        batches = batches_of(
            sizes.items(),
            max_objects=pipeline.batch_max_objects,
            max_bytes=pipeline.batch_max_bytes,
        )
        for index, batch in enumerate(batches):
            yield dg.DynamicOutput(batch, mapping_key=f"{index:05}", output_name="batches")


def _objects(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    kafka: KafkaResource,
    minio: MinioResource,
    pipeline: PipelineResource,
    planned: Planned,
) -> Iterable[tuple[str, int]]:
    if not (context.has_partition_key or context.has_partition_key_range):
        msg = (
            "this run has no partition: choose the hour to materialize, or launch it with "
            "--partition or with the tag dagster/partition"
        )
        raise UserError(msg)
    if config.offset_ranges and config.objects:
        msg = "a run covers either offset_ranges or objects: leave one of them out"
        raise UserError(msg)
    if config.offset_ranges:
        return _objects_of_events(config, kafka, pipeline, planned)
    if config.objects:
        return _named_objects(config.objects, minio, pipeline)
    return _objects_of_window(context.partition_time_window, minio, pipeline)


def _objects_of_events(
    config: PlanConfig, kafka: KafkaResource, pipeline: PipelineResource, planned: Planned
) -> Iterator[tuple[str, int]]:
    ranges = [OffsetRange.parse(text) for text in config.offset_ranges]
    state = kafka.topic_state(pipeline.kafka_topic)
    if state.topic_id != config.topic_id:
        msg = (
            f"the offset ranges are of topic id {config.topic_id or '(none)'}, but "
            f"{state.topic} has the id {state.topic_id} now: the topic was recreated, so "
            "materialize the partition without offset_ranges"
        )
        raise UserError(msg)
    readable: list[OffsetRange] = []
    for offsets in ranges:
        first, end = state.watermarks.get(offsets.partition, (0, 0))
        clamped = OffsetRange(
            partition=offsets.partition,
            start=min(max(offsets.start, first), offsets.end),
            end=max(min(offsets.end, end), min(max(offsets.start, first), offsets.end)),
        )
        gone = (offsets.end - offsets.start) - (clamped.end - clamped.start)
        if gone:
            planned.skip(f"gone from the topic ({offsets})", gone)
        readable.append(clamped)
    for message in kafka.read_ranges(pipeline.kafka_topic, readable):
        for event in parse_message(message.value, source_bucket=pipeline.source_bucket):
            match event:
                case ObjectCreated(key=key, size=size):
                    yield key, size
                case ObjectRemoved():
                    planned.skip("removed")
                case Ignored(reason=reason):
                    planned.skip(f"ignored: {reason}")
                case Malformed(reason=reason):
                    planned.skip(f"malformed: {reason}")


def _named_objects(
    keys: Sequence[str], minio: MinioResource, pipeline: PipelineResource
) -> Iterator[tuple[str, int]]:
    for key in keys:
        # A key that is not there, or can't be, goes on: the run reports it.
        try:
            info = minio.stat(pipeline.source_bucket, key)
        except PermanentError:
            info = None
        yield key, info.size if info else 0


def _objects_of_window(
    window: dg.TimeWindow, minio: MinioResource, pipeline: PipelineResource
) -> Iterator[tuple[str, int]]:
    for item in minio.list_objects(pipeline.source_bucket):
        if window.start <= item.last_modified.astimezone(dt.UTC) < window.end:
            yield item.key, item.size


@dg.op(tags={"dagster/priority": "1"})
def download(
    context: dg.OpExecutionContext,
    batch: Batch,
    minio: MinioResource,
    pipeline: PipelineResource,
) -> Downloaded:
    """Read a batch of originals into memory."""

    def fetch(key: str) -> Download | Rejected | None:
        try:
            return minio.download(pipeline.source_bucket, key, max_bytes=pipeline.source_max_bytes)
        except PermanentError as error:
            return Rejected(key, str(error))

    result = Downloaded()
    with one_line_failures():
        for key, found in zip(batch.keys, _threads(IO_THREADS, fetch, batch.keys), strict=True):
            match found:
                case Download():
                    result.originals.append(found)
                case Rejected():
                    result.rejected.append(found)
                case None:
                    result.missing.append(key)
    context.log.debug(f"{len(result.originals)} downloaded")
    return result


@dg.op(tags={"dagster/priority": "2"})
def resize(
    context: dg.OpExecutionContext, downloaded: Downloaded, pipeline: PipelineResource
) -> ResizedBatch:
    """Make the selected renditions of a batch of originals."""
    renditions = _selected(context, pipeline)

    def make(original: Download) -> Resized | Rejected:
        try:
            rendered = render(original.data, renditions, max_pixels=pipeline.source_max_pixels)
        except PermanentError as error:
            return Rejected(original.key, str(error))
        return Resized(original.key, original.etag, len(original.data), rendered)

    result = ResizedBatch(rejected=downloaded.rejected, missing=downloaded.missing)
    for made in _threads(os.cpu_count() or 1, make, downloaded.originals):
        match made:
            case Resized():
                result.pictures.append(made)
            case Rejected():
                result.rejected.append(made)
    for rejected in result.rejected:
        context.log.warning(f"rejected {rejected.key!r}: {rejected.reason}")
    return result


@dg.op(tags={"dagster/priority": "3"})
def upload(
    context: dg.OpExecutionContext,
    resized: ResizedBatch,
    minio: MinioResource,
    pipeline: PipelineResource,
) -> Uploaded:
    """Write the renditions of a batch to their buckets."""
    specs = {rendition.name: rendition for rendition in pipeline.renditions}

    def put(picture: Resized) -> Rejected | None:
        try:
            put_renditions(picture)
        except PermanentError as error:
            return Rejected(picture.key, str(error))
        return None

    def put_renditions(picture: Resized) -> None:
        for rendered in picture.renditions:
            spec = specs[rendered.rendition]
            minio.upload(
                spec.bucket,
                spec.key_for(picture.key),
                rendered.data,
                content_type=rendered.content_type,
                metadata={"source-etag": picture.etag, "spec-digest": spec.digest},
            )

    result = Uploaded(rejected=resized.rejected, missing=resized.missing)
    with one_line_failures():
        refused = _threads(IO_THREADS, put, resized.pictures)
    for picture, rejected in zip(resized.pictures, refused, strict=True):
        if rejected:
            context.log.warning(f"rejected {rejected.key!r}: {rejected.reason}")
            result.rejected.append(rejected)
        else:
            result.count(picture)
    context.log.debug(f"{result.rendered} uploaded")
    return result


def build_publish(renditions: Sequence[Rendition]) -> dg.OpDefinition:
    """Build the last step, which has an output for each rendition."""

    @dg.op(
        out={rendition.name: dg.Out(dg.Nothing, is_required=False) for rendition in renditions},
        tags={"dagster/priority": "4"},
    )
    def publish(
        context: dg.OpExecutionContext,
        planned: Planned,
        uploaded: list[Uploaded],
        pipeline: PipelineResource,
    ) -> Iterator[dg.Output[None]]:
        """Record what was made as one materialization of each selected rendition."""
        total = Uploaded()
        for batch in uploaded:
            total.add(batch)
        seconds = time.time() - planned.started
        context.log.info(
            f"{total.rendered} rendered, {len(total.rejected)} rejected, "
            f"{len(total.missing)} missing in {seconds:.1f} s"
        )
        for rendition in renditions:
            if rendition.name in context.selected_output_names:
                yield dg.Output(
                    None,
                    rendition.name,
                    metadata=_metadata(rendition, planned, total, seconds, pipeline),
                )

    return publish


def _metadata(
    rendition: Rendition,
    planned: Planned,
    total: Uploaded,
    seconds: float,
    pipeline: PipelineResource,
) -> Mapping[str, Any]:
    metadata: dict[str, Any] = {
        "images": total.rendered,
        "rejected": len(total.rejected),
        "missing": len(total.missing),
        "bytes in": total.bytes_in,
        "bytes out": total.bytes_out.get(rendition.name, 0),
        "images/s": round(total.rendered / seconds, 2) if seconds else 0.0,
        "uri": f"s3://{rendition.bucket}/{rendition.prefix}",
    }
    if planned.skipped:
        metadata["messages without an object to render"] = sum(planned.skipped.values())
    if total.rejected:
        metadata["rejected objects"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"key": rejected.key, "reason": rejected.reason})
                for rejected in total.rejected[:REJECTED_SHOWN]
            ]
        )
    if pipeline.contact_sheets:
        sheet = contact_sheet_markdown(total.sheet, max_bytes=pipeline.contact_sheet_max_bytes)
        if sheet:
            metadata["contact sheet"] = dg.MetadataValue.md(sheet)
    return metadata


def _selected(context: dg.OpExecutionContext, pipeline: PipelineResource) -> list[Rendition]:
    names = {key.to_user_string() for key in context.selected_asset_keys}
    return [rendition for rendition in pipeline.renditions if rendition.name in names]


def _threads(count: int, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))
