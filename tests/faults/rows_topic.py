"""Rows in which the topic or what is in it goes wrong."""

import datetime as dt
import json
import random
import time

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from minio.commonconfig import Tags

from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.delivery.events import notification
from tests.faults.checker import Checker
from tests.faults.ledger import picture
from tests.faults.world import World, own_messages, row, wait_for_messages
from tests.support.letters import current_letters
from tests.support.names import NAMES
from tests.support.undecodable import send_undecodable

ELSEWHERE = notification("another-bucket", "a.jpg", size=1, etag=None)


def recorded_gap(world: World) -> str | None:
    """Give the newest gap on record, which `status` lists until the bucket is reconciled."""
    gaps = recorded_gaps(world.cluster.instance, NAMES)
    return gaps[0].text if gaps else None


@row(
    "retention truncates unread events",
    "ACDFGH",
    evidence=recorded_gap,
    reconcile=True,
)
def retention(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    before = Checker.position_of(cluster)
    with world.storm(40).raging():
        pass
    wait_for_messages(world, 40)
    state = cluster.topic_state()
    cut = {partition: max(first, end - 10) for partition, (first, end) in state.watermarks.items()}
    cluster.delete_records(cut)
    cluster.start("daemon")
    world.settled()
    lost = {
        (place, before.get(place, 0), end)
        for place, end in (((state.topic_id, one), end) for one, end in cut.items())
        if before.get(place, 0) < end
    }
    recorded = set(world.checker.gaps())
    if not lost or not lost <= recorded:
        world.violate("C", f"the gap is {lost}, recorded {recorded}")
    world.notes.append(str(recorded_gap(world)))


def delete_topic(world: World) -> None:
    world.cluster.note_topic()
    with world.cluster.kafka.connection.admin() as admin:
        admin.delete_topics([world.cluster.settings.kafka_topic])


@row(
    "topic deleted; recreated shorter, under the running sensor",
    "ACFGH",
    evidence=lambda world: world.failed_ticks()[0],
    reconcile=True,
)
def recreated_shorter(world: World) -> None:
    cluster = world.cluster
    with world.storm(30).raging():
        pass
    world.settled()
    cluster.send(*[ELSEWHERE] * 50)
    world.settled()
    since = time.time()
    delete_topic(world)
    world.wait(lambda: cluster.failed_ticks(since), "a tick that misses the topic")
    world.notes.append(cluster.failed_ticks(since)[0][:90])
    # Its events wait, or are lost: the bucket is the truth.
    world.put("while-there-is-none.jpg")
    cluster.provision()
    world.put("afterwards.jpg")


@row(
    "topic deleted; recreated longer than the cursor",
    "ACFGH",
    evidence=recorded_gap,
    reconcile=True,
)
def recreated_longer(world: World) -> None:
    cluster = world.cluster
    world.put("before.jpg")
    world.settled()
    cluster.stop("daemon")
    world.put("unread.jpg")
    wait_for_messages(world, 2)
    ends = cluster.note_topic()
    delete_topic(world)
    world.wait(lambda: not topic_exists(world), "the end of the topic")
    cluster.provision()
    cluster.send(*[ELSEWHERE] * (max(ends.values()) + 20))
    with world.storm(20).raging():
        pass
    with world.larger_runs():
        world.settled()


def topic_exists(world: World) -> bool:
    with world.cluster.kafka.connection.admin() as admin:
        found = admin.describe_topics([world.cluster.settings.kafka_topic])[0]
    return not found["error_code"]


@row("partitions 1 to 3 under load", "ABCDEFG")
def more_partitions(world: World) -> None:
    cluster = world.cluster
    topic = cluster.settings.kafka_topic
    bucket = cluster.settings.source_bucket
    with world.storm(120, pause_s=0.1).raging() as storm:
        storm.wait_for(0.3)
        count = len(cluster.note_topic())
        with cluster.kafka.connection.admin() as admin:
            admin.create_partitions({topic: count + 2})
        world.wait(lambda: len(cluster.note_topic()) == count + 2, "the new partitions")
        # MinIO itself takes minutes to see them: others write there at once.
        for partition in (count, count + 1):
            for _ in range(5):
                key = world.put(f"partition-{partition}-{world.random.random()}.jpg")
                value = notification(bucket, key, size=1, etag=None)
                cluster.send(value, key=f"{bucket}/{key}".encode(), partition=partition)
    world.settled()
    position = Checker.position_of(cluster)
    for partition in (count, count + 1):
        if position.get((cluster.topic_state().topic_id, partition), 0) < 5:
            world.violate("C", f"partition {partition} is not read: {position}")


@row("aborted transactions, compacted holes", "ABCDFG")
def holes(world: World) -> None:
    cluster = world.cluster
    topic, bucket = cluster.settings.kafka_topic, cluster.settings.source_bucket
    cluster.stop("daemon")
    with cluster.producer(transactional_id=f"faults-{world.seed}") as producer:
        producer.init_transactions()
        for one in range(6):
            key = world.put(f"transaction-{one}.jpg")
            value = notification(bucket, key, size=1, etag=None)
            producer.begin_transaction()
            for _ in range(3):
                producer.send(topic, value, key=f"{bucket}/{key}".encode(), partition=0).get(60)
            if one % 2:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    for _ in range(3):
        for one in range(5):
            world.put(f"compacted-{one}.jpg")
    wait_for_messages(world, 6 + 18 + 15)
    compact = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.001",
        "segment.ms": "100",
        "min.compaction.lag.ms": "0",
    }
    with cluster.kafka.connection.admin() as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=compact)])
    count = len(own_messages(world))

    def is_compacted() -> bool:
        # A segment is only closed, and then cleaned, when another message comes.
        cluster.send(ELSEWHERE, key=b"another-bucket/a.jpg")
        return len(own_messages(world)) < count

    world.wait(is_compacted, "Kafka's cleaner", 180)
    left = len(own_messages(world))
    world.notes.append(f"{count - left} of {count} messages compacted away")
    normal = dict.fromkeys(compact, "") | {"cleanup.policy": "delete"}
    with cluster.kafka.connection.admin() as admin:
        admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    topic,
                    configs={
                        "cleanup.policy": normal["cleanup.policy"],
                        "min.cleanable.dirty.ratio": "0.5",
                        "segment.ms": "604800000",
                    },
                )
            ]
        )
    cluster.start("daemon")


