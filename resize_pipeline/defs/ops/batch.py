"""The steps of a run for each batch: download, resize and upload.

An image that can't be decoded becomes a dead letter and does not fail its neighbours. A server that
stays unreachable fails the run with one line that names it, and Dagster retries the run.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import dagster as dg

from resize_pipeline.defs.outcomes import observe_outcomes
from resize_pipeline.defs.runs import (
    attempt_number,
    in_words,
    one_line_failures,
    selected_renditions,
)
from resize_pipeline.defs.slow_lane import as_postponed, is_slow, observe_postponed, render_time
from resize_pipeline.delivery.batches import (
    Batch,
    Request,
    Settled,
    Status,
    Uploaded,
)
from resize_pipeline.delivery.completions import Terms, completion
from resize_pipeline.delivery.converge import Confirmed, Converger
from resize_pipeline.delivery.events import notification
from resize_pipeline.delivery.flow import BatchInFlight, Flow, Stage
from resize_pipeline.delivery.patience import retried
from resize_pipeline.delivery.requests import letter_identity, letter_key
from resize_pipeline.errors import TransientError
from resize_pipeline.kafka.dead_letters import DeadLetter, kept_value
from resize_pipeline.kafka.messages import Outgoing
from resize_pipeline.renditions.analyses import Analysed
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource, SharedRenderer


def download(
    context: dg.OpExecutionContext,
    batch: Batch,
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> BatchInFlight:
    """Read the originals of a batch into memory, except those that need nothing."""

    def flow_of_run() -> Flow:
        if is_slow(context.run):
            renderer.give_way()
        return Flow(
            max_objects=pipeline.batch_max_objects,
            max_bytes=pipeline.batch_max_bytes,
            renderers=renderer.threads(pipeline.analyses),
        )

    flow = renderer.user(flow_of_run)

    def converger() -> Converger:
        return replace(converger_of(context, minio, renderer, pipeline), alone=flow.alone)

    flight = flow.take(batch, converger)
    with one_line_failures(context):
        flight.wait(Stage.DOWNLOAD)
    return flight


def resize(context: dg.OpExecutionContext, downloaded: BatchInFlight) -> BatchInFlight:
    """Make the renditions of a batch in child processes.

    Renditions that exceed the memory of the run are uploaded at once.
    """
    with one_line_failures(context):
        downloaded.wait(Stage.RENDER)
    return downloaded


def upload(
    context: dg.OpExecutionContext,
    resized: BatchInFlight,
    kafka: KafkaResource,
    pipeline: PipelineResource,
) -> Uploaded:
    """Write the renditions of a batch, check the sources again, and send dead letters."""
    converger = resized.converger

    def send(rejected: Sequence[Settled], taken_back: Sequence[Request]) -> None:
        letters = [_dead_letter(context, pipeline, settled) for settled in rejected]
        back = [letter_key(pipeline.source_bucket, one.key) for one in taken_back]
        retried(
            lambda: kafka.send_dead_letters(pipeline.dead_letter_topic, letters, taken_back=back),
            pipeline.retry_s,
        )

    def once_more(outcome: Confirmed) -> Confirmed:
        settled, again = converger.confirm(outcome.settled)
        return Confirmed(settled, again or outcome.written)

    result = Uploaded()
    with one_line_failures(context):
        confirmed, unsettled = resized.outcomes()
        # One at a time, because each may be as large as a batch.
        done = confirmed + [once_more(one) for one in unsettled]
        answered = converger.answer(done, send)
        for settled, written in answered:
            result.settle(settled)
            if pipeline.catalog_bucket:
                result.settled.append(settled)
            if written and settled.status is Status.RENDERED:
                result.store(written)
        observe_outcomes(context, pipeline, [settled for settled, _ in answered])
        _pass_on(context, kafka, pipeline, [settled for settled, _ in answered])
        if not pipeline.catalog_bucket:
            announce(context, kafka, pipeline, [settled for settled, _ in answered])
        # Last, so that all others are done. The run is repeated, and then makes what is left.
        unwritten = {settled.unwritten for settled, _ in answered if settled.unwritten}
        if unwritten:
            raise TransientError("; ".join(sorted(unwritten)))
    context.log.debug(in_words(result.statuses))
    return result


def _pass_on(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    outcomes: Sequence[Settled],
) -> None:
    """Log what was rejected, and leave busy and postponed objects to later runs."""
    for settled in outcomes:
        shown = f"{settled.status} {settled.request.key!r}"
        if settled.status is Status.REJECTED:
            context.log.warning(f"{shown}: {settled.reason}")
        if settled.status is Status.POSTPONED:
            context.log.info(f"{shown}: {settled.reason}")
        if settled.status is Status.BUSY:
            context.log.warning(
                f"{shown}: repeatedly overwritten while it was "
                f"rendered, so it is sent to {pipeline.kafka_topic} again for a later run"
            )
    send_again(kafka, pipeline, [one for one in outcomes if one.status is Status.BUSY])
    slow = [one.request for one in outcomes if one.status is Status.POSTPONED]
    observe_postponed(context, pipeline, as_postponed(slow))


def send_again(
    kafka: KafkaResource, pipeline: PipelineResource, outcomes: Sequence[Settled]
) -> None:
    """Announce objects again, whose source has changed and may have no run left."""
    # The run of its last event may have ended already, before this run's last write.
    again: list[Outgoing] = [
        (letter_key(pipeline.source_bucket, one.request.key), _again(pipeline, one), ())
        for one in outcomes
    ]
    if again:
        retried(lambda: kafka.send(pipeline.kafka_topic, again), pipeline.retry_s)


def announce(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    outcomes: Sequence[Settled],
    analyses: Mapping[str, Sequence[Analysed]] = MappingProxyType({}),
) -> None:
    """Send the completion events of objects, if there are any.

    Args:
        context: of the step.
        kafka: has the topic.
        pipeline: the settings.
        outcomes: the objects.
        analyses: what their rows say of their pictures, by key.
    """
    # A run of some renditions does not know the others; reconciliation announces what it completes.
    is_whole = len(selected_renditions(context, pipeline)) == len(pipeline.renditions)
    if not pipeline.completion_topic or not is_whole:
        return
    now = dt.datetime.now(dt.UTC)
    terms = Terms(
        pipeline.source_bucket, pipeline.renditions, pipeline.spec_digest, context.run.run_id
    )
    messages = [
        message
        for one in outcomes
        if (message := completion(one, terms, now, analyses.get(one.request.key, ())))
    ]
    if messages:
        topic = pipeline.completion_topic
        retried(lambda: kafka.send(topic, messages), pipeline.retry_s)


def converger_of(
    context: dg.OpExecutionContext,
    minio: MinioResource,
    renderer: RendererResource,
    pipeline: PipelineResource,
) -> Converger:
    """Return what makes renditions current, as the run's resources and settings have it."""
    return Converger(
        store=minio,
        renderer=SharedRenderer(renderer, render_time(context, pipeline), pipeline.analyses),
        renditions=selected_renditions(context, pipeline),
        source_bucket=pipeline.source_bucket,
        source_max_bytes=pipeline.source_max_bytes,
        delete_renditions=pipeline.delete_renditions,
        retry_s=pipeline.retry_s,
    )


def _dead_letter(
    context: dg.OpExecutionContext, pipeline: PipelineResource, settled: Settled
) -> DeadLetter:
    request = settled.request
    message = request.message
    return DeadLetter(
        key=letter_key(pipeline.source_bucket, request.key),
        **kept_value(
            message.value if message else _notification(pipeline, settled),
            pipeline.dead_letter_max_bytes,
        ),
        error_class=settled.error_class,
        error_message=settled.reason,
        identity=letter_identity(settled.etag, pipeline.spec_digest, settled.metadata_read),
        run_id=context.run.run_id,
        attempt=attempt_number(context),
        topic=message.topic if message else "",
        partition=message.partition if message else -1,
        offset=message.offset if message else -1,
    )


def _again(pipeline: PipelineResource, settled: Settled) -> bytes:
    message = settled.request.message
    # A large message also names other objects, or would be refused without compression.
    if message and len(message.value) <= pipeline.dead_letter_max_bytes:
        return message.value
    return _notification(pipeline, settled)


def _notification(pipeline: PipelineResource, settled: Settled) -> bytes:
    request = settled.request
    return notification(pipeline.source_bucket, request.key, size=request.size, etag=settled.etag)
