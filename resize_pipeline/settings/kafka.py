"""Settings of Kafka: the brokers, the topic and the consumer."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from resize_pipeline.addresses import parse_host_port
from resize_pipeline.settings.base import BasicSettings, SecurityProtocol
from resize_pipeline.validators import DEAD_LETTERS, checked_brokers, checked_start, checked_topic


class KafkaSettings(BasicSettings):
    """How Kafka is reached, and where reading starts."""

    kafka_bootstrap_servers: Annotated[str, AfterValidator(checked_brokers)] = "127.0.0.1:9092"
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

    completion_events: bool = False
    """Send a message to `KAFKA_TOPIC.renditions` for each original whose renditions are current."""

    kafka_start: Annotated[str, AfterValidator(checked_start)] = "earliest"
    """Start of a sensor without a cursor: `earliest`, `latest` or a time with its zone."""
    kafka_consumer_group: str = "resize-pipeline"
    """Consumer group that mirrors the sensor's cursor, for tools that monitor lag."""

    @property
    def kafka_address(self) -> tuple[str, int]:
        """Host and port of the first bootstrap server; Kafka's default port is 9092."""
        first = self.kafka_bootstrap_servers.split(",")[0].strip()
        host, port = parse_host_port(first) or ("", None)
        return host, port or 9092

    @property
    def dead_letter_topic(self) -> str:
        """Topic for events that can never succeed."""
        return f"{self.kafka_topic}{DEAD_LETTERS}"

    @property
    def completion_topic(self) -> str:
        """Topic for completion events; empty without COMPLETION_EVENTS."""
        return f"{self.kafka_topic}.renditions" if self.completion_events else ""
