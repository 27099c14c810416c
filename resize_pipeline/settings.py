"""The settings of the project: every name, default, meaning and check.

`environment.py` reads them. The field docstrings are the settings table of the documentation.
"""

import base64
import datetime as dt
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from resize_pipeline.addresses import PORT_MAX, host_port, is_loopback, parse_host_port
from resize_pipeline.errors import UserError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.validators import (
    DEAD_LETTERS,
    checked_bucket,
    checked_catalog_bucket,
    checked_endpoint,
    checked_host,
    checked_paths,
    checked_pipeline_name,
    checked_region,
    checked_start,
    checked_target,
    checked_topic,
    checked_webhook,
    of_length,
    parse_hosts,
    parse_owners,
    parse_suffixes,
)

MIB = 2**20
UI_PASSWORD_MIN = 12
DEFAULT_PIPELINE_NAME = "resize-pipeline"

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


class Settings(BaseSettings):
    """The settings; each field is its environment variable in lower case.

    Sizes are in bytes and durations in seconds.
    """

    model_config = SettingsConfigDict(
        allow_inf_nan=False,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    pipeline_name: Annotated[str, AfterValidator(checked_pipeline_name)] = DEFAULT_PIPELINE_NAME
    """Name of its MinIO user; target, consumer group and names in Dagster follow it, unless set."""
    minio_endpoint: Annotated[str, AfterValidator(checked_endpoint)] = "http://127.0.0.1:9000"
    """Address of the MinIO server; the scheme selects plain HTTP or TLS."""
    minio_access_key: SecretStr | None = None
    """Access key of the pipeline's user."""
    minio_secret_key: SecretStr | None = None
    """Secret key of the pipeline's user."""
    minio_region: Annotated[str, AfterValidator(checked_region)] = "us-east-1"
    """Region that requests are signed for."""
    minio_ca_file: Path | None = None
    """PEM file with the CA of the server's certificate, or with that certificate itself."""
    minio_tls_skip_verify: bool = False
    """Skip TLS certificate verification; every start, tick and run logs a warning."""
    minio_root_user: Annotated[SecretStr, of_length(3, ", as MinIO requires")] = SecretStr("minio")
    """Administrator's access key, for the local server and for provisioning."""
    minio_root_password: Annotated[SecretStr | None, of_length(8, ", as MinIO requires")] = None
    """Administrator's secret key; unset, the first start of a local MinIO puts one into `.env`."""
    source_bucket: Annotated[str, AfterValidator(checked_bucket)] = "images"
    """Bucket with the original images; no other bucket is read for originals."""
    source_suffixes: str = ".jpg,.jpeg,.png,.webp,.gif,.tif,.tiff,.avif"
    """Key suffixes that the bucket notification selects, in any mixture of cases."""

    notify_kafka_target: Annotated[str, AfterValidator(checked_target)] = "resize_pipeline"
    """Name of MinIO's Kafka target that provisioning makes, or the ARN of one that is there."""
    notify_kafka_brokers: str | None = None
    """Kafka brokers as MinIO reaches them, if different from `KAFKA_BOOTSTRAP_SERVERS`."""
    notify_kafka_queue_dir: Path | None = None
    """Folder on the MinIO host that queues events while Kafka is down."""
    notify_kafka_security_protocol: SecurityProtocol | None = None
    """Security protocol from MinIO to Kafka, if different from `KAFKA_SECURITY_PROTOCOL`."""
    notify_kafka_client_tls_cert: Path | None = None
    """PEM file on the MinIO host with its client certificate, if not `KAFKA_SSL_CERTFILE`."""
    notify_kafka_client_tls_key: Path | None = None
    """PEM file on the MinIO host with the unencrypted key of that certificate."""
    notify_kafka_tls_skip_verify: bool = False
    """Let MinIO skip TLS certificate verification of Kafka; provisioning warns."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """Kafka bootstrap servers, separated by commas."""
    kafka_topic: Annotated[str, AfterValidator(checked_topic)] = "minio-events"
    """Topic that receives MinIO's bucket notifications."""
    kafka_topic_partitions: Annotated[int, Field(ge=1)] = 3
    """Number of partitions of a topic that provisioning creates."""
    kafka_replication_factor: Annotated[int, Field(ge=-1)] = -1
    """Replication factor of a topic that provisioning creates; -1 for the broker's default."""
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    """Security protocol for connections to Kafka."""
    kafka_ssl_cafile: Path | None = None
    """PEM file with the CA of the brokers' certificates, or with those certificates themselves."""
    kafka_ssl_certfile: Path | None = None
    """PEM file with the client certificate."""
    kafka_ssl_keyfile: Path | None = None
    """PEM file with the client key, unless `KAFKA_SSL_CERTFILE` contains it."""
    kafka_ssl_key_password: SecretStr | None = None
    """Password of the client key, if the key is encrypted."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism, for the security protocols with SASL."""
    kafka_sasl_username: str | None = None
    """SASL user name."""
    kafka_sasl_password: SecretStr | None = None
    """SASL password."""

    kafka_start: Annotated[str, AfterValidator(checked_start)] = "earliest"
    """Start of a sensor without a cursor: `earliest`, `latest` or a time with its zone."""
    kafka_consumer_group: str = "resize-pipeline"
    """Consumer group that mirrors the sensor's cursor, for tools that monitor lag."""

    renditions_file: Path = Path("renditions.yaml")
    """YAML file with the rendition specs."""
    partitions: Literal["hourly", "daily"] = "hourly"
    """Length of a Dagster partition."""
    partitions_start: dt.date = dt.date(2026, 1, 1)
    """First day with partitions (UTC); older objects belong to the first partition."""

    run_max_objects: Annotated[int, Field(ge=1)] = 500
    """Maximum number of events in a run that the sensor requests."""
    run_max_bytes: Annotated[int, Field(ge=1)] = 4096 * MIB
    """Maximum total size of the originals in a run that the sensor requests."""
    run_min_interval_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds after which a run with less than a full batch may follow, once RUN_BURST is used."""
    run_burst: Annotated[int, Field(ge=1)] = 6
    """Runs with less than a full batch that may be requested at once after a pause."""
    run_retention_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """Days to keep finished runs; those with a partition's latest state stay, and 0 keeps all."""
    run_retention_runs: Annotated[int, Field(ge=1)] = 500
    """Successful runs to keep of those that are younger, and that hold no latest state."""
    sensor_max_unfinished_runs: Annotated[int, Field(ge=1)] = 4
    """Maximum number of the sensor's unfinished runs; with this many, it waits."""
    batch_max_objects: Annotated[int, Field(ge=1)] = 128
    """Maximum number of objects in memory at once."""
    batch_max_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Maximum total size of the originals in memory at once."""
    source_max_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Maximum size of an original; a larger one is rejected, and no more than that is read."""
    source_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum pixels of an original, all frames added; a larger one is rejected before decoding."""
    output_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum pixels of a rendition; an original that needs more is rejected."""
    dead_letter_max_bytes: Annotated[int, Field(ge=1024, le=MIB // 2)] = 64 * 1024
    """Maximum size of an original message in a dead letter; a larger one is truncated."""
    reconciliation_cron: str = "17 * * * *"
    """Cron schedule for comparing the whole bucket with its renditions."""
    completeness_cron: str = "32 * * * *"
    """Cron schedule for checking the partition that ended last."""
    render_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Time limit for rendering one original, in seconds."""
    render_first_try_s: Annotated[float, Field(gt=0)] = 3.0
    """CPU seconds for an original beside others; a slower one is left to the slow lane."""
    render_batch_s: Annotated[float, Field(gt=0)] = 60.0
    """CPU seconds for a batch; seconds in which a run of the slow lane begins originals."""
    render_memory_bytes: Annotated[int, Field(ge=256 * MIB)] = 2048 * MIB
    """Memory limit (address space) for rendering one original."""
    render_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum decoded pixels in a run at once; a larger original is decoded alone."""
    render_read_paths: Annotated[str, AfterValidator(checked_paths)] = ""
    """Files and folders that transforms may read besides code, absolute, separated by colons."""
    retry_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds that a run keeps trying to reach a server before it fails and is retried."""
    delete_renditions: bool = False
    """Delete renditions when their original is deleted."""
    contact_sheets: bool = True
    """Add a contact sheet to each materialization."""
    contact_sheet_max_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Maximum size of a contact sheet in a materialization."""
    asset_owners: str | None = None
    """Owners of the assets, separated by commas: e-mail addresses or `team:NAME`."""
    catalog_bucket: Annotated[str, AfterValidator(checked_catalog_bucket)] = ""
    """Bucket of the catalogue, a Delta Lake table with a row for each original; empty for none."""
    catalog_position: bool = False
    """Also write into the catalogue where a picture was taken, if its EXIF says so."""
    webhook_url: SecretStr | None = None
    """Webhook notified of failed runs, new dead letters and missing events; unset disables it."""

    local_stack: bool = True
    """Let `up` start whichever of Kafka and MinIO has an address on this machine."""
    local_dir: Path = Path(".local")
    """Folder for the data, logs and credentials of the local stack."""
    ui_host: Annotated[str, AfterValidator(checked_host)] = "127.0.0.1"
    """Host name or IP address that the Dagster UI listens on."""
    ui_port: Annotated[int, Field(ge=1, le=PORT_MAX)] = 3000
    """Port of the Dagster UI."""
    ui_allowed_hosts: str | None = None
    """Other names that the UI is opened by, such as that of a proxy, separated by commas."""
    ui_password: Annotated[SecretStr | None, of_length(UI_PASSWORD_MIN)] = None
    """Password of the UI that `up` and deploy/ start, with any user name; unset requires none."""
    minio_bin: Path | None = None
    """MinIO program to run instead of the one on PATH or in the cache."""

    @model_validator(mode="before")
    @classmethod
    def _follow_the_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("pipeline_name")
        if not isinstance(name, str):
            return values
        # Hyphens are awkward in the variables that can set MinIO's targets, too.
        follow = {"notify_kafka_target": name.replace("-", "_"), "kafka_consumer_group": name}
        return follow | values

    @field_validator("partitions_start")
    @classmethod
    def _has_begun(cls, value: dt.date) -> dt.date:
        today = dt.datetime.now(dt.UTC).date()
        if value > today:
            msg = f"must be today, {today}, or earlier: events would have no partition"
            raise ValueError(msg)
        return value

    @field_validator("kafka_bootstrap_servers", "notify_kafka_brokers")
    @classmethod
    def _is_list_of_brokers(cls, value: str | None) -> str | None:
        for broker in value.split(",") if value is not None else ():
            if not parse_host_port(broker.strip()):
                msg = "is not of the form HOST:PORT,HOST:PORT"
                raise ValueError(msg)
        return value

    @field_validator("ui_allowed_hosts")
    @classmethod
    def _is_list_of_hosts(cls, value: str | None) -> str | None:
        parse_hosts(value or "")
        return value

    @field_validator("source_suffixes")
    @classmethod
    def _is_list_of_suffixes(cls, value: str) -> str:
        parse_suffixes(value)
        return value

    @field_validator("reconciliation_cron", "completeness_cron")
    @classmethod
    def _is_cron(cls, value: str, info: ValidationInfo) -> str:
        # Dagster takes seconds to import, so the default is not checked.
        if value == cls.model_fields[str(info.field_name)].default:
            return value
        from dagster._utils.schedules import is_valid_cron_string  # noqa: PLC0415

        if not is_valid_cron_string(value):
            msg = "must be a cron schedule such as 17 * * * *"
            raise ValueError(msg)
        return value

    @field_validator("asset_owners")
    @classmethod
    def _is_list_of_owners(cls, value: str | None) -> str | None:
        parse_owners(value or "")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _is_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            checked_webhook(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _have_ports_of_their_own(self) -> Self:
        opened = {"UI_PORT": self.ui_port}
        if self.runs_local_minio:
            opened["MINIO_ENDPOINT"] = self.minio_address[1]
        if self.runs_local_kafka:
            opened["KAFKA_BOOTSTRAP_SERVERS"] = self.kafka_address[1]
        for one, two in combinations(opened, 2):
            if opened[one] == opened[two]:
                msg = (
                    f"{one} and {two} both use port {opened[one]} of this machine: must be "
                    "different ports"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _are_complete(self) -> Self:
        protocols = {
            "KAFKA_SECURITY_PROTOCOL": self.kafka_security_protocol,
            "NOTIFY_KAFKA_SECURITY_PROTOCOL": self.notify_kafka_security_protocol or "",
        }
        for name, protocol in protocols.items():
            if protocol.startswith("SASL") and not (
                self.kafka_sasl_username and self.kafka_sasl_password
            ):
                msg = (
                    f"{name}={protocol} requires KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: "
                    "set both"
                )
                raise ValueError(msg)
        for cert, key in (
            ("kafka_ssl_certfile", "kafka_ssl_keyfile"),
            ("notify_kafka_client_tls_cert", "notify_kafka_client_tls_key"),
        ):
            if getattr(self, key) and not getattr(self, cert):
                msg = f"{key.upper()} has no effect without {cert.upper()}: set both or neither"
                raise ValueError(msg)
        if self.minio_ca_file and self.minio_tls_skip_verify:
            msg = "MINIO_CA_FILE has no effect with MINIO_TLS_SKIP_VERIFY: set only one of them"
            raise ValueError(msg)
        return self

    @property
    def warnings(self) -> list[str]:
        """Warnings to show at each start, and to log in each tick and in each run."""
        if not self.minio_tls_skip_verify or not self.minio_endpoint.startswith("https:"):
            return []
        warning = (
            f"MINIO_TLS_SKIP_VERIFY is on: any server that answers for {self.minio_endpoint} is "
            "trusted, and can read and change keys and images: set MINIO_CA_FILE instead"
        )
        return [warning]

    @property
    def ui_warnings(self) -> list[str]:
        """Warnings to show whenever the UI starts."""
        if is_loopback(self.ui_host) or self.ui_password:
            return []
        warning = (
            f"the UI listens on UI_HOST={self.ui_host} without a password: whoever reaches "
            f"port {self.ui_port} controls the pipeline: set UI_PASSWORD, or UI_HOST=127.0.0.1"
        )
        return [warning]

    @property
    def minio_address(self) -> tuple[str, int]:
        """Host and port of the MinIO server."""
        parts = urlsplit(self.minio_endpoint)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def kafka_address(self) -> tuple[str, int]:
        """Host and port of the first bootstrap server; Kafka's default port is 9092."""
        first = self.kafka_bootstrap_servers.split(",")[0].strip()
        host, port = parse_host_port(first) or ("", None)
        return host, port or 9092

    @property
    def render_limits(self) -> RenderLimits:
        """The limits of rendering."""
        return RenderLimits(
            timeout_s=self.render_timeout_s,
            memory_bytes=self.render_memory_bytes,
            source_pixels=self.source_max_pixels,
            output_pixels=self.output_max_pixels,
            pixels_at_once=self.render_max_pixels,
            read_paths=tuple(filter(None, self.render_read_paths.split(":"))),
        )

    @property
    def suffixes(self) -> list[str]:
        """The source suffixes as a list: lower case, each with its dot, without duplicates."""
        return parse_suffixes(self.source_suffixes)

    @property
    def owners(self) -> list[str]:
        """The owners as a list without duplicates."""
        return parse_owners(self.asset_owners or "")

    @property
    def dead_letter_topic(self) -> str:
        """Topic for events that can never succeed."""
        return f"{self.kafka_topic}{DEAD_LETTERS}"

    @property
    def administrator(self) -> tuple[str, str]:
        """Access key and secret key of MinIO's administrator.

        Raises:
            UserError: MINIO_ROOT_PASSWORD is not set.
        """
        if self.minio_root_password is None:
            msg = (
                f"MINIO_ROOT_PASSWORD, the administrator's for MinIO at {self.minio_endpoint}, is "
                "not set: set it and MINIO_ROOT_USER in .env or in the environment"
            )
            raise UserError(msg)
        return (
            self.minio_root_user.get_secret_value(),
            self.minio_root_password.get_secret_value(),
        )

    @property
    def runs_local_minio(self) -> bool:
        """Whether `up` starts MinIO."""
        return self.local_stack and is_loopback(self.minio_address[0])

    @property
    def runs_local_kafka(self) -> bool:
        """Whether `up` starts Kafka."""
        return self.local_stack and is_loopback(self.kafka_address[0])

    @property
    def ui_url(self) -> str:
        """Address of the Dagster UI."""
        return f"http://{host_port((self.ui_host, self.ui_port))}"

    @property
    def ui_headers(self) -> dict[str, str]:
        """Headers that requests to the UI must have: the password, if there is one."""
        if self.ui_password is None:
            return {}
        credentials = f"resize-pipeline:{self.ui_password.get_secret_value()}".encode()
        return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}

    @property
    def allowed_hosts(self) -> list[str]:
        """Other names of the UI as a list, in lower case, each HOST or HOST:PORT."""
        return parse_hosts(self.ui_allowed_hosts or "")

    def to_environment(self) -> dict[str, str]:
        """Return the settings as environment variables for child processes, secrets included."""
        environment: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if isinstance(value, Path):
                value = value.absolute()
            if value is not None:
                environment[name.upper()] = str(value)
        return environment
