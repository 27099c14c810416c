"""What hostile messages and slow pictures cost the pictures of others, on a whole running pipeline.

Reconciliation is off, so whatever is rendered was rendered because of its event.
"""

import contextlib
import datetime as dt
import io
import json
import random
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import psutil
import pytest
from kafka import KafkaProducer
from minio import Minio

from tests.support.hostile import scan_bomb
from tests.support.pictures import detailed, encoded
from tests.support.project import Project
from tests.support.standing import is_caught_up, wait_for
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.attacks, pytest.mark.attacks_long, pytest.mark.integration]

MIB = 2**20
GOOD = 20
PICTURE = encoded(detailed(300, 200), "JPEG")
TOPIC = "minio-events"
# What good pictures may take longer than without an attack.
LONGER_S = 30.0
# What first tries of a dozen slow pictures take on a busy machine. Without
# a lane of their own these pictures would take more than 100 s of a processor.
LONGER_BY_SLOW_ONES_S = 60.0
PYTHON_MAX_BYTES = 700 * MIB
"""Resident memory of each process of Dagster and of the runs, and of children without a bomb."""
CHILD_MAX_BYTES = 2048 * MIB
TIMEOUT_S = 300.0
BOMB_MIB = {"gzip": 300, "lz4": 200, "snappy": 10, "zstd": 300}
"""As many zeros as the codec compresses to what the topic takes, or more than any bound."""


