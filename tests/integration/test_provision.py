"""Provisioning against the real Kafka and the real MinIO of the local stack."""

import io
import json
import stat
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from minio import Minio
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig, SuffixFilterRule
from pydantic import SecretStr
from typer.testing import CliRunner

from resize_pipeline import cli
from resize_pipeline.environment import CREDENTIALS_FILE
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.provisioning.admin import Server
from resize_pipeline.provisioning.arns import arn, is_arn_of
from resize_pipeline.provisioning.credentials import read_credentials
from resize_pipeline.provisioning.made import FILE, Made
from resize_pipeline.provisioning.policy import policy_name
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.provisioning.rules import case_variants
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.provisioning.target import ensure_target, read_target
from resize_pipeline.provisioning.topics import ensure_topics
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

pytestmark = pytest.mark.integration

EVENT_TIMEOUT_S = 30


@pytest.fixture
def own(stack: Settings, tmp_path: Path) -> Settings:
    """Return settings with names that no other test uses."""
    name = uuid.uuid4().hex[:8]
    (tmp_path / "renditions.yaml").write_text(
        f"renditions:\n"
        f"  large: {{width: 9, height: 9, bucket: out-{name}}}\n"
        f"  small: {{width: 4, height: 4, bucket: thumbs-{name}, prefix: small/}}\n"
    )
    return stack.model_copy(
        update={
            "minio_access_key": SecretStr(f"u-{name}"),
            "minio_secret_key": None,
            "source_bucket": f"in-{name}",
            "notify_kafka_target": f"t{name}",
            "kafka_topic": f"topic-{name}",
            "renditions_file": tmp_path / "renditions.yaml",
            "local_dir": tmp_path / ".local",
        }
    )


@pytest.fixture
def foreign(own: Settings) -> Settings:
    """Return the same settings, as if somebody else ran the servers."""
    return own.model_copy(update={"local_stack": False})


def with_credentials(settings: Settings, found: tuple[str, str] | None) -> Settings:
    assert found is not None
    return settings.model_copy(
        update={"minio_access_key": SecretStr(found[0]), "minio_secret_key": SecretStr(found[1])}
    )


def reloaded(settings: Settings) -> Settings:
    return with_credentials(settings, read_credentials(settings.local_dir / CREDENTIALS_FILE))


def s3(settings: Settings, *, root: bool) -> Minio:
    access_key = settings.minio_root_user if root else settings.minio_access_key
    secret_key = settings.minio_root_password if root else settings.minio_secret_key
    assert access_key is not None
    assert secret_key is not None
    return MinioResource.from_settings(
        settings,
        access_key=access_key.get_secret_value(),
        secret_key=secret_key.get_secret_value(),
    ).client


def put(client: Minio, bucket: str, key: str, data: bytes = b"x") -> None:
    client.put_object(bucket, key, io.BytesIO(data), len(data))


def states(steps: list[Step]) -> set[str]:
    return {step.state for step in steps}


def step_of(steps: list[Step], start: str) -> Step:
    (found,) = [step for step in steps if step.what.startswith(start)]
    return found


def topic_config(settings: Settings, topic: str) -> dict[str, Any]:
    with KafkaResource.from_settings(settings).connection.admin() as admin:
        found: Any = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {key: value["value"] for key, value in found["topic"][topic].items()}


def messages(settings: Settings, count: int) -> list[tuple[str, str]]:
    """Wait for this many events and return the name and key of each."""
    kafka = KafkaResource.from_settings(settings)
    deadline = time.monotonic() + EVENT_TIMEOUT_S
    found: list[tuple[str, str]] = []
    while time.monotonic() < deadline:
        state = kafka.topic_state(settings.kafka_topic)
        read = kafka.read(settings.kafka_topic, state.starts, state.ends, position={})
        bodies = [json.loads(message.value or b"{}") for message in read]
        found = [(body["EventName"], body["Key"]) for body in bodies]
        if len(found) >= count:
            return found
        time.sleep(0.3)
    return found


def uptime(settings: Settings) -> int:
    server = Server(settings)
    return int(json.loads(server.call(server.admin.info))["servers"][0].get("uptime", 0))


