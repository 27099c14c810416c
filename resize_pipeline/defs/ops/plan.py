"""The first step of a run: find the objects that it covers, and cut them into batches."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import dagster as dg

from resize_pipeline.defs.catalog import row_walk
from resize_pipeline.defs.gaps import gap_observation
from resize_pipeline.defs.names import LAG_TAG, LEFT_AFTER_TAG, LEFT_TAG, Names
from resize_pipeline.defs.ops.config import LISTED_MAX_OBJECTS, PlanConfig
from resize_pipeline.defs.partitions import check_partition, window_of
from resize_pipeline.defs.runs import (
    attempt_number,
    in_words,
    one_line_failures,
    selected_renditions,
)
from resize_pipeline.defs.silence import evaluation, reconciled, source_problem
from resize_pipeline.defs.slow_lane import observe_postponed, postponed_by
from resize_pipeline.delivery.batches import (
    Batch,
    Covers,
    Plan,
    Request,
    SourceMessage,
    batches_of,
    linked,
)
from resize_pipeline.delivery.patience import retried
from resize_pipeline.delivery.reconciliation import (
    ANSWERED,
    Letters,
    Scope,
    identity_of,
    unreconciled_objects,
)
from resize_pipeline.delivery.requests import (
    Requested,
    check_newest,
    letter_key,
    with_dead_letters,
)
from resize_pipeline.delivery.row_states import ROW
from resize_pipeline.errors import MALFORMED, PermanentError, UserError
from resize_pipeline.instance.internals import RETRY_STRATEGY_TAG
from resize_pipeline.kafka.dead_letters import DeadLetter, kept_value, position_key
from resize_pipeline.kafka.letter_index import BUDGET_S, LetterIndex, letter_index
from resize_pipeline.kafka.messages import Undecodable
from resize_pipeline.kafka.offsets import OffsetRange, readable
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource


def plan(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    minio: MinioResource,
    pipeline: PipelineResource,
) -> Iterator[
    dg.Output[Plan] | dg.DynamicOutput[Batch] | dg.AssetObservation | dg.AssetCheckEvaluation
]:
    """Find the objects that the run covers and cut them into batches."""
    # Steps pass images on in memory, so a retry starts at the first step. The tag is set here and
    # not on the job, because runs of `Materialize` and of asset backfills get no tags of the job.
    context.instance.add_run_tags(context.run.run_id, {RETRY_STRATEGY_TAG: "ALL_STEPS"})
    for warning in pipeline.warnings:
        context.log.warning(warning)
    with one_line_failures(context):
        config = PlanConfig.parse(context.op_config)
        _check_config(context, config, pipeline)
        planned = Plan(started=time.time())
        problem = source_problem(minio, pipeline) if config.reconcile else None
        if problem:
            # At once, because nothing can be listed if the bucket is missing.
            yield evaluation(pipeline, [problem])
        # A listing asks which states were answered, so it waits for the whole index.
        is_listing = not config.offset_ranges and not config.objects
        budget_s = None if is_listing else BUDGET_S
        with _indexes(context, kafka, pipeline, budget_s) as (letters, announced):
            if config.offset_ranges:
                found = _read_ranges(context, config, kafka, pipeline, planned)
            elif config.objects:
                found = _named(config, minio, pipeline)
            elif config.postponed_by:
                found = _postponed(context, config, minio, pipeline, letters, planned)
            else:
                found = _listed(context, config, minio, pipeline, letters, announced, planned)
            marked = with_dead_letters(found, pipeline.source_bucket, letters.may_have)
            requests = [replace(request, force=config.force) for request in marked]
        # Follow-up runs list later parts of the bucket, and must not hide what the first one found.
        if config.reconcile and (planned.lacking or not config.start_after):
            yield from reconciled(context, kafka, pipeline, planned.lacking, problem)
            planned.lacking.clear()
        planned.objects = len(requests)
        if planned.left_after is not None:
            context.log.info(f"more objects after {planned.left_after!r}: left to a follow-up run")
            tags = {LEFT_TAG: pipeline.pipeline_name, LEFT_AFTER_TAG: planned.left_after}
            context.instance.add_run_tags(context.run.run_id, tags)
        context.log.info(
            f"objects: {planned.objects}; messages skipped: {in_words(planned.skipped) or 'none'}"
        )
        context.log_event(_observation(context, config, pipeline, planned, requests))
        yield dg.Output(planned, "planned")
        batches = batches_of(
            requests,
            max_objects=pipeline.batch_max_objects,
            max_bytes=pipeline.batch_max_bytes,
        )
        for index, batch in enumerate(linked(batches)):
            yield dg.DynamicOutput(batch, mapping_key=str(index), output_name="batches")


@contextmanager
def _indexes(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    budget_s: float | None,
) -> Generator[tuple[LetterIndex, LetterIndex | None]]:
    """Open the indexes of dead letters and of completion events."""
    folder = context.instance.storage_directory()
    with ExitStack() as stack:

        def opened(topic: str) -> LetterIndex:
            return stack.enter_context(letter_index(kafka, topic, folder, budget_s))

        # Each run begins here, so a run whose Kafka is away waits here, and does not use up its
        # repeats within a minute.
        letters = retried(lambda: opened(pipeline.dead_letter_topic), pipeline.retry_s)
        topic = pipeline.completion_topic
        yield letters, retried(lambda: opened(topic), pipeline.retry_s) if topic else None


def _check_config(
    context: dg.OpExecutionContext, config: PlanConfig, pipeline: PipelineResource
) -> None:
    check_partition(context)
    scopes = (config.offset_ranges, config.objects, config.prefix, config.reconcile)
    if sum(map(bool, (*scopes, config.postponed_by))) > 1:
        msg = "a run covers one of offset_ranges, objects, prefix and reconcile: omit the others"
        raise UserError(msg)
    if config.version_id and len(config.objects) != 1:
        msg = (
            f"version_id {config.version_id!r} requires one object, but objects names "
            f"{len(config.objects)}: name exactly one, or omit version_id"
        )
        raise UserError(msg)
    if config.spec_digest and config.spec_digest != pipeline.spec_digest:
        msg = (
            f"this run was planned with specs of digest {config.spec_digest}, but "
            f"{pipeline.renditions_file} here has {pipeline.spec_digest}: give all code locations "
            "and workers the same file; reconciliation then makes what this run would have made"
        )
        raise UserError(msg)


def _read_ranges(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    planned: Plan,
) -> Iterable[Request]:
    topic = pipeline.kafka_topic
    wanted = [OffsetRange.parse(text) for text in config.offset_ranges]
    state = kafka.topic_state(topic)
    requested = Requested()
    names = Names(pipeline.pipeline_name)
    for offsets in wanted:
        part, gaps = readable(offsets, config.topic_id, state)
        for gap in gaps:
            context.log.warning(f"gap in {topic}: {gap}")
            context.log_event(gap_observation(names, topic, config.topic_id, gap))
            planned.skip(gap.reason, gap.end - gap.start)
        for message in kafka.read_range(topic, part) if part else ():
            if isinstance(message, Undecodable):
                planned.skip("malformed", message.end - message.offset)
                place = SourceMessage(topic, message.partition, message.offset, None, b"")
                reason = f"offsets {message.offset}-{message.end}: {message.reason}"
                requested.malformed.append((place, reason))
                continue
            if message.value is None:
                planned.skip("ignored, tombstone")
                continue
            source = SourceMessage(
                topic, message.partition, message.offset, message.key, message.value
            )
            requested.add(source, pipeline.source_bucket, planned)
    letters = [
        DeadLetter(
            key=position_key(message.topic, message.partition, message.offset),
            **kept_value(message.value, pipeline.dead_letter_max_bytes),
            error_class=MALFORMED,
            error_message=reason,
            identity="",
            run_id=context.run.run_id,
            attempt=attempt_number(context),
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
        )
        for message, reason in requested.malformed
    ]
    retried(lambda: kafka.send_dead_letters(pipeline.dead_letter_topic, letters), pipeline.retry_s)
    return requested.requests.values()


def _named(
    config: PlanConfig, minio: MinioResource, pipeline: PipelineResource
) -> Iterator[Request]:
    bucket = pipeline.source_bucket
    for key in dict.fromkeys(config.objects):
        info = named = None
        # A missing or impossible key stays in the plan: the run reports it.
        with suppress(PermanentError):
            info = minio.stat(bucket, key)
            if config.version_id:
                named = minio.stat(bucket, key, version_id=config.version_id)
        if config.version_id:
            check_newest(bucket, key, config.version_id, info, named)
        yield Request(key, info.size if info else 0)


def _postponed(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    minio: MinioResource,
    pipeline: PipelineResource,
    letters: Letters,
    planned: Plan,
) -> Iterator[Request]:
    """Find what another run left to the slow lane: a batch of it, and the rest is left again."""
    found = list(postponed_by(context.instance, config.postponed_by))
    now, later = found[: pipeline.batch_max_objects], found[pipeline.batch_max_objects :]
    observe_postponed(context, pipeline, later)
    planned.postponed = len(later)
    for key, had_dead_letter in now:
        info = None
        with suppress(PermanentError):
            info = minio.stat(pipeline.source_bucket, key)
        # Another run of the slow lane may have had the same object.
        if info and not had_dead_letter:
            name = letter_key(pipeline.source_bucket, key)
            if letters.answers(name, identity_of(info, pipeline)):
                planned.listed[ANSWERED] += 1
                continue
        yield Request(key, info.size if info else 0)


def _listed(  # noqa: PLR0913, PLR0917  What is listed is compared with all of them.
    context: dg.OpExecutionContext,
    config: PlanConfig,
    minio: MinioResource,
    pipeline: PipelineResource,
    letters: Letters,
    announced: Letters | None,
    planned: Plan,
) -> Iterator[Request]:
    is_everywhere = config.reconcile or bool(config.prefix)
    scope = Scope(
        prefix=config.prefix,
        start_after=config.start_after,
        window=None if is_everywhere else window_of(context, pipeline),
        force=config.force,
    )
    renditions = selected_renditions(context, pipeline)
    # Rows and completion events are about all renditions, so a run that makes only some of them
    # leaves both alone.
    if len(renditions) == len(pipeline.renditions):
        rows = row_walk(minio, pipeline, scope) if pipeline.catalog_bucket else None
        scope = replace(scope, rows=rows, announced=announced)
    found = unreconciled_objects(minio, pipeline, letters, renditions, scope, planned.listed)
    last = ""
    for number, (item, lacking) in enumerate(found):
        if number == LISTED_MAX_OBJECTS:
            planned.left_after = last
            return
        last = item.key
        if config.reconcile and set(lacking) - {ROW} and pipeline.is_picture(item.key):
            planned.lacking.append(item)
        yield Request(item.key, item.size)
    # The runs that a follow-up run continues have succeeded, so it covers their objects, too.
    if config.reconcile:
        planned.covers = Covers.BUCKET
    elif not config.prefix:
        planned.covers = Covers.PARTITIONS


def _observation(
    context: dg.OpExecutionContext,
    config: PlanConfig,
    pipeline: PipelineResource,
    planned: Plan,
    requests: Sequence[Request],
) -> dg.AssetObservation:
    return dg.AssetObservation(
        Names(pipeline.pipeline_name).raw_images,
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
