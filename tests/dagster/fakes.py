"""Kafka and MinIO as the definitions see them, in memory."""

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from minio.notificationconfig import NotificationConfig

from resize_pipeline.errors import PermanentError, SlowPictureError
from resize_pipeline.imaging.limits import RenderTime
from resize_pipeline.imaging.render import render
from resize_pipeline.imaging.thumbnails import contact_sheet
from resize_pipeline.kafka.dead_letters import DeadLetter, Headers, newest
from resize_pipeline.kafka.offsets import OffsetRange, TopicState
from resize_pipeline.provisioning.rules import wanted_rules
from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.renditions.objects import ObjectInfo, Original, Rendered
from resize_pipeline.renditions.spec import Rendition
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
    return Settings(
        **{
            "renditions_file": file,
            "local_dir": folder / "local",
            "retry_s": 0.0,
            "run_min_interval_s": 0.0,
            **changes,
        }
    )


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
    key: bytes | None = None
    headers: Headers = field(default_factory=list)


@dataclass
class FakeKafka:
    """One topic, and that of its dead letters.

    `arrives` are messages that come while somebody waits for them, `groups` what was committed;
    `before_letters` is called ahead of each write of dead letters, and may change things.
    """

    partitions: int = 1
    topic: str = "minio-events"
    letters: list[FakeMessage] = field(default_factory=list)
    before_letters: Callable[[], None] | None = None
    groups: dict[str, dict[int, int]] = field(default_factory=dict)
    commit_error: Exception | None = None
    topic_id: str = "id-1"
    first: int = 0
    log: list[FakeMessage] = field(default_factory=list)
    arrives: list[bytes] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    read_messages: int = 0
    error: Exception | None = None

    def send(
        self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None, Headers]]
    ) -> None:
        assert topic == self.topic
        for key, value, _ in messages:
            self.log.append(FakeMessage(0, self.end(0), 0, value, key))

    def produce(self, *values: bytes | None, partition: int = 0, timestamp: int = 0) -> None:
        for value in values:
            self.log.append(FakeMessage(partition, self.end(partition), timestamp, value))

    def end(self, partition: int) -> int:
        return sum(message.partition == partition for message in self.log)

    def topic_state(self, topic: str) -> TopicState:
        if self.error:
            raise self.error
        if topic == f"{self.topic}.dead-letters":
            return TopicState(topic, f"{self.topic_id} of letters", {0: (0, len(self.letters))})
        assert topic == self.topic
        watermarks = {
            partition: (self.first, self.end(partition)) for partition in range(self.partitions)
        }
        return TopicState(self.topic, self.topic_id, watermarks)

    def wait(self, topic: str, start: Mapping[int, int], timeout_s: float) -> None:
        assert topic == self.topic
        assert all(offset == self.end(partition) for partition, offset in start.items())
        assert 0 <= timeout_s < 10
        self.waited_s.append(timeout_s)
        self.produce(*self.arrives)
        self.arrives = []

    def read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        *,
        position: dict[int, int],
        stall_timeout_s: float = 30.0,
    ) -> Iterator[FakeMessage]:
        log, first = self.log, self.first
        if topic == f"{self.topic}.dead-letters":
            log, first = self.letters, 0
        else:
            assert topic == self.topic
        assert 0 < stall_timeout_s <= 30
        position.update(start)
        for message in log:
            if start.get(message.partition, 10**9) <= message.offset < end[message.partition]:
                assert message.offset >= first, "read what retention took"
                self.read_messages += 1
                position[message.partition] = message.offset + 1
                yield message

    def read_range(self, topic: str, offsets: OffsetRange) -> Iterator[FakeMessage]:
        start, end = {offsets.partition: offsets.start}, {offsets.partition: offsets.end}
        return self.read(topic, start, end, position={})

    def offsets_at(self, state: TopicState, start: str) -> dict[int, int]:
        if start in {"earliest", "latest"}:
            return state.starts if start == "earliest" else state.ends
        since = dt.datetime.fromisoformat(start).timestamp() * 1000
        later = [one for one in reversed(self.log) if one.timestamp >= since]
        return state.ends | {one.partition: one.offset for one in later}

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        assert topic == self.topic
        if self.commit_error:
            raise self.commit_error
        self.groups[group] = dict(offsets)

    def dead_letters(self, topic: str) -> dict[bytes, DeadLetter]:
        if self.error:
            raise self.error
        assert topic == f"{self.topic}.dead-letters"
        return newest(self.letters)

    def send_dead_letters(
        self, topic: str, letters: Sequence[DeadLetter], *, taken_back: Sequence[bytes] = ()
    ) -> None:
        if self.error:
            raise self.error
        assert topic == f"{self.topic}.dead-letters"
        if self.before_letters and (letters or taken_back):
            self.before_letters()
        for one in letters:
            self.letters.append(
                FakeMessage(0, len(self.letters), 0, one.value, one.key, one.headers())
            )
        for key in taken_back:
            self.letters.append(FakeMessage(0, len(self.letters), 0, None, key))


@dataclass
class FakeObject:
    data: bytes
    last_modified: dt.datetime
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str | None = None
    version_id: str | None = None