@row("duplicated, reordered events", "ABCDFG", core=True)
def duplicated(world: World) -> None:
    cluster = world.cluster
    with world.storm(30).raging():
        pass
    world.settled()
    before = world.checker.snapshot()
    messages = own_messages(world) * 3
    random.Random(world.seed).shuffle(messages)  # noqa: S311
    with cluster.producer() as producer:
        for one in messages:
            producer.send(cluster.settings.kafka_topic, one.value, key=one.key)
    world.settled()
    after = world.checker.snapshot()
    changed = [key for key, what in before.items() if after.get(key) != what]
    if changed or len(before) < 60:
        world.violate("D", f"{len(changed)} of {len(before)} renditions were written again")
    world.notes.append(f"{len(messages)} events again")


@row("overwrites in the same second", "ABCDFG")
def overwritten(world: World) -> None:
    for version in range(6):
        for one in range(10):
            world.put(f"busy-{one}.jpg", picture(world.random, 64 + 8 * version, 48))


@row("events an hour ahead, and older than the first partition", "ACFG")
def strange_times(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    now = dt.datetime.now(dt.UTC)
    times = [
        (now + dt.timedelta(hours=1)).isoformat(),
        (now + dt.timedelta(days=40_000)).isoformat(),
        "1999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "no time at all",
    ]
    for one, when in enumerate(times):
        key = world.put(f"time-{one}.jpg")
        message = json.loads(notification(bucket, key, size=1, etag=None))
        message["Records"][0]["eventTime"] = when
        cluster.send(json.dumps(message).encode())
    with cluster.producer() as producer:
        for stamp in (1, 2**62):
            value = notification(bucket, world.put(f"stamp-{stamp}.jpg"), size=1, etag=None)
            producer.send(cluster.settings.kafka_topic, value, timestamp_ms=stamp, partition=0)


@row(
    "bad JSON, tombstone, other bucket, PutTagging, 1 MB message, every codec",
    "ABCDFGH",
    evidence=lambda world: next(
        (
            f"dead letter {one.position}: {one.error_message}"
            for one in current_letters(
                world.cluster.kafka, world.cluster.settings.dead_letter_topic
            ).values()
            if one.error_class == "Malformed"
        ),
        None,
    ),
    core=True,
)
def strange_messages(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    world.put("before.jpg")
    junk = world.random.randbytes(1_000_000)
    key = world.put("neighbour.jpg")
    good = notification(bucket, key, size=1, etag=None)
    cluster.send(
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"Records": []}', good),
        *(b'{"Records": [1]}', good.replace(b'"size": 1', b'"size": 1e400'), good + b"\0"),
        *(ELSEWHERE, junk, good),
    )
    cluster.send(None, key=f"{bucket}/{key}".encode())
    tags = Tags.new_object_tags()
    tags["a"] = "b"
    cluster.minio.set_object_tags(bucket, key, tags)
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        value = notification(bucket, world.put(f"{codec}.jpg"), size=1, etag=None)
        with cluster.producer(compression_type=codec) as producer:
            producer.send(cluster.settings.kafka_topic, value, partition=0)
    world.put("after.jpg")


WITHOUT_ZSTD = """
import sys

sys.modules["zstandard"] = None
"""


@row(
    "unknown codec, library of a codec missing, batch that can't be decoded",
    "ABCDFGH",
    evidence=lambda world: next(iter(world.failed_ticks()), None),
)
def unknown_codec(world: World) -> None:
    cluster = world.cluster
    topic, bucket = cluster.settings.kafka_topic, cluster.settings.source_bucket
    brokers = cluster.settings.kafka_bootstrap_servers
    world.put("before.jpg")
    world.settled()
    # Kafka itself keeps out what it does not know.
    end = sum(cluster.note_topic().values())
    with pytest.raises(KafkaError):
        send_undecodable(brokers, topic, [ELSEWHERE], how="unknown codec")
    if sum(cluster.note_topic().values()) != end:
        world.violate("C", "Kafka takes a codec that it does not know")
    # What it takes and the client can't decode, among good neighbours.
    first = cluster.note_topic()[0]
    key = world.put("undecodable.jpg")
    lost = [notification(bucket, key, size=1, etag=None)] * 3
    send_undecodable(brokers, topic, lost, how="trailing bytes")
    send_undecodable(brokers, topic, lost, how="header key")
    world.put("between.jpg")
    world.settled()
    letters = current_letters(cluster.kafka, cluster.settings.dead_letter_topic).values()
    told = [
        one.offset
        for one in letters
        if one.topic == topic and one.partition == 0 and one.offset >= first
        if "can't be decoded" in one.error_message
    ]
    if len(told) != len(("trailing bytes", "header key")):
        world.violate("H", f"dead letters for offsets {told} of 2 undecodable batches")
    world.notes.append(f"{len(told)} batches passed over, each with a dead letter")
    # The library of a codec is missing: nothing is passed over, and all flows once it is there.
    with world.patched(WITHOUT_ZSTD):
        value = notification(bucket, world.put("zstd.jpg"), size=1, etag=None)
        with cluster.producer(compression_type="zstd") as producer:
            producer.send(topic, value + b" " * 500, partition=0)
        word = world.wait(world.failed_ticks, "a tick that can't read on")[0]
        world.notes.append(word[:150])
        if "install `kafka-python[lz4,snappy,zstd]`" not in word:
            world.violate("H", f"the tick says {word!r}")
        if len(world.letters()) > 0:
            world.violate("A", "a good message became a dead letter")
