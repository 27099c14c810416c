"""The `status` command: position in the topic, dead letters, runs, and the sensor's last tick."""

import datetime as dt
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import dagster as dg
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from resize_pipeline.defs.code_versions import stale_partitions, unmade_partitions
from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.names import POSTPONED_TAG, Names
from resize_pipeline.defs.runs import sensor_state
from resize_pipeline.defs.sensors.slow_lane import SENSOR_NAME as SLOW_LANE_SENSOR
from resize_pipeline.defs.sensors.slow_lane import is_rendering, waiting_runs
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.imaging.renderer import child_report
from resize_pipeline.imaging.sandbox import ON
from resize_pipeline.instance.internals import (
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
    InstigatorState,
    InstigatorTick,
    SensorDaemon,
)
from resize_pipeline.instance.internals import TickStatus as InstigatorTickStatus
from resize_pipeline.instance.open import open_instance
from resize_pipeline.kafka.letter_index import BUDGET_S, letter_index
from resize_pipeline.kafka.offsets import Cursor, TopicState, starting_offsets
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole

RUNS_SHOWN = 10
FAILED_SINCE = dt.timedelta(days=1)
FAILED_RUNS_MOST = 500
WAITING_RUNS_MOST = 500
HEARTBEAT_MAX_AGE = dt.timedelta(seconds=90)
"""Dagster's daemons send one every 30 s (DEFAULT_HEARTBEAT_INTERVAL_SECONDS). Dagster itself
tolerates 30 minutes, which is too long for a status that is read now."""

_ERROR_CLASS = re.compile(r"^resize_pipeline\.errors\.\w+: ")


class PartitionStatus(BaseModel):
    """The sensor's position in one Kafka partition; `next_offset` is None before the first tick."""

    partition: int
    next_offset: int | None
    end_offset: int
    lag: int


class RunStatus(BaseModel):
    """A run; `started` is its creation time if it has not started yet."""

    run_id: str
    job: str
    status: str
    partition: str | None
    started: dt.datetime


class TickStatus(BaseModel):
    """A tick of the sensor; `message` is why it skipped or failed."""

    time: dt.datetime
    status: str
    message: str | None
    runs: int


class SlowLaneStatus(BaseModel):
    """Pictures that wait for the slow lane, those of its present run aside."""

    pictures: int
    runs: int
    rendering: bool


class StaleStatus(BaseModel):
    """A rendition with partitions that were last made with another spec, or never made."""

    rendition: str
    partitions: int
    first: str
    last: str


class PipelineStatus(BaseModel):
    """The status of the whole pipeline.

    `gaps` lists the gaps between cursor and topic, then the recorded ones, newest first.
    `dead_letters_are_at_most` says that `dead_letters` is only a bound, because many letters are
    new and not all were read yet. `error` is why a topic can't be read. `last_tick` is the last
    tick that ended. `last_heartbeat` is that of the daemon that runs the sensor. `failed_runs` are
    those of the last day that Dagster does not repeat. `unmade` are partitions that only other
    renditions were made in.
    `slow_lane` counts the pictures that would hold up others and wait for a run of their own.
    `sandbox` says of each step that confines rendering children on this host that it is "on", or
    why it is not. `resampler` is what scales pixels on this host.
    """

    pipeline: str
    topic: str
    topic_id: str | None
    partitions: list[PartitionStatus]
    lag: int | None
    gaps: list[str]
    dead_letters: int | None
    dead_letters_are_at_most: bool
    error: str | None
    sensor: Literal["running", "stopped", "never ran"]
    daemon: Literal["running", "not running"]
    last_heartbeat: dt.datetime | None
    tick_under_way: bool
    last_tick: TickStatus | None
    unfinished_runs: list[RunStatus]
    unfinished_count: int
    failed_runs: list[RunStatus]
    failed_count: int
    stale: list[StaleStatus]
    unmade: list[StaleStatus]
    slow_lane: SlowLaneStatus
    sandbox: dict[str, str]
    resampler: str


