"""Whether anything was lost: joins what was acknowledged with what is there after the fault.

The letters are those of the invariants:

A  every acknowledged PUT ends rendered, superseded, deleted at source, or dead-lettered
B  a rendition carries its source's etag and version and never goes back to an older one
C  each partition's offsets are handled or in a recorded gap
D  repeats change nothing: same bytes, no extra renditions
E  memory and runs in flight stay bounded
F  lag returns to 0 without help
G  no partial output, stray multipart upload or temporary file is left
H  a person is told
I  each object that is rendered or dead-lettered as it is now has a completion event that says so
"""

import io
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus
from minio.error import S3Error
from PIL import Image, UnidentifiedImageError

from resize_pipeline.delivery.requests import letter_identity, letter_key
from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.kafka.offsets import OffsetRange
from resize_pipeline.renditions.objects import is_current
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.minio import MinioResource
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.faults.cluster import Cluster
from tests.faults.ledger import Ledger, Writer, picture
from tests.support.letters import current_letters, read_all
from tests.support.waiting import wait_until

SETTLED_TIMEOUT_S = 420.0
LETTERS = "ABCDEFGHI"
MARKER_PERIOD_S = 90.0
SAMPLE = 20
SHOWN = 5
"""How many keys a violation names."""

Position = dict[tuple[str, int], int]
"""Topic id and partition, with an offset."""


@dataclass(frozen=True)
class Violation:
    """Something that does not hold."""

    letter: str
    text: str

    def __str__(self) -> str:
        return f"{self.letter}: {self.text}"


@dataclass
class Baseline:
    """How things stood before the fault."""

    time: float = field(default_factory=time.time)
    position: Position = field(default_factory=dict)


