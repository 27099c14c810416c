"""The metrics in Prometheus' form: names, units and labels. Pure.

No label has a value that a stranger chooses: no key, no reason, no name of an object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from resize_pipeline.delivery.batches import Status
from resize_pipeline.delivery.outcomes import DELAYS_S as DELAY_BOUNDS
from resize_pipeline.errors import LETTER_CLASSES
from resize_pipeline.kafka.letter_index import OTHER
from resize_pipeline.monitoring import history
from resize_pipeline.monitoring.runs import InstanceFacts
from resize_pipeline.monitoring.servers import KafkaFacts, MinioFacts, PartitionStatus
from resize_pipeline.monitoring.totals import Total

PREFIX = "resize_pipeline"
RUN_STATUSES = ("success", "failure", "canceled")
OUTCOMES = tuple(one.value for one in Status if one is not Status.DEFERRED)


@dataclass(frozen=True)
class Reading:
    """What a scrape found out.

    Attributes:
        up: whether each server answered in time, by its name.
        kafka: what Kafka says.
        partitions: position and lag of each Kafka partition.
        gaps: the gaps between the sensor's position and the topic.
        oldest_age_s: age of the oldest event whose object is not rendered yet.
        minio: what MinIO says.
        instance: what Dagster says.
        totals: the totals of all runs.
    """

    up: Mapping[str, bool]
    kafka: KafkaFacts | None = None
    partitions: Sequence[PartitionStatus] = ()
    gaps: Sequence[str] = ()
    oldest_age_s: float | None = None
    minio: MinioFacts | None = None
    instance: InstanceFacts | None = None
    totals: Mapping[Total, float] | None = None


def families(pipeline: str, reading: Reading) -> Iterator[Metric]:
    """Yield the metrics of a pipeline.

    Args:
        pipeline: PIPELINE_NAME.
        reading: what is known.
    """
    make = _Maker(pipeline)
    yield make.gauges("up", "Whether a server answered this scrape in time.", "server", reading.up)
    yield from _kafka(make, reading)
    if reading.minio and not reading.minio.error:
        text = "Reasons why the source bucket announces no pictures."
        yield make.gauge("source_problems", text, len(reading.minio.silence))
    if reading.instance:
        yield from _instance(make, reading.instance, reading.gaps)
    if reading.totals is not None:
        yield from _totals(make, reading.totals)


_Kind = type[GaugeMetricFamily] | type[CounterMetricFamily]


class _Maker:
    """Makes metrics with the label of the pipeline."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline

    def gauge(self, name: str, text: str, value: float) -> Metric:
        return self._one(GaugeMetricFamily, name, text, value)

    def gauges(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        return self._several(GaugeMetricFamily, name, text, label, values)

    def counter(self, name: str, text: str, value: float) -> Metric:
        return self._one(CounterMetricFamily, name, text, value)

    def counters(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        return self._several(CounterMetricFamily, name, text, label, values)

    def _one(self, kind: _Kind, name: str, text: str, value: float) -> Metric:
        family = kind(f"{PREFIX}_{name}", text, labels=["pipeline"])
        family.add_metric([self._pipeline], value)
        return family

    def _several(
        self, kind: _Kind, name: str, text: str, label: str, values: Mapping[str, float]
    ) -> Metric:
        family = kind(f"{PREFIX}_{name}", text, labels=["pipeline", label])
        for one, value in values.items():
            family.add_metric([self._pipeline, one], value)
        return family

    def histogram(self, name: str, text: str, labels: Sequence[str] = ()) -> HistogramMetricFamily:
        return HistogramMetricFamily(f"{PREFIX}_{name}", text, labels=["pipeline", *labels])

    def add(
        self,
        family: HistogramMetricFamily,
        bounds: Sequence[float],
        counts: Sequence[float],
        total: float,
        *labels: str,
    ) -> None:
        limits = [*map(str, bounds), "+Inf"]
        buckets = list(zip(limits, accumulate(counts), strict=True))
        family.add_metric([self._pipeline, *labels], buckets, total)


def _kafka(make: _Maker, reading: Reading) -> Iterator[Metric]:
    kafka = reading.kafka
    if kafka and kafka.topic:
        lag = {str(one.partition): float(one.lag) for one in reading.partitions}
        text = "Records of a Kafka partition that no run has been requested for."
        yield make.gauges("lag_messages", text, "partition", lag)
    if reading.oldest_age_s is not None:
        text = "Age of the oldest event whose run has not ended; 0 if there is none."
        yield make.gauge("oldest_event_age_seconds", text, reading.oldest_age_s)
    if kafka and kafka.letters:
        read = kafka.letters.classes
        classes = {one: float(read.get(one, 0)) for one in (*sorted(LETTER_CLASSES), OTHER)}
        text = "Current dead letters by the class of their error."
        yield make.gauges("dead_letters", text, "class", classes)
        unread = kafka.letters.count - sum(read.values())
        text = "Records of the dead-letter topic that the index does not hold."
        yield make.gauge("dead_letters_unread", text, unread)


def _instance(make: _Maker, facts: InstanceFacts, gaps: Sequence[str]) -> Iterator[Metric]:
    text = "Whether the daemon that runs the sensor sent a heartbeat lately."
    yield make.gauge("daemon_up", text, facts.is_alive)
    if facts.heartbeat is not None:
        text = "Unix time of the daemon's last heartbeat."
        yield make.gauge("daemon_heartbeat_timestamp_seconds", text, facts.heartbeat.timestamp())
    text = "Runs of this Dagster instance that have not ended."
    yield make.gauge("unfinished_runs", text, facts.unfinished)
    healed = len(facts.failed.healed)
    left = len(facts.failed.records) - healed
    text = "Failed runs of the last day, by whether a later run has made up for them."
    yield make.gauges("failed_runs", text, "healed", {"true": healed, "false": left})
    text = "Pictures that wait for the slow lane."
    yield make.gauge("slow_lane_pictures", text, facts.slow_lane.pictures)
    text = "Gaps in the topic that no reconciliation has made up for."
    yield make.gauge("gaps", text, len(facts.gaps) + len(gaps))


def _totals(make: _Maker, totals: Mapping[Total, float]) -> Iterator[Metric]:
    def of(name: str, label: str = "") -> float:
        return totals.get((name, label), 0.0)

    objects = {one: of(history.OBJECTS, one) for one in OUTCOMES}
    yield make.counters("objects", "Objects that runs have handled.", "outcome", objects)
    text = "Seconds from the upload of a picture to the last of its renditions."
    delays = make.histogram("put_to_rendition_seconds", text)
    counts = [of(history.DELAYS, str(group)) for group in range(len(DELAY_BOUNDS) + 1)]
    make.add(delays, DELAY_BOUNDS, counts, of(history.DELAYS_S))
    yield delays
    text = "Seconds for which pictures were rendered, added up over all children."
    yield make.counter("rendering_seconds", text, of(history.RENDER_S))
    text = "Seconds that runs took from their start to their end."
    runs = make.histogram("run_duration_seconds", text, ["status"])
    for status in RUN_STATUSES:
        groups = range(len(history.RUN_SECONDS) + 1)
        counts = [of(history.RUNS, f"{status} {group}") for group in groups]
        make.add(runs, history.RUN_SECONDS, counts, of(history.RUN_S, status), status)
    yield runs
    yield make.counter("catalog_commits", "Commits to the catalogue.", of(history.COMMITS))
    text = "Rows that these commits have written."
    yield make.counter("catalog_rows", text, of(history.ROWS))
