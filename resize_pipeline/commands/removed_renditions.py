"""Finds the objects of renditions that are no longer made, and deletes them on request.

Removing a rendition from the spec file, or changing its bucket or prefix, leaves its objects where
they are. Dagster remembers where they were written: each materialization has the place as metadata.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from resize_pipeline.defs.names import JOB_NAME, Names
from resize_pipeline.errors import MissingBucketError, RefusedError, UserError, escaped
from resize_pipeline.instance.event_log import latest_materializations
from resize_pipeline.instance.internals import IMPLICIT_ASSET_JOB_NAME
from resize_pipeline.instance.open import open_instance
from resize_pipeline.provisioning.admin import Server
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.objects import ObjectInfo, is_ours
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.minio import REMOVED_AT_ONCE, MinioResource
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole, errors
from resize_pipeline.validators import checked_bucket

JOBS = (JOB_NAME, IMPLICIT_ASSET_JOB_NAME)
"""Ends of the names of the jobs that make renditions, in any pipeline."""
METADATA = frozenset({"uri", "images", "rendition bytes"})
"""Metadata that every materialization of a rendition has."""

_SCHEME = "s3://"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a rendition was written: below a prefix of a bucket."""

    rendition: str
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """The place as it is written in materializations."""
        return f"{_SCHEME}{self.bucket}/{self.prefix}"

    def covers(self, other: "Place") -> bool:
        """Return whether all keys of the other place are in this one, too."""
        return self.bucket == other.bucket and other.prefix.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the renditions of this pipeline and of others in the Dagster instance were written."""

    ours: set[Place] = field(default_factory=set["Place"])
    others: set[Place] = field(default_factory=set["Place"])


@dataclass(frozen=True, slots=True)
class RemovedRendition:
    """A place that no rendition of the spec file is written to any longer.

    Attributes:
        place: where its objects are.
        is_moved: whether the spec file still has a rendition of that name, with another place.
        kept: prefixes in that bucket, below the place, of objects of other renditions.
    """

    place: Place
    is_moved: bool
    kept: tuple[str, ...]


def place_of(entry: dg.EventLogEntry) -> Place | None:
    """Return the place in a materialization; None if it is not one of this project's jobs."""
    materialization = entry.asset_materialization
    event = entry.dagster_event
    if materialization is None or event is None:
        return None
    if not (event.job_name or "").endswith(JOBS):
        return None
    if not materialization.metadata.keys() >= METADATA:
        return None
    uri = str(materialization.metadata["uri"].value)
    bucket, slash, prefix = uri.removeprefix(_SCHEME).partition("/")
    try:
        checked_bucket(bucket)
    except ValueError:
        return None
    name = materialization.asset_key.path[-1]
    return Place(name, bucket, prefix) if uri.startswith(_SCHEME) and slash else None


def removed_renditions(
    places: Places, renditions: Sequence[Rendition], source_bucket: str
) -> list[RemovedRendition]:
    """Return the former places, each with the prefixes below it that belong to other renditions.

    Args:
        places: where renditions were written at any time. What is in a place of another pipeline
            may be current there, so it counts as no removed rendition.
        renditions: the renditions of the spec file.
        source_bucket: the source bucket, which never contains renditions.
    """
    current = [Place(spec.name, spec.bucket, spec.prefix) for spec in renditions]
    former = sorted(
        place
        for place in places.ours
        if place.bucket != source_bucket
        and not any(one.covers(place) for one in (*current, *places.others))
    )
    return [
        RemovedRendition(
            place,
            is_moved=any(one.rendition == place.rendition for one in current),
            kept=tuple(
                sorted(
                    one.prefix
                    for one in {*current, *former, *places.others}
                    # Objects of another removed rendition are deleted under its own name.
                    if place.covers(one) and one.prefix != place.prefix
                )
            ),
        )
        for place in former
    ]


def places_of(
    found: Sequence[RemovedRendition], name: str, renditions_file: Path
) -> list[RemovedRendition]:
    """Return the former places of one rendition, at least one.

    Raises:
        UserError: the rendition has none.
    """
    chosen = [one for one in found if one.place.rendition == name]
    if not chosen:
        known = ", ".join(sorted({one.place.rendition for one in found})) or "none"
        msg = (
            f"no removed rendition {name!r}: choose one that Dagster knows and that is not in "
            f"{renditions_file}, or had another place before: {known}"
        )
        raise UserError(msg)
    return chosen


