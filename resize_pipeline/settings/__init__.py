"""The settings of the project: every name, default, meaning and check.

`environment.py` reads them. The field docstrings are the settings table of the documentation.
"""

from itertools import combinations
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, model_validator

from resize_pipeline.addresses import is_loopback
from resize_pipeline.settings.kafka import KafkaSettings
from resize_pipeline.settings.local import LocalSettings
from resize_pipeline.settings.minio import MinioSettings
from resize_pipeline.settings.runs import RunSettings


class Settings(LocalSettings, RunSettings, KafkaSettings, MinioSettings):
    """All settings. Sizes are in bytes and durations in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _follow_the_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("pipeline_name")
        if not isinstance(name, str):
            return values
        # Hyphens are awkward in the variables that can set MinIO's targets, too.
        follow = {"notify_kafka_target": name.replace("-", "_"), "kafka_consumer_group": name}
        return follow | values

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
    def runs_local_minio(self) -> bool:
        """Whether `up` starts MinIO."""
        return self.local_stack and is_loopback(self.minio_address[0])

    @property
    def runs_local_kafka(self) -> bool:
        """Whether `up` starts Kafka."""
        return self.local_stack and is_loopback(self.kafka_address[0])

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
