"""Provisioning on servers whose Kafka target an administrator has made."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from minio.notificationconfig import NotificationConfig, SuffixFilterRule, TopicConfig

from resize_pipeline.errors import UserError
from resize_pipeline.provisioning import arns, rules
from resize_pipeline.provisioning.admin import Server
from resize_pipeline.provisioning.buckets import ensure_buckets, ensure_notification
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.provisioning.target import ensure_target
from resize_pipeline.provisioning.user import ensure_user, user_spec
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings
from tests.support.other_s3 import NAMESPACE, OtherServer, other_server

CEPH = "arn:aws:sns:default::minio-events"
RUSTFS = "arn:rustfs:sqs:us-east-1:resize:kafka"
OWNER = "owner-of-bucket"
RENDITIONS = [Rendition(name="a", width=1, height=1, bucket="out")]
VARIANTS = 8  # of `.jpg` in upper and lower case


@pytest.fixture(params=[("Ceph", CEPH), ("RustFS", RUSTFS)], ids=["Ceph", "RustFS"])
def server(request: pytest.FixtureRequest) -> Iterator[OtherServer]:
    with other_server(*request.param, OWNER, "pipeline-user") as running:
        yield running


def settings_of(server: OtherServer, folder: Path, **changes: object) -> Settings:
    values: dict[str, object] = {
        "minio_endpoint": server.endpoint,
        "minio_root_user": OWNER,
        "minio_root_password": "secret-of-owner",
        "notify_kafka_target": server.arn,
        "source_suffixes": ".jpg",
        "local_stack": False,
        "local_dir": folder,
    }
    return Settings.model_validate(values | changes)


def provisioned(settings: Settings, *, take_over: bool = False) -> list[Step]:
    """Provision all but the topics, which are in Kafka."""
    steps: list[Step] = []
    server, made = Server(settings), Made(settings, take_over=take_over)
    ensure_target(settings, server, made, steps.append, dry_run=False)
    minio = server.s3()
    ensure_buckets(settings, RENDITIONS, server, minio, steps.append, dry_run=False)
    ensure_notification(settings, server, minio, made, steps.append, dry_run=False)
    spec = user_spec(settings, RENDITIONS, None)
    ensure_user(spec, server, made, steps.append, dry_run=False)
    return steps


def step_of(steps: list[Step], start: str) -> Step:
    (found,) = [step for step in steps if step.what.startswith(start)]
    return found


def test_rules_are_set_by_plain_s3(server: OtherServer, tmp_path: Path) -> None:
    settings = settings_of(server, tmp_path)
    steps = provisioned(settings)
    assert server.suffixes("images") == set(rules.case_variants(".jpg"))
    assert step_of(steps, f"target {server.arn}").state == "ok"
    assert "8 rules added, 0 removed, 0 kept" in step_of(steps, "notification").what
    asked = [one for one in server.requests if "admin" in one]
    assert all("user" in one for one in asked), "the target is no business of ours"
    again = provisioned(settings)
    assert step_of(again, "notification").state == "ok"
    assert len(server.rules["images"]) == VARIANTS


def test_suffixes_that_are_given_up_lose_the_rules_that_were_set_here(
    server: OtherServer, tmp_path: Path
) -> None:
    provisioned(settings_of(server, tmp_path, source_suffixes=".jpg,.png"))
    with pytest.raises(UserError, match=r"another pipeline: use another target, or .*--take-over"):
        provisioned(settings_of(server, tmp_path / "other"))
    assert len(server.rules["images"]) == 2 * VARIANTS
    provisioned(settings_of(server, tmp_path))
    assert server.suffixes("images") == set(rules.case_variants(".jpg"))
    provisioned(settings_of(server, tmp_path / "other", source_suffixes=".png"), take_over=True)
    assert server.suffixes("images") == set(rules.case_variants(".png"))


def test_a_user_is_asked_for_where_none_can_be_made(server: OtherServer, tmp_path: Path) -> None:
    asked = step_of(provisioned(settings_of(server, tmp_path)), "user")
    assert asked.state == "needs administrator"
    assert "has no MinIO admin API" in asked.what
    assert "MINIO_ACCESS_KEY and MINIO_SECRET_KEY" in asked.what
    assert json.loads("\n".join(asked.lines))["Statement"]
    keys = {"minio_access_key": "pipeline-user", "minio_secret_key": "secret-of-user"}
    given = step_of(provisioned(settings_of(server, tmp_path, **keys)), "user")
    assert given.state == "ok"


def test_the_owners_keys_alone_are_enough(server: OtherServer, tmp_path: Path) -> None:
    keys = {"minio_access_key": OWNER, "minio_secret_key": "s" * 8, "minio_root_password": None}
    settings = settings_of(server, tmp_path, **keys, minio_root_user="minio")
    assert {step.state for step in provisioned(settings)} == {"changed", "ok"}
    assert {step.state for step in provisioned(settings)} == {"ok"}


def test_a_target_that_the_server_does_not_have(server: OtherServer, tmp_path: Path) -> None:
    settings = settings_of(server, tmp_path, notify_kafka_target=server.arn + "x")
    with pytest.raises(UserError, match="NOTIFY_KAFKA_TARGET to the ARN of a target that this"):
        provisioned(settings)


def test_kafkas_topic_has_the_name_of_cephs(tmp_path: Path) -> None:
    steps: list[Step] = []
    with other_server("Ceph", CEPH, OWNER) as server:
        settings = settings_of(server, tmp_path, kafka_topic="pictures")
        made = Made(settings, take_over=False)
        ensure_target(settings, Server(settings), made, steps.append, dry_run=False)
    [step] = steps
    assert step.state == "warning"
    assert "KAFKA_TOPIC=minio-events" in step.what


def test_keys_that_may_not_set_rules_to_topics(tmp_path: Path) -> None:
    with other_server("Ceph", CEPH) as server:
        steps: list[Step] = []
        settings = settings_of(server, tmp_path)
        admin, made = Server(settings), Made(settings, take_over=False)
        ensure_notification(settings, admin, admin.s3(), made, steps.append, dry_run=False)
    [step] = steps
    assert step.state == "needs administrator"
    assert "MINIO_ROOT_USER and MINIO_ROOT_PASSWORD" in step.what


def test_rules_of_others_that_would_lose_their_filters_are_named(tmp_path: Path) -> None:
    """Ceph can filter by metadata, tags and regular expressions, which clients can't read."""
    with other_server("Ceph", CEPH, OWNER) as server:
        theirs = ET.Element(f"{NAMESPACE}TopicConfiguration")
        for name, text in {
            "Id": "theirs",
            "Topic": "arn:aws:sns:default::theirs",
            "Event": "s3:ObjectCreated:*",
        }.items():
            ET.SubElement(theirs, NAMESPACE + name).text = text
        server.rules["images"] = {"theirs": theirs}
        with pytest.raises(UserError, match=r"rules of others.*theirs.*another SOURCE_BUCKET"):
            provisioned(settings_of(server, tmp_path))
        assert list(server.rules["images"]) == ["theirs"]


