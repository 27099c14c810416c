"""Configures MinIO's Kafka target, which receives the bucket notifications."""

import contextlib
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

from resize_pipeline.errors import TransientError, UserError, one_line
from resize_pipeline.provisioning.admin import AdminError, DeniedError, Server, refusal
from resize_pipeline.provisioning.arns import is_arn, is_arn_of, is_topic
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.settings import Settings

SUBSYSTEM = "notify_kafka"
RESTART_TIMEOUT_S = 60
DRAIN_TIMEOUT_S = 15
"""MinIO tries to send its queue every 3 s (internal/store/store.go, retryInterval)."""
POLL_S = 0.3
QUEUE_DIR = "minio-events"
"""Folder in LOCAL_DIR in which a local MinIO keeps events while Kafka is down."""

DEFAULTS = {"tls": "off", "tls_skip_verify": "off", "sasl": "off", "sasl_mechanism": "plain"}
"""MinIO's values of settings that it does not show, as for a target in its environment."""
SECRET = frozenset({"sasl_password"})
MECHANISMS = {"PLAIN": "plain", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
"""MinIO's names of Kafka's SASL mechanisms."""

_CLIENT = "set NOTIFY_KAFKA_CLIENT_TLS_CERT and NOTIFY_KAFKA_CLIENT_TLS_KEY to"
REMEDIES = (
    (("no such file", "permission denied", "PEM", "private key"), f"{_CLIENT} files on its host"),
    (("remote error: tls",), f"{_CLIENT} a certificate of a CA that Kafka trusts"),
    (
        ("cannot validate certificate", "certificate is valid for", "not valid for any names"),
        "set NOTIFY_KAFKA_BROKERS to names that Kafka's certificate holds",
    ),
    (("x509",), "put Kafka's CA into the folder CAs of MinIO's certs-dir and restart MinIO"),
    (("SASL",), "check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
)
"""Remedies by words in the messages of Go's crypto/tls and crypto/x509 and MinIO's Kafka client."""

# All settings of a target (internal/config/notify/parse.go). MinIO's parser searches the whole text
# for each of these names followed by "=", inside values too.
KEYS = (
    *("enable", "comment", "topic", "brokers", "sasl_username", "sasl_password"),
    *("sasl_mechanism", "client_tls_cert", "client_tls_key", "tls_client_auth", "sasl", "tls"),
    *("tls_skip_verify", "queue_limit", "queue_dir", "version", "batch_size"),
    *("batch_commit_timeout", "compression_codec", "compression_level"),
)


@dataclass(slots=True)
class TargetConfig:
    """A target as MinIO runs it.

    Attributes:
        values: the values in force. MinIO omits a secret that is set.
        environment: the variable of each value that comes from MinIO's environment.
    """

    values: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])


def parse_config(text: str) -> dict[str, TargetConfig]:
    """Parse the answer to MinIO's `config get notify_kafka`.

    Each target is a line `notify_kafka:NAME key=value key="a value" ...`, with lines
    `# MINIO_NOTIFY_KAFKA_KEY_NAME=value` before it for values that the environment overrides.

    Returns:
        The targets by name; `_` stands for the target without a name.
    """
    targets: dict[str, TargetConfig] = {}
    overrides: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("#"):
            variable, equals, value = line.lstrip("# ").partition("=")
            if equals:
                overrides.append((variable, value))
            continue
        head, _, rest = line.partition(" ")
        subsystem, _, name = head.partition(":")
        if subsystem != SUBSYSTEM:
            continue
        # MinIO does not show enable=on.
        target = TargetConfig(values={"enable": "on", **_parse_values(rest)})
        suffix = f"_{name}" if name else ""
        for variable, value in overrides:
            key = variable.removeprefix("MINIO_NOTIFY_KAFKA_").removesuffix(suffix).lower()
            # Two variables are not named like their key (internal/event/target/kafka.go).
            key = key.removeprefix("producer_")
            target.values[key] = value
            target.environment[key] = variable
        overrides = []
        targets[name or "_"] = target
    return targets


