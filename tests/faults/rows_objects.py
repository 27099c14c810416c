"""Rows in which the objects themselves are strange, or change at the wrong time."""

import io
import struct
import zlib

from minio.commonconfig import ENABLED, CopySource
from minio.versioningconfig import VersioningConfig
from PIL import Image

from resize_pipeline.delivery.events import notification
from tests.faults.ledger import picture
from tests.faults.world import World, row, wait_for_messages


@row("overwritten or deleted before processing, same bytes again, copied onto itself", "ABCDFG")
def changed_before(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    cluster.stop("daemon")
    for one in range(4):
        world.put(f"overwritten-{one}.jpg")
        world.put(f"overwritten-{one}.jpg")
        world.writer.delete(world.put(f"deleted-{one}.jpg"))
        key = world.put(f"recreated-{one}.jpg")
        world.writer.delete(key)
        world.put(f"recreated-{one}.jpg")
    data = picture(world.random)
    for _ in range(3):
        world.put("same.jpg", data)
    itself = world.put("copied.jpg")
    cluster.minio.copy_object(
        bucket,
        itself,
        CopySource(bucket, itself),
        metadata={"colour": "blue"},
        metadata_directive="REPLACE",
    )
    cluster.start("daemon")
    world.settled()
    # And once more, now that all are rendered.
    before = world.checker.snapshot()
    world.put("same.jpg", data)
    cluster.minio.copy_object(
        bucket,
        itself,
        CopySource(bucket, itself),
        metadata={"colour": "red"},
        metadata_directive="REPLACE",
    )
    world.settled()
    after = world.checker.snapshot()
    for name in ("same.jpg", "copied.jpg"):
        for place, what in before.items():
            if place.endswith(name) and after.get(place) != what:
                world.violate("D", f"{place} was written again for the same bytes")


@row("newest version removed (versioned bucket)", "ABCDFG", own=True)
def versions(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    cluster.minio.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    kept: dict[str, str] = {}
    for one in range(4):
        key = world.key(f"version-{one}.jpg")
        kept[key] = world.writer.put(key, picture(world.random)).etag
    world.settled()
    newest = {key: world.writer.put(key, picture(world.random)).version_id for key in kept}
    world.settled()
    # Half of them hidden by a delete marker, which is taken away again.
    for one, (key, version) in enumerate(newest.items()):
        if one % 2:
            cluster.minio.remove_object(bucket, key, version_id=version)
        else:
            cluster.minio.remove_object(bucket, key)
            marker = next(
                item
                for item in cluster.minio.list_objects(bucket, prefix=key, include_version=True)
                if item.is_delete_marker
            )
            cluster.minio.remove_object(bucket, key, version_id=marker.version_id)
            cluster.minio.remove_object(bucket, key, version_id=version)
    world.settled()
    for key, etag in kept.items():
        if not world.rendered(key, etag):
            world.violate("B", f"{key} is not of the version that is left")


@row("source overwritten while the run that has read it stands still", "ABCDEFG")
def overwritten_while_rendered(world: World) -> None:
    overwrite_behind_a_run(world)


def overwrite_behind_a_run(world: World) -> None:
    """Stop a run between reading and writing, have another render newer bytes, and let it go on."""
    keys = [world.key(f"race-{one:02}.jpg") for one in range(16)]
    cluster = world.cluster
    older: dict[str, str] = {}

    def stopped_run() -> str | None:
        if all(world.rendered(key, etag) for key, etag in older.items()):
            # None is uploaded yet, or a run was done with the step before it was looked at.
            for key in keys:
                older[key] = world.writer.put(key, picture(world.random, 3200, 2400)).etag
        for run in cluster.running():
            process = cluster.run_process(run.run_id)
            if process and cluster.step_under_way(run.run_id, "resize"):
                process.suspend()
                if cluster.step_under_way(run.run_id, "resize"):
                    return run.run_id
                process.resume()
        return None

    run_id = str(world.wait(stopped_run, "a run at its step resize"))
    process = cluster.run_process(run_id)
    assert process
    try:
        newer = {key: world.writer.put(key, picture(world.random)).etag for key in keys}
        world.wait(
            lambda: all(world.rendered(key, etag) for key, etag in newer.items()),
            "another run to render what is newer",
        )
        # A run that came later would look at the same objects, and hide what this one does.
        world.wait(
            lambda: not cluster.queued_events() and cluster.status().lag == 0, "all events in runs"
        )
        world.wait(
            lambda: [one.run_id for one in cluster.unfinished()] == [run_id], "the others to end"
        )
    finally:
        process.resume()


@row("keys with `+`, space, `%2F`, `..`, leading `/`, unicode, 1024 bytes; zero bytes", "ACDFG")
def strange_keys(world: World) -> None:
    cluster = world.cluster
    bucket = cluster.settings.source_bucket
    names = [
        "plus+plus.jpg",
        "a space.jpg",
        " .jpg",
        "percent%2Fencoded.jpg",
        "%.jpg",
        "deep/er/%25/+.jpg",
        "日本/🌹.jpg",
        "e\u0301 and \u00e9.jpg",
        "quote\"'`<b>|\\.JPG",
        "tab\there.jpg",
        "a=b&c=d?e#f.jpg",
        "..hidden.jpg",
    ]
    for name in names:
        world.put(name)
    # MinIO keeps each segment as a folder, so the longest key has several.
    stem = "/".join("s" * 200 for _ in range(6))
    length = 1024 - len(world.prefix) - len(".jpg")
    longest = world.put(stem[:length] + ".jpg")
    assert len(longest) == 1024
    world.put("zero.jpg", b"")
    # It has no place for the prefix of a key, and MinIO drops the slash.
    cluster.minio.put_object(
        bucket, f"/{world.key('slash.jpg')}", io.BytesIO(data := picture(world.random)), len(data)
    )
    world.checker.attempted.add(world.key("slash.jpg"))
    # No server takes such a key; an event that names it must hold up nothing.
    for key in (world.key("../../up.jpg"), "/", "..", world.key("a//b.jpg"), "x" * 300 + ".jpg"):
        cluster.send(notification(bucket, key, size=1, etag=None))
    world.settled()
    if not world.letter(world.key("zero.jpg")):
        world.violate("A", "the object without bytes has no dead letter")


def bomb(side: int) -> bytes:
    """A PNG of few bytes that claims to be huge, and is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row_of_zeros = bytes(1 + side // 8)
    packed = b"".join(packer.compress(row_of_zeros) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def animated(frames: int) -> bytes:
    images = [Image.new("P", (64, 48), one % 256) for one in range(frames)]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


@row(
    "corrupt, truncated, bomb, 1000 frames, false extension",
    "ABCDEFGH",
    evidence=lambda world: world.letter(world.key("bomb.png")),
)
def strange_pictures(world: World) -> None:
    good = picture(world.random, 640, 480)
    corpus = {
        "corrupt.jpg": b"\xff\xd8" + world.random.randbytes(5000),
        "truncated.jpg": good[: len(good) // 2],
        "text.jpg": b"no picture at all",
        "bomb.png": bomb(40_000),
        "frames.gif": animated(1000),
    }
    neighbours = [f"neighbour-{one}.jpg" for one in range(10)]
    for name, data in corpus.items():
        world.put(name, data)
        world.put(neighbours.pop())
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "PNG")
    world.put("really-a-png.jpg", buffer.getvalue())
    world.settled()
    for name in ("corrupt.jpg", "truncated.jpg", "text.jpg", "bomb.png"):
        if not world.letter(world.key(name)):
            world.violate("A", f"{name} has no dead letter")
    # What is mended later is rendered, and its letter taken back.
    mended = world.put("truncated.jpg", good)
    world.settled()
    if world.letter(mended):
        world.violate("A", "the dead letter of a mended picture is not taken back")


# Real decoders can't be made to crash at will: the words are in the pictures' comments.
HOSTILE = """
import os, signal, time
try:
    import resize_pipeline.imaging.render as imaging
except ImportError:
    imaging = None

def hostile(data, renditions, **limits):
    if b"dies of a signal" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"is killed as when memory is short" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"never ends" in data:
        time.sleep(10_000)
    return original(data, renditions, **limits)

if imaging:
    original, imaging.render = imaging.render, hostile
"""


def commented(words: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "green").save(file, "JPEG", comment=words)
    return file.getvalue()


def larger_than_memory() -> bytes:
    """A real PNG of less pixels than allowed, that takes more memory than a child may."""
    file = io.BytesIO()
    Image.new("RGBA", (9_900, 9_900)).save(file, "PNG", compress_level=1)
    return file.getvalue()


@row(
    "a picture that crashes, hangs or exhausts the process",
    "ABCDEFGH",
    evidence=lambda world: world.letter(world.key("signal.jpg")),
)
def hostile_pictures(world: World) -> None:
    neighbours = {f"neighbour-{one}.jpg" for one in range(12)}
    expected = {
        "signal.jpg": "exit code -11",
        "killed.jpg": "exit code -9",
        "hangs.jpg": "RENDER_TIMEOUT_S",
        "memory.png": "RENDER_MEMORY_BYTES",
    }
    with world.patched(HOSTILE):
        world.cluster.stop("daemon")
        world.put("signal.jpg", commented("dies of a signal"))
        world.put("killed.jpg", commented("is killed as when memory is short"))
        world.put("hangs.jpg", commented("never ends"))
        world.put("memory.png", larger_than_memory())
        for name in sorted(neighbours):
            world.put(name)
        # All are in one run, and most in one batch.
        wait_for_messages(world, len(expected) + len(neighbours))
        world.cluster.start("daemon")
        world.settled()
        letters = world.letters()
    for name, word in expected.items():
        if word not in letters.get(name, ""):
            world.violate("A", f"the dead letter of {name} says {letters.get(name)!r}")
    if set(letters) != set(expected):
        world.violate("A", f"dead letters of others: {sorted(set(letters) - set(expected))}")
    if any(run.is_failure for run in world.runs()):
        world.violate("E", "a picture failed a whole run")
