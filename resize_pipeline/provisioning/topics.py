"""Creates and alters the Kafka topics: MinIO's events, dead letters and completion events."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.provisioning.steps import Report, Step, changed
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB

RETENTION_MS = 7 * 24 * 3600 * 1000
"""Retention of the source topic in milliseconds: how long a run can be repeated."""
MAX_MESSAGE_BYTES_DEFAULT = 1_048_588
"""Kafka's default of `max.message.bytes`, assumed for a topic that does not exist yet."""
DEAD_LETTER_HEADROOM = MIB
"""Bytes by which a dead letter may exceed its message: it also holds the reason."""

AT_LEAST = frozenset({"retention.ms", "max.message.bytes"})
"""Configs that are only ever raised: a shorter retention would delete messages."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic, as wanted or as Kafka describes it."""

    name: str
    partitions: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicChanges:
    """Changes of a topic. `partitions` is the new number, None if it stays."""

    create: bool = False
    partitions: int | None = None
    configs: Mapping[str, str] | None = None

    def __bool__(self) -> bool:
        return self.create or self.partitions is not None or bool(self.configs)


def source_topic(settings: Settings) -> TopicSpec:
    """Return the topic that receives MinIO's notifications."""
    return TopicSpec(
        settings.kafka_topic,
        settings.kafka_topic_partitions,
        {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)},
    )


def dead_letter_topic(settings: Settings, source_max_message_bytes: int) -> TopicSpec:
    """Return the dead-letter topic, which must accept any message of the source topic.

    Args:
        settings: holds the topic's name.
        source_max_message_bytes: the source topic's effective `max.message.bytes`.
    """
    return TopicSpec(
        settings.dead_letter_topic,
        1,
        {
            "cleanup.policy": "compact",
            "max.message.bytes": str(source_max_message_bytes + DEAD_LETTER_HEADROOM),
        },
    )


def completion_topic(settings: Settings) -> TopicSpec:
    """Return the topic of completion events, which keeps the newest event of each object."""
    return TopicSpec(
        settings.completion_topic, settings.kafka_topic_partitions, {"cleanup.policy": "compact"}
    )


def topic_changes(wanted: TopicSpec, actual: TopicSpec | None) -> TopicChanges:
    """Return the changes that a topic needs; `actual` is None if it does not exist."""
    if actual is None:
        return TopicChanges(create=True, partitions=wanted.partitions, configs=wanted.configs)
    return TopicChanges(
        partitions=wanted.partitions if actual.partitions < wanted.partitions else None,
        configs={
            name: value
            for name, value in wanted.configs.items()
            if not _suffices(name, actual.configs.get(name), value)
        },
    )


def _suffices(name: str, actual: str | None, wanted: str) -> bool:
    if actual is None:
        return False
    if name not in AT_LEAST:
        return actual == wanted
    # -1 means no limit.
    return int(actual) < 0 or int(actual) >= int(wanted)


def describe_changes(
    wanted: TopicSpec, actual: TopicSpec | None, changes: TopicChanges
) -> tuple[str, ...]:
    """Return the changes in words, for a step."""
    configs = ", ".join(f"{name}={value}" for name, value in (changes.configs or {}).items())
    if actual is None:
        return (f"create with {_partitions(wanted.partitions)}, {configs}",)
    words: list[str] = []
    if changes.partitions is not None:
        words.append(f"{actual.partitions} to {_partitions(changes.partitions)}")
    if configs:
        words.append(f"set {configs}")
    return tuple(words)


def commands(
    wanted: TopicSpec, changes: TopicChanges, *, bootstrap_servers: str, replication_factor: int
) -> tuple[str, ...]:
    """Return the changes as commands of Kafka's own tools.

    Args:
        wanted: the topic.
        changes: its changes.
        bootstrap_servers: Kafka's addresses.
        replication_factor: replicas of a new topic; -1 stands for the broker's default.
    """
    topics = f"kafka-topics.sh --bootstrap-server {shlex.quote(bootstrap_servers)}"
    name = shlex.quote(wanted.name)
    configs = [f"{key}={value}" for key, value in (changes.configs or {}).items()]
    if changes.create:
        replication = (
            f" --replication-factor {replication_factor}" if replication_factor > 0 else ""
        )
        flags = "".join(f" --config {config}" for config in configs)
        partitions = f"--partitions {wanted.partitions}"
        create = "--create --if-not-exists"
        return (f"{topics} {create} --topic {name} {partitions}{replication}{flags}",)
    lines: list[str] = []
    if changes.partitions is not None:
        lines.append(f"{topics} --alter --topic {name} --partitions {changes.partitions}")
    if configs:
        lines.append(
            f"kafka-configs.sh --bootstrap-server {shlex.quote(bootstrap_servers)} --alter "
            f"--entity-type topics --entity-name {name} --add-config {','.join(configs)}"
        )
    return tuple(lines)


def ensure_topics(settings: Settings, report: Report, *, dry_run: bool) -> None:
    """Create the topics, or alter them where they differ.

    Raises:
        TransientError: Kafka is unreachable or did not apply a change.
        UserError: Kafka refuses the credentials, or a topic's name or settings.
    """
    with KafkaResource.from_settings(settings).connection.admin() as admin:
        source = _ensure_topic(
            admin, settings, source_topic(settings), "topic", report, dry_run=dry_run
        )
        largest = int(source.configs.get("max.message.bytes", MAX_MESSAGE_BYTES_DEFAULT))
        _ensure_topic(
            admin,
            settings,
            dead_letter_topic(settings, largest),
            "dead-letter topic",
            report,
            dry_run=dry_run,
        )
        if settings.completion_topic:
            wanted = completion_topic(settings)
            _ensure_topic(admin, settings, wanted, "completion topic", report, dry_run=dry_run)


