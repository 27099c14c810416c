"""Notification rules of a bucket: which are wanted, which belong to whom. Pure functions."""

import itertools
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from minio.notificationconfig import (
    NotificationConfig,
    QueueConfig,
    SuffixFilterRule,
    TopicConfig,
)

from resize_pipeline.provisioning.arns import arn, is_arn, is_arn_of, is_topic, target_of
from resize_pipeline.provisioning.steps import ALIAS

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
SHOWN = 5
"""How many rules a message describes."""
VARIED_LETTERS = 4
"""Longest suffix, in letters, of which all 2 ** letters variants get a rule."""
Rule = QueueConfig | TopicConfig
"""A notification rule: MinIO and most servers send to queues, Ceph sends to topics."""


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """A bucket's new notification configuration, and how it differs from the present one."""

    config: NotificationConfig
    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    others: tuple[Rule, ...]
    """The rules that send to other targets, which stay."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def wanted_rules(suffixes: Sequence[str], target: str) -> list[Rule]:
    """Return the rules that select images. S3 compares suffixes case-sensitively.

    A single rule without a suffix would need no variants, but would put an event on the topic for
    every other object of the bucket, too.

    Args:
        suffixes: key suffixes in lower case, each with its dot.
        target: name or ARN of the Kafka target.
    """
    cases = dict.fromkeys(case for suffix in suffixes for case in case_variants(suffix))
    return [_rule(target, suffix) for suffix in cases]


def _rule(target: str, suffix: str) -> Rule:
    events: list[str] = [*EVENTS]
    suffix_filter = SuffixFilterRule(suffix)
    if not is_arn(target):
        return QueueConfig(queue=arn(target), events=events, suffix_filter_rule=suffix_filter)
    # Ceph requires an id, and RustFS refuses rules of one target that have the same or none.
    config_id = "-".join(filter(None, target.split(":")[4:])) + suffix
    if is_topic(target):
        return TopicConfig(events, config_id, suffix_filter_rule=suffix_filter, topic=target)
    return QueueConfig(events, config_id, suffix_filter_rule=suffix_filter, queue=target)


def rules_of(config: NotificationConfig) -> list[Rule]:
    """Return the rules of a bucket that send to queues or topics."""
    return [*config.queue_config_list, *config.topic_config_list]


def destination(rule: Rule) -> str:
    """Return the ARN of the target that a rule sends to."""
    return (rule.topic if isinstance(rule, TopicConfig) else rule.queue) or ""


def case_variants(suffix: str) -> list[str]:
    """Return a suffix in lower and upper case and with a capital; a short one in all variants.

    Args:
        suffix: a key suffix in lower case.
    """
    if sum(letter.isalpha() for letter in suffix) <= VARIED_LETTERS:
        letters = ((letter, letter.upper()) for letter in suffix)
        return list(dict.fromkeys(map("".join, itertools.product(*letters))))
    return [suffix, suffix.upper(), suffix.title()]


def rule_changes(existing: NotificationConfig, wanted: Iterable[Rule], target: str) -> RuleChanges:
    """Replace the rules of this target by the wanted ones, and keep all other rules.

    A rule belongs to the pipeline if it sends to this target. Rule ids are not compared.
    """
    wanted = list(wanted)
    ours = [rule for rule in rules_of(existing) if is_arn_of(destination(rule), target)]
    others = [rule for rule in rules_of(existing) if rule not in ours]
    keys = {rule_key(rule) for rule in wanted}
    kept = [rule for rule in ours if rule_key(rule) in keys]
    # Of identical rules one is kept.
    kept = list({rule_key(rule): rule for rule in kept}.values())
    added = [rule for rule in wanted if rule_key(rule) not in {rule_key(one) for one in kept}]
    rules = [*others, *kept, *added]
    return RuleChanges(
        replace(
            existing,
            queue_config_list=[rule for rule in rules if isinstance(rule, QueueConfig)],
            topic_config_list=[rule for rule in rules if isinstance(rule, TopicConfig)],
        ),
        tuple(added),
        tuple(rule for rule in ours if rule not in kept),
        tuple(others),
    )


def rule_key(rule: Rule) -> tuple[frozenset[str], str, str]:
    """Return what a rule selects: events, prefix and suffix."""
    return (
        frozenset(rule.events),
        rule.prefix_filter_rule.value if rule.prefix_filter_rule else "",
        rule.suffix_filter_rule.value if rule.suffix_filter_rule else "",
    )


def describe_rule(rule: Rule) -> str:
    """Return a rule in words, for an error message."""
    _, prefix, suffix = rule_key(rule)
    return (
        f"{rule.config_id or 'rule without id'} ({','.join(rule.events)}, prefix {prefix!r}, "
        f"suffix {suffix!r}, to {destination(rule)})"
    )


def described(rules: Sequence[Rule]) -> str:
    """Return the first of these rules in words, and the number of the others."""
    shown = [describe_rule(rule) for rule in rules[:SHOWN]]
    more = [f"{len(rules) - SHOWN} more"] if len(rules) > SHOWN else []
    return "; ".join(shown + more) or "none found"


def clashing_rules(others: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Return the rules of others that select some of the objects and events of the wanted ones.

    MinIO allows such rules and sends to both targets; other servers refuse them.
    """
    wanted = list(wanted)
    return [other for other in others if any(_overlap(other, rule) for rule in wanted)]


def _overlap(one: Rule, two: Rule) -> bool:
    _, prefix_one, suffix_one = rule_key(one)
    _, prefix_two, suffix_two = rule_key(two)
    stems_one, stems_two = (
        [event.removesuffix("*") for event in rule.events] for rule in (one, two)
    )
    return (
        (prefix_one.startswith(prefix_two) or prefix_two.startswith(prefix_one))
        and (suffix_one.endswith(suffix_two) or suffix_two.endswith(suffix_one))
        and any(a.startswith(b) or b.startswith(a) for a in stems_one for b in stems_two)
    )


def repeated_rules(
    existing: NotificationConfig, wanted: Iterable[Rule], target: str
) -> dict[str, list[Rule]]:
    """Return rules that equal a wanted one but send to another Kafka target, by that target.

    Changing NOTIFY_KAFKA_TARGET leaves the pipeline's former rules behind like this.
    """
    keys = {rule_key(rule) for rule in wanted}
    found: dict[str, list[Rule]] = {}
    for rule in rules_of(existing):
        other = target_of(destination(rule))
        is_ours = is_arn_of(destination(rule), target)
        if other is not None and not is_ours and rule_key(rule) in keys:
            found.setdefault(other, []).append(rule)
    return found


def admin_commands(
    bucket: str, target: str, changes: RuleChanges, wanted: Iterable[Rule]
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