def test_filters_that_no_client_reads_are_named(tmp_path: Path) -> None:
    with other_server("Ceph", CEPH, OWNER) as server:
        provisioned(settings_of(server, tmp_path))
        [rule, *_] = server.rules["images"].values()
        for found in rule.findall(f"{NAMESPACE}Filter"):
            found.clear()
            ET.SubElement(found, f"{NAMESPACE}S3Metadata")
        with pytest.raises(UserError, match=r"filters that an S3 client can't read.*SOURCE_BUCKET"):
            provisioned(settings_of(server, tmp_path))


def test_topics_and_queues_are_told_apart() -> None:
    assert arns.is_topic(CEPH)
    assert not arns.is_topic(RUSTFS)
    assert not arns.is_topic("resize_pipeline")
    assert arns.is_arn_of("arn:rustfs:sqs::resize:kafka", RUSTFS)
    assert not arns.is_arn_of("arn:rustfs:sqs:us-east-1:other:kafka", RUSTFS)
    assert not arns.is_arn_of("arn:minio:sqs::resize:kafka", RUSTFS)
    [rule] = rules.wanted_rules([".7"], CEPH)
    assert rule == TopicConfig(
        [*rules.EVENTS],
        "minio-events.7",
        suffix_filter_rule=SuffixFilterRule(".7"),
        topic=CEPH,
    )
    changes = rules.rule_changes(NotificationConfig(), [rule], CEPH)
    assert changes.config.topic_config_list == [rule]
    assert not changes.config.queue_config_list
