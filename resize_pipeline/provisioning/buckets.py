"""Creates the buckets and sets the notification rules of the source bucket."""

import shlex
from collections.abc import Iterable, Sequence

from minio.error import S3Error
from minio.notificationconfig import NotificationConfig

from resize_pipeline.errors import MissingBucketError, RefusedError, UserError
from resize_pipeline.provisioning.admin import DeniedError, Server, refusal
from resize_pipeline.provisioning.arns import arn, is_arn, is_topic
from resize_pipeline.provisioning.made import PIPELINE_NAME, Made
from resize_pipeline.provisioning.rules import (
    Rule,
    RuleChanges,
    admin_commands,
    clashing_rules,
    described,
    destination,
    repeated_rules,
    rule_changes,
    rule_key,
    rules_of,
    wanted_rules,
)
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.provisioning.target import is_target_ours, read_target
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.s3_errors import DENIED
from resize_pipeline.settings import Settings


def ensure_buckets(
    settings: Settings,
    renditions: Sequence[Rendition],
    server: Server,
    minio: MinioResource,
    report: Report,
    *,
    dry_run: bool,
) -> None:
    """Create the source bucket, the renditions' buckets, and the catalogue's if there is one.

    Raises:
        TransientError: MinIO is unreachable.
        UserError: a bucket belongs to another account.
    """
    refused: dict[str, RefusedError] = {}
    named = [settings.source_bucket, *(one.bucket for one in renditions), settings.catalog_bucket]
    for bucket in dict.fromkeys(filter(None, named)):
        try:
            with minio.errors(bucket):
                if minio.client.bucket_exists(bucket):
                    report(Step("ok", f"bucket {bucket}"))
                    continue
                if not dry_run:
                    _make_bucket(minio, bucket)
                report(changed(f"bucket {bucket}: create", dry_run=dry_run))
        except RefusedError as error:
            refused[bucket] = error
    if refused:
        error = next(iter(refused.values()))
        buckets = " ".join(f"{ALIAS}/{bucket}" for bucket in refused)
        report(
            Step(
                "needs administrator",
                f"buckets {', '.join(refused)}: {refusal(server, error)}; "
                "an administrator must run",
                mc_commands(server.endpoint, f"mc mb --ignore-existing {buckets}"),
            )
        )


def _make_bucket(minio: MinioResource, bucket: str) -> None:
    try:
        minio.client.make_bucket(bucket)
    except S3Error as error:
        if error.code == "BucketAlreadyOwnedByYou":
            return
        if error.code == "BucketAlreadyExists":
            msg = (
                f"bucket {bucket!r} on {minio.endpoint} belongs to another account: choose "
                "another name in SOURCE_BUCKET or in the renditions"
            )
            raise UserError(msg) from error
        raise


def ensure_notification(
    settings: Settings,
    server: Server,
    minio: MinioResource,
    made: Made,
    report: Report,
    *,
    dry_run: bool,
) -> None:
    """Make the source bucket notify the target of each image that is created or removed.

    Raises:
        TransientError: MinIO is unreachable.
        UserError: the server refuses the rules because of other rules on the bucket, or rules of
            another pipeline would have to go.
    """
    bucket, target = settings.source_bucket, settings.notify_kafka_target
    title = f"notification of bucket {bucket}"
    wanted = wanted_rules(settings.suffixes, target)
    changes = rule_changes(NotificationConfig(), wanted, target)
    try:
        with minio.errors(bucket):
            existing = _read_notification(minio, bucket)
            changes = rule_changes(existing, wanted, target)
            _check_loss(server, made, bucket, changes, target)
            if changes and not dry_run:
                _write_notification(minio, bucket, changes, target)
                if is_arn(target):
                    made.remember(_recorded(bucket, target), [rule_key(rule)[2] for rule in wanted])
            report(
                changed(
                    f"{title}: {len(changes.added)} rules added, {len(changes.removed)} removed, "
                    f"{len(rules_of(changes.config)) - len(changes.added)} kept",
                    dry_run=dry_run,
                )
                if changes
                else Step("ok", f"{title}: {len(wanted)} rules to {arn(target)}")
            )
    except RefusedError as error:
        why = f"{title}: {refusal(server, error)}"
        report(_for_administrator(server, why, bucket, target, changes, wanted))
        return
    for other, rules in repeated_rules(existing, wanted, target).items():
        if _topic_of(server, other) in {None, settings.kafka_topic}:
            report(_repeated(settings, server, other, rules))


