"""Answers a scrape with whatever the servers say in time."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import dagster as dg
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.errors import TransientError, UserError, one_line
from resize_pipeline.kafka.cluster import Cluster
from resize_pipeline.kafka.offsets import Cursor
from resize_pipeline.monitoring.asking import Question
from resize_pipeline.monitoring.history import history
from resize_pipeline.monitoring.oldest import first_unrendered, oldest_age_s, unfinished_ranges
from resize_pipeline.monitoring.runs import ask_instance
from resize_pipeline.monitoring.samples import Reading, families
from resize_pipeline.monitoring.servers import (
    KafkaFacts,
    PartitionStatus,
    ask_kafka,
    ask_minio,
    minio_of,
    positions,
)
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

SCRAPE_S = 5.0
"""How long a scrape waits for answers: half of Prometheus' default `scrape_timeout`."""
HISTORY_S = 2.0
"""How long a scrape reads events that no scrape has read yet."""

T = TypeVar("T")


class _Topic(NamedTuple):
    facts: KafkaFacts
    partitions: Sequence[PartitionStatus] = ()
    gaps: Sequence[str] = ()
    oldest_age_s: float | None = None


class PipelineCollector(Collector):
    """Collects the metrics of one pipeline, anew for each scrape."""

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        kafka: Cluster,
        minio: MinioResource | None,
    ) -> None:
        """Prepare the questions.

        Args:
            settings: the pipeline's.
            instance: the Dagster instance.
            kafka: the cluster with its topics.
            minio: the server; None if there are no keys for it.
        """
        self._settings = settings
        self._instance = instance
        self._kafka = kafka
        names = self._names = Names(settings.pipeline_name)
        self._topic = Question(self._ask_topic)
        self._source = minio and Question(lambda: ask_minio(settings, instance, minio))
        self._dagster = Question(lambda: ask_instance(instance, names))
        self._history = Question(lambda: history(instance, names, HISTORY_S))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those of a server that does not answer in time are missing."""
        started = time.monotonic()
        deadline = started + SCRAPE_S
        questions = [self._topic, self._dagster, self._history]
        for question in [*questions, *([self._source] if self._source else [])]:
            question.start(started)

        def answer(question: Question[T]) -> T | None:
            try:
                return question.answer(started, deadline)
            except Exception as error:  # noqa: BLE001  Whatever it is, the other answers are given.
                sys.stderr.write(f"resize-pipeline: metrics: {one_line(str(error))}\n")
                return None

        topic = answer(self._topic) or _Topic(KafkaFacts())
        source = answer(self._source) if self._source else None
        dagster = answer(self._dagster)
        up = {
            "kafka": topic.facts.topic is not None,
            "dagster": dagster is not None,
        }
        if self._source:
            up["minio"] = source is not None and source.error is None
        reading = Reading(
            up=up,
            kafka=topic.facts,
            partitions=topic.partitions,
            gaps=topic.gaps,
            oldest_age_s=topic.oldest_age_s,
            minio=source,
            instance=dagster,
            totals=answer(self._history),
        )
        yield from families(self._settings.pipeline_name, reading)

    def _ask_topic(self) -> _Topic:
        facts = ask_kafka(self._settings, self._instance, self._kafka)
        if facts.topic is None:
            return _Topic(facts)
        sensor = sensor_state(self._instance, self._names.sensor)
        cursor = Cursor.parse(stored_cursor(sensor), self._names.sensor)
        partitions, gaps = positions(cursor, facts.topic)
        start = {one.partition: one.end_offset - one.lag for one in partitions}
        unfinished = unfinished_ranges(
            self._instance,
            self._names,
            facts.topic.topic,
            limit=4 * self._settings.sensor_max_unfinished_runs,
        )
        first = first_unrendered(start, unfinished, facts.topic)
        age = None
        with suppress(TransientError, UserError):
            age = oldest_age_s(self._kafka, facts.topic, first)
        return _Topic(facts, partitions, gaps, age)


def collector_of(settings: Settings, instance: dg.DagsterInstance) -> PipelineCollector:
    """Return what collects the metrics of a pipeline, with the clients that its settings name."""
    kafka = KafkaResource.from_settings(settings)
    return PipelineCollector(settings, instance, kafka, minio_of(settings))


def exposition(collector: Collector) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
