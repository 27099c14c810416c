"""What a producer of hostile messages can do to the pictures of others."""

import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.delivery.events import RECORDS_MAX
from resize_pipeline.kafka.dead_letters import DeadLetter
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB
from tests.integration.test_pipeline import Pipeline
from tests.support.letters import current_letters
from tests.support.pictures import detailed, encoded

pytestmark = [pytest.mark.attacks, pytest.mark.integration]

GOOD = 20
PICTURE = encoded(detailed(60, 40), "PNG")
# A reader holds a poll's records, twice the batch that is being decoded, and the interpreter.
READER_MAX_BYTES = 250 * MIB


@pytest.fixture
def pipeline(
    stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    monkeypatch.setattr(sensors, "LONG_POLL_S", 0.1)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(stack, tmp_path, instance)


def record(key: str, bucket: str, size: int = 10) -> dict:
    return {
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": dt.datetime.now(dt.UTC).isoformat(),
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": size}},
    }


def send(pipeline: Pipeline, value: bytes, codec: str | None = "gzip", count: int = 1) -> None:
    producer = KafkaProducer(
        bootstrap_servers=pipeline.settings.kafka_bootstrap_servers,
        compression_type=codec,
        max_request_size=2**31 - 1,
        batch_size=2**14,
    )
    try:
        for _ in range(count):
            producer.send(pipeline.settings.kafka_topic, value, partition=0).get(120)
    finally:
        producer.close()


def junk(pipeline: Pipeline) -> None:
    send(pipeline, b"\xff" * 3_000_000)


def bombs(pipeline: Pipeline) -> None:
    for codec in ("gzip", "lz4", "snappy", "zstd"):
        # Snappy compresses zeros to a twentieth: more would not get through.
        send(pipeline, bytes((10 if codec == "snappy" else 100) * MIB), codec)


def many_records(pipeline: Pipeline) -> None:
    bucket = pipeline.settings.source_bucket
    records = [record(f"no/{index}.jpg", bucket) for index in range(30_000)]
    send(pipeline, json.dumps({"Records": records}).encode())


def huge_claims(pipeline: Pipeline) -> None:
    claim = record("huge.jpg", pipeline.settings.source_bucket, size=2**63 - 1)
    send(pipeline, json.dumps({"Records": [claim]}).encode(), count=30)


def letters(pipeline: Pipeline) -> list[DeadLetter]:
    return [*current_letters(pipeline.kafka, pipeline.settings.dead_letter_topic).values()]


def work_off(pipeline: Pipeline) -> list[dg.RunRequest]:
    """Run what the sensor requests until nothing is left, and return the requests."""
    made: list[dg.RunRequest] = []
    while requests := pipeline.tick().run_requests:
        for request in requests:
            pipeline.run(request)
        made += requests
    return made


@pytest.mark.parametrize(
    ("attack", "rejected"),
    [(junk, "not JSON"), (bombs, "once it is decompressed"), (many_records, "records in one")],
)
def test_good_pictures_amid_hostile_messages_are_rendered_by_their_events(
    pipeline: Pipeline, attack: Callable[[Pipeline], None], rejected: str
) -> None:
    keys = {f"good/{index}.png" for index in range(GOOD)}
    before, after = sorted(keys)[: GOOD // 2], sorted(keys)[GOOD // 2 :]
    for key in before:
        pipeline.put(key, PICTURE)
    pipeline.wait_for_events(len(before))
    attack(pipeline)
    for key in after:
        pipeline.put(key, PICTURE)
    sent = sum(pipeline.kafka.topic_state(pipeline.settings.kafka_topic).ends.values())
    pipeline.wait_for_events(max(sent, GOOD + 1))
    work_off(pipeline)
    assert pipeline.keys(pipeline.large) == keys
    found = letters(pipeline)
    assert found
    assert all(rejected in one.error_message for one in found)
    most = pipeline.settings.dead_letter_max_bytes
    assert all(len(one.value) <= most for one in found)


def test_claimed_sizes_are_clamped(pipeline: Pipeline) -> None:
    """Thirty messages that claim exabytes share a run with the others."""
    huge_claims(pipeline)
    pipeline.put("good.png", PICTURE)
    pipeline.wait_for_events(31)
    assert len(work_off(pipeline)) == 1
    assert pipeline.keys(pipeline.large) == {"good.png"}


def test_records_of_a_message_count_towards_the_limits_of_a_run(pipeline: Pipeline) -> None:
    bucket = pipeline.settings.source_bucket
    records = [record(f"no/{index}.jpg", bucket) for index in range(RECORDS_MAX)]
    send(pipeline, json.dumps({"Records": records}).encode(), count=3)
    pipeline.wait_for_events(3)
    requests = pipeline.tick().run_requests
    assert len(requests) == 3


def test_a_truncated_letter_says_what_the_message_was(pipeline: Pipeline) -> None:
    junk(pipeline)
    pipeline.wait_for_events(1)
    work_off(pipeline)
    [letter] = letters(pipeline)
    assert letter.is_truncated
    assert letter.size == 3_000_000
    assert letter.sha256 == hashlib.sha256(b"\xff" * 3_000_000).hexdigest()
    assert letter.value == b"\xff" * pipeline.settings.dead_letter_max_bytes


def test_a_dead_letter_topic_that_takes_little_stops_no_run(pipeline: Pipeline) -> None:
    topic = pipeline.settings.dead_letter_topic
    with pipeline.kafka.connection.admin() as admin:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "10000"})]
        )
    junk(pipeline)
    pipeline.put("good.png", PICTURE)
    pipeline.wait_for_events(2)
    work_off(pipeline)
    assert pipeline.keys(pipeline.large) == {"good.png"}
    [letter] = letters(pipeline)
    assert letter.size == 3_000_000
    assert letter.value == b""


READ_ALL = """
import re, sys
from pathlib import Path
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.kafka.messages import Undecodable
kafka = KafkaResource(bootstrap_servers=sys.argv[1])
state = kafka.topic_state(sys.argv[2])
messages = kafka.read(state.topic, state.starts, state.ends, position={})
found = [isinstance(one, Undecodable) for one in messages]
# Not getrusage, whose figure includes the process that started this one.
[peak] = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(sum(found), len(found), int(peak) * 1024)
"""


def test_a_reader_s_memory_is_bounded_whatever_the_batches_expand_to(pipeline: Pipeline) -> None:
    bombs(pipeline)
    # Each within the bound, all together not.
    send(pipeline, bytes(7 * MIB), count=40)
    done = subprocess.run(
        [
            *(sys.executable, "-c", READ_ALL),
            *(pipeline.settings.kafka_bootstrap_servers, pipeline.settings.kafka_topic),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    undecodable, read, peak = map(int, done.stdout.split())
    assert (undecodable, read) == (4, 44)
    assert peak < READER_MAX_BYTES
