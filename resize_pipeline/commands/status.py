"""The `status` command: position in the topic, dead letters, runs, and the sensor's last tick."""

import datetime as dt
import json
import re
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import dagster as dg
from rich.text import Text

from resize_pipeline.commands.status_model import (
    PartitionStatus,
    PipelineStatus,
    RunStatus,
    SlowLaneStatus,
    StaleStatus,
    TickStatus,
)
from resize_pipeline.commands.status_text import as_tables
from resize_pipeline.defs.code_versions import stale_partitions, unmade_partitions
from resize_pipeline.defs.failures import recorded_failure
from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.healing import healed, unreconciled_gaps
from resize_pipeline.defs.names import POSTPONED_TAG, Names
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.defs.sensors.slow_lane import SENSOR_NAME as SLOW_LANE_SENSOR
from resize_pipeline.defs.sensors.slow_lane import is_rendering, waiting_runs
from resize_pipeline.defs.silence import problems
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.imaging.child_process import child_report
from resize_pipeline.instance.daemons import two_daemons
from resize_pipeline.instance.internals import (
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
    InstigatorState,
    InstigatorTick,
)
from resize_pipeline.instance.internals import TickStatus as InstigatorTickStatus
from resize_pipeline.instance.open import open_instance
from resize_pipeline.kafka.letter_index import BUDGET_S, letter_index
from resize_pipeline.kafka.offsets import Cursor, TopicState, starting_offsets
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole

RUNS_SHOWN = 10
FAILURE_CHARACTERS_MAX = 2_000
FAILED_SINCE = dt.timedelta(days=1)
FAILED_RUNS_MOST = 500
LATER_RUNS_MOST = 2_000
"""More than the sensor requests in a day without a backlog."""
WAITING_RUNS_MOST = 500
SENSOR_DAEMON = "SENSOR"
"""The type of the daemon that evaluates sensors; importing its class takes 0.2 s of CPU time."""
HEARTBEAT_MAX_AGE = dt.timedelta(seconds=90)
"""Dagster's daemons send one every 30 s (DEFAULT_HEARTBEAT_INTERVAL_SECONDS). Dagster itself
tolerates 30 minutes, which is too long for a status that is read now."""

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
    servers = _ask(settings, instance, kafka, minio)
    topic = servers.topic
    partitions, gaps = _partitions(cursor, topic) if topic else ([], [])
    ticks = _newest_ticks(instance, sensor)
    ended = [tick for tick in ticks if tick.status is not InstigatorTickStatus.STARTED]
    unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    failed, made_up_for = _failed_runs(instance, names)
    heartbeat = _last_heartbeat(instance)
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    stale = {one.name: list(stale_partitions(instance, names, one)) for one in renditions}
    is_alive = heartbeat is not None and dt.datetime.now(dt.UTC) - heartbeat < HEARTBEAT_MAX_AGE
    return PipelineStatus(
        pipeline=settings.pipeline_name,
        topic=settings.kafka_topic,
        topic_id=topic.topic_id if topic else None,
        partitions=partitions,
        lag=sum(partition.lag for partition in partitions) if topic else None,
        gaps=gaps + _gaps(instance, names),
        dead_letters=servers.letters,
        dead_letters_are_at_most=not servers.is_exact,
        error=servers.error,
        sensor=_sensor_status(sensor),
        daemon="running" if is_alive else "not running",
        last_heartbeat=heartbeat,
        two_daemons=two_daemons(instance.storage_directory(), names.sensor),
        tick_under_way=len(ended) < len(ticks),
        last_tick=tick_status(ended[0]) if ended else None,
        unfinished_runs=_runs(instance, instance.get_run_records(unfinished, limit=RUNS_SHOWN)),
        unfinished_count=instance.get_runs_count(unfinished),
        failed_runs=_runs(instance, failed[:RUNS_SHOWN], made_up_for),
        failed_count=len(failed),
        healed_count=len(made_up_for),
        silence=list(servers.silence),
        stale=_spans(stale),
        unmade=_spans(unmade_partitions(instance, names, renditions)),
        slow_lane=_slow_lane(instance, names),
        **child_report()._asdict(),
    )


def _newest_ticks(
    instance: dg.DagsterInstance, sensor: InstigatorState | None
) -> Sequence[InstigatorTick]:
    if sensor is None:
        return ()
    # A tick waits for messages most of the time, so the newest one has rarely ended.
    return instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=2)


