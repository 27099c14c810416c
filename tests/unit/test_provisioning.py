"""The decisions of provisioning, without a server."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minio.error import S3Error
from minio.notificationconfig import (
    NotificationConfig,
    PrefixFilterRule,
    QueueConfig,
    SuffixFilterRule,
)
from urllib3 import HTTPResponse

from resize_pipeline.errors import UserError
from resize_pipeline.provisioning import arns, buckets, credentials, rules, target, topics
from resize_pipeline.provisioning.admin import Server, parse_error
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.policy import policy_document, policy_name, same_policy
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.provisioning.user import UserAction, user_action
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings

# An answer of MinIO, shortened.
CONFIG = (
    "notify_kafka enable=off topic= brokers= sasl_username= sasl_password= sasl=off queue_dir= \n"
    "# MINIO_NOTIFY_KAFKA_TOPIC_other=from-env\n"
    "# MINIO_NOTIFY_KAFKA_PRODUCER_COMPRESSION_CODEC_other=zstd\n"
    "notify_kafka:other topic=on-disk brokers=a:1,b:2 sasl_username= sasl_password= queue_dir= \n"
    'notify_kafka:mine topic=x brokers=a:1 sasl_username="u x" sasl=on tls=off '
    'queue_dir="/a dir/=q" version= comment="it is = \'mine\'" \n'
)


def test_config_text_is_parsed() -> None:
    parsed = target.parse_config(CONFIG)
    assert set(parsed) == {"_", "other", "mine"}
    assert parsed["_"].values["enable"] == "off"
    assert parsed["mine"].values == {
        "enable": "on",
        "topic": "x",
        "brokers": "a:1",
        "sasl_username": "u x",
        "sasl": "on",
        "tls": "off",
        "queue_dir": "/a dir/=q",
        "version": "",
        "comment": "it is = 'mine'",
    }
    assert parsed["mine"].environment == {}


def test_environment_of_the_server_wins_over_its_configuration() -> None:
    other = target.parse_config(CONFIG)["other"]
    assert other.values["topic"] == "from-env"
    assert other.environment == {
        "topic": "MINIO_NOTIFY_KAFKA_TOPIC_other",
        "compression_codec": "MINIO_NOTIFY_KAFKA_PRODUCER_COMPRESSION_CODEC_other",
    }


@pytest.mark.parametrize(
    "text", ["", "\n\n", "#\n", "nonsense", "notify_webhook:x endpoint=y", "="]
)
def test_config_text_without_targets(text: str) -> None:
    assert target.parse_config(text) == {}


@given(
    values=st.dictionaries(
        st.sampled_from([key for key in target.KEYS if key != "enable"]),
        st.text("aé/:,.'#") | st.sampled_from(["a b", "two  spaces", ""]),
    )
)
def test_config_text_round_trip(values: dict[str, str]) -> None:
    shown = " ".join(
        f'{key}="{value}"' if " " in value else f"{key}={value}" for key, value in values.items()
    )
    parsed = target.parse_config(f"notify_kafka:n {shown} \n")["n"].values
    assert parsed == {"enable": "on", **values}


def test_only_what_differs_is_set() -> None:
    actual = target.parse_config(CONFIG)["mine"]
    assert target.config_changes({"topic": "x", "brokers": "b:1", "tls": "off"}, actual) == {
        "brokers": "b:1"
    }
    assert target.config_changes({"topic": "x"}, None) == {"topic": "x"}


def test_secret_that_minio_does_not_show_counts_as_equal_but_an_empty_one_does_not() -> None:
    parsed = target.parse_config(CONFIG)
    assert target.config_changes({"sasl_password": "p"}, parsed["mine"]) == {}
    assert target.config_changes({"sasl_password": "p"}, parsed["other"]) == {"sasl_password": "p"}


def test_target_in_the_environment_of_the_server() -> None:
    # MinIO shows no more than this.
    text = (
        "# MINIO_NOTIFY_KAFKA_ENABLE_envt=on\n"
        "# MINIO_NOTIFY_KAFKA_TOPIC_envt=t\n"
        "# MINIO_NOTIFY_KAFKA_BROKERS_envt=a:1\n"
        "notify_kafka:envt \n"
    )
    actual = target.parse_config(text)["envt"]
    wanted = {"enable": "on", "topic": "t", "brokers": "a:1", "tls": "off", "sasl": "off"}
    assert target.config_changes(wanted, actual) == {}
    changes = target.config_changes({**wanted, "topic": "b c", "queue_dir": "/q"}, actual)
    assert target.environment_lines("envt", {**changes, "sasl_password": "p"}) == (
        "MINIO_NOTIFY_KAFKA_TOPIC_envt='b c'",
        "MINIO_NOTIFY_KAFKA_QUEUE_DIR_envt=/q",
        "MINIO_NOTIFY_KAFKA_SASL_PASSWORD_envt=***",
    )


def test_wanted_target_of_a_local_and_of_a_foreign_server(tmp_path: Path) -> None:
    local = target.wanted_config(Settings(local_dir=tmp_path, kafka_topic="t"))
    assert local == {
        "enable": "on",
        "brokers": "127.0.0.1:9092",
        "topic": "t",
        "queue_dir": str(tmp_path / "minio-events"),
        "tls": "off",
        "sasl": "off",
    }
    foreign = target.wanted_config(
        Settings(
            minio_endpoint="https://minio.example",
            kafka_bootstrap_servers="a:1",
            notify_kafka_brokers="b:1, c:2",
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism="SCRAM-SHA-256",
            kafka_sasl_username="u",
            kafka_sasl_password="topsecret",
            kafka_ssl_certfile="/c.pem",
            kafka_ssl_keyfile="/k.pem",
        )
    )
    assert foreign == {
        "enable": "on",
        "brokers": "b:1,c:2",
        "topic": "minio-events",
        "tls": "on",
        "tls_skip_verify": "off",
        "client_tls_cert": "/c.pem",
        "client_tls_key": "/k.pem",
        "sasl": "on",
        "sasl_mechanism": "sha256",
        "sasl_username": "u",
        "sasl_password": "topsecret",
    }
    assert "topsecret" not in target.masked(foreign)
    assert "sasl_password=***" in target.masked(foreign)


def test_wanted_target_of_a_minio_that_knows_kafka_otherwise() -> None:
    ours = {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_username": "u",
        "kafka_sasl_password": "p",
        "kafka_ssl_certfile": "/ours.pem",
    }
    wanted = target.wanted_config(
        Settings.model_validate(
            ours
            | {
                "notify_kafka_brokers": "inside:9094",
                "notify_kafka_security_protocol": "SSL",
                "notify_kafka_client_tls_cert": "/its.pem",
                "notify_kafka_client_tls_key": "/its.key",
                "notify_kafka_tls_skip_verify": True,
            }
        )
    )
    assert wanted["brokers"] == "inside:9094"
    assert (wanted["tls"], wanted["tls_skip_verify"], wanted["sasl"]) == ("on", "on", "off")
    assert (wanted["client_tls_cert"], wanted["client_tls_key"]) == ("/its.pem", "/its.key")
    assert not [key for key in wanted if key.startswith("sasl_")]
    # One file may hold certificate and key, and MinIO must be able to read it.
    wanted = target.wanted_config(Settings.model_validate(ours))
    assert (wanted["client_tls_cert"], wanted["client_tls_key"]) == ("/ours.pem", "/ours.pem")
    with pytest.raises(UserError, match="MinIO reads no encrypted key"):
        target.wanted_config(Settings.model_validate(ours | {"kafka_ssl_key_password": "p"}))
    plain = Settings.model_validate(ours | {"notify_kafka_security_protocol": "PLAINTEXT"})
    assert target.wanted_config(plain)["tls"] == "off"


@pytest.mark.parametrize(
    ("message", "helps"),
    [
        ("tls: failed to verify certificate: x509: certificate signed by unknown", "folder CAs"),
        ("x509: certificate is valid for a, not b", "NOTIFY_KAFKA_BROKERS to names"),
        ("remote error: tls: certificate required", "CLIENT_TLS_KEY to a certificate"),
        ("open /c.pem: no such file or directory", "CLIENT_TLS_KEY to files"),
        ("kafka server: SASL Authentication failed", "KAFKA_SASL_PASSWORD"),
        ("client has run out of available brokers to talk to: EOF", "start Kafka"),
    ],
)
def test_what_helps_when_minio_can_not_use_kafka(message: str, helps: str) -> None:
    assert helps in target.remedy(message)


@pytest.mark.parametrize("value", ["a topic=b", "'quoted'", "x\n"])
def test_values_that_minio_would_misread_are_refused(value: str) -> None:
    with pytest.raises(UserError, match="would misread sasl_password \\*\\*\\* ") as raised:
        target.checked_for_set({"sasl_password": value})
    assert value not in str(raised.value)


def test_arn_of_a_server_with_a_region_is_recognised() -> None:
    assert arns.is_arn_of("arn:minio:sqs:eu-west-1:mine:kafka", "mine")
    assert arns.is_arn_of(arns.arn("mine"), "mine")
    assert not arns.is_arn_of("arn:minio:sqs::mine:webhook", "mine")
    assert not arns.is_arn_of("arn:minio:sqs::mine2:kafka", "mine")
    assert not arns.is_arn_of("", "mine")


def rule(
    suffix: str | None = None,
    *,
    arn: str = "arn:minio:sqs::mine:kafka",
    events: tuple[str, ...] = rules.EVENTS,
    config_id: str | None = None,
    prefix: str | None = None,
) -> QueueConfig:
    return QueueConfig(
        queue=arn,
        events=list(events),
        config_id=config_id,
        prefix_filter_rule=PrefixFilterRule(prefix) if prefix else None,
        suffix_filter_rule=SuffixFilterRule(suffix) if suffix else None,
    )


FOREIGN = rule(".jpg", arn="arn:minio:sqs::theirs:webhook", config_id="theirs")


def test_rules_for_every_mixture_of_cases() -> None:
    wanted = rules.wanted_rules([".gif", ".7", ".heicseq"], "mine")
    suffixes = [one.suffix_filter_rule.value for one in wanted if one.suffix_filter_rule]
    gifs = {".gif", ".giF", ".gIf", ".gIF", ".Gif", ".GiF", ".GIf", ".GIF"}
    assert set(suffixes) == {*gifs, ".7", ".heicseq", ".HEICSEQ", ".Heicseq"}
    assert len(suffixes) == len(set(suffixes))
    assert {tuple(one.events) for one in wanted} == {rules.EVENTS}


def test_rules_of_others_are_kept_and_ours_replaced() -> None:
    wanted = rules.wanted_rules([".jpg"], "mine")
    existing = NotificationConfig(
        queue_config_list=[
            FOREIGN,
            rule(".jpg", config_id="any", arn="arn:minio:sqs:us-east-1:mine:kafka"),
            rule(".bmp"),
            rule(".jpg", events=("s3:ObjectCreated:*",)),
            rule(".JPG", prefix="only/"),
        ]
    )
    changes = rules.rule_changes(existing, wanted, "mine")
    assert changes
    assert changes.config.queue_config_list == [
        FOREIGN,
        existing.queue_config_list[1],
        *wanted[1:],
    ]
    assert changes.added == tuple(wanted[1:])
    assert changes.removed == tuple(existing.queue_config_list[2:])
    assert not rules.rule_changes(changes.config, wanted, "mine")


def test_rules_that_are_there_twice_are_kept_once() -> None:
    existing = NotificationConfig(queue_config_list=[rule(".a", config_id="1"), rule(".a")])
    changes = rules.rule_changes(existing, [rule(".a")], "mine")
    assert len(changes.config.queue_config_list) == 1
    assert len(changes.removed) == 1


def test_clashing_rules_are_found() -> None:
    ours = [rule(".jpg")]
    theirs = [
        rule(".jpg", arn="x"),
        rule("a.jpg", arn="x", events=("s3:ObjectCreated:Put",)),
        rule(None, arn="x", prefix="p/"),
        rule(".png", arn="x"),
        rule(".jpg", arn="x", events=("s3:ObjectAccessed:*",)),
    ]
    assert rules.clashing_rules(theirs, ours) == theirs[:3]


def test_rules_that_repeat_ours_for_another_kafka_target_are_found() -> None:
    ours = rules.wanted_rules([".jpg"], "mine")
    old = "arn:minio:sqs:us-east-1:old:kafka"
    theirs = [
        FOREIGN,
        rule(".jpg", arn=old),
        rule(".JPG", arn=old),
        rule(".jpg", arn="arn:minio:sqs::other:kafka", events=rules.EVENTS[::-1]),
        rule(".jpg", arn="arn:minio:sqs::hook:webhook"),
        rule(".png", arn=old),
        rule(".jpg", arn=old, prefix="p/"),
        rule(".jpg", arn=old, events=("s3:ObjectCreated:*",)),
    ]
    existing = NotificationConfig(queue_config_list=[*theirs, *ours])
    assert rules.repeated_rules(existing, ours, "mine") == {
        "old": theirs[1:3],
        "other": [theirs[3]],
    }


class RefusingClient:
    """A server that refuses rules that overlap, as AWS does."""

    def get_bucket_notification(self, _bucket: str) -> NotificationConfig:
        return NotificationConfig(queue_config_list=[FOREIGN, rule(".doc", arn="x")])

    def set_bucket_notification(self, bucket: str, _config: NotificationConfig) -> None:
        raise S3Error(
            response=HTTPResponse(),
            code="InvalidArgument",
            message="Configurations overlap",
            resource=None,
            request_id=None,
            host_id=None,
            bucket_name=bucket,
        )


def test_rules_in_the_way_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(notify_kafka_target="mine", minio_root_password="password")  # pyright: ignore[reportArgumentType]
    server = Server(settings)
    monkeypatch.setattr(MinioResource, "client", RefusingClient())
    with pytest.raises(UserError, match=r"rules in the way: theirs \(.*webhook\): ") as raised:
        buckets.ensure_notification(
            settings,
            server,
            server.resource("", ""),
            Made(settings, take_over=False),
            lambda _: None,
            dry_run=False,
        )
    assert ".doc" not in str(raised.value)
    assert settings.minio_endpoint in str(raised.value)


def test_administrator_gets_one_loop_of_commands() -> None:
    where = "myminio/images arn:minio:sqs::mine:kafka"
    loop = (
        "for suffix in .jpg .jpG .jPg .jPG .Jpg .JpG .JPg .JPG; do",
        f'  mc event add {where} --event put,delete --suffix "$suffix"',
        "done",
    )
    wanted = rules.wanted_rules([".jpg"], "mine")
    missing = rules.rule_changes(NotificationConfig(), wanted, "mine")
    assert rules.admin_commands("images", "mine", missing, wanted) == loop

    both = NotificationConfig(queue_config_list=rules.wanted_rules([".jpg", ".png"], "mine"))
    too_many = rules.rule_changes(both, wanted, "mine")
    assert not too_many.added
    removed = rules.admin_commands("images", "mine", too_many, wanted)
    assert removed == (f"mc event rm {where}", *loop)


RENDITIONS = [
    Rendition(name="a", width=1, height=1, bucket="out-a"),
    Rendition(name="b", width=1, height=1, bucket="out-b", prefix="b/"),
    Rendition(name="c", width=1, height=1, bucket="out-b", prefix="c-"),
]


@pytest.mark.parametrize("sees_server", [False, True])
def test_policy_is_exactly_what_the_pipeline_needs(*, sees_server: bool) -> None:
    policy = policy_document("images", RENDITIONS, sees_server=sees_server)
    granted = {
        (action, resource)
        for statement in policy["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
    }
    aws = "arn:aws:s3:::"
    assert granted == {
        *((f"s3:{action}", f"{aws}images") for action in ("ListBucket", "GetBucketLocation")),
        ("s3:ListBucketVersions", f"{aws}images"),
        ("s3:GetBucketNotification", f"{aws}images"),
        *((f"s3:{action}", f"{aws}images/*") for action in ("GetObject", "GetObjectVersion")),
        *(
            (f"s3:{action}", f"{aws}{bucket}")
            for action in ("ListBucket", "GetBucketLocation")
            for bucket in ("out-a", "out-b")
        ),
        *(
            (f"s3:{action}", f"{aws}{objects}")
            for action in ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload")
            for objects in ("out-a/*", "out-b/b/*", "out-b/c-*")
        ),
        *([("admin:ServerInfo", f"{aws}*")] if sees_server else []),
    }
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}


def test_policies_are_compared_without_order() -> None:
    policy = policy_document("images", RENDITIONS, sees_server=False)
    other = json.loads(json.dumps(policy))
    other["Statement"].reverse()
    other["Statement"][0]["Action"].reverse()
    assert same_policy(policy, other)
    other["Statement"][0]["Action"].append("s3:*")
    assert not same_policy(policy, other)
    assert not same_policy(policy, None)


def test_each_user_has_a_policy_of_its_own_name() -> None:
    assert policy_name("resize-pipeline") == "resize-pipeline"
    # Never MinIO's own policy of that name.
    assert policy_name("readwrite") == "resize-pipeline-readwrite"


@pytest.mark.parametrize(
    ("exists", "authenticates", "own_secret", "has_destination", "would_overwrite", "action"),
    [
        (True, True, True, False, False, UserAction.KEEP),
        (True, True, False, True, False, UserAction.KEEP),
        (True, True, True, True, True, UserAction.KEEP),
        (False, True, True, True, True, UserAction.KEEP_FOREIGN),
        (False, False, False, False, False, UserAction.CREATE),
        (False, False, True, True, False, UserAction.CREATE),
        (True, False, False, True, False, UserAction.NEW_SECRET),
        # The settings hold no secret, so the named file is to be overwritten.
        (True, False, False, True, True, UserAction.NEW_SECRET),
        (True, False, False, False, False, UserAction.ASK),
        (True, False, True, True, False, UserAction.WRONG_SECRET),
        (True, False, True, False, False, UserAction.WRONG_SECRET),
        (True, False, True, True, True, UserAction.WRONG_CREDENTIALS),
        (False, False, True, True, True, UserAction.WRONG_CREDENTIALS),
    ],
)
def test_what_becomes_of_the_user(
    *,
    exists: bool,
    authenticates: bool,
    own_secret: bool,
    has_destination: bool,
    would_overwrite: bool,
    action: UserAction,
) -> None:
    assert (
        user_action(
            exists=exists,
            authenticates=authenticates,
            own_secret=own_secret,
            has_destination=has_destination,
            would_overwrite=would_overwrite,
        )
        is action
    )


def test_credentials_file_is_private_and_keeps_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".env"
    path.parent.mkdir()
    path.write_text("# note\nexport MINIO_SECRET_KEY=old\nKAFKA_TOPIC=t")
    path.chmod(0o644)
    mask = os.umask(0)
    try:
        with credentials.written_credentials(path, "user", "secret"):
            (temporary,) = [one for one in path.parent.iterdir() if one != path]
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
            assert "old" in path.read_text()
    finally:
        os.umask(mask)
    assert path.read_text() == (
        "# note\nKAFKA_TOPIC=t\nMINIO_ACCESS_KEY=user\nMINIO_SECRET_KEY=secret\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.read_credentials(path) == ("user", "secret")
    assert [one.name for one in path.parent.iterdir()] == [".env"]


def test_credentials_file_stays_as_it_was_when_the_server_refuses(tmp_path: Path) -> None:
    path = tmp_path / "c.env"
    with pytest.raises(ZeroDivisionError), credentials.written_credentials(path, "u", "s"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    assert credentials.read_credentials(path) is None
    assert credentials.read_credentials(None) is None


def test_credentials_file_behind_a_link_is_written_where_the_link_points(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with credentials.written_credentials(tmp_path / "link", "u", "s"):
        pass
    assert (tmp_path / "link").is_symlink()
    assert credentials.read_credentials(tmp_path / "real") == ("u", "s")


def test_credentials_file_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="choose another --credentials-file"),
        credentials.written_credentials(tmp_path / "file" / "c.env", "u", "s"),
    ):
        pass


def topic(partitions: int = 3, **configs: str) -> topics.TopicSpec:
    return topics.TopicSpec(
        "t", partitions, {key.replace("_", "."): value for key, value in configs.items()}
    )


def test_topic_changes() -> None:
    wanted = topics.source_topic(Settings(kafka_topic="t", kafka_topic_partitions=3))
    right = topic(cleanup_policy="delete", retention_ms="604800000", other="x")
    assert topics.topic_changes(wanted, None).create
    assert not topics.topic_changes(wanted, right)
    assert not topics.topic_changes(wanted, topic(9, cleanup_policy="delete", retention_ms="-1"))
    changes = topics.topic_changes(wanted, topic(1, cleanup_policy="compact", retention_ms="1000"))
    assert changes.partitions == 3
    assert changes.configs == {"cleanup.policy": "delete", "retention.ms": "604800000"}
    alter = "kafka-configs.sh --bootstrap-server a:1,b:2 --alter --entity-type topics"
    assert topics.commands(wanted, changes, bootstrap_servers="a:1,b:2", replication_factor=-1) == (
        "kafka-topics.sh --bootstrap-server a:1,b:2 --alter --topic t --partitions 3",
        f"{alter} --entity-name t --add-config cleanup.policy=delete,retention.ms=604800000",
    )


def test_dead_letter_topic_takes_larger_messages() -> None:
    wanted = topics.dead_letter_topic(Settings(kafka_topic="t"), 1000)
    assert wanted == topics.TopicSpec(
        "t.dead-letters", 1, {"cleanup.policy": "compact", "max.message.bytes": "1049576"}
    )
    command = (
        "kafka-topics.sh --bootstrap-server a --create --if-not-exists --topic t.dead-letters "
        "--partitions 1 "
        "--replication-factor 3"
    )
    create = topics.topic_changes(wanted, None)
    assert topics.commands(wanted, create, bootstrap_servers="a", replication_factor=3) == (
        f"{command} --config cleanup.policy=compact --config max.message.bytes=1049576",
    )


def test_answers_of_the_admin_api() -> None:
    assert parse_error('{"Code":"AccessDenied","Message":"m"}') == ("AccessDenied", "m")
    assert parse_error("<html>") == ("", "")
    assert parse_error("[1]") == ("", "")


def test_step_is_one_line_and_what_to_copy() -> None:
    step = Step("ok", "bucket images", ("mc x",))
    assert step.text() == "ok       bucket images\n    mc x"
    assert "mc x" not in repr(step)