def test_from_nothing_to_events_on_the_topic(own: Settings) -> None:
    steps = provision(own)
    assert states(steps) == {"changed"}
    assert read_credentials(own.local_dir / CREDENTIALS_FILE) is not None
    secret_mode = stat.S_IMODE((own.local_dir / CREDENTIALS_FILE).stat().st_mode)
    assert secret_mode == 0o600
    settings = reloaded(own)
    assert settings.minio_secret_key is not None
    assert settings.minio_secret_key.get_secret_value() not in "\n".join(s.text() for s in steps)

    state = KafkaResource.from_settings(own).topic_state(own.kafka_topic)
    assert len(state.watermarks) == own.kafka_topic_partitions
    assert topic_config(own, own.kafka_topic)["retention.ms"] == "604800000"
    dead_letters = topic_config(own, own.dead_letter_topic)
    assert dead_letters["cleanup.policy"] == "compact"
    assert int(dead_letters["max.message.bytes"]) > 1_048_588

    root = s3(own, root=True)
    for key in ("a b.jpg", "deeper/ö.JPG", "skipped.txt"):
        put(root, own.source_bucket, key)
    root.remove_object(own.source_bucket, "a b.jpg")
    assert sorted(messages(own, 3)) == [
        ("s3:ObjectCreated:Put", f"{own.source_bucket}/a b.jpg"),
        ("s3:ObjectCreated:Put", f"{own.source_bucket}/deeper/ö.JPG"),
        ("s3:ObjectRemoved:Delete", f"{own.source_bucket}/a b.jpg"),
    ]


def test_second_time_changes_nothing_and_restarts_nothing(own: Settings) -> None:
    provision(own)
    settings = reloaded(own)
    before = (own.local_dir / CREDENTIALS_FILE).read_bytes()
    time.sleep(1.5)
    up = uptime(settings)
    steps = provision(settings)
    assert states(steps) == {"ok"}
    assert uptime(settings) >= max(up, 1)
    assert (own.local_dir / CREDENTIALS_FILE).read_bytes() == before


def test_dry_run_changes_nothing_and_shows_no_secret(own: Settings) -> None:
    settings = own.model_copy(
        update={
            "kafka_sasl_username": "u",
            "kafka_sasl_password": SecretStr("topsecret"),
        }
    )
    up = uptime(settings)
    steps = provision(settings, dry_run=True)
    assert states(steps) == {"would change"}
    text = "\n".join(step.text() for step in steps)
    assert "topsecret" not in text
    root = own.minio_root_password.get_secret_value()
    assert root not in text
    assert uptime(settings) >= up
    assert not own.local_dir.exists()
    assert not s3(own, root=True).bucket_exists(own.source_bucket)
    assert read_target(Server(own), own.notify_kafka_target) is None
    with pytest.raises(UserError, match="has no topic"):
        KafkaResource.from_settings(own).topic_state(own.kafka_topic)
    # A run does what the dry run announced.
    real = provision(own)
    assert [step.what for step in real] == [step.what for step in steps]


def test_dry_run_masks_the_kafka_password(foreign: Settings) -> None:
    settings = foreign.model_copy(
        update={
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_username": "u",
            "kafka_sasl_password": SecretStr("topsecret"),
        }
    )
    steps: list[Step] = []
    server = Server(settings)
    made = Made(settings, take_over=False)
    ensure_target(settings, server, made, steps.append, dry_run=True)
    text = "\n".join(step.text() for step in steps)
    assert "sasl_username=u" in text
    assert "sasl_password=***" in text
    assert "topsecret" not in text
    assert states(steps) == {"would change", "warning"}
    assert "lost while Kafka is down" in text


@pytest.fixture
def other_target(own: Settings) -> str:
    """Return the ARN of somebody else's target."""
    other = own.model_copy(update={"notify_kafka_target": own.notify_kafka_target + "other"})
    provision(other)
    s3(own, root=True).delete_bucket_notification(own.source_bucket)
    return arn(other.notify_kafka_target)