class _Servers(NamedTuple):
    topic: TopicState | None = None
    letters: int | None = None
    is_exact: bool = True
    silence: Sequence[str] = ()
    error: str | None = None


def _ask(
    settings: Settings,
    instance: dg.DagsterInstance,
    kafka: KafkaResource,
    minio: MinioResource | None,
) -> _Servers:
    found = _Servers()
    try:
        found = found._replace(topic=kafka.topic_state(settings.kafka_topic))
        folder = instance.storage_directory()
        with letter_index(kafka, settings.dead_letter_topic, folder, BUDGET_S) as index:
            found = found._replace(letters=index.count, is_exact=index.is_complete)
    except (TransientError, UserError) as problem:
        found = found._replace(error=str(problem))
    if minio is None:
        return found
    try:
        pipeline = PipelineResource.from_settings(settings)
        return found._replace(silence=problems(instance, minio, pipeline))
    except (TransientError, UserError) as problem:
        return found._replace(error=found.error or str(problem))


def _slow_lane(instance: dg.DagsterInstance, names: Names) -> SlowLaneStatus:
    cursor = stored_cursor(sensor_state(instance, names.of(SLOW_LANE_SENSOR)))
    waiting = waiting_runs(instance, names, cursor, limit=WAITING_RUNS_MOST)
    return SlowLaneStatus(
        pictures=sum(int(one.dagster_run.tags.get(POSTPONED_TAG, 0)) for one in waiting),
        runs=len(waiting),
        rendering=is_rendering(instance, names),
    )


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


def _partitions(
    cursor: Cursor | None, topic: TopicState
) -> tuple[list[PartitionStatus], list[str]]:
    start, gaps = starting_offsets(cursor, topic, time.time())
    partitions = [
        PartitionStatus(
            partition=partition,
            next_offset=cursor.next_offsets.get(partition) if cursor else None,
            end_offset=end,
            lag=end - start[partition],
        )
        for partition, end in sorted(topic.ends.items())
    ]
    return partitions, [str(gap) for gap in gaps]


def _last_heartbeat(instance: dg.DagsterInstance) -> dt.datetime | None:
    status = instance.get_daemon_statuses([SENSOR_DAEMON])[SENSOR_DAEMON]
    if status.last_heartbeat is None:
        return None
    return dt.datetime.fromtimestamp(status.last_heartbeat.timestamp, dt.UTC)


def _failed_runs(instance: dg.DagsterInstance, names: Names) -> tuple[list[dg.RunRecord], set[str]]:
    """Return the failed runs, those first that nothing has made up for, and the ids of others."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        job_name=names.job,
        updated_after=dt.datetime.now(dt.UTC) - FAILED_SINCE,
    )
    records = instance.get_run_records(filters, limit=FAILED_RUNS_MOST)
    # Dagster has no filter for runs without a tag.
    failed = [one for one in records if one.dagster_run.tags.get(WILL_RETRY_TAG) != "true"]
    if not failed:
        return [], set()
    since = min(one.create_timestamp for one in failed)
    made_up_for = healed(failed, _later_runs(instance, names, since))
    return sorted(failed, key=lambda one: one.dagster_run.run_id in made_up_for), made_up_for


def _gaps(instance: dg.DagsterInstance, names: Names) -> list[str]:
    recorded = recorded_gaps(instance, names)
    if not recorded:
        return []
    later = _later_runs(instance, names, recorded[-1].recorded)
    return [gap.text for gap in unreconciled_gaps(recorded, later)]


def _later_runs(
    instance: dg.DagsterInstance, names: Names, since: dt.datetime
) -> Sequence[dg.RunRecord]:
    """Return the runs that were requested since then and succeeded, newest first."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS], job_name=names.job, created_after=since
    )
    return instance.get_run_records(filters, limit=LATER_RUNS_MOST)


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
        found = pipeline_status(settings, instance, kafka, _minio(settings))
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        output = SafeConsole()
        for part in as_tables(found):
            # Lines of text are not wrapped, so that they can be searched for and copied.
            output.print(part, soft_wrap=isinstance(part, Text))
    return found.is_well


def _minio(settings: Settings) -> MinioResource | None:
    access_key, secret_key = settings.minio_access_key, settings.minio_secret_key
    if access_key is None or secret_key is None:
        # Nothing was provisioned yet.
        return None
    return MinioResource.from_settings(
        settings,
        access_key=access_key.get_secret_value(),
        secret_key=secret_key.get_secret_value(),
    )
