"""MinIO's Kafka target: where its notifications go."""

import contextlib
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from resize_pipeline.errors import TransientError, UserError, one_line
from resize_pipeline.provisioning.admin import AdminError, DeniedError, Server, refusal
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.settings import Settings

SUBSYSTEM = "notify_kafka"
RESTART_TIMEOUT_S = 60
DRAIN_TIMEOUT_S = 15
"""MinIO looks into its queue every 3 s (internal/store/store.go, retryInterval)."""
POLL_S = 0.3
QUEUE_DIR = "minio-events"
"""Folder in LOCAL_DIR where a local MinIO keeps events while Kafka is down."""

DEFAULTS = {"tls": "off", "tls_skip_verify": "off", "sasl": "off", "sasl_mechanism": "plain"}
"""MinIO's own values of what it does not show, as it does for a target in its environment."""
SECRET = frozenset({"sasl_password"})
MECHANISMS = {"PLAIN": "plain", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
"""Kafka's names of SASL mechanisms to MinIO's."""

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
"""What helps, by words of Go's crypto/tls and crypto/x509 and of MinIO's Kafka client."""

# All that MinIO knows (internal/config/notify/parse.go). Its parser looks for each of these names
# with "=" anywhere in the text, inside of values too.
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
        values: the values in force; a secret that is set is left out by MinIO.
        environment: those of them that come from MinIO's environment, with the variable's name.
    """

    values: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])


def arn(target: str) -> str:
    """Give the ARN of a Kafka target."""
    return f"arn:minio:sqs::{target}:kafka"


def is_arn_of(value: str, target: str) -> bool:
    """Tell whether an ARN is this target's."""
    return target_of(value) == target


def target_of(value: str) -> str | None:
    """Give the Kafka target of an ARN; a server with a region puts it into its ARNs."""
    parts = value.split(":")
    if parts[:3] != ["arn", "minio", "sqs"] or parts[5:] != ["kafka"]:
        return None
    return parts[4]


def parse_config(text: str) -> dict[str, TargetConfig]:
    """Read what MinIO's `config get notify_kafka` answers.

    Each target is a line `notify_kafka:NAME key=value key="a value" ...`, with lines
    `# MINIO_NOTIFY_KAFKA_KEY_NAME=value` before it for what its environment overrides.

    Returns:
        The targets by name; `_` is the one without a name.
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
            # Two variables are not named after their key (internal/event/target/kafka.go).
            key = key.removeprefix("producer_")
            target.values[key] = value
            target.environment[key] = variable
        overrides = []
        targets[name or "_"] = target
    return targets


def _parse_values(text: str) -> dict[str, str]:
    # MinIO quotes a value that has a space and escapes nothing, so the only safe end of a value
    # is the start of the next known key.
    starts = sorted(position for key in KEYS if (position := f" {text}".find(f" {key}=")) >= 0)
    values: dict[str, str] = {}
    for start, end in pairwise([*starts, len(text)]):
        key, _, value = text[start:end].strip().partition("=")
        if " " in value and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        values[key] = value
    return values


def wanted_config(settings: Settings) -> dict[str, str]:
    """Give the settings that the target should have; others are left as they are.

    Secrets come last and in clear.
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
    """Give the client's certificate; none where there is none, for others may have set one.

    Raises:
        UserError: the key is encrypted, which MinIO can't read.
    """
    cert, key = settings.notify_kafka_client_tls_cert, settings.notify_kafka_client_tls_key
    if cert is None:
        cert, key = settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile
        if cert is not None and settings.kafka_ssl_key_password is not None:
            msg = (
                "MinIO reads no encrypted key, and KAFKA_SSL_KEY_PASSWORD is set: set "
                "NOTIFY_KAFKA_CLIENT_TLS_CERT and NOTIFY_KAFKA_CLIENT_TLS_KEY to files on its host"
            )
            raise UserError(msg)
    if cert is None:
        return {}
    # One file may hold both.
    return {
        "client_tls_cert": str(cert.absolute()),
        "client_tls_key": str((key or cert).absolute()),
    }


def config_changes(wanted: Mapping[str, str], actual: TargetConfig | None) -> dict[str, str]:
    """Decide what to set; a secret that MinIO holds but does not show counts as equal."""
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
        UserError: MinIO's parser would take the value for something else.
    """
    for key, value in values.items():
        shown = "***" if key in SECRET else repr(value)
        if any(f"{known}=" in value for known in KEYS) or value.strip("'\n\r") != value:
            msg = (
                f"MinIO's target can't take {key} {shown}: it must not start or end with a single "
                "quote or hold the name of one of MinIO's settings with '='; choose another value"
            )
            raise UserError(msg)
    return {key: f'"{value}"' for key, value in values.items()}


def masked(values: Mapping[str, str]) -> str:
    """Show settings with secrets masked."""
    return " ".join(
        f"{key}={'***' if key in SECRET else shlex.quote(value)}"
        for key, value in values.items()
        if key != "enable"
    )


def environment_lines(name: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """Give the variables of MinIO's environment that set these values, secrets masked."""
    return tuple(
        f"MINIO_NOTIFY_KAFKA_{key.upper()}_{name}={'***' if key in SECRET else shlex.quote(value)}"
        for key, value in values.items()
    )


def ensure_target(settings: Settings, server: Server, report: Report, *, dry_run: bool) -> None:
    """Make the target what it should be; restart MinIO only when that takes a restart.

    Raises:
        TransientError: MinIO can't be reached, can't reach Kafka, or did not come back.
        UserError: MinIO refuses a value, or could not read a file.
    """
    name = settings.notify_kafka_target
    title = f"MinIO target {SUBSYSTEM}:{name}"
    wanted = wanted_config(settings)
    changes = dict(wanted)
    try:
        actual = read_target(server, name)
        changes = config_changes(wanted, actual)
        if changes and actual is not None and actual.environment:
            report(
                Step(
                    "needs administrator",
                    f"{title}: MinIO's environment decides it; set there and restart MinIO",
                    environment_lines(name, changes),
                )
            )
            return
        known = knows_arn(server, name)
        if not changes and known is not False:
            hidden = "" if "sasl_password" not in wanted else ", password not shown by MinIO"
            report(Step("ok", f"{title}: {wanted['brokers']} topic {wanted['topic']}{hidden}"))
        else:
            what = masked(changes) if changes else "known to MinIO again"
            if not dry_run:
                _set(settings, server, changes)
                _wait_for_empty_queues(settings, wanted)
                _restart(server, name, wanted)
            report(changed(f"{title}: {what} (with a restart of MinIO)", dry_run=dry_run))
        if wanted.get("tls_skip_verify") == "on":
            report(
                Step(
                    "warning",
                    f"{title}: NOTIFY_KAFKA_TLS_SKIP_VERIFY is on, so MinIO sends events and "
                    f"credentials to whoever answers for {wanted['brokers']}; have Kafka's CA in "
                    "CAs in MinIO's certs-dir instead",
                )
            )
        if not {**(actual.values if actual else {}), **wanted}.get("queue_dir"):
            report(
                Step(
                    "warning",
                    f"{title}: without NOTIFY_KAFKA_QUEUE_DIR, a folder on MinIO's host, events "
                    "are lost while Kafka is down; reconciliation finds their objects later",
                )
            )
    except DeniedError as error:
        report(
            Step(
                "needs administrator",
                f"{title}: {refusal(server, error)}; an administrator runs",
                mc_commands(
                    server.endpoint,
                    f"mc admin config set {ALIAS} {SUBSYSTEM}:{name} {masked(changes)}",
                    f"mc admin service restart {ALIAS}",
                ),
            )
        )


def read_target(server: Server, name: str) -> TargetConfig | None:
    """Read a target as the running server has it; None when there is none.

    Raises:
        DeniedError: the credentials do not allow it.
        TransientError: MinIO can't be reached.
    """
    # All targets, because MinIO answers with an error for one that does not exist.
    return parse_config(server.call(server.admin.config_get, SUBSYSTEM)).get(name)


def knows_arn(server: Server, name: str) -> bool | None:
    """Tell whether the running server has the target's ARN; None when it may not be asked."""
    try:
        answer = cast("dict[str, Any]", json.loads(server.call(server.admin.info)))
    except DeniedError:
        return None
    return any(is_arn_of(value, name) for value in answer.get("sqsARN") or [])


def _set(settings: Settings, server: Server, changes: Mapping[str, str]) -> None:
    if not changes:
        return
    if settings.runs_local_minio and "queue_dir" in changes and not settings.notify_kafka_queue_dir:
        (settings.local_dir.absolute() / QUEUE_DIR).mkdir(parents=True, exist_ok=True)
    try:
        # `enable` is implied, and older servers refuse it.
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
    """Say what helps when MinIO can't use Kafka, by what it says."""
    for words, what in REMEDIES:
        if any(word in message for word in words):
            return what
    return (
        "start Kafka, or set NOTIFY_KAFKA_BROKERS to its address as MinIO sees it, and "
        "NOTIFY_KAFKA_SECURITY_PROTOCOL to what that speaks"
    )


def _wait_for_empty_queues(settings: Settings, wanted: Mapping[str, str]) -> None:
    # MinIO closes its targets when it restarts, and one that is just sending an event from its
    # queue then makes it panic ("send on closed channel"). Only a local queue can be looked into.
    if not settings.runs_local_minio or not wanted.get("queue_dir"):
        return
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while any(Path(wanted["queue_dir"]).rglob("*.event")) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _restart(server: Server, name: str, wanted: Mapping[str, str]) -> None:
    # MinIO may drop the connection before it has answered.
    with contextlib.suppress(TransientError):
        server.call(server.admin.service_restart)
    deadline = time.monotonic() + RESTART_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        try:
            # The running server shows what it started with, so this waits for the new one.
            if not config_changes(wanted, read_target(server, name)) and knows_arn(
                server, name
            ) in {
                True,
                None,
            }:
                return
        except (TransientError, AdminError):
            # Away or not ready yet.
            continue
    msg = (
        f"MinIO at {server.endpoint} did not come back with the target {name!r} within "
        f"{RESTART_TIMEOUT_S} s after its restart: look at its log"
    )
    raise TransientError(msg)