def test_rules_of_others_stay_and_old_ones_of_ours_go(own: Settings, other_target: str) -> None:
    root = s3(own, root=True)
    theirs = QueueConfig(
        queue=other_target,
        events=["s3:ObjectCreated:*"],
        config_id="theirs",
        suffix_filter_rule=SuffixFilterRule(".jpg"),
    )
    root.set_bucket_notification(own.source_bucket, NotificationConfig(queue_config_list=[theirs]))
    steps = provision(reloaded(own))
    assert "96 rules added, 0 removed, 1 kept" in step_of(steps, "notification").what

    settings = reloaded(own).model_copy(update={"source_suffixes": ".jpg,.bmp"})
    steps = provision(settings)
    assert "8 rules added, 88 removed, 9 kept" in step_of(steps, "notification").what
    rules = root.get_bucket_notification(own.source_bucket).queue_config_list
    # The stack's server has a region and puts it into every ARN.
    kept = [rule for rule in rules if is_arn_of(rule.queue or "", other_target.split(":")[4])]
    assert [(rule.config_id, rule.events) for rule in kept] == [("theirs", theirs.events)]
    assert kept[0].suffix_filter_rule == theirs.suffix_filter_rule
    ours = {
        rule.suffix_filter_rule.value
        for rule in rules
        if is_arn_of(rule.queue or "", own.notify_kafka_target) and rule.suffix_filter_rule
    }
    assert ours == {*case_variants(".jpg"), *case_variants(".bmp")}


def test_rule_of_others_whose_target_is_gone_does_no_harm(own: Settings, other_target: str) -> None:
    root = s3(own, root=True)
    gone = QueueConfig(queue=other_target, events=["s3:ObjectCreated:*"], config_id="gone")
    root.set_bucket_notification(own.source_bucket, NotificationConfig(queue_config_list=[gone]))
    server = Server(own)
    server.call(server.admin.config_reset, "notify_kafka", own.notify_kafka_target + "other")
    # Setting the target restarts MinIO, which then no longer has the other one.
    provision(reloaded(own))
    assert read_target(server, own.notify_kafka_target + "other") is None
    assert "ok" in states(provision(reloaded(own)))
    for key in ("a.png", "b.Png", "c.jPEG"):
        put(root, own.source_bucket, key)
    assert sorted(messages(own, 3)) == [
        ("s3:ObjectCreated:Put", f"{own.source_bucket}/{key}")
        for key in ("a.png", "b.Png", "c.jPEG")
    ]


def test_rules_that_another_target_was_left_with_are_told_of(own: Settings) -> None:
    provision(own)
    renamed = reloaded(own).model_copy(
        update={"notify_kafka_target": own.notify_kafka_target + "new"}
    )
    for _ in range(2):
        (warning,) = [step for step in provision(renamed) if step.state == "warning"]
        assert "96 rules" in warning.what
        assert repr(own.notify_kafka_target) in warning.what
    root = s3(own, root=True)
    (old,) = {
        rule.queue or ""
        for rule in root.get_bucket_notification(own.source_bucket).queue_config_list
        if is_arn_of(rule.queue or "", own.notify_kafka_target)
    }
    assert warning.lines[-1] == f"mc event rm myminio/{own.source_bucket} {old}"
    put(root, own.source_bucket, "a.jpg")
    event = ("s3:ObjectCreated:Put", f"{own.source_bucket}/a.jpg")
    assert messages(own, 2) == [event, event]

    # A pipeline with another topic does no harm.
    server = Server(own)
    with KafkaResource.from_settings(own).connection.admin() as admin:
        admin.create_topics({f"{own.kafka_topic}-other": {"num_partitions": 1}})
    ensure_target(
        own.model_copy(update={"kafka_topic": f"{own.kafka_topic}-other"}),
        server,
        Made(own, take_over=False),
        lambda _: None,
        dry_run=False,
    )
    assert states(provision(renamed)) == {"ok"}