# The type stubs of kafka-python describe 2.x, so the admin client is Any here.
def _ensure_topic(
    admin: Any,
    settings: Settings,
    wanted: TopicSpec,
    kind: str,
    report: Report,
    *,
    dry_run: bool,
) -> TopicSpec:
    """Create or alter one topic, and return it as it is then, with all its configs."""
    title = f"{kind} {wanted.name}"
    # If Kafka refuses to describe the topic, the commands must hold everything.
    changes = topic_changes(wanted, None)
    try:
        actual = _read_topic(admin, wanted.name)
        if actual is not None and not actual.configs:
            # Settings that are not shown may be better than those wanted.
            changes = TopicChanges()
            raise kafka_errors.TopicAuthorizationFailedError(wanted.name)
        changes = topic_changes(wanted, actual)
        if not changes:
            extra = (
                f", more than the {wanted.partitions} wanted: left as they are"
                if actual is not None and actual.partitions > wanted.partitions
                else ""
            )
            partitions = actual.partitions if actual is not None else wanted.partitions
            report(Step("ok", f"{title}: {_partitions(partitions)}{extra}"))
            return actual or wanted
        words = "; ".join(describe_changes(wanted, actual, changes))
        if not dry_run:
            _apply(admin, settings, wanted, changes)
        report(changed(f"{title}: {words}", dry_run=dry_run))
        return (None if dry_run else _read_topic(admin, wanted.name)) or actual or wanted
    except kafka_errors.AuthorizationError as error:
        report(_for_administrator(settings, title, wanted, changes, error))
        return wanted
    except kafka_errors.BrokerResponseError as error:
        if error.retriable:
            raise
        msg = (
            f"Kafka at {settings.kafka_bootstrap_servers} refuses topic {wanted.name!r} "
            f"({type(error).__name__}): check KAFKA_TOPIC, KAFKA_REPLICATION_FACTOR and the "
            "broker's policies"
        )
        raise UserError(msg) from error


def _for_administrator(
    settings: Settings, title: str, wanted: TopicSpec, changes: TopicChanges, error: Exception
) -> Step:
    servers = settings.kafka_bootstrap_servers
    replicas = settings.kafka_replication_factor
    return Step(
        "needs administrator",
        f"{title}: Kafka at {servers} refuses it ({type(error).__name__}); a user with the rights "
        "must run this, and you provision again",
        (
            *commands(wanted, changes, bootstrap_servers=servers, replication_factor=replicas),
            _grant(settings, wanted.name),
        ),
    )


def _grant(settings: Settings, topic: str) -> str:
    """Return the command that gives this user the rights on a topic that it needs."""
    user = settings.kafka_sasl_username or "ANONYMOUS"
    if settings.kafka_ssl_certfile and not settings.kafka_sasl_username:
        user = "SUBJECT-OF-KAFKA_SSL_CERTFILE"
    return (
        f"kafka-acls.sh --bootstrap-server {shlex.quote(settings.kafka_bootstrap_servers)} --add "
        f"--allow-principal User:{shlex.quote(user)} --operation Read --operation Write "
        f"--operation DescribeConfigs --topic {shlex.quote(topic)}"
    )


def _read_topic(admin: Any, name: str) -> TopicSpec | None:
    """Return a topic, without configs if Kafka does not show them; None if there is none."""
    description = cast("dict[str, Any]", admin.describe_topics([name])[0])
    error = kafka_errors.for_code(description["error_code"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return None
    if error is not kafka_errors.NoError:
        raise error(name)
    # kafka-python drops the error code of this answer, but every topic has configs.
    found = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all"
    )
    configs = cast("dict[str, dict[str, Any]]", found["topic"][name])
    return TopicSpec(
        name,
        len(description["partitions"]),
        {key: str(config["value"]) for key, config in configs.items()},
    )


def _apply(admin: Any, settings: Settings, wanted: TopicSpec, changes: TopicChanges) -> None:
    if changes.create:
        admin.create_topics(
            {
                wanted.name: {
                    "num_partitions": wanted.partitions,
                    "replication_factor": settings.kafka_replication_factor,
                    "configs": dict(wanted.configs),
                }
            },
            wait_for_metadata=True,
        )
        return
    if changes.partitions is not None:
        admin.create_partitions({wanted.name: changes.partitions})
    if changes.configs:
        resource = ConfigResource(
            ConfigResourceType.TOPIC, wanted.name, configs=dict(changes.configs)
        )
        # kafka-python returns errors as text and raises nothing.
        result = str(admin.alter_configs([resource])["topic"][wanted.name])
        if "AuthorizationFailed" in result:
            raise kafka_errors.TopicAuthorizationFailedError(wanted.name)
        if result != "OK":
            msg = (
                f"Kafka at {settings.kafka_bootstrap_servers} did not change topic "
                f"{wanted.name!r}: {result}: look at the broker's log"
            )
            raise TransientError(msg)


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"
