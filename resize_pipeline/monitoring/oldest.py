"""The age of the oldest event whose object was not rendered yet."""

import time
from collections.abc import Iterable, Mapping

import dagster as dg

from resize_pipeline.defs.names import OFFSETS_TAG, TOPIC_TAG, Names
from resize_pipeline.errors import UserError
from resize_pipeline.instance.internals import NOT_FINISHED_STATUSES
from resize_pipeline.kafka.cluster import Cluster
from resize_pipeline.kafka.messages import Undecodable
from resize_pipeline.kafka.offsets import OffsetRange, TopicState

STALL_TIMEOUT_S = 3.0


def unfinished_ranges(
    instance: dg.DagsterInstance, names: Names, topic: str, *, limit: int
) -> list[OffsetRange]:
    """Return the offset ranges of the runs that have not ended.

    Args:
        instance: the Dagster instance.
        names: the pipeline's.
        topic: the topic of the ranges.
        limit: most runs that are looked at.
    """
    unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES, job_name=names.job)
    found: list[OffsetRange] = []
    for run in instance.get_runs(unfinished, limit=limit):
        if run.tags.get(TOPIC_TAG) != topic:
            continue
        for text in run.tags.get(OFFSETS_TAG, "").split(","):
            try:
                found.append(OffsetRange.parse(text))
            except UserError:
                # Whoever launches a run chooses its tags.
                continue
    return found


def first_unrendered(
    lag_starts: Mapping[int, int], unfinished: Iterable[OffsetRange], topic: TopicState
) -> dict[int, int]:
    """Return the first offset of each Kafka partition that is left, of those that have one.

    Args:
        lag_starts: where the sensor continues, by partition.
        unfinished: the ranges of the runs that have not ended.
        topic: the topic as it is now.
    """
    found = dict(lag_starts)
    for one in unfinished:
        if one.partition in found:
            found[one.partition] = min(found[one.partition], one.start)
    return {
        partition: max(offset, topic.starts[partition])
        for partition, offset in found.items()
        if max(offset, topic.starts[partition]) < topic.ends[partition]
    }


def oldest_age_s(kafka: Cluster, topic: TopicState, first: Mapping[int, int]) -> float:
    """Return the age in seconds of the oldest record among these; 0 if there is none.

    Args:
        kafka: the cluster.
        topic: the topic.
        first: an offset by partition, each before the partition's end.

    Raises:
        TransientError: Kafka is unreachable.
    """
    if not first:
        return 0.0
    ends = {partition: offset + 1 for partition, offset in first.items()}
    records = kafka.read(topic.topic, first, ends, position={}, stall_timeout_s=STALL_TIMEOUT_S)
    # The time of a record that can't be decoded is unknown.
    times = [one.timestamp / 1000 for one in records if not isinstance(one, Undecodable)]
    # Producers may set any time.
    return max(0.0, time.time() - min(times)) if times else 0.0