def test_a_target_of_an_administrator_is_used_by_its_arn(own: Settings) -> None:
    """As on servers where provisioning can't make one: it is neither changed nor restarted."""
    server = Server(own)
    ensure_topics(own, lambda _: None, dry_run=False)
    ensure_target(own, server, Made(own, take_over=False), lambda _: None, dry_run=False)
    [shown] = [
        one
        for one in server.call_json(server.admin.info)["sqsARN"]
        if is_arn_of(one, own.notify_kafka_target)
    ]
    before, up = read_target(server, own.notify_kafka_target), uptime(own)
    changed = own.model_copy(
        update={"notify_kafka_target": shown, "notify_kafka_queue_dir": Path("/nowhere")}
    )
    steps = provision(changed)
    assert step_of(steps, f"target {shown}").state == "ok"
    assert read_target(server, own.notify_kafka_target) == before
    assert uptime(own) >= up
    root = s3(own, root=True)
    put(root, own.source_bucket, "a b.jpg")
    assert messages(own, 1) == [("s3:ObjectCreated:Put", f"{own.source_bucket}/a b.jpg")]

    settings = with_credentials(changed, read_credentials(own.local_dir / CREDENTIALS_FILE))
    assert states(provision(settings)) == {"ok"}
    provision(settings.model_copy(update={"source_suffixes": ".png"}))
    put(root, own.source_bucket, "b.jpg")
    put(root, own.source_bucket, "c.png")
    assert sorted(messages(own, 2)) == [
        ("s3:ObjectCreated:Put", f"{own.source_bucket}/{key}") for key in ("a b.jpg", "c.png")
    ]
    nowhere = settings.model_copy(update={"notify_kafka_target": "arn:minio:sqs::nowhere:kafka"})
    with pytest.raises(UserError, match="the ARN of a target that this server has"):
        provision(nowhere)


def test_what_differs_is_mended(own: Settings) -> None:
    with KafkaResource.from_settings(own).connection.admin() as admin:
        admin.create_topics(
            {
                own.kafka_topic: {
                    "num_partitions": 1,
                    "configs": {"retention.ms": "1000", "max.message.bytes": "3000000"},
                },
                own.dead_letter_topic: {"num_partitions": 2},
            }
        )
    steps = provision(own)
    source = topic_config(own, own.kafka_topic)
    assert source["retention.ms"] == "604800000"
    assert source["max.message.bytes"] == "3000000"
    assert "1 to 3 partitions" in step_of(steps, "topic").what
    dead_letters = topic_config(own, own.dead_letter_topic)
    assert dead_letters["cleanup.policy"] == "compact"
    assert int(dead_letters["max.message.bytes"]) > 3_000_000
    # New settings of MinIO's target are in force after one restart.
    settings = reloaded(own)
    changed = settings.model_copy(update={"notify_kafka_queue_dir": own.local_dir / "other dir"})
    steps = provision(changed)
    assert [step.state for step in steps if step.state != "ok"] == ["changed"]
    target = read_target(Server(own), own.notify_kafka_target)
    assert target is not None
    assert target.values["queue_dir"] == str(own.local_dir / "other dir")
    more = provision(changed.model_copy(update={"kafka_topic_partitions": 2}))
    assert "more than the 2 wanted" in step_of(more, "topic").what
    assert states(more) == {"ok"}


