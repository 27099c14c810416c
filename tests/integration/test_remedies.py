"""Errors of real servers, whose remedies are followed to the letter and help."""

import io
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resize_pipeline import cli
from resize_pipeline.defs.silence import source_problem
from resize_pipeline.environment import DOTENV, load_settings
from resize_pipeline.errors import (
    MissingBucketError,
    RefusedError,
    ResizePipelineError,
    TransientError,
    UserError,
)
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.provisioning.admin import Server
from resize_pipeline.provisioning.policy import policy_name
from resize_pipeline.provisioning.target import QUEUE_DIR, SUBSYSTEM
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

SHARED = ("MINIO_ENDPOINT", "KAFKA_BOOTSTRAP_SERVERS", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")


@dataclass
class Operator:
    """Somebody in a folder with an `.env`, who does what an error says."""

    folder: Path

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def server(self) -> Server:
        return Server(self.settings)

    @property
    def root(self) -> MinioResource:
        settings = self.settings
        assert settings.minio_root_password
        return MinioResource.from_settings(
            settings,
            access_key=settings.minio_root_user.get_secret_value(),
            secret_key=settings.minio_root_password.get_secret_value(),
        )

    @property
    def minio(self) -> MinioResource:
        """As a pipeline has it that starts now."""
        return MinioResource.from_settings(
            self.settings, access_key=self.user, secret_key=self.secret
        )

    @property
    def kafka(self) -> KafkaResource:
        return KafkaResource.from_settings(self.settings)

    @property
    def user(self) -> str:
        key = self.settings.minio_access_key
        assert key
        return key.get_secret_value()

    @property
    def secret(self) -> str:
        secret = self.settings.minio_secret_key
        assert secret
        return secret.get_secret_value()

    def set(self, **variables: str | None) -> None:
        """Set variables in `.env`, or unset them."""
        kept = [
            line
            for line in DOTENV.read_text().splitlines()
            if line.partition("=")[0] not in variables
        ]
        new = [f"{name}={value}" for name, value in variables.items() if value is not None]
        DOTENV.write_text("\n".join([*kept, *new]) + "\n")

    def run(self, command: str) -> str:
        program, *arguments = command.split()
        assert program == "resize-pipeline"
        done = CliRunner().invoke(cli.app, arguments)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    def follow(self, problem: ResizePipelineError) -> str:
        """Run the command that the error names."""
        [command] = re.findall(r"`(resize-pipeline [^`]+)`", str(problem))
        return self.run(command)


@pytest.fixture(scope="module")
def folder(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provision once: that restarts MinIO, and a remedy that works leaves all as it was."""
    folder = tmp_path_factory.mktemp("operator")
    name = uuid.uuid4().hex[:8]
    (folder / "renditions.yaml").write_text(
        f"renditions:\n  small: {{width: 4, height: 4, bucket: small-{name}}}\n"
    )
    variables = stack.to_environment()
    lines = [f"{one}={variables[one]}" for one in SHARED]
    lines += [
        *(f"PIPELINE_NAME=p-{name}", f"SOURCE_BUCKET=in-{name}", f"KAFKA_TOPIC=events-{name}"),
        f"NOTIFY_KAFKA_TARGET=t{name}",
    ]
    (folder / DOTENV).write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Operator(folder).run("resize-pipeline provision")
    return folder


@pytest.fixture
def operator(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.chdir(folder)
    before = DOTENV.read_text()
    yield Operator(folder)
    (folder / DOTENV).write_text(before)


def failing(kind: type[ResizePipelineError], call: Callable[[], object]) -> ResizePipelineError:
    with pytest.raises(kind) as failed:
        call()
    assert "\n" not in str(failed.value)
    return failed.value


def test_a_bucket_that_is_missing(operator: Operator) -> None:
    source = operator.settings.source_bucket
    [spec] = load_renditions(operator.settings.renditions_file, source)
    for bucket in (source, spec.bucket):
        operator.root.client.remove_bucket(bucket)

    def work() -> None:
        list(operator.minio.list_objects(source))
        operator.minio.upload(spec.bucket, "a.png", b"x", content_type="x/y", metadata={})
        operator.minio.remove(spec.bucket, "a.png")

    operator.follow(failing(MissingBucketError, work))
    work()
    assert operator.minio.notification(source).queue_config_list


def test_a_right_that_was_taken_away(operator: Operator) -> None:
    user, source = operator.user, operator.settings.source_bucket
    server = operator.server
    server.call(server.admin.detach_policy, [policy_name(user)], user=user)
    operator.follow(failing(RefusedError, lambda: operator.minio.stat(source, "a.png")))
    assert operator.minio.stat(source, "a.png") is None
    # A policy that somebody narrowed.
    rights = {"Version": "2012-10-17", "Statement": []}
    allowed = {"Effect": "Allow", "Action": ["s3:GetBucketLocation"]}
    rights["Statement"] = [{**allowed, "Resource": [f"arn:aws:s3:::{source}"]}]
    server.call(server.admin.policy_add, policy_name(user), policy=rights)
    operator.follow(failing(RefusedError, lambda: list(operator.minio.list_objects(source))))
    assert list(operator.minio.list_objects(source)) == []


def test_a_secret_that_was_changed_under_a_running_pipeline(operator: Operator) -> None:
    running, server = operator.minio, operator.server
    source = operator.settings.source_bucket
    server.call(server.admin.user_add, operator.user, "another-secret")
    said = str(failing(RefusedError, lambda: running.stat(source, "a.png")))
    assert "correct MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and restart the pipeline" in said
    operator.set(MINIO_ACCESS_KEY=operator.user, MINIO_SECRET_KEY="another-secret")
    failing(RefusedError, lambda: running.stat(source, "a.png"))
    assert operator.minio.stat(source, "a.png") is None, "as after a restart"
    operator.set(MINIO_ACCESS_KEY=None, MINIO_SECRET_KEY=None)
    operator.run("resize-pipeline provision --take-over")
    assert operator.minio.stat(source, "a.png") is None


def test_a_secret_that_nobody_knows(operator: Operator) -> None:
    # Somebody else's server: there is no file in LOCAL_DIR.
    user, source = f"u{uuid.uuid4().hex[:8]}", operator.settings.source_bucket
    server = operator.server
    server.call(server.admin.user_add, user, "a-secret-that-is-lost")
    operator.set(LOCAL_STACK="false", LOCAL_DIR="elsewhere")
    operator.set(MINIO_ACCESS_KEY=user, MINIO_SECRET_KEY="a-guess-of-it")
    problem = failing(UserError, lambda: operator.run("resize-pipeline provision"))
    assert "correct it, or unset it and run" in str(problem)
    operator.set(MINIO_SECRET_KEY=None)
    operator.follow(problem)
    assert operator.user == user
    assert operator.minio.stat(source, "a.png") is None
    server.call(server.admin.user_remove, user)


def test_a_user_that_was_disabled(operator: Operator) -> None:
    server = operator.server
    server.call(server.admin.user_disable, operator.user)
    problem = failing(UserError, lambda: operator.run("resize-pipeline provision"))
    assert f"mc admin user enable myminio {operator.user}`" in str(problem)
    server.call(server.admin.user_enable, operator.user)
    operator.run("resize-pipeline provision")


@pytest.mark.parametrize("name", ["kafka_topic", "dead_letter_topic"])
def test_a_topic_that_is_missing(operator: Operator, name: str) -> None:
    topic = getattr(operator.settings, name)
    with operator.kafka.connection.admin() as admin:
        admin.delete_topics([topic])

    def is_gone() -> UserError | None:
        try:
            operator.kafka.topic_state(topic)
        except UserError as error:
            return error
        return None

    problem = wait_until(is_gone, 30, "the end of the topic")
    assert problem
    operator.follow(problem)
    assert operator.kafka.topic_state(topic).watermarks


def test_rules_that_are_gone(operator: Operator) -> None:
    source = operator.settings.source_bucket
    operator.root.client.delete_bucket_notification(source)
    operator.run("resize-pipeline provision")
    operator.root.client.put_object(source, "a.png", io.BytesIO(b"x"), 1)

    def has_come() -> bool:
        state = operator.kafka.topic_state(operator.settings.kafka_topic)
        return sum(state.ends.values()) > 0

    wait_until(has_come, 30, "the event")
    operator.root.client.remove_object(source, "a.png")


@pytest.mark.parametrize("how", ["disabled", "removed"])
def test_a_target_that_the_server_no_longer_has(operator: Operator, how: str) -> None:
    settings, server = operator.settings, operator.server
    name = settings.notify_kafka_target
    assert operator.minio.is_target_online(name)
    pipeline = PipelineResource.from_settings(settings)
    assert source_problem(operator.minio, pipeline) is None
    # MinIO panics if its targets change while it sends from their queues.
    queue = settings.local_dir / QUEUE_DIR
    wait_until(lambda: not any(queue.rglob("*.event")), 30, "an empty queue")
    if how == "disabled":
        server.call(server.admin.config_set, f"{SUBSYSTEM}:{name}", {"enable": "off"})
    else:
        server.call(server.admin.config_reset, SUBSYSTEM, name)
    server.call(server.admin.service_restart)

    def is_gone() -> str | None:
        with suppress(TransientError):
            return source_problem(operator.minio, pipeline)
        return None

    problem = str(wait_until(is_gone, 30, "rules without a target"))
    # MinIO's answer leaves out half of the rules whose target it does not have.
    assert "has no notification rules for" in problem
    operator.follow(UserError(problem))
    assert source_problem(operator.minio, pipeline) is None


def test_who_may_not_see_the_server_is_not_told_of_the_target(operator: Operator) -> None:
    server, name = operator.server, operator.settings.notify_kafka_target
    server.call(server.admin.detach_policy, [policy_name(operator.user)], user=operator.user)
    assert operator.minio.is_target_online(name) is None
    operator.run("resize-pipeline provision")
    assert operator.minio.is_target_online(name)


def test_a_region_that_is_not_the_servers(operator: Operator) -> None:
    """MinIO answers a HEAD with 400 and no body, which must not look like a missing object."""
    source = operator.settings.source_bucket
    operator.root.client.put_object(source, "a.png", io.BytesIO(b"x"), 1)
    operator.set(MINIO_REGION="eu-central-1")

    def provision() -> None:
        operator.run("resize-pipeline provision")

    work: tuple[Callable[[], object], ...] = (
        lambda: operator.minio.stat(source, "a.png"),
        lambda: operator.minio.stat(source, "none.png"),
        lambda: operator.minio.download(source, "a.png", max_bytes=1),
        lambda: list(operator.minio.list_objects(source)),
        lambda: operator.minio.remove(source, "none.png"),
        provision,
    )
    for call in work:
        said = str(failing(UserError, call))
        assert "us-east-1" in said
        assert said.endswith("correct MINIO_REGION")
    operator.set(MINIO_REGION="us-east-1")
    provision()
    assert operator.minio.stat(source, "a.png")
    operator.root.client.remove_object(source, "a.png")


def test_an_address_where_nobody_answers(operator: Operator) -> None:
    known, source = operator.settings.minio_endpoint, operator.settings.source_bucket
    operator.set(MINIO_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    problem = failing(TransientError, lambda: operator.minio.stat(source, "a.png"))
    assert ", or set MINIO_ENDPOINT" in str(problem)
    operator.set(MINIO_ENDPOINT=known)
    assert operator.minio.stat(source, "a.png") is None


def test_an_address_where_no_kafka_answers(operator: Operator) -> None:
    known, topic = operator.settings.kafka_bootstrap_servers, operator.settings.kafka_topic
    operator.set(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    problem = failing(TransientError, lambda: operator.kafka.topic_state(topic))
    assert "start it (`resize-pipeline up` starts a local one), or set KAFKA_BOOTSTRAP" in str(
        problem
    )
    operator.set(KAFKA_BOOTSTRAP_SERVERS=known)
    assert operator.kafka.topic_state(topic).watermarks


def test_an_address_where_minio_finds_no_kafka(operator: Operator) -> None:
    operator.set(NOTIFY_KAFKA_BROKERS=f"127.0.0.1:{free_port()}")
    problem = failing(TransientError, lambda: operator.run("resize-pipeline provision"))
    assert "or set NOTIFY_KAFKA_BROKERS to its address as MinIO sees it" in str(problem)
    operator.set(NOTIFY_KAFKA_BROKERS=operator.settings.kafka_bootstrap_servers)
    operator.run("resize-pipeline provision")
    assert source_problem(operator.minio, PipelineResource.from_settings(operator.settings)) is None
