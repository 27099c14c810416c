"""Settings of MinIO: the server, the source bucket and the notifications to Kafka."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr, field_validator

from resize_pipeline.errors import UserError
from resize_pipeline.settings.base import BasicSettings, SecurityProtocol
from resize_pipeline.validators import (
    checked_brokers,
    checked_bucket,
    checked_endpoint,
    checked_region,
    checked_target,
    of_length,
    parse_suffixes,
)


class MinioSettings(BasicSettings):
    """How MinIO is reached, what is read from it, and how it reaches Kafka."""

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
    notify_kafka_brokers: Annotated[str, AfterValidator(checked_brokers)] | None = None
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

    @field_validator("source_suffixes")
    @classmethod
    def _is_list_of_suffixes(cls, value: str) -> str:
        parse_suffixes(value)
        return value

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
    def minio_address(self) -> tuple[str, int]:
        """Host and port of the MinIO server."""
        parts = urlsplit(self.minio_endpoint)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def suffixes(self) -> list[str]:
        """The source suffixes as a list: lower case, each with its dot, without duplicates."""
        return parse_suffixes(self.source_suffixes)

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
