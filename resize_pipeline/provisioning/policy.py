"""What the pipeline's MinIO user may do. Pure."""

import json
from collections.abc import Sequence
from typing import Any, cast

from resize_pipeline.renditions.spec import Rendition

PREFIX = "resize-pipeline"
SERVER_INFO = "admin:ServerInfo"
"""MinIO's only right that shows the state of a target."""


def policy_name(user: str) -> str:
    """Return the name of a user's policy: each has its own, since pipelines differ in buckets."""
    return user if user == PREFIX else f"{PREFIX}-{user}"


def policy_document(
    source_bucket: str, renditions: Sequence[Rendition], *, sees_server: bool
) -> dict[str, Any]:
    """Return the policy: read the source, write the renditions, and nothing else.

    Objects are limited to the prefix of a rendition. Listing is not: without the right to list, a
    missing object looks like a forbidden one.

    Args:
        source_bucket: the bucket of the originals.
        renditions: the specs.
        sees_server: whether to allow `admin:ServerInfo`, which shows whether a target is online,
            but also the environment of MinIO's process.
    """
    buckets = sorted({one.bucket for one in renditions})
    objects = sorted({f"{one.bucket}/{one.prefix}*" for one in renditions})
    statements: list[dict[str, Any]] = []
    for actions, resources in (
        (
            [
                *("s3:GetBucketLocation", "s3:GetBucketNotification"),
                *("s3:ListBucket", "s3:ListBucketVersions"),
            ],
            [source_bucket],
        ),
        (["s3:GetObject", "s3:GetObjectVersion"], [f"{source_bucket}/*"]),
        (["s3:GetBucketLocation", "s3:ListBucket"], buckets),
        (
            ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            objects,
        ),
    ):
        statements.append(
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [f"arn:aws:s3:::{resource}" for resource in resources],
            }
        )
    if sees_server:
        statements.append(
            {"Effect": "Allow", "Action": [SERVER_INFO], "Resource": ["arn:aws:s3:::*"]}
        )
    return {"Version": "2012-10-17", "Statement": statements}


def same_policy(one: object, two: object) -> bool:
    """Return whether two policies are equal in any order: servers sort actions and resources."""
    return _canonical(one) == _canonical(two)


def widened(policy: dict[str, Any], other: object) -> dict[str, Any]:
    """Return a policy that also allows what another one allows, so that nobody loses a right.

    Args:
        policy: a policy of `policy_document`.
        other: the policy on the server; None if there is none.
    """
    allowed = _allowed(policy)
    more = [one for one in _statements(other) if not _allowed({"Statement": [one]}) <= allowed]
    return {**policy, "Statement": [*policy["Statement"], *more]} if more else policy


def _statements(policy: object) -> list[Any]:
    return cast("dict[str, Any]", policy).get("Statement", []) if isinstance(policy, dict) else []


def _allowed(policy: object) -> set[tuple[str, str, str]]:
    """Return effect, action and resource of each combination; of other statements their text."""
    found: set[tuple[str, str, str]] = set()
    for statement in _statements(policy):
        try:
            actions, resources = statement["Action"], statement["Resource"]
            if set(statement) - {"Effect", "Action", "Resource", "Sid"}:
                raise KeyError
            found |= {(statement["Effect"], a, r) for a in actions for r in resources}
        except (KeyError, TypeError):
            found.add(("", "", json.dumps(statement, sort_keys=True)))
    return found


def _canonical(value: object) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return sorted((key, repr(_canonical(item))) for key, item in items)
    if isinstance(value, list):
        return sorted(repr(_canonical(item)) for item in cast("list[object]", value))
    return value
