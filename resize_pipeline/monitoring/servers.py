"""What Kafka and MinIO say: topic, dead letters, and why pictures have no events."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dagster as dg
from pydantic import BaseModel

from resize_pipeline.defs.silence import problems
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.kafka.cluster import Cluster
from resize_pipeline.kafka.letter_index import BUDGET_S, letter_index
from resize_pipeline.kafka.offsets import Cursor, TopicState, starting_offsets
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings


class PartitionStatus(BaseModel):
    """The sensor's position in one Kafka partition; `next_offset` is None before the first tick."""

    partition: int
    next_offset: int | None
    end_offset: int
    lag: int


@dataclass(frozen=True)
class Letters:
    """The current dead letters.

    Attributes:
        count: how many there are; the most that there can be if they are not exact.
        classes: how many there are of each class of error, among those that were read.
        is_exact: whether all were read.
    """

    count: int
    classes: Mapping[str, int]
    is_exact: bool


class KafkaFacts(NamedTuple):
    """What Kafka says; what can't be read is None, and `error` is why."""

    topic: TopicState | None = None
    letters: Letters | None = None
    error: str | None = None


class MinioFacts(NamedTuple):
    """Why pictures have no events, each in one line; `error` is why that can't be read."""

    silence: Sequence[str] = ()
    error: str | None = None


def ask_kafka(settings: Settings, instance: dg.DagsterInstance, kafka: Cluster) -> KafkaFacts:
    """Ask Kafka for the topic and the dead letters.

    Args:
        settings: the pipeline's.
        instance: the Dagster instance, which keeps the index of dead letters.
        kafka: the cluster.
    """
    found = KafkaFacts()
    try:
        found = found._replace(topic=kafka.topic_state(settings.kafka_topic))
        folder = instance.storage_directory()
        with letter_index(kafka, settings.dead_letter_topic, folder, BUDGET_S) as index:
            letters = Letters(index.count, index.classes, index.is_complete)
            return found._replace(letters=letters)
    except (TransientError, UserError) as problem:
        return found._replace(error=str(problem))


def ask_minio(settings: Settings, instance: dg.DagsterInstance, minio: MinioResource) -> MinioFacts:
    """Ask MinIO whether the source bucket announces its pictures.

    Args:
        settings: the pipeline's.
        instance: the Dagster instance, which knows what the last reconciliation found.
        minio: the server.
    """
    try:
        return MinioFacts(problems(instance, minio, PipelineResource.from_settings(settings)))
    except (TransientError, UserError) as problem:
        return MinioFacts(error=str(problem))


def positions(cursor: Cursor | None, topic: TopicState) -> tuple[list[PartitionStatus], list[str]]:
    """Return the position and the lag in each Kafka partition, and the gaps before it.

    Args:
        cursor: the sensor's; None before its first tick.
        topic: the topic as it is now.
    """
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


def minio_of(settings: Settings) -> MinioResource | None:
    """Return the server with the pipeline's keys; None before anything was provisioned."""
    access_key, secret_key = settings.minio_access_key, settings.minio_secret_key
    if access_key is None or secret_key is None:
        return None
    return MinioResource.from_settings(
        settings,
        access_key=access_key.get_secret_value(),
        secret_key=secret_key.get_secret_value(),
    )
