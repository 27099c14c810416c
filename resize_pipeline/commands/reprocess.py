"""The `reprocess` command: launches Dagster runs for named objects, or for all below a prefix.

They are the same runs as from the Launchpad; this module only writes their configuration.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from pydantic import SecretStr

from resize_pipeline.addresses import is_listening
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.ops.config import LISTED_MAX_OBJECTS
from resize_pipeline.defs.partitions import build_partitions, partition_key_at
from resize_pipeline.delivery.requests import check_newest
from resize_pipeline.errors import UserError, escaped, one_line
from resize_pipeline.instance.internals import PARTITION_NAME_TAG
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings


@dataclass(frozen=True)
class Launched:
    """A launched run: its id, its partition, and its keys, if any."""

    run_id: str
    partition: str
    keys: tuple[str, ...]


def reprocess(
    settings: Settings,
    *,
    keys: Sequence[str] = (),
    prefix: str | None = None,
    version_id: str = "",
    renditions: Sequence[str] = (),
    force: bool = False,
) -> Iterator[Launched]:
    """Launch the runs, one for each hour of the named objects or one for the prefix.

    More than `LISTED_MAX_OBJECTS` objects of one hour are launched as several runs.
    An empty prefix matches everything: its run is a reconciliation.

    Args:
        settings: the settings, with the addresses of MinIO and the Dagster UI.
        keys: objects of the source bucket.
        prefix: all objects whose key starts with it; used instead of keys.
        version_id: refuse to launch unless this is the newest version of the one key.
        renditions: names of the renditions to make; empty for all.
        force: also remake renditions that are current.

    Yields:
        Each run as soon as Dagster has accepted it.

    Raises:
        UserError: a key or a rendition does not exist, the version is not the newest, or Dagster
            does not accept the run.
        TransientError: MinIO is unreachable.
    """
    known = [
        spec.name for spec in load_renditions(settings.renditions_file, settings.source_bucket)
    ]
    for name in renditions:
        if name not in known:
            choice = ", ".join(known)
            msg = f"no rendition {name!r} in {settings.renditions_file}: choose from {choice}"
            raise UserError(msg)
    names = Names(settings.pipeline_name)
    scopes = _scopes(settings, keys, prefix, version_id)
    with _dagster(settings) as client:
        for partition, scope in scopes:
            run_id = client.submit_job_execution(
                names.job,
                run_config=run_config(names, **scope, force=force),
                tags={PARTITION_NAME_TAG: partition},
                asset_selection=[names.asset(one).path for one in renditions] or None,
            )
            yield Launched(run_id, partition, tuple(scope.get("objects", ())))


def _scopes(
    settings: Settings, keys: Sequence[str], prefix: str | None, version_id: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return the partition of each run and what it covers."""
    if prefix is not None:
        now = dt.datetime.now(dt.UTC)
        partition = partition_key_at(build_partitions(settings), now, now)
        return [(partition, {"prefix": prefix} if prefix else {"reconcile": True})]
    version = {"version_id": version_id} if version_id else {}
    return [
        (hour, {"objects": found[start : start + LISTED_MAX_OBJECTS], **version})
        for hour, found in _by_partition(settings, keys, version_id).items()
        for start in range(0, len(found), LISTED_MAX_OBJECTS)
    ]


def _by_partition(
    settings: Settings, keys: Sequence[str], version_id: str
) -> Mapping[str, list[str]]:
    minio = MinioResource.from_settings(
        settings,
        access_key=_secret(settings, "minio_access_key"),
        secret_key=_secret(settings, "minio_secret_key"),
    )
    bucket = settings.source_bucket
    partitions = build_partitions(settings)
    now = dt.datetime.now(dt.UTC)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key in dict.fromkeys(keys):
        info = minio.stat(bucket, key)
        if version_id:
            named = minio.stat(bucket, key, version_id=version_id)
            check_newest(bucket, key, version_id, info, named)
        if info is None:
            msg = f"no object {key!r} in bucket {bucket!r}: no run was launched"
            raise UserError(msg)
        found[partition_key_at(partitions, info.last_modified, now)].append(key)
    return found


def _secret(settings: Settings, name: str) -> str:
    secret: SecretStr | None = getattr(settings, name)
    if secret is None:
        msg = f"{name.upper()} is not set: run `resize-pipeline provision`, or set it in .env"
        raise UserError(msg)
    return secret.get_secret_value()


@contextmanager
def _dagster(settings: Settings) -> Generator[DagsterGraphQLClient]:
    if not is_listening((settings.ui_host, settings.ui_port)):
        msg = (
            f"no Dagster UI answers at {settings.ui_url}: start `resize-pipeline up` or "
            "`dagster dev`, or set UI_HOST and UI_PORT"
        )
        raise UserError(msg)
    try:
        yield DagsterGraphQLClient(
            settings.ui_url.removeprefix("http://"), headers=settings.ui_headers
        )
    except DagsterGraphQLClientError as error:
        # If the client does not understand a failure, its message has the query and not the reason.
        answer = one_line(str(error.__cause__ or error))
        msg = f"Dagster at {settings.ui_url} did not accept the run: {answer}"
        raise UserError(msg) from error


def describe(run: Launched, prefix: str | None) -> str:
    """Return the line that the command prints for a launched run.

    Args:
        run: the run.
        prefix: the requested prefix; empty or None for everything, if the run has no keys.
    """
    if run.keys:
        what = "1 object" if len(run.keys) == 1 else f"{len(run.keys)} objects"
    else:
        what = f"prefix {escaped(prefix)}" if prefix else "everything"
    return f"run {run.run_id}, partition {run.partition}: {what}"
