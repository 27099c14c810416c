"""Rows in which somebody makes a mistake: with keys, rules, buckets, checkouts and clocks."""

import time

import pytest
from minio.deleteobjects import DeleteObject
from minio.sse import SseCustomerKey

from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.defs.silence import source_problem
from resize_pipeline.errors import UserError
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from tests.faults.ledger import Entry, picture
from tests.faults.world import World, first_note, row


def put_encrypted(world: World, name: str) -> str:
    """Upload a picture that only its uploader's key opens, and return its object key."""
    key = world.key(name)
    own_key = SseCustomerKey(world.random.randbytes(32))
    world.writer.put(key, picture(world.random), sse=own_key)
    return key


@row(
    "objects encrypted with their uploader's key (SSE-C), DELETE_RENDITIONS on",
    "ABCDFGH",
    evidence=lambda world: world.letter(world.key("encrypted-0.jpg")),
    reconcile=True,
    tls=True,
    settings={"delete_renditions": True},
)
def encrypted(world: World) -> None:
    former = {key: world.put(key) for key in ("readable-0.jpg", "readable-1.jpg")}
    with world.storm(20).raging():
        pass
    world.settled()
    before = world.checker.snapshot()
    hidden = [
        put_encrypted(world, name) for name in ("encrypted-0.jpg", "encrypted-1.jpg", *former)
    ]
    world.settled()
    for key in hidden:
        if "encrypt" not in (world.letter(key) or "").lower():
            world.violate("A", f"the dead letter of {key} says {world.letter(key)!r}")
    after = world.checker.snapshot()
    gone = [place for place in before if place.endswith(tuple(former)) and place not in after]
    if gone:
        world.violate("A", f"renditions of objects that are there were deleted: {gone}")
    world.put("readable-0.jpg")
    world.settled()
    if world.letter(former["readable-0.jpg"]):
        world.violate("A", "the dead letter of an object that is readable again stays")


def as_the_user(world: World) -> MinioResource:
    """Give MinIO with the rights of the pipeline's user."""
    settings = world.cluster.settings
    keys = settings.minio_access_key, settings.minio_secret_key
    assert all(keys)
    access_key, secret_key = (key.get_secret_value() for key in keys if key)
    return MinioResource.from_settings(settings, access_key=access_key, secret_key=secret_key)


def silence(world: World) -> list[str]:
    """Give why pictures have no events, as `resize-pipeline status` says."""
    cluster, minio = world.cluster, as_the_user(world)
    return pipeline_status(cluster.settings, cluster.instance, cluster.kafka, minio).silence


@row("MinIO's target offline, and online again", "ABCDFGH", evidence=first_note)
def target_offline(world: World) -> None:
    cluster, minio = world.cluster, as_the_user(world)
    pipeline = PipelineResource.from_settings(cluster.settings)
    cluster.kill("kafka")
    with world.storm(20).raging():
        pass

    def is_said() -> str | None:
        return source_problem(minio, pipeline)

    world.notes.append(str(world.wait(is_said, "a word about the target")))
    cluster.start("kafka")
    world.settled()
    world.wait(lambda: not silence(world), "the target to be online")


@row(
    "notification rules removed mid-way, and set again by provision",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
    own=True,
)
def rules_removed(world: World) -> None:
    cluster = world.cluster
    with world.storm(60, pause_s=0.1).raging() as storm:
        storm.wait_for(0.3)
        cluster.minio.delete_bucket_notification(cluster.settings.source_bucket)
    world.notes += silence(world)
    cluster.provision()
    if silence(world):
        world.violate("H", f"status still says {silence(world)}")


def failures(world: World, words: str) -> list[str]:
    """Give the beginning of what the failed runs of this row say with these words."""
    return [
        said[:200]
        for run in world.runs()
        if run.is_failure
        for said in world.cluster.failures_of_steps(run.run_id)
        if words in said
    ]


def remove_bucket(world: World, bucket: str) -> None:
    """Remove a bucket with all that is in it, while runs write to it."""
    minio = world.cluster.minio

    def removed() -> bool:
        listed = minio.list_objects(bucket, recursive=True)
        objects = (DeleteObject(item.object_name or "") for item in listed)
        assert not list(minio.remove_objects(bucket, objects))
        try:
            minio.remove_bucket(bucket)
        except Exception as error:
            if getattr(error, "code", "") != "BucketNotEmpty":
                raise
            return False
        return True

    world.wait(removed, f"the end of bucket {bucket}")