def written_places(
    instance: dg.DagsterInstance, names: Names, renditions: Sequence[Rendition]
) -> Places:
    """Return where the newest materialization of each partition of a rendition was written.

    Args:
        instance: the Dagster instance.
        names: the names of the pipeline's assets.
        renditions: the renditions of the spec file; their current places are left out.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    # After a year most materializations are at the current places, and reading one takes a
    # millisecond. The place is quoted as in the stored JSON.
    current = [
        dg.serialize_value(dg.MetadataValue.text(Place(spec.name, spec.bucket, spec.prefix).uri))
        for spec in renditions
    ]
    entries = latest_materializations(instance, containing='"rendition bytes"', without=current)
    places = Places()
    for entry in entries:
        if (made := entry.asset_materialization) and (place := place_of(entry)):
            (places.ours if names.owns(made.asset_key) else places.others).add(place)
    return places


def left_objects(minio: MinioResource, removed: RemovedRendition) -> Iterator[ObjectInfo]:
    """List the objects that a removed rendition left, as a stream.

    Only objects with the metadata of a rendition count; the pipeline did not write any others.

    Raises:
        TransientError: the server is unreachable.
        UserError: access to the bucket is refused.
    """
    place = removed.place
    try:
        for item in minio.list_objects(place.bucket, place.prefix, with_metadata=True):
            if item.key.startswith(removed.kept):
                continue
            # Only MinIO's listing has the metadata; on other servers each object needs a stat.
            found = minio.stat(place.bucket, item.key) if item.metadata is None else item
            if found and is_ours(found):
                yield found
    except MissingBucketError:
        return
    except RefusedError as error:
        raise _refused(minio, place) from error


def delete_objects(minio: MinioResource, removed: RemovedRendition) -> Iterator[tuple[int, int]]:
    """Delete the objects that a removed rendition left, each soon after it was listed.

    Yields:
        For each request, how many objects it deleted, and their bytes.

    Raises:
        TransientError: the server is unreachable, or did not delete all objects.
        UserError: access to the bucket is refused.
    """
    found = left_objects(minio, removed)
    while some := list(itertools.islice(found, REMOVED_AT_ONCE)):
        try:
            minio.remove_all(removed.place.bucket, [one.key for one in some])
        except RefusedError as error:
            raise _refused(minio, removed.place) from error
        yield len(some), sum(one.size for one in some)


def _refused(minio: MinioResource, place: Place) -> UserError:
    return UserError(
        f"MinIO at {minio.endpoint} refuses bucket {place.bucket!r} of the removed rendition "
        f"{place.rendition!r} to user {minio.access_key!r}: set MINIO_ROOT_USER and "
        "MINIO_ROOT_PASSWORD to an administrator's, or let that user list the bucket and read and "
        "delete its objects"
    )


def list_removed(settings: Settings, *, as_json: bool) -> None:
    """Print the removed renditions that left objects, as a table or as one line of JSON each.

    Raises:
        UserError: the spec file or a setting is invalid, or access to a bucket is refused.
        TransientError: MinIO is unreachable.
    """
    found, minio = _find_removed(settings)
    table = Table("rendition", "place", "objects", "bytes", "in the spec file", box=None)
    for one in found:
        objects = size = 0
        for item in left_objects(minio, one):
            objects += 1
            size += item.size
        if not objects:
            continue
        if as_json:
            line = {
                "rendition": one.place.rendition,
                "bucket": one.place.bucket,
                "prefix": one.place.prefix,
                "objects": objects,
                "bytes": size,
                "moved": one.is_moved,
            }
            sys.stdout.write(json.dumps(line) + "\n")
        table.add_row(
            one.place.rendition,
            escaped(one.place.uri),
            str(objects),
            str(size),
            "elsewhere" if one.is_moved else "no",
        )
    if not as_json:
        output = SafeConsole()
        output.print(table if table.row_count else "no removed renditions")


def delete_removed(settings: Settings, name: str, *, dry_run: bool) -> None:
    """Delete the objects of one removed rendition, and print how many there were in each place.

    Args:
        settings: the settings, with the spec file, the Dagster instance and MinIO.
        name: the removed rendition.
        dry_run: print what would be deleted, and delete nothing.

    Raises:
        UserError: no removed rendition has this name, or access to its bucket is refused.
        TransientError: MinIO is unreachable, or did not delete everything.
    """
    found, minio = _find_removed(settings)
    for one in places_of(found, name, settings.renditions_file):
        if dry_run:
            deleted = ((1, item.size) for item in left_objects(minio, one))
        else:
            deleted = delete_objects(minio, one)
        verb = "would delete" if dry_run else "deleted"
        _count(deleted, verb, escaped(one.place.uri))


def _count(deleted: Iterable[tuple[int, int]], verb: str, place: str) -> None:
    objects = size = 0

    def summary() -> str:
        return f"{verb} {objects} objects, {size} bytes, below {place}"

    # The total is unknown until the listing ends, so the progress has no bar.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    try:
        with Progress(
            *columns, console=errors, transient=True, disable=not errors.is_terminal
        ) as progress:
            task = progress.add_task(summary())
            for more_objects, more_bytes in deleted:
                objects += more_objects
                size += more_bytes
                progress.update(task, description=summary())
    finally:
        # After an error, too: deleted objects stay deleted.
        sys.stdout.write(summary() + "\n")


def _find_removed(settings: Settings) -> tuple[list[RemovedRendition], MinioResource]:
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    with open_instance(settings) as instance:
        places = written_places(instance, Names(settings.pipeline_name), renditions)
    found = removed_renditions(places, renditions, settings.source_bucket)
    return found, Server(settings).s3()
