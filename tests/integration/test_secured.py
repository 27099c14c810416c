"""Servers with TLS, client certificates and SASL: what works, and one line for each mistake."""

import datetime as dt
import io
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from minio.sse import SseCustomerKey
from pydantic import SecretStr

from resize_pipeline import cli
from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs.names import Names
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.local.status import stack_status
from resize_pipeline.provisioning.admin import AdminError, Server
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.provisioning.target import SUBSYSTEM, checked_for_set, remedy, wanted_config
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.integration.test_pipeline import Pipeline
from tests.support.certificates import issue, key_as_pem
from tests.support.letters import current_letters
from tests.support.pictures import decoded, detailed, encoded
from tests.support.project import REPOSITORY, Project
from tests.support.secured import PASSWORD, SECOND_USER, USER, Secured
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

KEY_PASSWORD = "password-of-key"
SPECS = "renditions:\n  large: {{width: 100, height: 100, bucket: {}}}\n"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


def one_line(error: BaseException) -> str:
    said = str(error)
    assert "\n" not in said
    assert len(said) < 500
    for secret in (PASSWORD, KEY_PASSWORD, ROOT_PASSWORD):
        assert secret not in said
    return said


def render_one(pipeline: Pipeline) -> dg.ExecuteInProcessResult:
    """Upload an image and a file that is not one, and let the pipeline process both."""
    pipeline.put("deeper/rose.jpg", encoded(detailed(300, 200), "JPEG"))
    pipeline.put("none.png", b"no picture")
    pipeline.wait_for_events(2)
    results = [
        pipeline.definitions.get_job_def(pipeline.names.job).execute_in_process(
            instance=pipeline.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags=dict(request.tags),
        )
        for request in pipeline.tick().run_requests or []
    ]
    assert [result.success for result in results] == [True] * len(results)
    data, _ = pipeline.get(pipeline.large, "deeper/rose.jpg")
    assert decoded(data).size == (100, 67)
    return results[0]


