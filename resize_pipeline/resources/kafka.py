"""Kafka as a Dagster resource. What does not need Dagster's configuration belongs to `kafka/`."""

from dataclasses import asdict

import dagster as dg

from resize_pipeline.kafka.cluster import Cluster
from resize_pipeline.kafka.connection import Connection
from resize_pipeline.resources.kafka_connection import kafka_connection
from resize_pipeline.settings import Settings


class KafkaResource(dg.ConfigurableResource, Cluster):  # pyright: ignore[reportMissingTypeArgument]
    """A Kafka cluster and how to reach it."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        sasl_password: str | None = None,
        ssl_key_password: str | None = None,
    ) -> "KafkaResource":
        """Build the resource.

        Args:
            settings: the cluster's address, protocol and credentials.
            sasl_password: the `dg.EnvVar` that names it in definitions; by default the password
                in the settings.
            ssl_key_password: the same for the password of the client's key.
        """
        values = asdict(kafka_connection(settings))
        # Dagster requires a variable that is named to be set.
        named = {"sasl_password": sasl_password, "ssl_key_password": ssl_key_password}
        return cls(**values | {name: one for name, one in named.items() if one and values[name]})

    @property
    def connection(self) -> Connection:
        """How to reach the cluster."""
        return Connection(**{name: getattr(self, name) for name in type(self).model_fields})