def pipeline_status(
    settings: Settings, instance: dg.DagsterInstance, kafka: KafkaResource
) -> PipelineStatus:
    """Collect the status; an unreachable Kafka is reported in it."""
    names = Names(settings.pipeline_name)
    sensor = sensor_state(instance, names.sensor)
    data = sensor.instigator_data if sensor else None
    cursor = Cursor.parse(getattr(data, "cursor", None), names.sensor)
    error = None
    topic: TopicState | None = None
    letters: int | None = None
    is_exact = True
    try:
        topic = kafka.topic_state(settings.kafka_topic)
        folder = instance.storage_directory()
        with letter_index(kafka, settings.dead_letter_topic, folder, BUDGET_S) as index:
            letters = index.count
            is_exact = index.is_complete
    except (TransientError, UserError) as problem:
        error = str(problem)
    partitions, gaps = _partitions(cursor, topic) if topic else ([], [])
    # A tick waits for messages most of the time, so the newest one has rarely ended.
    ticks = (
        instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=2)
        if sensor
        else []
    )
    ended = [tick for tick in ticks if tick.status is not InstigatorTickStatus.STARTED]
    unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    failed = _failed_runs(instance, names)
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
        gaps=gaps + recorded_gaps(instance, names),
        dead_letters=letters,
        dead_letters_are_at_most=not is_exact,
        error=error,
        sensor=_sensor_status(sensor),
        daemon="running" if is_alive else "not running",
        last_heartbeat=heartbeat,
        tick_under_way=len(ended) < len(ticks),
        last_tick=tick_status(ended[0]) if ended else None,
        unfinished_runs=_runs(instance.get_run_records(unfinished, limit=RUNS_SHOWN)),
        unfinished_count=instance.get_runs_count(unfinished),
        failed_runs=_runs(failed[:RUNS_SHOWN]),
        failed_count=len(failed),
        stale=_spans(stale),
        unmade=_spans(unmade_partitions(instance, names, renditions)),
        slow_lane=_slow_lane(instance, names),
        **child_report()._asdict(),
    )


def _slow_lane(instance: dg.DagsterInstance, names: Names) -> SlowLaneStatus:
    state = sensor_state(instance, names.of(SLOW_LANE_SENSOR))
    cursor = getattr(state.instigator_data, "cursor", None) if state else None
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
    start, gaps = starting_offsets(cursor, topic)
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
    status = instance.get_daemon_statuses([SensorDaemon.daemon_type()])[SensorDaemon.daemon_type()]
    if status.last_heartbeat is None:
        return None
    return dt.datetime.fromtimestamp(status.last_heartbeat.timestamp, dt.UTC)


def _failed_runs(instance: dg.DagsterInstance, names: Names) -> list[dg.RunRecord]:
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        job_name=names.job,
        updated_after=dt.datetime.now(dt.UTC) - FAILED_SINCE,
    )
    records = instance.get_run_records(filters, limit=FAILED_RUNS_MOST)
    # Dagster has no filter for runs without a tag.
    return [one for one in records if one.dagster_run.tags.get(WILL_RETRY_TAG) != "true"]


def _runs(records: Sequence[dg.RunRecord]) -> list[RunStatus]:
    return [
        RunStatus(
            run_id=record.dagster_run.run_id,
            job=record.dagster_run.job_name,
            status=record.dagster_run.status.value,
            partition=record.dagster_run.tags.get(PARTITION_NAME_TAG),
            started=dt.datetime.fromtimestamp(record.start_time, dt.UTC)
            if record.start_time
            else record.create_timestamp,
        )
        for record in records
    ]


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


