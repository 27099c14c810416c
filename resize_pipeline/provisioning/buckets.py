"""Creates the buckets and sets the notification rules of the source bucket."""

import itertools
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from minio import Minio
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig, SuffixFilterRule

from resize_pipeline.errors import RefusedError, UserError
from resize_pipeline.provisioning.admin import DeniedError, Server, refusal
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.provisioning.target import (
    arn,
    is_arn_of,
    is_target_ours,
    read_target,
    target_of,
)
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.s3_errors import DENIED
from resize_pipeline.settings import Settings

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
VARIED_LETTERS = 4
"""Longest suffix, in letters, of which all 2 ** letters variants get a rule."""
NOTIFICATION_MISSING = frozenset({"NoSuchBucket"})


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """A bucket's new notification configuration, and how it differs from the present one."""

    config: NotificationConfig
    added: tuple[QueueConfig, ...]
    removed: tuple[QueueConfig, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def wanted_rules(suffixes: Sequence[str], target: str) -> list[QueueConfig]:
    """Return the rules that select images. S3 compares suffixes case-sensitively.

    A single rule without a suffix would need no variants, but would put an event on the topic for
    every other object of the bucket, too.

    Args:
        suffixes: key suffixes in lower case, each with its dot.
        target: name of MinIO's Kafka target.
    """
    cases = dict.fromkeys(case for suffix in suffixes for case in case_variants(suffix))
    return [
        QueueConfig(
            queue=arn(target),
            events=list(EVENTS),
            suffix_filter_rule=SuffixFilterRule(suffix),
        )
        for suffix in cases
    ]


def case_variants(suffix: str) -> list[str]:
    """Return a suffix in lower and upper case and with a capital; a short one in all variants.

    Args:
        suffix: a key suffix in lower case.
    """
    if sum(letter.isalpha() for letter in suffix) <= VARIED_LETTERS:
        letters = ((letter, letter.upper()) for letter in suffix)
        return list(dict.fromkeys(map("".join, itertools.product(*letters))))
    return [suffix, suffix.upper(), suffix.title()]


def rule_changes(
    existing: NotificationConfig, wanted: Iterable[QueueConfig], target: str
) -> RuleChanges:
    """Replace the rules of this target by the wanted ones, and keep all other rules.

    A rule belongs to the pipeline if it sends to this target. Rule ids are not compared.
    """
    wanted = list(wanted)
    ours = [rule for rule in existing.queue_config_list if is_arn_of(rule.queue or "", target)]
    others = [rule for rule in existing.queue_config_list if rule not in ours]
    keys = {_key(rule) for rule in wanted}
    kept = [rule for rule in ours if _key(rule) in keys]
    # Of identical rules one is kept.
    kept = list({_key(rule): rule for rule in kept}.values())
    added = [rule for rule in wanted if _key(rule) not in {_key(one) for one in kept}]
    return RuleChanges(
        replace(existing, queue_config_list=[*others, *kept, *added]),
        tuple(added),
        tuple(rule for rule in ours if rule not in kept),
    )


def _key(rule: QueueConfig) -> tuple[frozenset[str], str, str]:
    return (
        frozenset(rule.events),
        rule.prefix_filter_rule.value if rule.prefix_filter_rule else "",
        rule.suffix_filter_rule.value if rule.suffix_filter_rule else "",
    )


def describe_rule(rule: QueueConfig) -> str:
    """Return a rule in words, for an error message."""
    _, prefix, suffix = _key(rule)
    return (
        f"{rule.config_id or 'rule without id'} ({','.join(rule.events)}, prefix {prefix!r}, "
        f"suffix {suffix!r}, to {rule.queue})"
    )


def clashing_rules(
    others: Iterable[QueueConfig], wanted: Iterable[QueueConfig]
) -> list[QueueConfig]:
    """Return the rules of others that select some of the objects and events of the wanted ones.

    MinIO allows such rules and sends to both targets; other servers refuse them.
    """
    wanted = list(wanted)
    return [other for other in others if any(_overlap(other, rule) for rule in wanted)]


def _overlap(one: QueueConfig, two: QueueConfig) -> bool:
    _, prefix_one, suffix_one = _key(one)
    _, prefix_two, suffix_two = _key(two)
    stems_one, stems_two = (
        [event.removesuffix("*") for event in rule.events] for rule in (one, two)
    )
    return (
        (prefix_one.startswith(prefix_two) or prefix_two.startswith(prefix_one))
        and (suffix_one.endswith(suffix_two) or suffix_two.endswith(suffix_one))
        and any(a.startswith(b) or b.startswith(a) for a in stems_one for b in stems_two)
    )


def repeated_rules(
    existing: NotificationConfig, wanted: Iterable[QueueConfig], target: str
) -> dict[str, list[QueueConfig]]:
    """Return rules that equal a wanted one but send to another Kafka target, by that target.

    Changing NOTIFY_KAFKA_TARGET leaves the pipeline's former rules behind like this.
    """
    keys = {_key(rule) for rule in wanted}
    found: dict[str, list[QueueConfig]] = {}
    for rule in existing.queue_config_list:
        other = target_of(rule.queue or "")
        if other is not None and other != target and _key(rule) in keys:
            found.setdefault(other, []).append(rule)
    return found


def ensure_buckets(
    settings: Settings,
    renditions: Sequence[Rendition],
    server: Server,
    minio: MinioResource,
    report: Report,
    *,
    dry_run: bool,
) -> None:
    """Create the source bucket and the renditions' buckets.

    Raises:
        TransientError: MinIO is unreachable.
        UserError: a bucket belongs to another account.
    """
    refused: dict[str, RefusedError] = {}
    for bucket in dict.fromkeys([settings.source_bucket, *(one.bucket for one in renditions)]):
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
            existing = _read_notification(minio.client, bucket)
            changes = rule_changes(existing, wanted, target)
            if changes.removed:
                made.check(
                    f"bucket {bucket!r} has {len(changes.removed)} rules of target {target!r} "
                    "that SOURCE_SUFFIXES does not name",
                    is_ours=_is_target_ours(server, made, target),
                    effect="that one gets fewer events",
                )
            if changes and not dry_run:
                _write_notification(minio, bucket, changes, target)
            report(
                changed(
                    f"{title}: {len(changes.added)} rules added, {len(changes.removed)} removed, "
                    f"{len(changes.config.queue_config_list) - len(changes.added)} kept",
                    dry_run=dry_run,
                )
                if changes
                else Step("ok", f"{title}: {len(wanted)} rules to {arn(target)}")
            )
    except RefusedError as error:
        report(
            Step(
                "needs administrator",
                f"{title}: {refusal(server, error)}; an administrator must run",
                mc_commands(server.endpoint, *admin_commands(bucket, target, changes, wanted)),
            )
        )
        return
    for other, rules in repeated_rules(existing, wanted, target).items():
        if _topic_of(server, other) in {None, settings.kafka_topic}:
            report(_repeated(settings, server, other, rules))


def _repeated(settings: Settings, server: Server, other: str, rules: Sequence[QueueConfig]) -> Step:
    arns = dict.fromkeys(rule.queue or "" for rule in rules)
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


def admin_commands(
    bucket: str, target: str, changes: RuleChanges, wanted: Iterable[QueueConfig]
) -> tuple[str, ...]:
    """Return the commands that make the changes."""
    where = f"{ALIAS}/{bucket} {arn(target)}"
    # `mc` removes all rules of a target at once.
    removal = (f"mc event rm {where}",) if changes.removed else ()
    rules = wanted if changes.removed else changes.added
    suffixes = [rule.suffix_filter_rule.value for rule in rules if rule.suffix_filter_rule]
    words = " ".join(shlex.quote(suffix) for suffix in suffixes)
    return (
        *removal,
        f"for suffix in {words}; do",
        f'  mc event add {where} --event put,delete --suffix "$suffix"',
        "done",
    )


def _read_notification(client: Minio, bucket: str) -> NotificationConfig:
    try:
        return client.get_bucket_notification(bucket)
    except S3Error as error:
        # In a dry run the bucket may not exist yet.
        if error.code in NOTIFICATION_MISSING:
            return NotificationConfig()
        raise


def _write_notification(
    minio: MinioResource, bucket: str, changes: RuleChanges, target: str
) -> None:
    try:
        minio.client.set_bucket_notification(bucket, changes.config)
    except S3Error as error:
        if error.code in DENIED:
            raise
        others = [
            rule
            for rule in changes.config.queue_config_list
            if not is_arn_of(rule.queue or "", target)
        ]
        # MinIO hides rules whose target no longer exists, and allows rules that overlap. Other
        # servers show the former and refuse the latter, with all rules of the request.
        suspects = clashing_rules(others, changes.added) or others
        named = "; ".join(describe_rule(rule) for rule in suspects) or "none found"
        msg = (
            f"{minio.endpoint} refuses notifications of bucket {bucket!r} to {arn(target)} "
            f"({error.code}: {error.message}); rules in the way: {named}: remove them "
            "with `mc event rm`, or use another SOURCE_BUCKET"
        )
        raise UserError(msg) from error