def _for_administrator(
    server: Server,
    why: str,
    bucket: str,
    target: str,
    changes: RuleChanges,
    wanted: Iterable[Rule],
) -> Step:
    if is_topic(target):
        # `mc` gives rules no id, which Ceph requires.
        keys = "set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD to the keys of the bucket's owner"
        return Step("needs administrator", f"{why}; {keys}, and repeat the command")
    return Step(
        "needs administrator",
        f"{why}; an administrator must run",
        mc_commands(server.endpoint, *admin_commands(bucket, target, changes, wanted)),
    )


def _check_loss(server: Server, made: Made, bucket: str, changes: RuleChanges, target: str) -> None:
    """Refuse to write a configuration in which rules of others would be lost.

    Raises:
        UserError: another pipeline may have made rules that would go, or there are rules that
            can't be written as they are.
    """
    if changes and changes.others and is_topic(target):
        # Ceph's filters by metadata, tags and regular expressions are lost in reading.
        msg = (
            f"bucket {bucket!r} at {server.endpoint} also has rules of others, and provisioning "
            f"can't keep what Ceph adds to them: {described(changes.others)}: remove them, or use "
            "another SOURCE_BUCKET"
        )
        raise UserError(msg)
    if not changes.removed:
        return
    if is_arn(target):
        recorded = made.value(_recorded(bucket, target)) or []
        is_ours = all(rule_key(rule)[2] in recorded for rule in changes.removed)
    else:
        is_ours = _is_target_ours(server, made, target)
    made.check(
        f"bucket {bucket!r} has {len(changes.removed)} rules of target {target!r} "
        "that SOURCE_SUFFIXES does not name",
        is_ours=is_ours,
        instead="use another target" if is_arn(target) else PIPELINE_NAME,
        effect="that one gets fewer events",
    )


def _recorded(bucket: str, target: str) -> str:
    return f"rules of bucket {bucket} to {target}"


def _repeated(settings: Settings, server: Server, other: str, rules: Sequence[Rule]) -> Step:
    arns = dict.fromkeys(map(destination, rules))
    return Step(
        "warning",
        f"notification of bucket {settings.source_bucket}: {len(rules)} rules also send these "
        f"events to the target {other!r}, so topic {settings.kafka_topic} may hold each of them "
        "twice; the rules are kept because they may belong to another pipeline; if "
        f"NOTIFY_KAFKA_TARGET was {other!r} before, remove them with",
        mc_commands(
            server.endpoint,
            *(f"mc event rm {ALIAS}/{settings.source_bucket} {shlex.quote(one)}" for one in arns),
        ),
    )


def _is_target_ours(server: Server, made: Made, target: str) -> bool:
    try:
        return is_target_ours(made, target, read_target(server, target))
    except DeniedError:
        return False


def _topic_of(server: Server, target: str) -> str | None:
    """Return the topic of a target; None if MinIO does not show it."""
    try:
        config = read_target(server, target)
    except DeniedError:
        return None
    return None if config is None else config.values.get("topic")


def _read_notification(minio: MinioResource, bucket: str) -> NotificationConfig:
    try:
        return minio.notification(bucket)
    except MissingBucketError:
        # In a dry run the bucket may not exist yet.
        return NotificationConfig()


def _write_notification(
    minio: MinioResource, bucket: str, changes: RuleChanges, target: str
) -> None:
    try:
        if changes.removed and is_topic(target):
            # Ceph adds rules to those that are there (`radosgw`, Create Notification).
            minio.client.delete_bucket_notification(bucket)
        minio.client.set_bucket_notification(bucket, changes.config)
    except S3Error as error:
        if error.code in DENIED:
            raise
        # MinIO hides rules whose target no longer exists, and allows rules that overlap. Other
        # servers show the former and refuse the latter, with all rules of the request.
        suspects = clashing_rules(changes.others, changes.added) or changes.others
        remedy = (
            f"rules in the way: {described(suspects)}: remove them with `mc event rm`, or use "
            "another SOURCE_BUCKET"
        )
        if is_arn(target):
            correction = "set NOTIFY_KAFKA_TARGET to the ARN of a target that this server has"
            remedy = f"{correction}; {remedy}" if suspects else correction
        msg = (
            f"{minio.endpoint} refuses notifications of bucket {bucket!r} to {arn(target)} "
            f"({error.code}: {error.message}); {remedy}"
        )
        raise UserError(msg) from error
