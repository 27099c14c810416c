"""Whether the source bucket announces its pictures, as its rules and its messages say."""

import datetime as dt
import json

import pytest
from minio.notificationconfig import (
    PrefixFilterRule,
    QueueConfig,
    SuffixFilterRule,
    TopicConfig,
)

from resize_pipeline.delivery.events import notification
from resize_pipeline.delivery.silence import (
    CLOCK_TOLERANCE,
    LOOK_BACK,
    announced,
    rules_problem,
    silence_problem,
    suspects,
)
from resize_pipeline.provisioning.rules import EVENTS, Rule, rule_key, wanted_rules
from resize_pipeline.renditions.objects import ObjectInfo

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
SUFFIXES = [".jpg", ".jpeg"]
OURS = "arn:minio:sqs::t:kafka"
CEPHS = "arn:aws:sns:default::topic"
WANTED = wanted_rules(SUFFIXES, "t")


def rule(arn: str, events: tuple[str, ...] = EVENTS, prefix: str = "", suffix: str = "") -> Rule:
    filters = {
        "prefix_filter_rule": PrefixFilterRule(prefix) if prefix else None,
        "suffix_filter_rule": SuffixFilterRule(suffix) if suffix else None,
    }
    if ":sns:" in arn:
        return TopicConfig(topic=arn, events=[*events], **filters)
    return QueueConfig(queue=arn, events=[*events], **filters)


def problem(rules: list[Rule], target: str = "t") -> str | None:
    return rules_problem("bucket 'b' on MinIO at M", rules, SUFFIXES, target)


def test_the_rules_that_provisioning_sets_are_enough() -> None:
    assert problem(WANTED) is None
    assert problem([*WANTED, rule(OURS, ("s3:ObjectAccessed:*",))]) is None


def test_no_rules_at_all() -> None:
    found = problem([])
    assert found is not None
    assert "bucket 'b' on MinIO at M has no notification rules for the target 't'" in found
    assert "`resize-pipeline provision`" in found


@pytest.mark.parametrize(
    "one",
    [
        rule(OURS, EVENTS),
        rule(OURS, ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectAccessed:*")),
        rule("arn:minio:sqs:us-east-1:t:kafka", EVENTS, suffix=""),
        # Another server's name for what an administrator has made there.
        rule(CEPHS),
    ],
)
def test_one_rule_for_all_keys_is_enough(one: Rule) -> None:
    assert problem([one]) is None


@pytest.mark.parametrize(
    "one",
    [
        rule("arn:minio:sqs::other:kafka", EVENTS),
        rule("arn:minio:sqs::t:webhook", EVENTS),
        rule(OURS, EVENTS, prefix="some/"),
        rule(OURS, ("s3:ObjectCreated:*",)),
        rule(OURS, ("s3:ObjectCreated:Put", "s3:ObjectRemoved:*")),
        rule(OURS, EVENTS, suffix=".png"),
    ],
)
def test_rules_that_leave_out_all_pictures(one: Rule) -> None:
    assert "no notification rules for the target" in (problem([one]) or "")


def test_a_target_given_by_its_arn_is_the_only_one() -> None:
    assert problem([rule(CEPHS)], CEPHS) is None
    assert problem([rule("arn:aws:sns:default::other")], CEPHS)
    assert problem(wanted_rules(SUFFIXES, CEPHS), CEPHS) is None


def test_rules_that_leave_out_some_name_them() -> None:
    assert "keys that end in .JPG, so these" in (
        problem([one for one in WANTED if rule_key(one)[2] != ".JPG"]) or ""
    )
    many = problem([one for one in WANTED if len(rule_key(one)[2]) == len(".jpg")]) or ""
    assert ".jpeg" in many
    assert "and 12 more" in many


def item(key: str, ago: dt.timedelta, etag: str = "e") -> ObjectInfo:
    return ObjectInfo(key, etag, None, 1, NOW - ago, None)


def test_only_objects_that_the_topic_must_know_are_suspected() -> None:
    minute = dt.timedelta(minutes=1)
    found = [item("new", minute), item("old", LOOK_BACK + minute), item("before", 3 * minute)]
    assert set(suspects(found, NOW - 2 * minute, NOW)) == {"new"}
    assert set(suspects(found, NOW - 9 * LOOK_BACK, NOW)) == {"new", "before"}


def event(key: str, etag: str, time: dt.datetime | None, name: str = "ObjectCreated:Put") -> bytes:
    record = {
        "eventName": f"s3:{name}",
        "eventTime": time and time.isoformat(),
        "s3": {"bucket": {"name": "b"}, "object": {"key": key, "eTag": etag}},
    }
    return json.dumps({"Records": [record]}).encode()


@pytest.mark.parametrize(
    ("message", "is_announced"),
    [
        (event("a", "e", None), True),
        (event("a", "another", NOW), True),
        (event("a", "another", NOW - 2 * CLOCK_TOLERANCE), False),
        (event("a", "e", NOW, "ObjectRemoved:Delete"), False),
        (event("b", "e", NOW), False),
        (notification("b", "a", size=1, etag="e"), True),
        (notification("c", "a", size=1, etag="e"), False),
        (b"junk", False),
        (None, False),
    ],
)
def test_what_announces_an_object(message: bytes | None, *, is_announced: bool) -> None:
    suspected = {"a": item("a", dt.timedelta(0))}
    assert announced([message], suspected, "b") == ({"a"} if is_announced else set())


def test_what_is_said_of_objects_without_event() -> None:
    assert silence_problem(0, [], "t") is None
    one = silence_problem(1, ["a\x1b.jpg"], "t") or ""
    assert one.startswith("1 object had no event on topic t, such as")
    assert "\x1b" not in one
    assert (silence_problem(17, ["a"], "t") or "").startswith("17 objects had no event")
