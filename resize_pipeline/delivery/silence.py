"""Decides whether the source bucket announces its pictures. Pure.

Uploads that no event announces look like no uploads at all, so nothing else fails.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence

from resize_pipeline.delivery.events import ObjectCreated, parse_message
from resize_pipeline.errors import escaped
from resize_pipeline.provisioning.arns import is_arn, is_arn_of
from resize_pipeline.provisioning.rules import EVENTS, Rule, destination, rule_key, wanted_rules
from resize_pipeline.renditions.objects import ObjectInfo

LATENCY_S = 15.0
"""How long an event may take to reach the topic: MinIO tries to send its queue every 3 s
(internal/store/store.go, retryInterval)."""
LOOK_BACK = dt.timedelta(days=2)
"""Objects that are older may have had an event that the topic no longer holds."""
CLOCK_TOLERANCE = dt.timedelta(minutes=1)
"""By how much the clocks of MinIO and Kafka may differ."""
SUFFIXES_SHOWN = 4
KEYS_SHOWN = 10
KEYS_IN_LINE = 3


def rules_problem(
    place: str, rules: Iterable[Rule], suffixes: Sequence[str], target: str
) -> str | None:
    """Return which pictures the rules of the source bucket leave out, with the remedy.

    Args:
        place: the bucket and its server.
        rules: the bucket's rules.
        suffixes: the suffixes of pictures, in lower case, each with its dot.
        target: name or ARN of the Kafka target. If it is a name and the server is not MinIO,
            whoever set the rules knows where they send to.
    """
    useful = [one for one in rules if _may_reach_the_topic(destination(one), target)]
    wanted = [rule_key(rule)[2] for rule in wanted_rules(suffixes, target)]
    lacking = [one for one in wanted if not any(_announces(rule, one) for rule in useful)]
    if not lacking:
        return None
    if len(lacking) == len(wanted):
        what = f"no notification rules for the target {target!r}, so uploads have no events"
    else:
        more = f" and {len(lacking) - SUFFIXES_SHOWN} more" if len(lacking) > SUFFIXES_SHOWN else ""
        shown = f"{', '.join(lacking[:SUFFIXES_SHOWN])}{more}"
        what = f"no notification rules for keys that end in {shown}, so these have no events"
    return (
        f"{place} has {what}: run `resize-pipeline provision`; reconciliation makes what was "
        "uploaded meanwhile"
    )


def offline_problem(endpoint: str, target: str) -> str:
    """Return that MinIO does not reach Kafka, with the remedy.

    Args:
        endpoint: MinIO's address.
        target: the name of its Kafka target.
    """
    return (
        f"MinIO at {endpoint} does not reach the Kafka of its target {target!r}, so events wait "
        "there or are lost: start Kafka, or set NOTIFY_KAFKA_BROKERS to its address as MinIO sees "
        "it and run `resize-pipeline provision`; reconciliation makes what was uploaded meanwhile"
    )


def _may_reach_the_topic(arn: str, target: str) -> bool:
    return is_arn_of(arn, target) or not (is_arn(target) or arn.startswith("arn:minio:"))


def _announces(rule: Rule, suffix: str) -> bool:
    """Return whether a rule selects all events that are wanted of all keys with this suffix."""
    events, prefix, ending = rule_key(rule)
    stems = tuple(event.removesuffix("*") for event in events)
    return (
        not prefix
        and suffix.endswith(ending)
        and all(event.removesuffix("*").startswith(stems) for event in EVENTS)
    )


def suspects(
    found: Iterable[ObjectInfo], watched_since: dt.datetime, now: dt.datetime
) -> dict[str, ObjectInfo]:
    """Return the objects without renditions whose event must be on the topic, by key.

    Args:
        found: the pictures that reconciliation found without a current rendition.
        watched_since: when the sensor began to read the topic.
        now: the time.
    """
    since = max(watched_since, now - LOOK_BACK)
    return {one.key: one for one in found if one.last_modified >= since}


def announced(
    values: Iterable[bytes | None], suspected: Mapping[str, ObjectInfo], bucket: str
) -> set[str]:
    """Return the keys whose object is announced by one of these messages.

    Args:
        values: values of messages.
        suspected: objects by key.
        bucket: the source bucket.
    """
    found: set[str] = set()
    for value in values:
        for event in parse_message(value, source_bucket=bucket):
            if isinstance(event, ObjectCreated) and event.key in suspected:
                item = suspected[event.key]
                # With some kinds of encryption, event and listing give different etags.
                is_later = event.time and event.time >= item.last_modified - CLOCK_TOLERANCE
                if is_later or event.etag == item.etag:
                    found.add(event.key)
    return found


def silence_problem(count: int, keys: Collection[str], topic: str) -> str | None:
    """Return how many objects had no event, with what to look at; None if all had one.

    Args:
        count: how many.
        keys: some of their keys.
        topic: the topic that should have their events.
    """
    if not count:
        return None
    some = ", ".join(repr(escaped(key)) for key in list(keys)[:KEYS_IN_LINE])
    objects = "1 object" if count == 1 else f"{count} objects"
    return (
        f"{objects} had no event on topic {topic}, such as {some}; the last reconciliation found "
        "them and makes their renditions: run `resize-pipeline provision` in case the bucket has "
        "lost its rules, and look at MinIO's log in case its target is offline; replicas and files "
        "copied into MinIO's data folder never have events"
    )
