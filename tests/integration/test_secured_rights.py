"""A user whom Kafka allows nothing, until an administrator does what each line says."""

import argparse
import re
import shlex
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.provisioning.topics import ensure_topics
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.secured import PASSWORD, Secured
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

STEPS_MAX = 6


class Administrator:
    """Somebody with all rights on Kafka, who runs the commands that a line names."""

    def __init__(self, secured: Secured) -> None:
        self.kafka = KafkaResource.from_settings(secured.settings())

    def add_user(self, name: str) -> None:
        self._do(
            lambda admin: admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, PASSWORD)]
            )
        )

    def allow(self, user: str, operation: str, kind: ResourceType, name: str) -> None:
        # As kafka-acls.sh writes them.
        operations = {one.name.replace("_", ""): one for one in ACLOperation}
        acl = ACL(
            user,
            "*",
            operations[operation.upper()],
            ACLPermissionType.ALLOW,
            ResourcePattern(kind, name),
        )
        answer = self._do(lambda admin: admin.create_acls([acl]))
        assert not answer["failed"]

    def run(self, command: str) -> None:
        """Do what one of Kafka's tools does with these options."""
        parser = argparse.ArgumentParser()
        parser.add_argument("tool")
        for option in ("--create", "--alter", "--if-not-exists", "--add"):
            parser.add_argument(option, action="store_true")
        for option in (
            *("--bootstrap-server", "--topic", "--allow-principal"),
            *("--entity-type", "--entity-name", "--add-config"),
        ):
            parser.add_argument(option)
        parser.add_argument("--partitions", type=int)
        for option in ("--operation", "--config"):
            parser.add_argument(option, action="append", default=[])
        given = parser.parse_args(shlex.split(command))
        if given.tool == "kafka-acls.sh":
            assert given.add
            for operation in given.operation:
                self.allow(given.allow_principal, operation, ResourceType.TOPIC, given.topic)
        elif given.tool == "kafka-configs.sh":
            assert (given.alter, given.entity_type) == (True, "topics")
            configs = dict(one.split("=") for one in given.add_config.split(","))
            resource = ConfigResource(ConfigResourceType.TOPIC, given.entity_name, configs=configs)
            answer = self._do(lambda admin: admin.alter_configs([resource]))
            assert str(answer["topic"][given.entity_name]) == "OK"
        elif given.alter:
            assert given.tool == "kafka-topics.sh"
            self._do(lambda admin: admin.create_partitions({given.topic: given.partitions}))
        elif not (given.if_not_exists and self._has(given.topic)):
            assert (given.tool, given.create) == ("kafka-topics.sh", True)
            configs = dict(one.split("=") for one in given.config)
            new = {"num_partitions": given.partitions, "replication_factor": 1, "configs": configs}
            self._do(lambda admin: admin.create_topics({given.topic: new}, wait_for_metadata=True))

    def _has(self, topic: str) -> bool:
        return topic in self._do(lambda admin: admin.list_topics())

    def _do(self, call: Callable[[Any], Any]) -> Any:
        with self.kafka.connection.admin() as admin:
            return call(admin)


@pytest.fixture
def administrator(secured: Secured) -> Administrator:
    return Administrator(secured)


@pytest.fixture
def restricted(secured: Secured, administrator: Administrator) -> Settings:
    """Return the settings of a user who may do nothing."""
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    administrator.add_user(name)
    own = {"kafka_sasl_username": name, "kafka_topic": name, "kafka_consumer_group": name}
    settings = secured.settings(**(secured.over_scram() | own))

    def is_known() -> bool:
        try:
            KafkaResource.from_settings(settings).topic_state("none")
        except UserError as error:
            return "with this password" not in str(error)
        return True

    wait_until(is_known, 30, "the user")
    return settings


def provisioned(settings: Settings) -> list[Step]:
    steps: list[Step] = []
    ensure_topics(settings, steps.append, dry_run=False)
    return steps


def test_the_topics_are_provisioned_once_the_lines_are_followed(
    restricted: Settings, administrator: Administrator
) -> None:
    steps = provisioned(restricted)
    assert [step.state for step in steps] == ["needs administrator"] * 2
    for step in steps:
        assert "a user with the rights must run this, and you provision again" in step.what
        for command in step.lines:
            administrator.run(command)

    def are_right() -> bool:
        # Brokers learn of a right a moment after it is given.
        return [step.state for step in provisioned(restricted)] == ["ok", "ok"]

    wait_until(are_right, 30, "provisioned topics")