class TestTwoCheckouts:
    """Two checkouts on one server, with the same names unless they choose others."""

    @pytest.fixture
    def second(self, own: Settings, tmp_path: Path) -> Settings:
        provision(own)
        return own.model_copy(update={"local_dir": tmp_path / "second" / ".local"})

    def state(self, own: Settings) -> tuple[object, ...]:
        server = Server(own)
        rules = s3(own, root=True).get_bucket_notification(own.source_bucket).queue_config_list
        stored = read_credentials(own.local_dir / CREDENTIALS_FILE)
        assert stored is not None
        policies = json.loads(server.call(server.admin.policy_list))
        return (
            read_target(server, own.notify_kafka_target),
            sorted(str(rule.suffix_filter_rule) for rule in rules),
            server.authenticates(*stored),
            [
                {name: sorted(value) for name, value in statement.items()}
                for statement in policies[policy_name(stored[0])]["Statement"]
            ],
        )

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({}, "queue_dir="),
            ({"notify_kafka_queue_dir": "same", "source_suffixes": ".jpg"}, "rules of target"),
            ({"notify_kafka_queue_dir": "same"}, "has a secret that is unknown here"),
        ],
        ids=["target", "rules", "user"],
    )
    def test_the_second_changes_nothing_of_the_first(
        self, own: Settings, second: Settings, changes: dict[str, Any], what: str
    ) -> None:
        target = read_target(Server(own), own.notify_kafka_target)
        assert target
        values = changes | (
            {"notify_kafka_queue_dir": Path(target.values["queue_dir"])} if changes else {}
        )
        clashing = second.model_copy(update=values)
        before = self.state(own)
        with pytest.raises(UserError) as refused:
            provision(clashing)
        assert what in str(refused.value)
        assert "set PIPELINE_NAME" in str(refused.value)
        assert "`resize-pipeline provision --take-over`, after which" in str(refused.value)
        assert self.state(own) == before
        assert states(provision(reloaded(own))) == {"ok"}

    def test_a_user_that_both_share_loses_no_right(self, own: Settings, second: Settings) -> None:
        target = read_target(Server(own), own.notify_kafka_target)
        assert target
        shared = with_credentials(
            second, read_credentials(own.local_dir / CREDENTIALS_FILE)
        ).model_copy(
            update={
                "source_bucket": f"other-{uuid.uuid4().hex[:8]}",
                "notify_kafka_queue_dir": Path(target.values["queue_dir"]),
            }
        )
        for _ in range(2):
            steps = provision(shared)
            (warning,) = [step for step in steps if step.state == "warning"]
            assert "--take-over" in warning.lines[0]
        for bucket in (own.source_bucket, shared.source_bucket):
            assert list(s3(shared, root=False).list_objects(bucket)) == []
        provision(shared, take_over=True)
        with pytest.raises(S3Error, match="AccessDenied"):
            list(s3(shared, root=False).list_objects(own.source_bucket))

    def test_taking_over_is_a_choice_and_is_seen_by_the_first(
        self, own: Settings, second: Settings
    ) -> None:
        steps = provision(second, take_over=True)
        assert step_of(steps, "MinIO target").state == "changed"
        with pytest.raises(UserError, match="may belong to another pipeline"):
            provision(reloaded(own))
        assert states(provision(reloaded(second))) == {"ok"}

    def test_what_one_made_itself_can_be_changed(self, own: Settings, second: Settings) -> None:
        del second
        fewer = reloaded(own).model_copy(update={"source_suffixes": ".png,.gif"})
        assert step_of(provision(fewer), "notification").state == "changed"
        stored = json.loads((own.local_dir / FILE).read_text())
        assert stat.S_IMODE((own.local_dir / FILE).stat().st_mode) == 0o600
        secret = read_credentials(own.local_dir / CREDENTIALS_FILE)
        assert secret
        assert secret[1] not in json.dumps(stored)

    def test_with_a_name_of_its_own_both_live_side_by_side(
        self, own: Settings, second: Settings
    ) -> None:
        name = f"p{uuid.uuid4().hex[:8]}"
        third = Settings(
            pipeline_name=name,
            **{
                field: getattr(second, field)
                for field in ("minio_endpoint", "kafka_bootstrap_servers", "local_dir")
            },
            minio_root_user=second.minio_root_user,
            minio_root_password=second.minio_root_password,
            source_bucket=f"in-{name}",
            kafka_topic=f"topic-{name}",
            renditions_file=second.renditions_file,
        )
        before = self.state(own)
        assert states(provision(third)) <= {"changed", "ok"}
        assert self.state(own) == before
        found = read_credentials(third.local_dir / CREDENTIALS_FILE)
        assert found
        assert found[0] == name


def test_pipeline_user_can_do_its_work_and_nothing_else(own: Settings) -> None:
    provision(own)
    settings = reloaded(own)
    root, user = s3(own, root=True), s3(settings, root=False)
    put(root, own.source_bucket, "a.jpg", b"picture")
    name = own.source_bucket.removeprefix("in-")
    assert user.get_object(own.source_bucket, "a.jpg").data == b"picture"
    assert [one.object_name for one in user.list_objects(own.source_bucket)] == ["a.jpg"]
    assert list(user.list_objects(own.source_bucket, include_version=True))
    for bucket, key in ((f"out-{name}", "a.jpg.webp"), (f"thumbs-{name}", "small/a.jpg")):
        put(user, bucket, key)
        assert [one.object_name for one in user.list_objects(bucket, recursive=True)] == [key]
        user.stat_object(bucket, key)
        user.remove_object(bucket, key)
        with pytest.raises(S3Error, match="NoSuchKey"):
            user.stat_object(bucket, key)
    forbidden = (
        lambda: put(user, own.source_bucket, "b.jpg"),
        lambda: user.remove_object(own.source_bucket, "a.jpg"),
        lambda: put(user, f"thumbs-{name}", "elsewhere/a.jpg"),
        lambda: user.make_bucket(f"new-{name}"),
        lambda: user.remove_bucket(f"out-{name}"),
        lambda: user.set_bucket_notification(own.source_bucket, NotificationConfig()),
    )
    for action in forbidden:
        with pytest.raises(S3Error) as raised:
            action()
        assert raised.value.code == "AccessDenied"