@row(
    "the bucket of a rendition removed, and healed by provision",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
    own=True,
)
def bucket_removed(world: World) -> None:
    cluster = world.cluster
    bucket = next(one.bucket for one in cluster.renditions if one.name == "small")
    with world.storm(60, pause_s=0.1).raging() as storm:
        storm.wait_for(0.3)
        remove_bucket(world, bucket)
        storm.wait_for(0.9)
        world.wait(lambda: failures(world, "no bucket"), "a run that names the bucket")
    world.notes += failures(world, "no bucket")[:1]
    late = world.put("after-the-removal.jpg")
    large = next(one for one in cluster.renditions if one.name == "large")
    world.wait(
        lambda: world.checker.store().stat(large.bucket, large.key_for(late)),
        "the rendition whose bucket is there",
    )
    cluster.provision()


@row(
    "a second checkout provisions the same servers",
    "ABCDFGH",
    evidence=first_note,
)
def second_checkout(world: World) -> None:
    cluster = world.cluster
    folder = cluster.folder / f"other-checkout-{time.time_ns():x}"
    other = {"local_dir": folder, "minio_access_key": None, "minio_secret_key": None}
    with world.storm(60, pause_s=0.1).raging() as storm:
        storm.wait_for(0.3)
        for changes in ({}, {"kafka_topic": "topic-of-another-checkout"}):
            with pytest.raises(UserError, match="--take-over") as refused:
                provision(cluster.settings.model_copy(update=other | changes))
            world.notes.append(str(refused.value)[:150])
        storm.wait_for(0.7)
    if any(run.is_failure for run in world.runs()):
        world.violate("A", "a run of the first checkout failed")


# Requests are signed with the time of the pipeline's host, which no test may change.
FAST_CLOCK = """
import datetime
try:
    import minio.time as clock
except ImportError:
    clock = None
if clock:
    right = clock.utcnow
    clock.utcnow = lambda: right() + datetime.timedelta(minutes=20)
"""


@row(
    "the clock of the pipeline's host 20 minutes fast, then right",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
)
def fast_clock(world: World) -> None:
    with world.patched(FAST_CLOCK):
        with world.storm(30).raging():
            pass
        world.wait(lambda: failures(world, "clock"), "a run that names both clocks")
        world.notes += failures(world, "clock")[:1]
    if world.letters():
        world.violate("A", f"a wrong clock rejects objects: {world.letters()}")


def note_removals(world: World) -> None:
    """Write down that the source lost whatever this row had put there."""
    for key in world.ledger.last():
        world.ledger.add(Entry("delete", key, "", None, 0, time.time()))


@row(
    "the source bucket removed and made again without rules, and healed by provision",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
    own=True,
)
def source_removed(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    with world.storm(40).raging():
        pass
    world.settled()
    remove_bucket(world, bucket)
    note_removals(world)
    world.notes.append(str(world.wait(lambda: silence(world), "a word about the bucket")))
    cluster.minio.make_bucket(bucket)
    with world.storm(20).raging():
        pass
    if not silence(world):
        world.violate("H", "status says nothing of the rules that the new bucket lacks")
    cluster.provision()
    if silence(world):
        world.violate("H", f"status still says {silence(world)}")


@row("pictures with a false Content-Encoding", "ABCDFG")
def false_encoding(world: World) -> None:
    for encoding in (
        "gzip",
        "br",
        "zstd",
        "deflate",
        "gzip, br",
        "identity",
        "aws-chunked",
        "none",
    ):
        header = {"Content-Encoding": encoding}
        world.writer.put(world.key(f"{encoding}.jpg"), picture(world.random), metadata=header)
    world.settled()
    if world.letters():
        world.violate("A", f"pictures were rejected because of a header: {world.letters()}")


@row(
    "MINIO_REGION of another region, then right",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
)
def wrong_region(world: World) -> None:
    # The uploads are signed for the right region.
    world.put("before.jpg")
    world.settled()
    world.cluster.stop("daemon")
    with world.other_settings(minio_region="eu-nowhere-1"):
        with world.storm(30).raging():
            pass
        world.wait(lambda: failures(world, "MINIO_REGION"), "a run that names the setting")
        world.notes += failures(world, "MINIO_REGION")[:1]
    if world.letters():
        world.violate("A", f"a wrong region rejects objects: {world.letters()}")