@dataclass
class Checker:
    """Checks a cluster after a fault.

    Attributes:
        cluster: what was broken, and is whole again.
        ledger: what was acknowledged.
        prefix: below which all keys of this fault are.
        baseline: how things stood before.
        attempted: keys that may be there although nothing acknowledged them.
        known_topics: ids of the topics that there were before.
    """

    cluster: Cluster
    ledger: Ledger
    prefix: str
    baseline: Baseline
    attempted: set[str] = field(default_factory=set)
    known_topics: set[str] = field(default_factory=set)

    @staticmethod
    def position_of(cluster: Cluster) -> Position:
        """Give the sensor's position."""
        cursor = cluster.cursor()
        if cursor is None:
            return {}
        return {(cursor.topic_id, one): offset for one, offset in cursor.next_offsets.items()}

    # Waiting

    def settle(self) -> list[Violation]:
        """Wait until nothing is left to do: the pipeline has to get there without help (F).

        A picture uploaded after the fault shows that events flow again, and comes after all others.
        An event of it can be lost, as those of other pictures can: that is for A to find.
        """
        marked: list[str] = []
        put_at = -MARKER_PERIOD_S

        def flows() -> bool:
            nonlocal put_at
            if time.monotonic() - put_at > MARKER_PERIOD_S:
                key = f"{self.prefix}marker-{time.time_ns()}.jpg"
                writer = Writer(lambda: self.cluster.minio, self.bucket, self.ledger)
                writer.put(key, picture(random.Random(key)))  # noqa: S311
                marked.append(key)
                put_at = time.monotonic()
            return any(self._answered(key) for key in marked)

        try:
            wait_until(flows, SETTLED_TIMEOUT_S, "a picture uploaded afterwards")
            wait_until(self._is_settled, SETTLED_TIMEOUT_S, "lag 0 and no run unfinished")
        except AssertionError as error:
            return [Violation("F", f"{error}; {self._why()}")]
        return []

    def _answered(self, key: str) -> bool:
        minio = self.store()
        # Each poll counts what is under way, for E.
        self.cluster.unfinished()
        source = minio.stat(self.bucket, key)
        return source is not None and all(
            is_current(minio.stat(spec.bucket, spec.key_for(key)), source, spec)
            for spec in self.cluster.renditions
        )

    def _is_settled(self) -> bool:
        if self.cluster.unfinished() or self.cluster.queued_events():
            return False
        try:
            status = self.cluster.status()
        except ResizePipelineError:
            return False
        if status.lag != 0 or status.unfinished_count or status.error or not status.last_tick:
            return False
        # The last tick that ended must not have asked for runs that are not there yet.
        return (
            status.last_tick.status in {TickStatus.SKIPPED.value, TickStatus.SUCCESS.value}
            and status.last_tick.runs == 0
            and not self.cluster.unfinished()
        )

    def _why(self) -> str:
        try:
            status = self.cluster.status()
        except ResizePipelineError as error:
            return str(error)
        runs = [f"{run.run_id[:8]} {run.status}" for run in status.unfinished_runs]
        failed = [f"{run.run_id[:8]} {run.status}" for run in status.failed_runs]
        return (
            f"lag {status.lag}, unfinished {runs}, failed {failed}, last tick {status.last_tick}, "
            f"{self.cluster.queued_events()} events wait in MinIO"
        )

    # Checking

    def check(
        self,
        letters: Iterable[str],
        *,
        evidence: Callable[[], str | None] | None = None,
        reconciled_at: float | None = None,
    ) -> list[Violation]:
        """Look at everything, and give what does not hold of these invariants.

        Args:
            letters: which invariants.
            evidence: finds what tells a person (H).
            reconciled_at: when a reconciliation was started: what failed runs had before is
                covered by it.
        """
        checks: dict[str, Callable[[], list[Violation]]] = {
            "A": self.objects,
            "B": self.sources_of_renditions,
            "C": lambda: self.offsets(reconciled_at),
            "D": self.extra_renditions,
            "E": self.bounds,
            "G": self.leftovers,
            "I": self.completions,
        }
        found: list[Violation] = []
        for letter in letters:
            if letter == "H":
                told = evidence() if evidence else None
                if not told:
                    found.append(Violation("H", "nothing tells a person"))
            elif letter in checks:
                found += checks[letter]()
        return found

    @property
    def bucket(self) -> str:
        return self.cluster.settings.source_bucket

    def store(self) -> MinioResource:
        return MinioResource.from_settings(
            self.cluster.settings, access_key=ROOT_USER, secret_key=ROOT_PASSWORD
        )

    def objects(self) -> list[Violation]:
        """A: each acknowledged PUT is answered for."""
        lost = self.lost()
        return [Violation("A", _some(lost))] if lost else []

    def lost(self) -> list[str]:
        """Say which acknowledged objects are gone, or neither rendered nor rejected."""
        minio = self.store()
        suffixes = tuple(self.cluster.settings.suffixes)
        letters = current_letters(self.cluster.kafka, self.cluster.settings.dead_letter_topic)
        source = {item.key: item for item in minio.list_objects(self.bucket, self.prefix)}
        lost = [
            f"{key} was acknowledged, but is not in the source"
            for key, one in self.ledger.last().items()
            if one.kind == "put" and key not in source
        ]
        for key, item in source.items():
            if not key.lower().endswith(suffixes):
                continue
            letter = letters.get(letter_key(self.bucket, key))
            identity = letter_identity(item.etag, self.cluster.spec_digest)
            # A letter without an etag is about an object that can't even be looked at.
            if letter and letter.identity in {
                identity,
                letter_identity(None, self.cluster.spec_digest),
            }:
                continue
            lacking = [
                spec.name
                for spec in self.cluster.renditions
                if not is_current(minio.stat(spec.bucket, spec.key_for(key)), item, spec)
            ]
            if lacking:
                lost.append(f"{key} lacks {'+'.join(lacking)} and has no dead letter")
        return lost

    def completions(self) -> list[Violation]:
        """I: each object whose outcome is final was announced with it."""
        settings = self.cluster.settings
        minio = self.store()
        events = [
            json.loads(message.value)["data"]
            for message in read_all(self.cluster.kafka, settings.completion_topic)
            if message.value
        ]
        announced = {(one["key"], one["etag"], one["status"]) for one in events}
        letters = current_letters(self.cluster.kafka, settings.dead_letter_topic)
        silent: list[str] = []
        for item in minio.list_objects(self.bucket, self.prefix):
            letter = letters.get(letter_key(self.bucket, item.key))
            if letter and letter.identity == letter_identity(item.etag, self.cluster.spec_digest):
                status = "rejected"
            elif all(
                is_current(minio.stat(spec.bucket, spec.key_for(item.key)), item, spec)
                for spec in self.cluster.renditions
            ):
                status = "rendered"
            else:
                continue
            if (item.key, item.etag, status) not in announced:
                silent.append(f"{item.key} is {status}, which no completion event says")
        return [Violation("I", _some(silent))] if silent else []

    def sources_of_renditions(self) -> list[Violation]:
        """B: each rendition is of the source as it is, and of a version that had those bytes."""
        stale = self.stale()
        return [Violation("B", _some(stale))] if stale else []

    def stale(self) -> list[str]:
        """Say which renditions are of another content than the source has."""
        minio = self.store()
        letters = current_letters(self.cluster.kafka, self.cluster.settings.dead_letter_topic)
        wrong: list[str] = []
        versions: dict[str, set[tuple[str, str | None]]] = {}
        newest: dict[str, str] = {}
        for item in self.cluster.minio.list_objects(
            self.bucket, self.prefix, recursive=True, include_version=True
        ):
            if item.is_delete_marker:
                continue
            version = None if item.version_id in {None, "null"} else item.version_id
            key = item.object_name or ""
            versions.setdefault(key, set()).add(((item.etag or "").strip('"'), version))
            if item.is_latest in {True, "true"}:
                newest[key] = (item.etag or "").strip('"')
        for spec in self.cluster.renditions:
            for found in minio.list_objects(
                spec.bucket, spec.key_for(self.prefix), with_metadata=True
            ):
                key = found.key.removeprefix(spec.prefix)
                if key not in newest or letter_key(self.bucket, key) in letters:
                    continue
                etag = found.metadata.get("source-etag", "")
                version = found.metadata.get("source-version-id")
                if etag != newest[key]:
                    wrong.append(f"{spec.name} of {key} is of {etag}, the source {newest[key]}")
                elif (etag, version) not in versions[key] and version is not None:
                    wrong.append(f"{spec.name} of {key} is of version {version}")
        return wrong

    def offsets(self, reconciled_at: float | None = None) -> list[Violation]:
        """C: each offset between the baseline and the cursor was handled, or is a known gap."""
        handled = self._handled(reconciled_at)
        for place, start, end in self.gaps():
            # A gap of a topic that was recreated has no end.
            handled.setdefault(place, []).append((start, end if end > start else 2**62))
        wanted = Checker.position_of(self.cluster)
        current = {topic_id for topic_id, _ in wanted}
        mine = {topic_id for topic_id, _ in self.baseline.position}
        for topic_id, ends in self.cluster.topics.items():
            # What an incarnation held that is gone now.
            if topic_id not in current and (topic_id in mine or topic_id not in self.known_topics):
                wanted |= {(topic_id, partition): end for partition, end in ends.items()}
        holes: list[str] = []
        for place, end in wanted.items():
            reached = self.baseline.position.get(place, 0)
            for start, stop in sorted(handled.get(place, [])):
                if start > reached:
                    break
                reached = max(reached, stop)
            if reached < end:
                topic_id, partition = place
                holes.append(f"partition {partition} from {reached}, of {end} ({topic_id})")
        return [Violation("C", f"nobody handled {_some(holes)}")] if holes else []

    def _handled(self, reconciled_at: float | None) -> dict[tuple[str, int], list[tuple[int, int]]]:
        handled: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for record in self.cluster.instance.get_run_records():
            run = record.dagster_run
            covers = run.status is dg.DagsterRunStatus.SUCCESS or (
                reconciled_at is not None
                and run.status is dg.DagsterRunStatus.FAILURE
                and record.create_timestamp.timestamp() < reconciled_at
            )
            config = _plan_config(run)
            for text in config.get("offset_ranges", []) if covers else []:
                part = OffsetRange.parse(text)
                place = (config["topic_id"], part.partition)
                handled.setdefault(place, []).append((part.start, part.end))
        return handled

    def gaps(self) -> list[tuple[tuple[str, int], int, int]]:
        """Give the recorded gaps: topic id and partition, start, end."""
        observations = self.cluster.instance.fetch_observations(
            dg.AssetKey("raw_images"), limit=1000
        )
        found: list[tuple[tuple[str, int], int, int]] = []
        for record in observations.records:
            one = record.asset_observation
            if one and "gap" in one.metadata:
                topic_id, partition, start, end = (
                    one.metadata[f"gap {name}"].value
                    for name in ("topic id", "partition", "start", "end")
                )
                found.append(((str(topic_id), int(partition)), int(start), int(end)))
        return found

    def extra_renditions(self) -> list[Violation]:
        """D: there is no rendition of anything but what was put."""
        keys = {entry.key for entry in self.ledger.entries()} | self.attempted
        extra = [
            f"{spec.bucket}/{found.key}"
            for spec in self.cluster.renditions
            for found in self.store().list_objects(spec.bucket, spec.key_for(self.prefix))
            if found.key.removeprefix(spec.prefix) not in keys
        ]
        return [Violation("D", f"renditions of nothing: {_some(extra)}")] if extra else []

    def bounds(self) -> list[Violation]:
        """E: no more runs at a time than allowed, each once repeated, and no more memory."""
        limit = 2 * self.cluster.settings.sensor_max_unfinished_runs
        most = self.cluster.most_unfinished
        found = self.cluster.memory.above(self.cluster.memory_bounds)
        if most > limit:
            found.append(f"{most} runs unfinished at a time")
        return [Violation("E", text) for text in found]

    def leftovers(self) -> list[Violation]:
        """G: every rendition is whole, and nothing lies about."""
        found: list[Violation] = []
        multipart = self.cluster.settings.local_dir / "minio" / ".minio.sys" / "multipart"
        parts = [str(path) for path in multipart.rglob("*") if path.is_file()]
        if parts:
            found.append(Violation("G", f"multipart uploads: {_some(parts)}"))
        temporary = [
            path.name
            for path in self.cluster.tmp.rglob("*")
            # Dagster's own sockets and folders are left when it is killed.
            if path.is_file() and "resize" in path.name
        ]
        if temporary:
            found.append(Violation("G", f"temporary files: {_some(temporary)}"))
        broken: list[str] = []
        source = random.Random(self.prefix)  # noqa: S311
        for spec in self.cluster.renditions:
            keys = [
                one.key for one in self.store().list_objects(spec.bucket, spec.key_for(self.prefix))
            ]
            for key in source.sample(keys, min(SAMPLE, len(keys))):
                problem = self._problem(spec, key)
                if problem:
                    broken.append(f"{spec.bucket}/{key}: {problem}")
        if broken:
            found.append(Violation("G", f"broken renditions: {_some(broken)}"))
        return found

    def _problem(self, spec: Rendition, key: str) -> str | None:
        try:
            with self.cluster.minio.get_object(spec.bucket, key) as response:
                image = Image.open(io.BytesIO(response.read()))
                image.load()
        except (OSError, UnidentifiedImageError, S3Error) as error:
            return str(error)
        if image.width > spec.width or image.height > spec.height:
            return f"is {image.width} x {image.height}"
        return None

    def snapshot(self) -> dict[str, tuple[str, str]]:
        """Give every rendition with its etag and the time it was written."""
        return {
            f"{spec.bucket}/{one.key}": (one.etag, str(one.last_modified))
            for spec in self.cluster.renditions
            for one in self.store().list_objects(spec.bucket, spec.key_for(self.prefix))
        }


def _plan_config(run: dg.DagsterRun) -> dict:
    config = run.run_config
    for name in ("ops", "renditions", "ops", "plan", "config"):
        config = config.get(name, {})
    return config


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more