def test_local_credentials_that_no_longer_work_are_replaced(own: Settings) -> None:
    provision(own)
    old = reloaded(own)
    server = Server(own)
    assert old.minio_access_key is not None
    user = old.minio_access_key.get_secret_value()
    server.call(server.admin.user_add, user, "somebody-changed-it")
    with pytest.raises(UserError, match=r"--take-over`, after which .* the old secret stop"):
        provision(old)
    assert reloaded(own) == old
    # As `up` does with a MinIO that it started itself.
    steps = provision(old, take_over=True)
    assert step_of(steps, f"user {user}").state == "changed"
    new = reloaded(own)
    assert new.minio_secret_key != old.minio_secret_key
    assert list(s3(new, root=False).list_objects(own.source_bucket)) == []

    # The user no longer exists (another data folder), the file does: its secret is used again.
    server.call(server.admin.user_remove, user)
    provision(new)
    assert reloaded(own) == new
    assert states(provision(new)) == {"ok"}


@pytest.mark.parametrize(
    ("user", "secret"),
    [(None, "wrong-secret"), ("nobody-", "wrong-secret"), ("nobody-", None)],
    ids=["secret", "both", "user"],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_wrong_credentials_given_leave_those_that_were_stored(
    own: Settings, user: str | None, secret: str | None, *, dry_run: bool
) -> None:
    provision(own)
    path = own.local_dir / CREDENTIALS_FILE
    before, stored = path.read_bytes(), read_credentials(path)
    assert stored is not None
    given = (user + stored[0] if user else stored[0], secret or stored[1])
    with pytest.raises(UserError) as refused:
        provision(with_credentials(own, given), dry_run=dry_run)
    message = str(refused.value)
    assert f"refuses user '{given[0]}'" in message
    assert "MINIO_ACCESS_KEY" in message
    assert "MINIO_SECRET_KEY" in message
    assert str(path) in message
    assert given[1] not in message
    assert path.read_bytes() == before
    server = Server(own)
    assert server.authenticates(*stored)
    assert "nobody-" not in server.call(server.admin.user_list)
    assert "nobody-" not in server.call(server.admin.policy_list)


def test_credentials_of_ones_own_that_work_do_not_replace_those_that_were_stored(
    own: Settings,
) -> None:
    provision(own)
    path = own.local_dir / CREDENTIALS_FILE
    before = path.read_bytes()
    server = Server(own)
    given = (f"mine-{own.source_bucket}", "a-secret-of-mine")
    server.call(server.admin.user_add, *given)
    steps = provision(with_credentials(own, given))
    assert step_of(steps, f"user {given[0]}").state == "ok"
    assert path.read_bytes() == before


def test_user_of_a_foreign_server(foreign: Settings, tmp_path: Path) -> None:
    steps = provision(foreign)
    created = next(step for step in steps if step.what.startswith("user"))
    shown = dict(line.split("=", 1) for line in created.lines)
    found = (shown["MINIO_ACCESS_KEY"], shown["MINIO_SECRET_KEY"])
    assert Server(foreign).authenticates(*found)
    assert not (foreign.local_dir / CREDENTIALS_FILE).exists()

    # No secret is changed unless somebody asks for it.
    steps = provision(foreign)
    assert step_of(steps, "user").state == "needs administrator"
    assert Server(foreign).authenticates(*found)
    with pytest.raises(UserError, match="MINIO_SECRET_KEY: correct it"):
        provision(with_credentials(foreign, (found[0], "wrong-secret")))
    assert Server(foreign).authenticates(*found)
    assert {"warning", "ok"} == states(provision(with_credentials(foreign, found)))

    path = tmp_path / "new.env"
    with pytest.raises(UserError, match="--take-over"):
        provision(foreign, credentials_file=path)
    assert Server(foreign).authenticates(*found)
    assert not path.exists()
    steps = provision(foreign, credentials_file=path, take_over=True)
    assert step_of(steps, "user").state == "changed"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not Server(foreign).authenticates(*found)
    new = read_credentials(path)
    assert new is not None
    assert Server(foreign).authenticates(*new)


def test_credentials_of_ones_own_are_used(foreign: Settings) -> None:
    assert foreign.minio_access_key is not None
    found = (foreign.minio_access_key.get_secret_value(), "my-own-secret")
    settings = with_credentials(foreign, found)
    steps = provision(settings)
    created = step_of(steps, f"user {found[0]}")
    assert (created.state, created.lines) == ("changed", ())
    assert Server(foreign).authenticates(*found)

    # A service account is not an internal user of MinIO, and stays as it is.
    server = Server(foreign)
    account = (f"sa{found[0]}", "secret-of-account")
    server.call(
        lambda: server.admin.add_service_account(access_key=account[0], secret_key=account[1])
    )
    steps = provision(with_credentials(foreign, account))
    assert "used as it is" in step_of(steps, "user").what


def test_administrator_is_left_alone(own: Settings) -> None:
    root = (own.minio_root_user.get_secret_value(), own.minio_root_password.get_secret_value())
    steps = provision(with_credentials(own, root))
    assert step_of(steps, "user").state == "warning"
    assert Server(own).authenticates(*root)


@pytest.fixture
def plain_user(own: Settings) -> tuple[str, str]:
    """Create a user without any rights and return its credentials."""
    found = (f"n-{own.source_bucket[3:]}", "no-rights-at-all")
    server = Server(own)
    server.call(server.admin.user_add, *found)
    return found


def test_without_rights_it_says_what_to_ask_for(
    foreign: Settings, plain_user: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = foreign.model_copy(
        update={
            "minio_root_user": SecretStr(plain_user[0]),
            "minio_root_password": SecretStr(plain_user[1]),
        }
    )
    monkeypatch.setattr(cli, "load_settings", lambda: settings)
    result = CliRunner().invoke(cli.app, ["provision"])
    assert result.exit_code == 1
    text = result.output
    assert f"changed  topic {foreign.kafka_topic}" in text, "what can be done is done"
    assert (
        f"mc admin config set myminio notify_kafka:{foreign.notify_kafka_target} "
        f"brokers={foreign.kafka_bootstrap_servers} topic={foreign.kafka_topic}"
    ) in text
    assert f"mc mb --ignore-existing myminio/{foreign.source_bucket} myminio/out-" in text
    assert (
        f"mc event add myminio/{foreign.source_bucket} {arn(foreign.notify_kafka_target)}" in text
    )
    assert "mc admin policy attach" in text
    assert plain_user[1] not in text
    start = text.index("{\n")
    policy = json.loads(text[start : text.index("    EOF", start)])
    assert len(policy["Statement"]) == 4
    assert not s3(foreign, root=True).bucket_exists(foreign.source_bucket)


def test_without_an_administrators_password_it_says_what_to_ask_for(foreign: Settings) -> None:
    settings = foreign.model_copy(update={"minio_root_password": None})
    steps: list[Step] = []
    provision(settings, report=steps.append)
    asked = [step for step in steps if step.state == "needs administrator"]
    assert {"changed", "needs administrator"} <= {step.state for step in steps}
    unset = (
        f"MINIO_ROOT_PASSWORD, the administrator's for MinIO at {foreign.minio_endpoint}, is not"
    )
    assert [step.text() for step in asked if unset not in step.text()] == []


def test_command_prints_one_line_each(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_settings", lambda: own)
    result = CliRunner().invoke(cli.app, ["provision", "--dry-run"])
    assert result.exit_code == 0
    assert f"would change bucket {own.source_bucket}: create" in result.output.splitlines()


def test_servers_that_are_away_are_named(own: Settings) -> None:
    away = "http://127.0.0.1:1"
    with pytest.raises(TransientError, match=f"MinIO at {away} does not answer"):
        provision(own.model_copy(update={"minio_endpoint": away}))
    # MinIO tests its target before it accepts it.
    unreachable = own.model_copy(update={"notify_kafka_brokers": "127.0.0.1:1"})
    with pytest.raises(TransientError, match=r"can't use Kafka at 127\.0\.0\.1:1 .*BROKERS"):
        provision(unreachable)


def test_topic_that_kafka_does_not_take(own: Settings) -> None:
    with pytest.raises(UserError, match=r"refuses topic .* \(InvalidReplicationFactorError\)"):
        provision(own.model_copy(update={"kafka_replication_factor": 3}))
    with pytest.raises(UserError, match=r"refuses topic 'a b' \(InvalidTopicError\)"):
        provision(own.model_copy(update={"kafka_topic": "a b"}), dry_run=True)
