"""How the settings say that Kafka is reached."""

from pydantic import SecretStr

from resize_pipeline.kafka.connection import Connection
from resize_pipeline.settings import Settings


def kafka_connection(settings: Settings) -> Connection:
    """Return the cluster's address, protocol and credentials."""
    has_sasl = settings.kafka_security_protocol.startswith("SASL")
    return Connection(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        security_protocol=settings.kafka_security_protocol,
        ssl_cafile=_path(settings.kafka_ssl_cafile),
        ssl_certfile=_path(settings.kafka_ssl_certfile),
        ssl_keyfile=_path(settings.kafka_ssl_keyfile),
        ssl_key_password=_secret(settings.kafka_ssl_key_password),
        sasl_mechanism=settings.kafka_sasl_mechanism if has_sasl else None,
        sasl_username=settings.kafka_sasl_username if has_sasl else None,
        sasl_password=_secret(settings.kafka_sasl_password) if has_sasl else None,
    )


def _secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _path(path: object) -> str | None:
    return None if path is None else str(path)
