"""What the object store has acknowledged, and the uploads that go on while something breaks."""

import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import urllib3
from minio import Minio
from minio.error import MinioException
from PIL import Image

from tests.support.waiting import wait_until

THREADS = 4
PUT_TIMEOUT_S = 300.0
REFUSED_PAUSE_S = 0.2


@dataclass(frozen=True)
class Entry:
    """One change that the server has acknowledged; `size` in bytes."""

    kind: Literal["put", "delete"]
    key: str
    etag: str
    version_id: str | None
    size: int
    time: float


class Ledger:
    """An append-only file of acknowledged changes; written to by many threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.touch()

    def add(self, entry: Entry) -> None:
        """Write down a change. To be called only once the server has acknowledged it."""
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def entries(self) -> list[Entry]:
        """Read all of it, in order."""
        with self._lock:
            return [
                Entry(**json.loads(line)) for line in self._path.read_text("utf-8").splitlines()
            ]

    def last(self) -> dict[str, Entry]:
        """Give the newest change of each key."""
        return {entry.key: entry for entry in self.entries()}


class Writer:
    """Changes the source bucket and keeps the ledger."""

    def __init__(self, minio: Callable[[], Minio], bucket: str, ledger: Ledger) -> None:
        self._make = minio
        self._client: Minio | None = None
        self._bucket = bucket
        self.ledger = ledger

    @property
    def client(self) -> Minio:
        if self._client is None:
            self._client = self._make()
        return self._client

    def put(self, key: str, data: bytes, **options: Any) -> Entry:
        """Upload with these options of the client's `put_object`."""
        done = self.client.put_object(self._bucket, key, io.BytesIO(data), len(data), **options)
        entry = Entry(
            "put", key, (done.etag or "").strip('"'), done.version_id, len(data), time.time()
        )
        self.ledger.add(entry)
        return entry

    def delete(self, key: str, version_id: str | None = None) -> None:
        self.client.remove_object(self._bucket, key, version_id=version_id)
        self.ledger.add(Entry("delete", key, "", version_id, 0, time.time()))


def picture(source: random.Random, width: int = 64, height: int = 48) -> bytes:
    """A small JPEG that no other is equal to."""
    image = Image.frombytes("RGB", (8, 6), source.randbytes(8 * 6 * 3)).resize((width, height))
    file = io.BytesIO()
    # The comment makes each file its own, however alike the pictures are.
    image.save(file, "JPEG", comment=source.randbytes(8).hex())
    return file.getvalue()


class Storm:
    """Uploads that go on in the background, in an order that the seed decides.

    A refused upload is tried again, as any client would; only what was acknowledged is in the
    ledger.
    """

    def __init__(
        self,
        writer: Writer,
        keys: list[str],
        seed: int,
        *,
        size: tuple[int, int] = (64, 48),
        pause_s: float = 0.0,
    ) -> None:
        self._writer = writer
        self._pause_s = pause_s
        source = random.Random(seed)  # noqa: S311  The same storm each time.
        self._schedule = [(key, picture(source, *size)) for key in keys]
        source.shuffle(self._schedule)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.count = len(keys)
        self.acknowledged = 0
        self.refused = 0

    @contextmanager
    def raging(self) -> Iterator[Self]:
        """Upload until all is acknowledged; the block may break things meanwhile."""
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(self._put, key, data) for key, data in self._schedule]
            try:
                yield self
                for future in futures:
                    future.result(PUT_TIMEOUT_S)
            except BaseException:
                self._stopped.set()
                for future in futures:
                    future.cancel()
                raise

    def wait_for(self, share: float) -> None:
        """Wait until this share of the uploads is acknowledged."""
        wanted = int(share * len(self._schedule))
        wait_until(lambda: self.acknowledged >= wanted, PUT_TIMEOUT_S, f"{wanted} uploads")

    def wait_for_refusals(self, count: int = 1) -> None:
        """Wait until uploads have been refused."""
        wait_until(lambda: self.refused >= count, PUT_TIMEOUT_S, f"{count} refused uploads")

    def _put(self, key: str, data: bytes) -> None:
        while not self._stopped.is_set():
            try:
                self._writer.put(key, data)
            except (MinioException, urllib3.exceptions.HTTPError, OSError):
                with self._lock:
                    self.refused += 1
                self._stopped.wait(REFUSED_PAUSE_S)
            else:
                with self._lock:
                    self.acknowledged += 1
                self._stopped.wait(self._pause_s)
                return
