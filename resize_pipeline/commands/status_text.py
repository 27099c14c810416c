"""The status of the pipeline, as tables and lines for a terminal."""

import textwrap
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from resize_pipeline.commands.status_model import PipelineStatus, RunStatus
from resize_pipeline.defs.names import Names
from resize_pipeline.imaging.sandbox import ON

FAILURE_CHARACTERS_MAX = 500


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
    parts += [Text(f"no events: {one}", style="red") for one in status.silence]
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
    healed = f", {status.healed_count} healed by a later run" if status.healed_count else ""
    failed = f"failed runs of {names.job} in the last day"
    for title, runs in (
        (f"unfinished runs: {status.unfinished_count}", status.unfinished_runs),
        (f"{failed}: {status.failed_count}{healed}", status.failed_runs),
    ):
        parts.append(Text(title, style="bold"))
        if runs:
            parts.append(_run_table(runs))
            parts += _failure_lines(runs)
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
    if status.two_daemons:
        lines.append(Text(status.two_daemons, style="red"))
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
            f"{run.status}, healed" if run.is_healed else run.status,
            run.partition or "",
            f"{run.started:%m-%d %H:%M:%S} UTC",
        )
    return table


def _what_failed(run: RunStatus) -> str:
    return "failed" if run.status == "FAILURE" else "repeats one that failed"


def _failure_lines(runs: Sequence[RunStatus]) -> list[Text]:
    return [
        Text(
            f"{run.run_id[:8]} {_what_failed(run)}: "
            f"{textwrap.shorten(run.failure, FAILURE_CHARACTERS_MAX)}",
            style="yellow" if run.is_healed else "red",
        )
        for run in runs
        if run.failure
    ]


def _without_daemon(status: PipelineStatus) -> str:
    last = f"{status.last_heartbeat:%Y-%m-%d %H:%M:%S} UTC" if status.last_heartbeat else "never"
    return (
        f"Dagster's daemon is not running, so no runs are started (last heartbeat: {last}): "
        "start it with `resize-pipeline up` or `dagster dev`"
    )
