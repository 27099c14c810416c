"""The steps of a run: plan, then download, resize and upload each batch, then publish.

A picture that can't be decoded becomes a dead letter and fails none of its neighbours; a server
that stays away fails the run with one line that says which, and Dagster repeats the run.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG
from pydantic import Field

from resize_pipeline.batches import (
    Batch,
    Budget,
    Covers,
    Downloaded,
    Planned,
    Request,
    Resized,
    Settled,
    SourceMessage,
    Status,
    Uploaded,
    batches_of,
)
from resize_pipeline.contact_sheet import contact_sheet_markdown
from resize_pipeline.converge import Converger, Outcome
from resize_pipeline.dead_letters import DeadLetter, position_key
from resize_pipeline.defs.follow_ups import left_tags
from resize_pipeline.defs.gaps import RAW_IMAGES, gap_observation
from resize_pipeline.defs.partitions import check_partition, window_of
from resize_pipeline.defs.staleness import code_version_of_part, refreshed, version_tags
from resize_pipeline.errors import PermanentError, TransientError, UserError
from resize_pipeline.events import notification
from resize_pipeline.offsets import OffsetRange, readable
from resize_pipeline.planning import (
    Read,
    check_newest,
    letter_identity,
    letter_key,
    with_dead_letters,
)
from resize_pipeline.reconciliation import CURRENT, Scope, unreconciled_objects
from resize_pipeline.renditions import Rendition
from resize_pipeline.resources.kafka import KafkaResource, Outgoing, Undecodable
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource

IO_THREADS = 16
REJECTED_SHOWN = 100
LISTED_MAX_OBJECTS = 5_000
"""Most objects that a run takes from a listing, so that its memory and its steps are bounded
whatever the bucket holds; a follow-up run goes on where it ended."""
LAG_TAG = "resize_pipeline/lag"
"""What was left on the topic when the sensor requested the run; its observation shows it."""

T = TypeVar("T")
R = TypeVar("R")


class PlanConfig(dg.Config):
    """What a run covers. Without any of it: every object of the run's partitions.

    Of what is listed, that is without offset ranges and objects, only what lacks a current
    rendition is made.

    Attributes:
        topic_id: id of the topic that the offset ranges belong to.
        offset_ranges: each PARTITION:START-END, the end exclusive.
        objects: keys in the source bucket.
        version_id: refuse the run if this is not the newest version of its one object.
        prefix: every object of the bucket whose key starts with it, whatever its hour.
        reconcile: every object of the bucket, whatever its hour.
        force: make renditions again that are current.
        start_after: of what is listed, only keys after this one; for follow-up runs.
        spec_digest: digest of the specs that the run was planned under.
    """

    topic_id: str = ""
    # The Launchpad shows a default, and nothing of what a factory makes.
    offset_ranges: list[str] = Field(default=[])
    objects: list[str] = Field(default=[])
    version_id: str = ""
    prefix: str = ""
    reconcile: bool = False
    force: bool = False
    start_after: str = ""
    spec_digest: str = ""


@contextmanager
def one_line_failures(context: dg.OpExecutionContext) -> Generator[None]:
    """Let a step fail with the one line of an error of ours."""
    try:
        yield
    except TransientError as error:
        raise dg.Failure(str(error)) from error
    except UserError as error:
        # `allow_retries` is about the step: without the tag Dagster would repeat the run.
        context.instance.add_run_tags(context.run.run_id, {MAX_RETRIES_TAG: "0"})
        raise dg.Failure(str(error), allow_retries=False) from error


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
    # Steps hand pictures on in memory, so a run is repeated from its start. The tag is set here and
    # not on the job, because runs of `Materialize` and of asset backfills have no tags of a job.
    context.instance.add_run_tags(context.run.run_id, {"dagster/retry_strategy": "ALL_STEPS"})
    for warning in pipeline.warnings:
        context.log.warning(warning)
    with one_line_failures(context):
        _check_config(context, config, pipeline)
        planned = Planned(started=time.time())
        letters = kafka.dead_letters(pipeline.dead_letter_topic)
        if config.offset_ranges:
            found = _read_ranges(context, config, kafka, pipeline, planned)
        elif config.objects:
            found = _named(config, minio, pipeline)
        else:
            found = _listed(context, config, minio, pipeline, letters, planned)
        requests = [
            replace(request, force=config.force)
            for request in with_dead_letters(found, pipeline.source_bucket, letters)
        ]
        planned.objects = len(requests)
        if planned.left_after is not None:
            context.log.info(f"more is left after {planned.left_after!r}: a follow-up run takes it")
            context.instance.add_run_tags(context.run.run_id, left_tags(planned.left_after))
        context.log.info(
            f"objects: {planned.objects}; messages skipped: {_in_words(planned.skipped) or 'none'}"
        )
        context.log_event(_observation(context, config, planned, requests))
        yield dg.Output(planned, "planned")
        batches = batches_of(
            requests,
            max_objects=pipeline.batch_max_objects,
            max_bytes=pipeline.batch_max_bytes,
        )
        for index, batch in enumerate(batches):
            yield dg.DynamicOutput(batch, mapping_key=str(index), output_name="batches")


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _check_config(
    context: dg.OpExecutionContext, config: PlanConfig, pipeline: PipelineResource
) -> None:
    check_partition(context)
    scopes = (config.offset_ranges, config.objects, config.prefix, config.reconcile)
    if sum(map(bool, scopes)) > 1:
        msg = "a run covers one of offset_ranges, objects, prefix and reconcile: leave others out"
        raise UserError(msg)
    if config.version_id and len(config.objects) != 1:
        msg = (
            f"version_id {config.version_id!r} is of one object, but objects names "
            f"{len(config.objects)}: name exactly one, or leave version_id out"
        )
        raise UserError(msg)
    if config.spec_digest and config.spec_digest != pipeline.spec_digest:
        msg = (
            f"this run was planned under specs with the digest {config.spec_digest}, but "
            f"{pipeline.renditions_file} here has {pipeline.spec_digest}: give all code locations "
            "and workers the same file; reconciliation then makes what this run would have made"
        )
        raise UserError(msg)


def _read_ranges(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    planned: Planned,
) -> Iterable[Request]:
    topic = pipeline.kafka_topic
    wanted = [OffsetRange.parse(text) for text in config.offset_ranges]
    state = kafka.topic_state(topic)
    read = Read()
    for offsets in wanted:
        part, gaps = readable(offsets, config.topic_id, state)
        for gap in gaps:
            context.log.warning(f"gap in {topic}: {gap}")
            context.log_event(gap_observation(topic, config.topic_id, gap))
            planned.skip(gap.reason, gap.end - gap.start)
        for message in kafka.read_range(topic, part) if part else ():
            if isinstance(message, Undecodable):
                planned.skip("malformed")
                place = SourceMessage(topic, message.partition, message.offset, None, b"")
                read.malformed.append((place, message.reason))
                continue
            if message.value is None:
                planned.skip("ignored, tombstone")
                continue
            source = SourceMessage(
                topic, message.partition, message.offset, message.key, message.value
            )
            read.add(source, pipeline.source_bucket, planned)
    kafka.send_dead_letters(
        pipeline.dead_letter_topic,
        [
            DeadLetter(
                key=position_key(message.topic, message.partition, message.offset),
                value=message.value,
                error_class="Malformed",
                error_message=reason,
                identity="",
                run_id=context.run.run_id,
                attempt=_attempt(context),
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )
            for message, reason in read.malformed
        ],
    )
    return read.requests.values()


def _named(
    config: PlanConfig, minio: MinioResource, pipeline: PipelineResource
) -> Iterator[Request]:
    bucket = pipeline.source_bucket
    for key in dict.fromkeys(config.objects):
        info = named = None
        # A key that is not there, or can't be, goes on: the run reports it.
        with suppress(PermanentError):
            info = minio.stat(bucket, key)
            if config.version_id:
                named = minio.stat(bucket, key, version_id=config.version_id)
        if config.version_id:
            check_newest(bucket, key, config.version_id, info, named)
        yield Request(key, info.size if info else 0)


def _listed(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    minio: MinioResource,
    pipeline: PipelineResource,
    letters: Mapping[bytes, DeadLetter],
    planned: Planned,
) -> Iterator[Request]:
    is_everywhere = config.reconcile or bool(config.prefix)
    scope = Scope(
        prefix=config.prefix,
        start_after=config.start_after,
        window=None if is_everywhere else window_of(context, pipeline),
        force=config.force,
    )
    renditions = _selected(context, pipeline)
    found = unreconciled_objects(minio, pipeline, letters, renditions, scope, planned.listed)
    last = ""
    for number, (item, _) in enumerate(found):
        if number == LISTED_MAX_OBJECTS:
            planned.left_after = last
            return
        last = item.key
        yield Request(item.key, item.size)
    # A follow-up run covers what those before it did, which succeeded.
    if config.reconcile:
        planned.covers = Covers.BUCKET
    elif not config.prefix:
        planned.covers = Covers.PARTITIONS


def _observation(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    planned: Planned,
    requests: Sequence[Request],
) -> dg.AssetObservation:
    return dg.AssetObservation(
        RAW_IMAGES,
        partition=context.partition_key if context.has_partition_key else None,
        metadata={
            "objects": planned.objects,
            **{f"objects {reason}": count for reason, count in planned.listed.items()},
            "source bytes (as announced)": sum(request.size for request in requests),
            "offsets": ", ".join(config.offset_ranges) or "none",
            **({"lag": int(context.run.tags[LAG_TAG])} if LAG_TAG in context.run.tags else {}),
            **{f"messages: {reason}": count for reason, count in planned.skipped.items()},
        },
    )


@dg.op(out=dg.Out(list), tags={"dagster/priority": "1"})
def download(
    context: dg.OpExecutionContext,
    batch: Batch,
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> list[Downloaded | Settled]:
    """Read the originals of a batch into memory, but for those that need nothing."""
    converger = _converger(context, minio, renderer, pipeline)
    budget = Budget(pipeline.batch_max_bytes)

    def read(request: Request) -> Downloaded | Settled:
        return converger.download(request, budget)

    with one_line_failures(context):
        steps = _threads(IO_THREADS, read, batch.requests)
    context.log.debug(f"{sum(isinstance(step, Downloaded) for step in steps)} downloaded")
    return steps


@dg.op(ins={"downloaded": dg.In(list)}, out=dg.Out(list), tags={"dagster/priority": "2"})
def resize(
    context: dg.OpExecutionContext,
    downloaded: list[Downloaded | Settled],
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> list[Resized | Settled]:
    """Make the renditions of a batch, in child processes."""
    converger = _converger(context, minio, renderer, pipeline)

    def make(step: Downloaded | Settled) -> Resized | Settled:
        return converger.resize(step) if isinstance(step, Downloaded) else step

    with one_line_failures(context):
        return _threads(renderer.workers, make, downloaded)


@dg.op(ins={"resized": dg.In(list)}, tags={"dagster/priority": "3"})
def upload(
    context: dg.OpExecutionContext,
    resized: list[Resized | Settled],
    kafka: KafkaResource,
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> Uploaded:
    """Write the renditions of a batch, look at the sources again, and send dead letters."""
    converger = _converger(context, minio, renderer, pipeline)

    def put(step: Resized | Settled) -> Outcome:
        written = step if isinstance(step, Resized) else None
        settled = converger.upload(step) if isinstance(step, Resized) else step
        settled, again = converger.confirm(settled)
        return settled, again or written

    def is_deferred(step: Resized | Settled) -> bool:
        return isinstance(step, Settled) and step.status is Status.DEFERRED

    def send(rejected: Sequence[Settled], taken_back: Sequence[Request]) -> None:
        kafka.send_dead_letters(
            pipeline.dead_letter_topic,
            [_dead_letter(context, pipeline, settled) for settled in rejected],
            taken_back=[letter_key(pipeline.source_bucket, one.key) for one in taken_back],
        )

    result = Uploaded()
    with one_line_failures(context):
        done = _threads(IO_THREADS, put, [step for step in resized if not is_deferred(step)])
        # One after the other, because each may be as large as a batch.
        done += [put(step) for step in resized if is_deferred(step)]
        busy: list[Outgoing] = []
        for settled, written in converger.answer(done, send):
            result.settle(settled)
            if written and settled.status is Status.RENDERED:
                result.store(written)
            if settled.status is Status.REJECTED:
                context.log.warning(f"rejected {settled.request.key!r}: {settled.reason}")
            if settled.status is Status.BUSY:
                context.log.warning(
                    f"busy {settled.request.key!r}: overwritten again and again while it was "
                    f"rendered, so it goes back on {pipeline.kafka_topic} for a later run"
                )
                key = letter_key(pipeline.source_bucket, settled.request.key)
                busy.append((key, _message(pipeline, settled), ()))
        # The run of its last event may have ended already, ahead of what was written here.
        if busy:
            kafka.send(pipeline.kafka_topic, busy)
    context.log.debug(_in_words(result.statuses))
    return result


def _converger(
    context: dg.OpExecutionContext,
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> Converger:
    return Converger(
        store=minio,
        renderer=renderer,
        renditions=_selected(context, pipeline),
        source_bucket=pipeline.source_bucket,
        source_max_bytes=pipeline.source_max_bytes,
        delete_renditions=pipeline.delete_renditions,
        retry_s=pipeline.retry_s,
    )


def _selected(context: dg.OpExecutionContext, pipeline: PipelineResource) -> list[Rendition]:
    names = {key.to_user_string() for key in context.selected_asset_keys}
    return [spec for spec in pipeline.renditions if spec.name in names]


def _dead_letter(
    context: dg.OpExecutionContext, pipeline: PipelineResource, settled: Settled
) -> DeadLetter:
    request = settled.request
    message = request.message
    return DeadLetter(
        key=letter_key(pipeline.source_bucket, request.key),
        value=_message(pipeline, settled),
        error_class=settled.error_class,
        error_message=settled.reason,
        identity=letter_identity(settled.etag, pipeline.spec_digest, settled.metadata_read),
        run_id=context.run.run_id,
        attempt=_attempt(context),
        topic=message.topic if message else "",
        partition=message.partition if message else -1,
        offset=message.offset if message else -1,
    )


def _message(pipeline: PipelineResource, settled: Settled) -> bytes:
    request = settled.request
    if request.message:
        return request.message.value
    return notification(pipeline.source_bucket, request.key, size=request.size, etag=settled.etag)


def _attempt(context: dg.OpExecutionContext) -> int:
    return int(context.run.tags.get("dagster/retry_number", "0")) + 1


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
        context.log.info(f"{_in_words(total.statuses) or 'nothing to do'} in {seconds:.1f} s")
        names = [one.name for one in renditions]
        selected = [one for one in renditions if one.name in context.selected_output_names]
        # Dagster stores metadata several times over, and all renditions show the same pictures.
        shown = min(selected, key=lambda one: one.width * one.height)
        for rendition in selected:
            sheet = _contact_sheet(total, pipeline) if rendition is shown else {}
            metadata = _metadata(rendition, planned, total, seconds)
            version = rendition.digest
            if planned.covers is Covers.OBJECTS:
                version = code_version_of_part(context.instance, rendition, context.partition_keys)
            if planned.covers is Covers.BUCKET:
                for event in refreshed(context, rendition, names, RAW_IMAGES):
                    context.log_event(event)
            yield dg.Output(
                None,
                rendition.name,
                metadata={**sheet, **metadata},
                tags=version_tags(version, context.run_id),
            )

    return publish


def _metadata(
    rendition: Rendition,
    planned: Planned,
    total: Uploaded,
    seconds: float,
) -> Mapping[str, Any]:
    images = total.images[rendition.name]
    metadata: dict[str, Any] = {
        "images": images,
        "smaller than asked": total.smaller[rendition.name],
        "current already": total.statuses[Status.CURRENT] + planned.listed[CURRENT],
        "rejected": total.statuses[Status.REJECTED],
        "missing": total.statuses[Status.MISSING],
        "busy": total.statuses[Status.BUSY],
        "source bytes": total.bytes_in,
        "rendition bytes": total.bytes_out[rendition.name],
        "bytes saved": total.originals[rendition.name] - total.bytes_out[rendition.name],
        "images/s": round(images / seconds, 2) if seconds else 0.0,
        "uri": f"s3://{rendition.bucket}/{rendition.prefix}",
    }
    if planned.skipped:
        metadata["messages skipped"] = sum(planned.skipped.values())
    if total.rejected:
        metadata["rejected objects"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"key": settled.request.key, "reason": settled.reason})
                for settled in total.rejected[:REJECTED_SHOWN]
            ]
        )
    return metadata


def _contact_sheet(total: Uploaded, pipeline: PipelineResource) -> Mapping[str, Any]:
    if not pipeline.contact_sheets:
        return {}
    sheet = contact_sheet_markdown(sorted(total.sheet), max_bytes=pipeline.contact_sheet_max_bytes)
    return {"contact sheet": dg.MetadataValue.md(sheet)} if sheet else {}


def _threads(count: int, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))