@dataclass
class FakeMinio:
    """Buckets in memory.

    `errors` are raised when the object of that key is touched; `before` is called ahead of each
    call with its name, bucket and key, and may change things; `lists_metadata` is what MinIO does
    and other servers don't; `rules` are those of the source bucket, or the error of asking for
    them; `target_is_online` is what MinIO says of its target; `versions` are those of source
    objects that were versioned.
    """

    objects: dict[tuple[str, str], FakeObject] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    before: Callable[[str, str, str], None] | None = None
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    lists_metadata: bool = True
    rules: list[Any] | Exception = field(
        default_factory=lambda: wanted_rules(Settings().suffixes, "resize_pipeline")
    )
    target_is_online: bool | None = True
    endpoint: str = "http://M"
    versions: dict[tuple[str, str], ObjectInfo] = field(default_factory=dict)

    def put(
        self,
        key: str,
        data: bytes,
        last_modified: dt.datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        version_id: str | None = None,
    ) -> None:
        put = FakeObject(data, last_modified or NOW, "", metadata or {}, version_id=version_id)
        self.objects[SOURCE, key] = put
        if version_id:
            self.versions[key, version_id] = self._info(key, put)

    def delete(self, key: str) -> None:
        self.objects.pop((SOURCE, key), None)

    def keys(self, bucket: str) -> list[str]:
        found = [key for name, key in self.objects if name == bucket]
        return sorted(found, key=str.encode)

    def written(self) -> list[tuple[str, str]]:
        """What was uploaded or removed, in order."""
        return [(bucket, key) for name, bucket, key in self.calls if name in {"upload", "remove"}]

    def _find(self, name: str, bucket: str, key: str) -> FakeObject | None:
        self.calls.append((name, bucket, key))
        if self.before:
            self.before(name, bucket, key)
        if key in self.errors:
            raise self.errors[key]
        return self.objects.get((bucket, key))

    def notification(self, bucket: str) -> NotificationConfig:
        assert bucket == SOURCE
        if isinstance(self.rules, Exception):
            raise self.rules
        return NotificationConfig(queue_config_list=self.rules)

    def is_target_online(self, name: str) -> bool | None:
        assert name == "resize_pipeline"
        return self.target_is_online

    def list_objects(
        self, bucket: str, prefix: str = "", *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        self.calls.append(("list", bucket, prefix))
        for key in self.keys(bucket):
            if key.startswith(prefix) and key.encode() > start_after.encode():
                info = self._info(key, self.objects[bucket, key])
                yield info if with_metadata and self.lists_metadata else without_metadata(info)

    def stat(self, bucket: str, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        found = self._find("stat", bucket, key)
        if version_id is not None:
            return self.versions.get((key, version_id))
        return self._info(key, found) if found else None

    def is_listed(self, bucket: str, key: str) -> bool:
        return self._find("is_listed", bucket, key) is not None

    def _info(self, key: str, found: FakeObject) -> ObjectInfo:
        return ObjectInfo(
            key,
            etag(found.data),
            found.version_id,
            len(found.data),
            found.last_modified,
            found.metadata,
        )

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Original | None:
        assert bucket == SOURCE
        found = self._find("download", bucket, key)
        if found is None:
            return None
        if len(found.data) > max_bytes:
            raise PermanentError("too large")
        return Original(
            key,
            etag(found.data),
            None,
            found.data,
            found.metadata,
            last_modified=found.last_modified,
        )

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str | None = None,
        metadata: Mapping[str, str],
    ) -> None:
        assert bucket != SOURCE
        self._find("upload", bucket, key)
        self.objects[bucket, key] = FakeObject(
            data, dt.datetime.now(dt.UTC), content_type, metadata, cache_control
        )

    def remove(self, bucket: str, key: str) -> None:
        assert bucket != SOURCE
        self._find("remove", bucket, key)
        self.objects.pop((bucket, key), None)


@dataclass
class InProcessRenderer:
    """Renders here: children take a moment to start, and have tests of their own.

    `slow` are pictures that take longer than any first try.
    """

    workers: int = 2
    max_pixels: int = 100_000_000
    slow: set[bytes] = field(default_factory=set)
    gave_way: bool = False
    made: Any = None

    def user(self, make: Callable[[], Any]) -> Any:
        self.made = self.made or make()
        return self.made

    def threads(self, _: Sequence[Analysis]) -> int:
        return self.workers

    def render(
        self,
        data: bytes,
        renditions: Sequence[Rendition],
        render_time: RenderTime | None = None,
        analyses: Sequence[Analysis] = (),
    ) -> list[Rendered]:
        if render_time and render_time.limit_s() is not None and data in self.slow:
            raise SlowPictureError("takes more than 5.0 s of CPU time")
        return render(data, renditions, max_pixels=self.max_pixels, analyses=analyses)

    def give_way(self) -> None:
        self.gave_way = True

    def contact_sheet(self, pictures: Sequence[bytes], *, max_bytes: int) -> bytes | None:
        return contact_sheet(pictures, max_bytes=max_bytes, max_pixels=self.max_pixels)


def without_metadata(info: ObjectInfo) -> ObjectInfo:
    return dataclasses.replace(info, metadata=None)


def etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()  # noqa: S324  As S3 makes it.