@dataclass
class Running:
    """A running pipeline, and how long good pictures take in it without an attack."""

    project: Project
    process: psutil.Process
    minio: Minio
    alone_s: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)

    def put(self, key: str, data: bytes) -> None:
        self.minio.put_object("images", key, io.BytesIO(data), len(data))

    def is_rendered(self, key: str) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.minio.stat_object("processed-thumbnail", key))
        return False

    def send(self, *values: bytes, codec: str | None = "gzip", headers: int = 0) -> None:
        producer = KafkaProducer(
            bootstrap_servers=f"127.0.0.1:{self.project.kafka_port}",
            compression_type=codec,
            max_request_size=2**31 - 1,
            batch_size=2**14,
        )
        more = [(f"{index}", b"") for index in range(headers)]
        try:
            for index, value in enumerate(values):
                sent = producer.send(TOPIC, value, partition=index % 3, headers=more)
                if index % 100 == 0:
                    sent.get(120)
            producer.flush(120)
        finally:
            producer.close()

    def time_good(self, before: Callable[[], object] = lambda: None) -> float:
        """Upload good pictures around something hostile; return how long they take in seconds."""
        prefix = uuid.uuid4().hex
        keys = [f"{prefix}/{index}.jpg" for index in range(GOOD)]
        for key in keys[: GOOD // 2]:
            self.put(key, PICTURE)
        before()
        started = time.monotonic()
        for key in keys[GOOD // 2 :]:
            self.put(key, PICTURE)
        wait_until(lambda: all(map(self.is_rendered, keys)), TIMEOUT_S, "the good pictures")
        return time.monotonic() - started

    def watch(self, stop: threading.Event) -> None:
        """Note the largest resident memory of each kind of process."""
        while not stop.wait(0.2):
            for one in self.process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    command = " ".join(one.cmdline())
                    if "imaging.child" in command:
                        kind = "child"
                    elif "python" in one.name() or "dagster" in command:
                        kind = "python"
                    else:
                        continue
                    self.peaks[kind] = max(self.peaks.get(kind, 0), one.memory_info().rss)

    def settle(self) -> None:
        wait_for(self.project, is_caught_up, TIMEOUT_S, "all messages handled")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fair") / "project"
    project = Project(folder, settings={"RENDER_TIMEOUT_S": "20", "RENDER_BATCH_S": "20"})
    with project.running() as process:
        found = Running(project, psutil.Process(process.pid), project.administrator())
        # The first run of a code server starts more slowly.
        found.time_good()
        found.settle()
        found.alone_s = found.time_good()
        found.settle()
        yield found


@pytest.fixture
def watched(running: Running) -> Iterator[Running]:
    running.peaks.clear()
    stop = threading.Event()
    watcher = threading.Thread(target=running.watch, args=[stop])
    watcher.start()
    yield running
    stop.set()
    watcher.join()


def record(key: str, **changes: object) -> dict:
    entity = {"key": key, "size": changes.get("size", 10)}
    when = changes.get("when") or dt.datetime.now(dt.UTC)
    assert isinstance(when, dt.datetime)
    return {
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": when.isoformat(),
        "s3": {"bucket": {"name": "images"}, "object": entity},
    }


def message(*records: dict) -> bytes:
    return json.dumps({"Records": records}).encode()


def hours(count: int) -> Iterator[bytes]:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for index in range(count):
        yield message(record(f"no/{index}.jpg", when=start + dt.timedelta(hours=index)))


def backwards(count: int) -> Iterator[bytes]:
    now = dt.datetime.now(dt.UTC)
    for index in range(count):
        yield message(record(f"no/{index}.jpg", when=now + (index % 7 - 3) * dt.timedelta(days=99)))


def nested() -> bytes:
    return b"[" * 200_000 + b"]" * 200_000


ATTACKS: Mapping[str, Callable[[Running], None]] = {
    "3 MB of junk": lambda one: one.send(b"A" * 3_000_000, b"\xff" * 3_000_000),
    "1,000 messages of junk": lambda one: one.send(
        *(random.Random(seed).randbytes(200) for seed in range(1000))  # noqa: S311
    ),
    **{
        f"bombs of {codec}": lambda one, codec=codec: one.send(
            *[bytes(BOMB_MIB[codec] * MIB)] * 3,
            codec=codec,
        )
        for codec in BOMB_MIB
    },
    "40 batches just below the bound": lambda one: one.send(*[bytes(7 * MIB)] * 40),
    "100,000 headers": lambda one: one.send(b"{}", headers=100_000),
    "30,000 records in one message": lambda one: one.send(
        message(*(record(f"no/{index}.jpg") for index in range(30_000)))
    ),
    "500 records in each of three messages": lambda one: one.send(
        *[message(*(record(f"no/{index}.jpg") for index in range(500)))] * 3
    ),
    "100 claims of exabytes": lambda one: one.send(
        *(message(record(f"huge/{index}.jpg", size=2**63 - 1)) for index in range(100))
    ),
    "2,000 different hours": lambda one: one.send(*hours(2000)),
    "2,000 hours forth and back": lambda one: one.send(*backwards(2000)),
    "keys that are paths and escapes": lambda one: one.send(
        *(
            message(record(key))
            for key in ("../../etc/passwd", "\x1b]0;owned\x07", "%00.jpg", "a" * 5000, "//", "")
        )
    ),
    "nested and huge JSON": lambda one: one.send(
        nested(),
        b'{"Records": [' + b'{"a": 1},' * 100_000 + b"{}]}",
        b"9" * MIB,
        struct.pack("<Q", 0),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_good_pictures_amid_hostile_messages(
    watched: Running, attack: str, record_property: Callable[[str, object], None]
) -> None:
    """Delay the pictures of others by hostile messages"""
    # Each time anew, because other work on the machine slows down both.
    watched.alone_s = watched.time_good()
    watched.settle()
    taken = watched.time_good(lambda: ATTACKS[attack](watched))
    watched.settle()
    peaks = ", ".join(f"{kind} {peak // MIB} MiB" for kind, peak in sorted(watched.peaks.items()))
    record_property("measured", f"{taken:.0f} s, alone {watched.alone_s:.0f} s; {peaks}")
    assert taken < watched.alone_s + LONGER_S
    assert max(watched.peaks.values()) < PYTHON_MAX_BYTES


def test_good_pictures_amid_scan_bombs(
    watched: Running, record_property: Callable[[str, object], None]
) -> None:
    """Delay the pictures of others by twelve slow pictures that take the whole pixel budget"""
    # 8 s each, which is legal, and one of a minute, which is not with the RENDER_TIMEOUT_S here.
    slow = scan_bomb(side=10_000, scans=80)
    keys = [f"slow/{index}.jpg" for index in range(11)]

    def attack() -> None:
        watched.put("never.jpg", scan_bomb(side=10_000, scans=600))
        for key in keys:
            watched.put(key, slow)

    taken = watched.time_good(attack)
    lane = wait_for(
        watched.project, lambda status: status.slow_lane.rendering, TIMEOUT_S, "the slow lane"
    )
    again = watched.time_good()
    peaks = ", ".join(f"{kind} {peak // MIB} MiB" for kind, peak in sorted(watched.peaks.items()))
    record_property(
        "measured",
        f"{taken:.0f} s, beside the lane {again:.0f} s, alone {watched.alone_s:.0f} s; {peaks}",
    )
    assert lane.slow_lane.rendering
    assert taken < watched.alone_s + LONGER_BY_SLOW_ONES_S
    assert again < watched.alone_s + LONGER_BY_SLOW_ONES_S
    assert watched.peaks["python"] < PYTHON_MAX_BYTES
    assert watched.peaks["child"] < CHILD_MAX_BYTES
    # Nothing is lost: each slow picture is rendered, or rejected with the setting's name.
    wait_until(lambda: all(map(watched.is_rendered, keys)), 2 * TIMEOUT_S, "the slow pictures")
    wait_for(
        watched.project,
        lambda status: not status.slow_lane.pictures and not status.unfinished_count,
        TIMEOUT_S,
        "an empty lane",
    )
    listed = watched.project.run("resize-pipeline", "dead-letters", "list", "--json").stdout
    [letter] = [one for one in map(json.loads, listed.splitlines()) if "never.jpg" in str(one)]
    assert "RENDER_TIMEOUT_S=20" in str(letter)
