"""How a running pipeline stands, asked in this process: a command line takes seconds to start."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

from resize_pipeline.commands.status import PipelineStatus, pipeline_status
from resize_pipeline.kafka.offsets import OffsetRange
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.project import Project
from tests.support.waiting import wait_until


@contextmanager
def instance_of(project: Project) -> Iterator[dg.DagsterInstance]:
    """Open the project's Dagster instance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_STORAGE_DIR", str(project.folder / ".local" / "dagster"))
        with dg.DagsterInstance.from_config(str(project.folder)) as instance:
            yield instance


def standing(project: Project) -> PipelineStatus:
    """Give what `resize-pipeline status` shows."""
    return wait_for(project, lambda _: True, 0, "nothing")


def wait_for(
    project: Project,
    condition: Callable[[PipelineStatus], bool],
    timeout_s: float,
    what: str,
    *,
    topic: str = "minio-events",
) -> PipelineStatus:
    """Ask how the pipeline stands until the condition holds, and give the last answer.

    Raises:
        AssertionError: the time is over.
    """
    settings = Settings(
        kafka_bootstrap_servers=f"127.0.0.1:{project.kafka_port}",
        kafka_topic=topic,
        renditions_file=project.folder / "renditions.yaml",
    )
    kafka = KafkaResource.from_settings(settings)
    # Opened once: that costs more than all of the questions.
    with instance_of(project) as instance:

        def ask() -> PipelineStatus | None:
            status = pipeline_status(settings, instance, kafka)
            return status if condition(status) else None

        status = wait_until(ask, timeout_s, what)
        assert status
        return status


def is_idle(status: PipelineStatus) -> bool:
    """Whether neither a tick nor a run is under way."""
    is_between = status.last_tick is not None and not status.tick_under_way
    return is_between and not status.unfinished_count


def is_caught_up(status: PipelineStatus) -> bool:
    """Whether every message there is has been handled; the sensor asks for runs within a tick."""
    ends = sum(one.end_offset for one in status.partitions)
    return ends > 0 and status.lag == 0 and is_idle(status)


def messages(run: dg.DagsterRun) -> int:
    """Count the messages that a run was given by the sensor."""
    ranges = run.tags["resize_pipeline/offsets"].split(",")
    return sum(one.end - one.start for one in map(OffsetRange.parse, ranges))
