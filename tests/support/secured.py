"""A real Kafka and a real MinIO with TLS, each with more than one way to reach it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.local.servers.minio import minio_answers, minio_service
from resize_pipeline.resources.http import tls_context
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.conftest import MINIO_BIN, ROOT_PASSWORD, ROOT_USER
from tests.support.certificates import Issued, issue
from tests.support.waiting import wait_until

USER = "pipeline"
PASSWORD = "password-of-pipeline"
SECOND_USER = "another"
"""May do all that USER may, once a test gives it a password."""
HOST = "localhost"
"""The only name in the servers' certificates; 127.0.0.1 is not in them."""


@dataclass(frozen=True)
class Secured:
    """The servers.

    Attributes:
        folder: has all certificates and what the servers write.
        ca: signed the brokers' certificate, MinIO trusts it, and it signed the client's.
        client: what the listener with client certificates takes.
        broker: the brokers' certificate.
        own: MinIO's certificate, signed by itself.
        stranger: that of one listener, signed by itself, which MinIO does not know.
        mtls: address of the listener that wants a client certificate.
        scram: of the one with SASL, which wants a password over TLS.
        self_signed: of the one whose certificate is `stranger`.
        plain: of the one without TLS.
        minio: MinIO's.
    """

    folder: Path
    ca: Issued
    client: Issued
    broker: Issued
    own: Issued
    stranger: Issued
    mtls: str
    scram: str
    self_signed: str
    plain: str
    minio: str

    @property
    def certs_dir(self) -> Path:
        """MinIO's folder of certificates."""
        return self.folder / "local" / "minio-certs"

    def settings(self, **changes: object) -> Settings:
        """Return settings for MinIO, with root's keys, and for Kafka's plain listener."""
        values: dict[str, object] = {
            "minio_endpoint": f"https://{self.minio}",
            "minio_ca_file": self.own.cert_file,
            "minio_access_key": ROOT_USER,
            "minio_secret_key": ROOT_PASSWORD,
            "minio_root_user": ROOT_USER,
            "minio_root_password": ROOT_PASSWORD,
            "kafka_bootstrap_servers": self.plain,
            "local_stack": False,
            "local_dir": self.folder / "local",
            "run_min_interval_s": 0.0,
        }
        return Settings.model_validate(values | changes)

    def over_scram(self) -> dict[str, object]:
        """Return the settings for the listener with SASL."""
        return {
            "kafka_bootstrap_servers": self.scram,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ssl_cafile": self.ca.cert_file,
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": USER,
            "kafka_sasl_password": PASSWORD,
        }

    def over_mtls(self) -> dict[str, object]:
        """Return the settings for the listener that requires a client certificate."""
        return {
            "kafka_bootstrap_servers": self.mtls,
            "kafka_security_protocol": "SSL",
            "kafka_ssl_cafile": self.ca.cert_file,
            "kafka_ssl_certfile": self.client.cert_file,
            "kafka_ssl_keyfile": self.client.key_file,
        }


@contextmanager
def secured_servers(folder: Path) -> Iterator[Secured]:
    """Run both servers for the duration of a `with` block."""
    ca = issue(folder, "ca", is_ca=True)
    ports = {name: free_port() for name in ("MTLS", "SCRAM", "OWN", "PLAINTEXT", "minio")}
    addresses = {name: f"{HOST}:{port}" for name, port in ports.items()}
    secured = Secured(
        folder=folder,
        ca=ca,
        client=issue(folder, "client", ca=ca),
        broker=issue(folder, "broker", ca=ca, hosts=[HOST]),
        own=issue(folder, "own", hosts=[HOST]),
        stranger=issue(folder, "stranger", hosts=[HOST]),
        mtls=addresses["MTLS"],
        scram=addresses["SCRAM"],
        self_signed=addresses["OWN"],
        plain=addresses["PLAINTEXT"],
        minio=addresses["minio"],
    )
    local = secured.settings().model_copy(
        update={
            "minio_endpoint": f"http://127.0.0.1:{ports['minio']}",
            "kafka_bootstrap_servers": f"127.0.0.1:{ports['PLAINTEXT']}",
            "minio_bin": MINIO_BIN,
        }
    )
    kafka = kafka_service(local)
    with Path(kafka.argv[-1]).open("a") as properties:
        # The last value of a name counts.
        properties.write(_kafka_properties(secured, ports))
    trust = tls_context(str(secured.own.cert_file))
    minio = dataclasses.replace(
        minio_service(local), ready=lambda: minio_answers((HOST, ports["minio"]), tls=trust)
    )
    certificates = secured.certs_dir
    (certificates / "CAs").mkdir(parents=True)
    (certificates / "public.crt").write_bytes(secured.own.cert_file.read_bytes())
    (certificates / "private.key").write_bytes(secured.own.key_file.read_bytes())
    (certificates / "CAs" / "ca.crt").write_bytes(secured.ca.cert_file.read_bytes())
    with Supervisor(folder / "servers.json") as supervisor:
        supervisor.start([minio, kafka])
        wait_until(lambda: _has_user(local), 30, "the SCRAM user")
        yield secured


def _kafka_properties(secured: Secured, ports: dict[str, int]) -> str:
    names = ("MTLS", "SCRAM", "OWN", "PLAINTEXT")
    controller = _controller(secured.settings().local_dir / "kafka" / "server.properties")
    listeners = ",".join(f"{name}://127.0.0.1:{ports[name]}" for name in names)
    advertised = ",".join(f"{name}://{HOST}:{ports[name]}" for name in names)
    protocols = "MTLS:SSL,SCRAM:SASL_SSL,OWN:SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
    module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return "\n".join(
        [
            f"listeners={listeners},{controller}",
            f"advertised.listeners={advertised},{controller}",
            f"listener.security.protocol.map={protocols}",
            "inter.broker.listener.name=PLAINTEXT",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={secured.broker.both}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={secured.ca.cert_file}",
            "listener.name.mtls.ssl.client.auth=required",
            "listener.name.own.ssl.keystore.type=PEM",
            f"listener.name.own.ssl.keystore.location={secured.stranger.both}",
            "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512",
            f"listener.name.scram.scram-sha-512.sasl.jaas.config={module}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Whoever has no password and no certificate administers this Kafka.
            f"super.users=User:ANONYMOUS;User:{USER};User:{SECOND_USER};User:CN=client",
            "",
        ]
    )


def _controller(properties: Path) -> str:
    (line,) = [one for one in properties.read_text().splitlines() if one.startswith("listeners=")]
    return line.rpartition(",")[2]


def _has_user(local: Settings) -> bool:
    user = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, PASSWORD)
    with KafkaResource.from_settings(local).connection.admin() as admin:
        return admin.alter_user_scram_credentials([user]) == {USER: None}