def test_over_sasl(
    secured: Secured,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", PASSWORD)
    pipeline = Pipeline(secured.settings(**secured.over_scram()), tmp_path, instance)
    render_one(pipeline)

    project = Project(tmp_path / "project")
    project.settings |= pipeline.settings.to_environment()
    status = project.status()
    assert (status["error"], status["dead_letters"]) == (None, 1)

    listed = command_line(pipeline.settings, monkeypatch, capfd, "dead-letters", "list", "--json")
    assert f"{pipeline.settings.source_bucket}/none.png" in listed.out
    wrong = pipeline.settings.model_copy(update={"kafka_sasl_password": SecretStr("wrong")})
    refused = command_line(wrong, monkeypatch, capfd, "dead-letters", "list")
    (line,) = refused.err.splitlines()
    assert f"refuses user '{USER}' with this password by SCRAM-SHA-512" in line


def command_line(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *arguments: str,
) -> Any:
    """Run a command in this process, which saves seconds, and return its output."""
    monkeypatch.setattr(cli, "load_settings", lambda: settings)
    monkeypatch.setattr("sys.argv", ["resize-pipeline", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capfd.readouterr()
    assert bool(ended.value.code) == bool(printed.err), printed.err
    return printed


def test_over_client_certificates(
    secured: Secured, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's key is encrypted; MinIO can't read encrypted keys and has its own."""
    monkeypatch.setenv("KAFKA_SSL_KEY_PASSWORD", KEY_PASSWORD)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(key_as_pem(secured.client.private_key, KEY_PASSWORD))
    changes = {
        **secured.over_mtls(),
        "kafka_ssl_keyfile": encrypted,
        "kafka_ssl_key_password": KEY_PASSWORD,
    }
    with pytest.raises(UserError, match=r"reads no encrypted key.*NOTIFY_KAFKA_CLIENT_TLS_CERT"):
        Pipeline(secured.settings(**changes), tmp_path, instance)
    changes["notify_kafka_client_tls_cert"] = secured.client.cert_file
    changes["notify_kafka_client_tls_key"] = secured.client.key_file
    pipeline = Pipeline(secured.settings(**changes), tmp_path, instance)
    render_one(pipeline)
    letters = current_letters(pipeline.kafka, pipeline.settings.dead_letter_topic)
    assert list(letters) == [f"{pipeline.settings.source_bucket}/none.png".encode()]


def test_without_verification_it_is_said_everywhere(
    secured: Secured,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """MinIO may know Kafka by another address and protocol than the pipeline does."""
    settings = secured.settings(
        minio_ca_file=None,
        minio_tls_skip_verify=True,
        notify_kafka_brokers=secured.self_signed,
        notify_kafka_security_protocol="SSL",
        notify_kafka_tls_skip_verify=True,
    )
    pipeline = Pipeline(settings, tmp_path, instance)
    (warning,) = settings.warnings
    run_id = render_one(pipeline).run_id
    logged = [
        entry.user_message
        for entry in instance.all_logs(run_id)
        if entry.level == 30 and "MINIO_TLS_SKIP_VERIFY" in entry.user_message
    ]
    assert logged == [warning]
    # One of the tick, one of the run.
    assert capfd.readouterr().err.count(warning) >= 2
    steps = provision(pipeline.settings, dry_run=True)
    assert any("NOTIFY_KAFKA_TLS_SKIP_VERIFY is on" in step.what for step in steps)
    assert [step.state for step in steps if "would" in step.state] == []


def test_a_certificate_that_signed_itself_is_its_own_ca(secured: Secured) -> None:
    settings = secured.settings(
        kafka_bootstrap_servers=secured.self_signed,
        kafka_security_protocol="SSL",
        kafka_ssl_cafile=secured.stranger.cert_file,
    )
    with pytest.raises(UserError, match="has no topic"):
        KafkaResource.from_settings(settings).topic_state("none")
    assert s3(settings).stat("no-such-bucket", "none") is None
    assert [one.state for one in stack_status(settings)] == ["foreign", "foreign"]


def tick(settings: Settings, instance: dg.DagsterInstance) -> SensorExecutionData:
    definitions = build_definitions(settings)
    assert definitions.resources
    repository = definitions.get_repository_def()
    names = Names(settings.pipeline_name)
    sensor = names.sensor
    context = dg.build_sensor_context(
        instance=instance,
        repository_def=repository,
        sensor_name=sensor,
        resources={
            names.of(name): definitions.resources[names.of(name)] for name in ("kafka", "pipeline")
        },
    )
    return repository.get_sensor_def(sensor).evaluate_tick(context)


def elsewhere(address: str) -> str:
    """Return the address with a name that no certificate holds."""
    return address.replace("localhost", "127.0.0.1")


KAFKA_MISTAKES: dict[str, tuple[Callable[[Secured], dict[str, object]], type[Exception], str]] = {
    "another CA": (
        lambda one: one.over_mtls() | {"kafka_ssl_cafile": one.own.cert_file},
        UserError,
        r"certificate that is not trusted \(.*\): set KAFKA_SSL_CAFILE to the PEM file of its CA",
    ),
    "no CA": (
        lambda one: one.over_mtls() | {"kafka_ssl_cafile": None},
        UserError,
        r"certificate that is not trusted \(.*\): set KAFKA_SSL_CAFILE to the PEM file of its CA",
    ),
    "another host": (
        lambda one: one.over_mtls() | {"kafka_bootstrap_servers": elsewhere(one.mtls)},
        UserError,
        r"certificate for other names \(IP address mismatch.*127\.0\.0\.1'\): set KAFKA_BOOTSTRAP",
    ),
    "no client certificate": (
        lambda one: one.over_mtls() | {"kafka_ssl_certfile": None, "kafka_ssl_keyfile": None},
        UserError,
        r"requires a client certificate that it trusts \(.*\): set KAFKA_SSL_CERTFILE",
    ),
    "client certificate of another CA": (
        lambda one: (
            one.over_mtls()
            | {"kafka_ssl_certfile": one.own.cert_file, "kafka_ssl_keyfile": one.own.key_file}
        ),
        UserError,
        r"requires a client certificate that it trusts \(.*\): set KAFKA_SSL_CERTFILE",
    ),
    "no CA file": (
        lambda one: one.over_mtls() | {"kafka_ssl_cafile": one.folder / "none.pem"},
        UserError,
        r"KAFKA_SSL_CAFILE is .*none\.pem, which can't be read: No such file",
    ),
    "no certificate in the CA file": (
        lambda one: one.over_mtls() | {"kafka_ssl_cafile": one.client.key_file},
        UserError,
        r"KAFKA_SSL_CAFILE is .*client\.key, which holds no certificate in PEM form",
    ),
    "key of another certificate": (
        lambda one: one.over_mtls() | {"kafka_ssl_keyfile": one.own.key_file},
        UserError,
        r"KAFKA_SSL_KEYFILE is .*own\.key, which is not the key of KAFKA_SSL_CERTFILE, .*client",
    ),
    "wrong password": (
        lambda one: one.over_scram() | {"kafka_sasl_password": "wrong"},
        UserError,
        r"refuses user 'pipeline' with this password by SCRAM-SHA-512: check KAFKA_SASL_USERNAME",
    ),
    "no such user": (
        lambda one: one.over_scram() | {"kafka_sasl_username": "nobody"},
        UserError,
        r"refuses user 'nobody' with this password by SCRAM-SHA-512: check KAFKA_SASL_USERNAME",
    ),
    "wrong mechanism": (
        lambda one: one.over_scram() | {"kafka_sasl_mechanism": "PLAIN"},
        UserError,
        r"does not accept KAFKA_SASL_MECHANISM=PLAIN: set it to",
    ),
    "SASL where there is none": (
        lambda one: (
            one.over_scram()
            | {
                "kafka_bootstrap_servers": one.self_signed,
                "kafka_ssl_cafile": one.stranger.cert_file,
            }
        ),
        UserError,
        r"has no SASL at this address: set KAFKA_SECURITY_PROTOCOL=SASL_SSL to",
    ),
    "no TLS where it is wanted": (
        lambda one: {"kafka_bootstrap_servers": one.scram},
        TransientError,
        r"closes the connection before it answers: set KAFKA_SECURITY_PROTOCOL=PLAINTEXT to",
    ),
}


@pytest.mark.parametrize("mistake", KAFKA_MISTAKES)
def test_a_mistake_about_kafka_is_one_line_in_a_tick(
    secured: Secured,
    instance: dg.DagsterInstance,
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, kind, said = KAFKA_MISTAKES[mistake]
    changes = make(secured)
    if "kafka_sasl_password" in changes:
        monkeypatch.setenv("KAFKA_SASL_PASSWORD", str(changes["kafka_sasl_password"]))
    specs = tmp_path / "renditions.yaml"
    specs.write_text(SPECS.format("renditions"))
    with pytest.raises(kind, match=said) as failed:
        tick(secured.settings(**changes, renditions_file=specs), instance)
    one_line(failed.value)


def follow(
    wrong: dict[str, object],
    right: dict[str, object],
    settings_of: Callable[[dict[str, object]], Settings],
    attempt: Callable[[Settings], object],
) -> list[str]:
    """Correct the settings that each line names, and no others, until the attempt succeeds.

    Args:
        wrong: settings with a mistake.
        right: what somebody who knows the servers sets.
        settings_of: builds settings from changes.
        attempt: what fails.

    Returns:
        The lines.
    """
    said: list[str] = []
    values = {name: wrong.get(name) for name in {*wrong, *right}}
    while True:
        try:
            attempt(settings_of(values))
        except (ValueError, TransientError, UserError) as error:
            said.append(str(error))
            named = [
                name
                for name, value in right.items()
                if re.search(rf"\b{name.upper()}\b", said[-1]) and values.get(name) != value
            ]
            assert named, f"the line names nothing that helps: {said[-1]}"
            values |= {name: right[name] for name in named}
        else:
            return said


def has_answered(settings: Settings) -> None:
    """Ask Kafka for a topic that it does not have, which it says only to those that it lets in."""
    try:
        KafkaResource.from_settings(settings).topic_state("none")
    except UserError as error:
        if "has no topic" not in str(error):
            raise


@pytest.mark.parametrize("mistake", KAFKA_MISTAKES)
def test_a_mistake_about_kafka_is_over_once_its_line_is_followed(
    secured: Secured, mistake: str
) -> None:
    wrong = KAFKA_MISTAKES[mistake][0](secured)
    over_scram = (
        "kafka_sasl_mechanism" in wrong or wrong["kafka_bootstrap_servers"] == secured.scram
    )
    right = secured.over_scram() if over_scram else secured.over_mtls()
    if mistake == "SASL where there is none":
        right = {
            "kafka_security_protocol": "SSL",
            "kafka_bootstrap_servers": secured.self_signed,
            "kafka_ssl_cafile": secured.stranger.cert_file,
        }

    def settings_of(values: dict[str, object]) -> Settings:
        given = {name: value for name, value in values.items() if value is not None}
        return secured.settings(**given)

    said = follow(wrong, right, settings_of, has_answered)
    assert said


def test_a_password_of_kafka_that_was_changed_under_a_running_pipeline(secured: Secured) -> None:
    """A process that runs keeps the one it read, and its line says to restart it."""
    name, first, second = SECOND_USER, "the-first-password", "the-second-password"
    plain = KafkaResource.from_settings(secured.settings())

    def change(password: str) -> None:
        user = UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password)
        with plain.connection.admin() as admin:
            admin.alter_user_scram_credentials([user])

    def started(password: str) -> Settings:
        known = {"kafka_sasl_username": name, "kafka_sasl_password": password}
        return secured.settings(**(secured.over_scram() | known))

    change(first)
    wait_until(lambda: is_let_in(started(first)), 30, "the user")
    running = started(first)
    change(second)
    wait_until(lambda: not is_let_in(running), 30, "the new password")
    with pytest.raises(
        UserError, match=r"KAFKA_SASL_PASSWORD .*restart the pipeline after a change"
    ):
        KafkaResource.from_settings(running).topic_state("none")
    has_answered(started(second))


def is_let_in(settings: Settings) -> bool:
    try:
        has_answered(settings)
    except UserError:
        return False
    return True


def test_a_client_certificate_that_has_expired_is_one_line(
    secured: Secured, tmp_path: Path
) -> None:
    old = issue(tmp_path, "old", ca=secured.ca, age=dt.timedelta(days=30))
    changes = secured.over_mtls() | {
        "kafka_ssl_certfile": old.cert_file,
        "kafka_ssl_keyfile": old.key_file,
    }
    kafka = KafkaResource.from_settings(secured.settings(**changes))
    with pytest.raises(UserError, match="set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE") as failed:
        kafka.topic_state("any")
    one_line(failed.value)


MINIO_MISTAKES: dict[str, tuple[Callable[[Secured], dict[str, object]], type[Exception], str]] = {
    "another CA": (
        lambda one: {"minio_ca_file": one.ca.cert_file},
        UserError,
        r"certificate that is not trusted \(self-signed certificate\): set MINIO_CA_FILE to",
    ),
    "no CA": (
        lambda _: {"minio_ca_file": None},
        UserError,
        r"certificate that is not trusted \(self-signed certificate\): set MINIO_CA_FILE to",
    ),
    "no CA file": (
        lambda one: {"minio_ca_file": one.folder / "none.pem"},
        UserError,
        r"MINIO_CA_FILE is .*none\.pem, which can't be read: No such file",
    ),
    "another host": (
        lambda one: {"minio_endpoint": f"https://{elsewhere(one.minio)}"},
        UserError,
        r"certificate for other names \(IP address mismatch.*\): set MINIO_ENDPOINT to",
    ),
    "http": (
        lambda one: {"minio_endpoint": f"http://{one.minio}"},
        UserError,
        r"set MINIO_ENDPOINT to https://",
    ),
    "https where there is none": (
        lambda one: {"minio_endpoint": f"https://{one.plain}"},
        TransientError,
        r"closes the connection during the TLS handshake: .* MINIO_ENDPOINT",
    ),
}


@pytest.mark.parametrize("mistake", MINIO_MISTAKES)
def test_a_mistake_about_minio_is_one_line(secured: Secured, mistake: str, tmp_path: Path) -> None:
    make, kind, said = MINIO_MISTAKES[mistake]
    settings = own(secured, tmp_path, **make(secured))
    for ask in (
        lambda: s3(settings).stat("images", "a"),
        lambda: s3(settings).download("images", "a", max_bytes=1),
        lambda: list(s3(settings).list_objects("images")),
        lambda: provision(settings, dry_run=True),
    ):
        with pytest.raises(kind, match=said) as failed:
            ask()
        one_line(failed.value)


@pytest.mark.parametrize("mistake", MINIO_MISTAKES)
def test_a_mistake_about_minio_is_over_once_its_line_is_followed(
    secured: Secured, mistake: str
) -> None:
    wrong = MINIO_MISTAKES[mistake][0](secured)
    right: dict[str, object] = {
        "minio_endpoint": f"https://{secured.minio}",
        "minio_ca_file": secured.own.cert_file,
    }
    said = follow(
        right | wrong,
        right,
        lambda values: secured.settings(**values),
        lambda settings: s3(settings).stat("no-such-bucket", "none"),
    )
    assert len(said) == 1


TARGET_MISTAKES: dict[str, tuple[Callable[[Secured], dict[str, object]], str]] = {
    "a certificate that MinIO does not trust": (
        lambda one: {
            "notify_kafka_brokers": one.self_signed,
            "notify_kafka_security_protocol": "SSL",
        },
        r"put Kafka's CA into the folder CAs of MinIO's certs-dir and restart MinIO",
    ),
    "no client certificate": (
        lambda one: {"notify_kafka_brokers": one.mtls, "notify_kafka_security_protocol": "SSL"},
        r"set NOTIFY_KAFKA_CLIENT_TLS_CERT and .*_KEY to a certificate of a CA that Kafka trusts",
    ),
    "no file": (
        lambda one: {
            "notify_kafka_brokers": one.mtls,
            "notify_kafka_security_protocol": "SSL",
            "notify_kafka_client_tls_cert": one.folder / "none.pem",
            "notify_kafka_client_tls_key": one.folder / "none.key",
        },
        r"no such file.*set NOTIFY_KAFKA_CLIENT_TLS_CERT and .*_KEY to files on its host",
    ),
    "another host": (
        lambda one: {
            "notify_kafka_brokers": elsewhere(one.mtls),
            "notify_kafka_security_protocol": "SSL",
        },
        r"set NOTIFY_KAFKA_BROKERS to names that Kafka's certificate holds",
    ),
    "wrong password": (
        lambda one: {
            "notify_kafka_brokers": one.scram,
            "notify_kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_username": USER,
            "kafka_sasl_password": "wrong",
        },
        r"check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
    ),
}


@pytest.mark.parametrize("mistake", TARGET_MISTAKES)
def test_a_mistake_about_how_minio_reaches_kafka_is_one_line(
    secured: Secured, mistake: str, tmp_path: Path
) -> None:
    make, said = TARGET_MISTAKES[mistake]
    settings = own(secured, tmp_path, **make(secured))
    steps: list[Step] = []
    with pytest.raises(TransientError, match=said) as failed:
        provision(settings, report=steps.append)
    assert f"can't use Kafka at {settings.notify_kafka_brokers}" in one_line(failed.value)
    assert not [step for step in steps if "target" in step.what]


@pytest.mark.parametrize(
    "mistake", ["no client certificate", "no file", "wrong password", "another host"]
)
def test_a_mistake_about_how_minio_reaches_kafka_is_over_once_its_line_is_followed(
    secured: Secured, mistake: str, tmp_path: Path
) -> None:
    wrong = TARGET_MISTAKES[mistake][0](secured)
    right: dict[str, object] = {
        "notify_kafka_client_tls_cert": secured.client.cert_file,
        "notify_kafka_client_tls_key": secured.client.key_file,
        "kafka_sasl_username": USER,
        "kafka_sasl_password": PASSWORD,
    }
    if mistake == "another host":
        # Go checks the certificate of the server before it sends its own.
        right["notify_kafka_brokers"] = secured.mtls
    names = own(secured, tmp_path).model_dump(include={"notify_kafka_target", "kafka_topic"})

    def settings_of(values: dict[str, object]) -> Settings:
        given = {name: value for name, value in values.items() if value is not None}
        return secured.settings(**names, **given)

    said = follow(wrong, right, settings_of, set_target)
    assert len(said) == (2 if mistake == "another host" else 1)


def test_a_ca_that_minio_does_not_know_is_known_once_the_line_is_followed(
    secured: Secured, tmp_path: Path
) -> None:
    wrong = TARGET_MISTAKES["a certificate that MinIO does not trust"][0](secured)
    settings = own(secured, tmp_path, **wrong)
    with pytest.raises(TransientError, match="put Kafka's CA into the folder CAs of MinIO's"):
        set_target(settings)
    trusted = secured.certs_dir / "CAs" / "stranger.crt"
    trusted.write_bytes(secured.stranger.cert_file.read_bytes())
    restart_minio(settings)
    set_target(settings)
    # The others expect it to be unknown.
    server = Server(settings)
    server.call(server.admin.config_reset, SUBSYSTEM, settings.notify_kafka_target)
    trusted.unlink()
    restart_minio(settings)


def restart_minio(settings: Settings) -> None:
    server = Server(settings)

    def started() -> float:
        # A server that has just begun knows nothing of itself.
        with suppress(TransientError, AdminError, KeyError, IndexError):
            uptime_s: int = server.call_json(server.admin.info)["servers"][0]["uptime"]
            return time.time() - uptime_s
        return 0.0

    before = started()
    time.sleep(max(before + 2 - time.time(), 0))
    with suppress(TransientError):
        server.call(server.admin.service_restart)
    wait_until(lambda: started() > before + 1, 60, "the restart")


def set_target(settings: Settings) -> None:
    """Set a target; MinIO tries to reach Kafka then, and a restart shows nothing more."""
    server = Server(settings)
    target = f"{SUBSYSTEM}:{settings.notify_kafka_target}"
    values = checked_for_set(wanted_config(settings))
    del values["enable"]
    try:
        server.call(server.admin.config_set, target, values)
    except AdminError as error:
        raise TransientError(remedy(error.message)) from error


def own(secured: Secured, folder: Path, **changes: object) -> Settings:
    """Return settings with their own topic, target and buckets."""
    unique = uuid.uuid4().hex[:12]
    specs = folder / "renditions.yaml"
    specs.write_text(SPECS.format(f"large-{unique}"))
    names = {
        "source_bucket": f"source-{unique}",
        "kafka_topic": f"events-{unique}",
        "notify_kafka_target": f"target_{unique}",
    }
    return secured.settings(**names, renditions_file=specs, **changes)


def s3(settings: Settings) -> MinioResource:
    return MinioResource.from_settings(settings, access_key=ROOT_USER, secret_key=ROOT_PASSWORD)


def test_an_object_with_its_uploaders_own_key_is_not_missing(
    secured: Secured, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Its renditions stay, even with DELETE_RENDITIONS, and a dead letter says why it has no new.

    SSE-C needs TLS, and nobody but the uploader can read the object.
    """
    pipeline = Pipeline(secured.settings(delete_renditions=True), tmp_path, instance)
    render_one(pipeline)
    before = pipeline.get(pipeline.large, "deeper/rose.jpg")
    data = encoded(detailed(200, 300), "JPEG")
    for key in ("deeper/rose.jpg", "other.jpg"):
        pipeline.root.put_object(
            pipeline.settings.source_bucket,
            key,
            io.BytesIO(data),
            len(data),
            sse=SseCustomerKey(bytes(32)),
        )
    pipeline.wait_for_events(4)
    for request in pipeline.tick().run_requests or []:
        pipeline.run(request)
    letters = current_letters(pipeline.kafka, pipeline.settings.dead_letter_topic)
    bucket = pipeline.settings.source_bucket
    for key in ("deeper/rose.jpg", "other.jpg"):
        assert "SSE-C" in letters[f"{bucket}/{key}".encode()].error_message
    assert pipeline.get(pipeline.large, "deeper/rose.jpg") == before


def test_the_catalogue_is_written_over_tls(secured: Secured) -> None:
    minio = MinioResource.from_settings(
        secured.settings(), access_key=ROOT_USER, secret_key=ROOT_PASSWORD
    )
    minio.client.make_bucket("catalog-of-tls")
    # deltalake reads its trusted CAs once for each process.
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.support.catalog_writer", "one", "catalog-of-tls", "source"],
        cwd=REPOSITORY,
        env=os.environ | secured.settings().to_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout
        assert writer.stdout.readline() == "committed\n"
    finally:
        writer.kill()
        writer.communicate()
