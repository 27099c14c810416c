"""Kafka and MinIO as the definitions see them, in memory."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

from resize_pipeline.errors import PermanentError
from resize_pipeline.offsets import OffsetRange, TopicState
from resize_pipeline.resources.minio import Download, ObjectInfo
from resize_pipeline.settings import Settings

SOURCE = "images"
# Once, so that a full hour that strikes during the tests changes nothing.
NOW = dt.datetime.now(dt.UTC)
RENDITIONS = """
renditions:
  large: {width: 100, height: 100, bucket: large-bucket}
  small: {width: 20, height: 20, bucket: small-bucket, prefix: thumbnails/}
"""


def fake_settings(folder: Path, renditions: str = RENDITIONS, **changes) -> Settings:
    file = folder / "renditions.yaml"
    file.write_text(renditions)
    return Settings(renditions_file=file, local_dir=folder / "local", **changes)


def event(
    key: str,
    time: dt.datetime | str | None = None,
    *,
    size: int = 1000,
    name: str = "s3:ObjectCreated:Put",
) -> bytes:
    when = time or NOW
    record = {
        "eventName": name,
        "eventTime": when if isinstance(when, str) else when.isoformat(),
        "s3": {
            "bucket": {"name": SOURCE},
            "object": {"key": quote_plus(key), "size": size, "eTag": "claimed"},
        },
    }
    return json.dumps({"Records": [record]}).encode()


@dataclass
class FakeMessage:
    partition: int
    offset: int
    timestamp: int
    value: bytes | None


@dataclass
class FakeKafka:
    """One topic. `arrives` are messages that come while somebody waits for them."""

    partitions: int = 1
    topic: str = "minio-events"
    topic_id: str = "id-1"
    first: int = 0
    log: list[FakeMessage] = field(default_factory=list)
    arrives: list[bytes] = field(default_factory=list)
    waited: int = 0
    error: Exception | None = None

    def send(self, *values: bytes | None, partition: int = 0, timestamp: int = 0) -> None:
        for value in values:
            self.log.append(FakeMessage(partition, self.end(partition), timestamp, value))

    def end(self, partition: int) -> int:
        return sum(message.partition == partition for message in self.log)

    def topic_state(self, topic: str) -> TopicState:
        if self.error:
            raise self.error
        assert topic == self.topic
        watermarks = {
            partition: (self.first, self.end(partition)) for partition in range(self.partitions)
        }
        return TopicState(self.topic, self.topic_id, watermarks)

    def wait(self, topic: str, start: Mapping[int, int], timeout_s: float) -> None:
        assert topic == self.topic
        assert all(offset == self.end(partition) for partition, offset in start.items())
        assert 0 < timeout_s < 10
        self.waited += 1
        self.send(*self.arrives)
        self.arrives = []

    def read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        *,
        position: dict[int, int],
    ) -> Iterator[FakeMessage]:
        assert topic == self.topic
        position.update(start)
        for message in self.log:
            if start.get(message.partition, 10**9) <= message.offset < end[message.partition]:
                assert message.offset >= self.first, "read what retention took"
                position[message.partition] = message.offset + 1
                yield message

    def read_ranges(self, topic: str, ranges: Iterable[OffsetRange]) -> Iterator[FakeMessage]:
        for one in ranges:
            yield from self.read(
                topic, {one.partition: one.start}, {one.partition: one.end}, position={}
            )


@dataclass
class FakeObject:
    data: bytes
    last_modified: dt.datetime
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeMinio:
    """Buckets in memory. `errors` are raised when the object of that key is touched."""

    objects: dict[tuple[str, str], FakeObject] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)

    def put(self, key: str, data: bytes, last_modified: dt.datetime | None = None) -> None:
        self.objects[SOURCE, key] = FakeObject(data, last_modified or NOW)

    def keys(self, bucket: str) -> list[str]:
        return sorted(key for name, key in self.objects if name == bucket)

    def _find(self, bucket: str, key: str) -> FakeObject | None:
        if key in self.errors:
            raise self.errors[key]
        return self.objects.get((bucket, key))

    def list_objects(self, bucket: str) -> Iterator[ObjectInfo]:
        for key in self.keys(bucket):
            yield self._info(key, self.objects[bucket, key])

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        found = self._find(bucket, key)
        return self._info(key, found) if found else None

    def _info(self, key: str, found: FakeObject) -> ObjectInfo:
        return ObjectInfo(
            key, etag(found.data), None, len(found.data), found.last_modified, found.metadata
        )

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Download | None:
        found = self._find(bucket, key)
        if found is None:
            return None
        if len(found.data) > max_bytes:
            raise PermanentError("too large")
        return Download(key, etag(found.data), None, found.data)

    def upload(
        self, bucket: str, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> None:
        assert bucket != SOURCE
        self._find(bucket, key)
        self.objects[bucket, key] = FakeObject(
            data, dt.datetime.now(dt.UTC), content_type, metadata
        )


def etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()  # noqa: S324  As S3 makes it.