def as_tables(status: PipelineStatus) -> list[Table | Text]:
    """Return the status as tables and lines for a terminal."""
    names = Names(status.pipeline)
    lag = "unknown" if status.lag is None else str(status.lag)
    parts: list[Table | Text] = [Text(f"topic {status.topic}, lag {lag}", style="bold")]
    if status.error:
        parts.append(Text(status.error, style="red"))
    if status.partitions:
        partitions = Table("partition", "next offset", "end offset", "lag", box=None)
        for one in status.partitions:
            next_offset = "none yet" if one.next_offset is None else str(one.next_offset)
            partitions.add_row(str(one.partition), next_offset, str(one.end_offset), str(one.lag))
        parts.append(partitions)
    parts += [Text(f"gap: {gap}", style="red") for gap in status.gaps]
    if status.dead_letters:
        most = "at most " if status.dead_letters_are_at_most else ""
        parts.append(Text(f"dead letters: {most}{status.dead_letters}", style="red"))
    parts += [
        Text(
            f"{one.rendition}: partitions {how}: {one.partitions}, from {one.first} to {one.last}; "
            f"wait for reconciliation, or run `dagster job backfill -j {names.job} "
            f"--from {one.first} --to {one.last} --noprompt`",
            style="yellow",
        )
        for how, found in (("made by another spec", status.stale), ("never made", status.unmade))
        for one in found
    ]
    if status.slow_lane.pictures or status.slow_lane.rendering:
        busy = "a run of it renders" if status.slow_lane.rendering else "no run of it renders"
        parts.append(
            Text(
                f"slow lane: {status.slow_lane.pictures} slow pictures wait, {busy}", style="yellow"
            )
        )
    parts += _sandbox_lines(status.sandbox)
    parts.append(Text(f"pictures are scaled by {status.resampler}"))
    parts += _sensor_lines(status)
    for title, count, runs in (
        ("unfinished runs", status.unfinished_count, status.unfinished_runs),
        (
            f"failed runs of {names.job} in the last day",
            status.failed_count,
            status.failed_runs,
        ),
    ):
        parts.append(Text(f"{title}: {count}", style="bold"))
        if runs:
            parts.append(_run_table(runs))
    return parts


def _sandbox_lines(steps: Mapping[str, str]) -> list[Text]:
    missing = [f"{step}: {found}" for step, found in steps.items() if found != ON]
    if not missing:
        return [Text(f"sandbox of rendering children: {', '.join(steps)}")]
    return [
        Text(f"sandbox of rendering children on this host is without {one}", style="yellow")
        for one in missing
    ]


def _sensor_lines(status: PipelineStatus) -> list[Table | Text]:
    lines: list[Table | Text] = [
        Text(f"sensor {Names(status.pipeline).sensor}: {status.sensor}", style="bold")
    ]
    if status.daemon == "not running":
        lines.append(Text(_without_daemon(status), style="red"))
    tick = status.last_tick
    if tick is None:
        lines.append(Text("no tick yet"))
    else:
        runs = "1 run" if tick.runs == 1 else f"{tick.runs} runs"
        what = tick.message or f"{runs} requested"
        lines.append(Text(f"last tick {tick.time:%Y-%m-%d %H:%M:%S} UTC, {tick.status}: {what}"))
    return lines


def _run_table(runs: Sequence[RunStatus]) -> Table:
    table = Table(box=None)
    for heading in ("run", "job", "status", "partition", "since"):
        table.add_column(heading, no_wrap=True)
    for run in runs:
        table.add_row(
            run.run_id[:8],
            run.job,
            run.status,
            run.partition or "",
            f"{run.started:%m-%d %H:%M:%S} UTC",
        )
    return table


def _without_daemon(status: PipelineStatus) -> str:
    last = f"{status.last_heartbeat:%Y-%m-%d %H:%M:%S} UTC" if status.last_heartbeat else "never"
    return (
        f"Dagster's daemon is not running, so no runs are started (last heartbeat: {last}): "
        "start it with `resize-pipeline up` or `dagster dev`"
    )


def print_status(settings: Settings, *, as_json: bool) -> bool:
    """Print the status, and return whether Kafka could be read.

    Raises:
        UserError: this folder has no Dagster instance, or the spec file is invalid.
    """
    with open_instance(settings) as instance:
        found = pipeline_status(settings, instance, KafkaResource.from_settings(settings))
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        output = SafeConsole()
        for part in as_tables(found):
            # Lines of text are not wrapped, so that they can be searched for and copied.
            output.print(part, soft_wrap=isinstance(part, Text))
    return found.error is None