def _parse_values(text: str) -> dict[str, str]:
    # MinIO quotes a value that holds a space and escapes nothing, so only the start of the next
    # known key marks the end of a value.
    starts = sorted(position for key in KEYS if (position := f" {text}".find(f" {key}=")) >= 0)
    values: dict[str, str] = {}
    for start, end in pairwise([*starts, len(text)]):
        key, _, value = text[start:end].strip().partition("=")
        if " " in value and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        values[key] = value
    return values


def wanted_config(settings: Settings) -> dict[str, str]:
    """Return the values that the target must have; all others may stay as they are.

    Secrets come last and are not masked.
    """
    brokers = settings.notify_kafka_brokers or settings.kafka_bootstrap_servers
    wanted = {
        "enable": "on",
        "brokers": ",".join(part.strip() for part in brokers.split(",")),
        "topic": settings.kafka_topic,
    }
    if settings.notify_kafka_queue_dir is not None:
        wanted["queue_dir"] = str(settings.notify_kafka_queue_dir)
    elif settings.runs_local_minio:
        wanted["queue_dir"] = str(settings.local_dir.absolute() / QUEUE_DIR)
    protocol = _protocol(settings)
    has_sasl = protocol.startswith("SASL")
    if protocol.endswith("SSL"):
        wanted["tls"] = "on"
        wanted["tls_skip_verify"] = "on" if settings.notify_kafka_tls_skip_verify else "off"
        wanted |= _certificate(settings)
    else:
        wanted["tls"] = "off"
    wanted["sasl"] = "on" if has_sasl else "off"
    if has_sasl:
        wanted["sasl_mechanism"] = MECHANISMS[settings.kafka_sasl_mechanism]
        wanted["sasl_username"] = settings.kafka_sasl_username or ""
        password = settings.kafka_sasl_password
        wanted["sasl_password"] = "" if password is None else password.get_secret_value()
    return wanted


def _protocol(settings: Settings) -> str:
    return settings.notify_kafka_security_protocol or settings.kafka_security_protocol


def _certificate(settings: Settings) -> dict[str, str]:
    """Return the client certificate; nothing without one, so that one set by others stays.

    Raises:
        UserError: the key is encrypted, and MinIO can't read encrypted keys.
    """
    cert, key = settings.notify_kafka_client_tls_cert, settings.notify_kafka_client_tls_key
    if cert is None:
        cert, key = settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile
        if cert is not None and settings.kafka_ssl_key_password is not None:
            msg = (
                "MinIO reads no encrypted keys, and KAFKA_SSL_KEY_PASSWORD is set: set "
                "NOTIFY_KAFKA_CLIENT_TLS_CERT and NOTIFY_KAFKA_CLIENT_TLS_KEY to files on its host"
            )
            raise UserError(msg)
    if cert is None:
        return {}
    # One file may hold certificate and key.
    return {
        "client_tls_cert": str(cert.absolute()),
        "client_tls_key": str((key or cert).absolute()),
    }


def config_changes(wanted: Mapping[str, str], actual: TargetConfig | None) -> dict[str, str]:
    """Return the values to set. A secret that MinIO holds but does not show counts as equal."""
    if actual is None:
        return dict(wanted)
    return {
        key: value
        for key, value in wanted.items()
        if actual.values.get(key, DEFAULTS.get(key)) != value
        and not (key in SECRET and key not in actual.values)
    }


def checked_for_set(values: Mapping[str, str]) -> dict[str, str]:
    """Quote values for MinIO's `config set`.

    Raises:
        UserError: MinIO's parser would misread a value.
    """
    for key, value in values.items():
        shown = "***" if key in SECRET else repr(value)
        if any(f"{known}=" in value for known in KEYS) or value.strip("'\n\r") != value:
            msg = (
                f"MinIO would misread {key} {shown} of its target: choose a value that neither "
                "starts nor ends with a single quote or a line break, and that holds no name of "
                "MinIO's settings followed by '='"
            )
            raise UserError(msg)
    return {key: f'"{value}"' for key, value in values.items()}