def test_a_topic_whose_settings_are_not_shown_is_not_created_again(
    restricted: Settings, administrator: Administrator
) -> None:
    name = restricted.kafka_topic
    ensure_topics(
        restricted.model_copy(update=administrator_of(administrator)), ignored, dry_run=False
    )
    for topic in (name, restricted.dead_letter_topic):
        administrator.allow(
            f"User:{restricted.kafka_sasl_username}", "Read", ResourceType.TOPIC, topic
        )
    steps = wait_until(lambda: visible(provisioned(restricted)), 30, "the right to see the topics")
    assert steps
    for step in steps:
        (command,) = step.lines
        assert command.startswith("kafka-acls.sh")
        administrator.run(command)
    wait_until(lambda: [one.state for one in provisioned(restricted)] == ["ok", "ok"], 30, "topics")


def test_a_topic_that_others_made_is_altered_once_the_lines_are_followed(
    restricted: Settings, administrator: Administrator
) -> None:
    for topic in (restricted.kafka_topic, restricted.dead_letter_topic):
        administrator.run(
            f"kafka-topics.sh --create --if-not-exists --topic {topic} --partitions 1 "
            "--config retention.ms=60000"
        )
        for operation in ("Read", "Write", "DescribeConfigs"):
            user = f"User:{restricted.kafka_sasl_username}"
            administrator.allow(user, operation, ResourceType.TOPIC, topic)

    def told() -> list[Step]:
        steps = provisioned(restricted)
        lines = " ".join(line for step in steps for line in step.lines)
        return steps if "kafka-configs.sh" in lines and "--create" not in lines else []

    steps = wait_until(told, 30, "the right to see the topics")
    assert steps
    commands = [line for step in steps for line in step.lines]
    assert any(line.startswith("kafka-topics.sh") and " --alter " in line for line in commands)
    for command in commands:
        administrator.run(command)
    wait_until(lambda: [one.state for one in provisioned(restricted)] == ["ok", "ok"], 30, "topics")


def visible(steps: list[Step]) -> list[Step] | None:
    return (
        steps if not any("kafka-topics.sh" in line for one in steps for line in one.lines) else None
    )


def administrator_of(administrator: Administrator) -> dict[str, object]:
    return {
        "kafka_bootstrap_servers": administrator.kafka.bootstrap_servers,
        "kafka_security_protocol": "PLAINTEXT",
    }


def ignored(step: Step) -> None:
    assert step.state != "needs administrator"


def test_the_pipeline_works_once_the_lines_are_followed(
    restricted: Settings, administrator: Administrator
) -> None:
    """With nothing but the rights that the lines name, one after the other."""
    restricted = restricted.model_copy(update={"completion_events": True})
    own = restricted.model_copy(update=administrator_of(administrator))
    ensure_topics(own, ignored, dry_run=False)
    topic, letters = restricted.kafka_topic, restricted.dead_letter_topic
    administrator.kafka.send(topic, [(b"key", b"value", ())])
    state = administrator.kafka.topic_state(topic)
    kafka = KafkaResource.from_settings(restricted)
    for work in (
        lambda: kafka.send(letters, [(b"key", b"value", ())]),
        lambda: kafka.topic_state(topic),
        lambda: kafka.offsets_at(state, "2026-01-01T00:00:00+00:00"),
        lambda: kafka.commit(restricted.kafka_consumer_group, topic, {0: 0}),
    ):
        with pytest.raises(UserError, match=f"refuses user '{restricted.kafka_sasl_username}' ac"):
            work()
    with pytest.raises(UserError) as refused:
        kafka.topic_state(topic)
    follow(str(refused.value), restricted, administrator)

    def works() -> bool:
        try:
            kafka.send(letters, [(b"key", b"value", ())])
            kafka.send(restricted.completion_topic, [(b"key", b"value", ())])
            kafka.commit(restricted.kafka_consumer_group, topic, {0: 0})
        except (UserError, TransientError):
            # Brokers learn of a right a moment after it is given.
            return False
        return True

    wait_until(works, 60, "the rights")
    assert kafka.topic_state(topic).ends == state.ends
    assert [one.value for one in kafka.read(topic, state.starts, state.ends, position={})] == [
        b"value"
    ]


def follow(line: str, restricted: Settings, administrator: Administrator) -> None:
    """Give the rights that a line names, and no others."""
    user = f"User:{restricted.kafka_sasl_username}"
    values = {
        "KAFKA_TOPIC": restricted.kafka_topic,
        "KAFKA_TOPIC.dead-letters": restricted.dead_letter_topic,
        "KAFKA_TOPIC.renditions": restricted.completion_topic,
        "KAFKA_CONSUMER_GROUP": restricted.kafka_consumer_group,
    }
    found = re.search(
        r"allow it (\w+) and (\w+) on the topics (\S+), (\S+) and, with COMPLETION_EVENTS, (\S+), "
        r"and (\w+) on the group (\S+),",
        line,
    )
    assert found, line
    *operations, one, two, three, of_group, group = found.groups()
    for operation in operations:
        for name in (one, two, three):
            administrator.allow(user, operation, ResourceType.TOPIC, values[name])
    administrator.allow(user, of_group, ResourceType.GROUP, values[group])
