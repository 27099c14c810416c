"""The `status` command: position in the topic, dead letters, runs, and the sensor's last tick."""

import datetime as dt
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import dagster as dg
from rich.text import Text

from resize_pipeline.commands.status_model import (
    PipelineStatus,
    RunStatus,
    StaleStatus,
    TickStatus,
)
from resize_pipeline.commands.status_text import as_tables
from resize_pipeline.defs.code_versions import stale_partitions, unmade_partitions
from resize_pipeline.defs.failures import recorded_failure
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.imaging.child_process import child_report
from resize_pipeline.instance.daemons import two_daemons
from resize_pipeline.instance.internals import (
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    InstigatorState,
    InstigatorTick,
)
from resize_pipeline.instance.internals import TickStatus as InstigatorTickStatus
from resize_pipeline.instance.open import open_instance
from resize_pipeline.kafka.offsets import Cursor
from resize_pipeline.monitoring.runs import (
    failed_runs,
    is_alive,
    last_heartbeat,
    open_gaps,
    slow_lane,
)
from resize_pipeline.monitoring.servers import (
    MinioFacts,
    ask_kafka,
    ask_minio,
    minio_of,
    positions,
)
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole

RUNS_SHOWN = 10
FAILURE_CHARACTERS_MAX = 2_000

_ERROR_CLASS = re.compile(r"^resize_pipeline\.errors\.\w+: ")


def pipeline_status(
    settings: Settings,
    instance: dg.DagsterInstance,
    kafka: KafkaResource,
    minio: MinioResource | None = None,
) -> PipelineStatus:
    """Collect the status; an unreachable server is reported in it.

    Args:
        settings: the pipeline's.
        instance: the Dagster instance.
        kafka: the cluster with its topics.
        minio: the server with its buckets; None to leave out what only that knows.
    """
    names = Names(settings.pipeline_name)
    sensor = sensor_state(instance, names.sensor)
    cursor = Cursor.parse(stored_cursor(sensor), names.sensor)
    asked = ask_kafka(settings, instance, kafka)
    source = ask_minio(settings, instance, minio) if minio else MinioFacts()
    topic, letters = asked.topic, asked.letters
    partitions, gaps = positions(cursor, topic) if topic else ([], [])
    ticks = _newest_ticks(instance, sensor)
    ended = [tick for tick in ticks if tick.status is not InstigatorTickStatus.STARTED]
    unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    failed, made_up_for = failed_runs(instance, names)
    heartbeat = last_heartbeat(instance)
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    stale = {one.name: list(stale_partitions(instance, names, one)) for one in renditions}
    return PipelineStatus(
        pipeline=settings.pipeline_name,
        topic=settings.kafka_topic,
        topic_id=topic.topic_id if topic else None,
        partitions=partitions,
        lag=sum(partition.lag for partition in partitions) if topic else None,
        gaps=gaps + open_gaps(instance, names),
        dead_letters=letters.count if letters else None,
        dead_letters_are_at_most=bool(letters and not letters.is_exact),
        error=asked.error or source.error,
        sensor=_sensor_status(sensor),
        daemon="running" if is_alive(heartbeat) else "not running",
        last_heartbeat=heartbeat,
        two_daemons=two_daemons(instance.storage_directory(), names.sensor),
        tick_under_way=len(ended) < len(ticks),
        last_tick=tick_status(ended[0]) if ended else None,
        unfinished_runs=_runs(instance, instance.get_run_records(unfinished, limit=RUNS_SHOWN)),
        unfinished_count=instance.get_runs_count(unfinished),
        failed_runs=_runs(instance, failed[:RUNS_SHOWN], made_up_for),
        failed_count=len(failed),
        healed_count=len(made_up_for),
        silence=list(source.silence),
        stale=_spans(stale),
        unmade=_spans(unmade_partitions(instance, names, renditions)),
        slow_lane=slow_lane(instance, names),
        **child_report()._asdict(),
    )


def _newest_ticks(
    instance: dg.DagsterInstance, sensor: InstigatorState | None
) -> Sequence[InstigatorTick]:
    if sensor is None:
        return ()
    # A tick waits for messages most of the time, so the newest one has rarely ended.
    return instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=2)


def _spans(partitions: Mapping[str, Sequence[str]]) -> list[StaleStatus]:
    return [
        StaleStatus(rendition=name, partitions=len(keys), first=keys[0], last=keys[-1])
        for name, keys in partitions.items()
        if keys
    ]


def _sensor_status(state: InstigatorState | None) -> Literal["running", "stopped", "never ran"]:
    if state is None:
        return "never ran"
    return "running" if state.is_running else "stopped"


def _runs(
    instance: dg.DagsterInstance,
    records: Sequence[dg.RunRecord],
    made_up_for: Collection[str] = frozenset(),
) -> list[RunStatus]:
    return [
        RunStatus(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            status=record.dagster_run.status.value,
            partition=record.dagster_run.tags.get(PARTITION_NAME_TAG),
            started=dt.datetime.fromtimestamp(record.start_time, dt.UTC)
            if record.start_time
            else record.create_timestamp,
            is_healed=record.dagster_run.run_id in made_up_for,
            failure=_failure(instance, record.dagster_run),
        )
        for record in records
    ]


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    failed = run.parent_run_id if run.status in NOT_FINISHED_STATUSES else run.run_id
    reason = recorded_failure(instance, failed) if failed else None
    return reason and reason[:FAILURE_CHARACTERS_MAX]


def tick_status(tick: InstigatorTick) -> TickStatus:
    """Return the status of a tick, with the one line of its error."""
    # Dagster wraps the sensor's exception in one of its own. No deeper cause is used: the client's
    # error, such as "NoBrokersAvailable", says less than this package's.
    error = tick.error.cause or tick.error if tick.error else None
    return TickStatus(
        time=dt.datetime.fromtimestamp(tick.timestamp, dt.UTC),
        status=tick.status.value,
        message=_ERROR_CLASS.sub("", error.message.strip()) if error else tick.skip_reason,
        runs=len(tick.run_ids),
    )


def print_status(settings: Settings, *, as_json: bool) -> bool:
    """Print the status, and return whether all is well.

    Raises:
        UserError: this folder has no Dagster instance, or the spec file is invalid.
    """
    with open_instance(settings) as instance:
        kafka = KafkaResource.from_settings(settings)
        found = pipeline_status(settings, instance, kafka, minio_of(settings))
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        output = SafeConsole()
        for part in as_tables(found):
            # Lines of text are not wrapped, so that they can be searched for and copied.
            output.print(part, soft_wrap=isinstance(part, Text))
    return found.is_well