def masked(values: Mapping[str, str]) -> str:
    """Return the values as `key=value` words, with secrets masked."""
    return " ".join(
        f"{key}={'***' if key in SECRET else shlex.quote(value)}"
        for key, value in values.items()
        if key != "enable"
    )


def environment_lines(name: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables of MinIO's environment for these values, with secrets masked."""
    return tuple(
        f"MINIO_NOTIFY_KAFKA_{key.upper()}_{name}={'***' if key in SECRET else shlex.quote(value)}"
        for key, value in values.items()
    )


def is_target_ours(made: Made, name: str, actual: TargetConfig | None) -> bool:
    """Return whether the target is missing, or as this pipeline made it, or disabled since."""
    if actual is None:
        return True
    values = made.value(_title(name))
    return isinstance(values, dict) and not (
        config_changes(cast("dict[str, str]", values), actual).keys() - {"enable"}
    )


def _title(name: str) -> str:
    return f"MinIO target {SUBSYSTEM}:{name}"


def ensure_target(
    settings: Settings, server: Server, made: Made, report: Report, *, dry_run: bool
) -> None:
    """Create or change the target, and restart MinIO if that changed anything.

    A target whose ARN is set belongs to an administrator, and is neither changed nor asked for.

    Raises:
        TransientError: MinIO is unreachable, can't reach Kafka, or did not come back.
        UserError: MinIO would misread a value, or can't read an encrypted key, or another pipeline
            made the target.
    """
    name = settings.notify_kafka_target
    if is_arn(name):
        report(_of_administrator(name, settings.kafka_topic))
        return
    title = _title(name)
    wanted = wanted_config(settings)
    changes = dict(wanted)
    try:
        actual = read_target(server, name)
        changes = config_changes(wanted, actual)
        if changes and actual is not None and actual.environment:
            report(
                Step(
                    "needs administrator",
                    f"{title}: MinIO's environment sets it; set these there and restart MinIO",
                    environment_lines(name, changes),
                )
            )
            return
        known = knows_arn(server, name)
        if not changes and known is not False:
            hidden = "" if "sasl_password" not in wanted else ", password not shown by MinIO"
            report(Step("ok", f"{title}: {wanted['brokers']} topic {wanted['topic']}{hidden}"))
        else:
            what = masked(changes) or ("enabled again" if changes else "known to MinIO again")
            made.check(
                f"target {name!r} differs ({what})",
                is_ours=not changes or is_target_ours(made, name, actual),
                effect="that one may get no more events",
            )
            if not dry_run:
                _set(settings, server, changes)
                shown = {key: value for key, value in wanted.items() if key not in SECRET}
                made.remember(title, shown)
                _wait_for_empty_queues(settings, wanted)
                _restart(server, name, wanted)
            report(changed(f"{title}: {what} (with a restart of MinIO)", dry_run=dry_run))
        for warning in _warnings(wanted, actual):
            report(Step("warning", f"{title}: {warning}"))
    except DeniedError as error:
        report(_for_administrator(server, error, name, changes))


def _for_administrator(
    server: Server, error: DeniedError, name: str, changes: Mapping[str, str]
) -> Step:
    return Step(
        "needs administrator",
        f"{_title(name)}: {refusal(server, error)}; an administrator must run",
        mc_commands(
            server.endpoint,
            f"mc admin config set {ALIAS} {SUBSYSTEM}:{name} {masked(changes)}",
            f"mc admin service restart {ALIAS}",
        ),
    )


def _of_administrator(target: str, topic: str) -> Step:
    named = target.rpartition(":")[2]
    if is_topic(target) and named != topic:
        # Kafka's topic has the name of Ceph's (src/rgw/driver/rados/rgw_pubsub_push.cc).
        return Step(
            "warning",
            f"target {target}: Ceph sends to Kafka's topic {named!r}, and KAFKA_TOPIC is "
            f"{topic!r}: set KAFKA_TOPIC={named}, or make a topic {topic!r} in Ceph",
        )
    return Step("ok", f"target {target}: an administrator's, which must send to topic {topic}")


def _warnings(wanted: Mapping[str, str], actual: TargetConfig | None) -> Iterator[str]:
    if wanted.get("tls_skip_verify") == "on":
        yield (
            "NOTIFY_KAFKA_TLS_SKIP_VERIFY is on, so MinIO sends events and credentials to whoever "
            f"answers for {wanted['brokers']}; put Kafka's CA into CAs in MinIO's certs-dir instead"
        )
    if not {**(actual.values if actual else {}), **wanted}.get("queue_dir"):
        yield (
            "without NOTIFY_KAFKA_QUEUE_DIR, a folder on MinIO's host, events are lost while Kafka "
            "is down; reconciliation finds their objects later"
        )


def read_target(server: Server, name: str) -> TargetConfig | None:
    """Return a target as the running server uses it; None if it does not exist.

    Raises:
        DeniedError: the credentials do not allow it.
        TransientError: MinIO is unreachable.
    """
    # MinIO answers with an error if it is asked for one target that does not exist.
    return parse_config(server.call(server.admin.config_get, SUBSYSTEM)).get(name)


def knows_arn(server: Server, name: str) -> bool | None:
    """Return whether the running server has the target's ARN; None if it refuses to answer."""
    try:
        answer = server.call_json(server.admin.info)
    except DeniedError:
        return None
    return any(is_arn_of(value, name) for value in answer.get("sqsARN") or [])


def _set(settings: Settings, server: Server, changes: Mapping[str, str]) -> None:
    if not changes:
        return
    if settings.runs_local_minio and "queue_dir" in changes and not settings.notify_kafka_queue_dir:
        (settings.local_dir.absolute() / QUEUE_DIR).mkdir(parents=True, exist_ok=True)
    try:
        # Setting anything enables the target, and older servers refuse `enable`.
        values = {key: value for key, value in changes.items() if key != "enable"}
        server.call(
            server.admin.config_set,
            f"{SUBSYSTEM}:{settings.notify_kafka_target}",
            checked_for_set(values or wanted_config(settings)),
        )
    except DeniedError:
        raise
    except AdminError as error:
        raise TransientError(_unusable(settings, server, error)) from error


def _unusable(settings: Settings, server: Server, error: AdminError) -> str:
    brokers = settings.notify_kafka_brokers or settings.kafka_bootstrap_servers
    return (
        f"MinIO at {server.endpoint} can't use Kafka at {brokers} by {_protocol(settings)} "
        f"({one_line(error.message)}): {remedy(error.message)}"
    )


def remedy(message: str) -> str:
    """Return the remedy for a message of MinIO about Kafka."""
    for words, what in REMEDIES:
        if any(word in message for word in words):
            return what
    return (
        "start Kafka, or set NOTIFY_KAFKA_BROKERS to its address as MinIO sees it, and "
        "NOTIFY_KAFKA_SECURITY_PROTOCOL to the protocol of that listener"
    )


def _wait_for_empty_queues(settings: Settings, wanted: Mapping[str, str]) -> None:
    # MinIO closes its targets when it restarts, and panics ("send on closed channel") if one of
    # them is sending an event from its queue. Only a local queue can be inspected.
    if not settings.runs_local_minio or not wanted.get("queue_dir"):
        return
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while any(Path(wanted["queue_dir"]).rglob("*.event")) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _restart(server: Server, name: str, wanted: Mapping[str, str]) -> None:
    # MinIO may drop the connection before it answers.
    with contextlib.suppress(TransientError):
        server.call(server.admin.service_restart)
    deadline = time.monotonic() + RESTART_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        try:
            # The old process shows the configuration that it started with, so this waits for the
            # new one.
            has_config = not config_changes(wanted, read_target(server, name))
            if has_config and knows_arn(server, name) is not False:
                return
        except (TransientError, AdminError):
            # Unreachable or not ready yet.
            continue
    msg = (
        f"MinIO at {server.endpoint} did not come back with the target {name!r} within "
        f"{RESTART_TIMEOUT_S} s after its restart: look at its log"
    )
    raise TransientError(msg)
