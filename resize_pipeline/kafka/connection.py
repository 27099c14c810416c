"""How to reach a Kafka cluster: client options, TLS, and errors turned into one clear line.

Only what opens connections belongs here; what is read or sent does not.
"""

import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from resize_pipeline.addresses import how_to_start
from resize_pipeline.errors import TooLargeError, TransientError, UserError, one_line
from resize_pipeline.kafka.codecs import bound_codecs
from resize_pipeline.tls import (
    HANG_UPS,
    TlsNames,
    client_context,
    explained,
    show_certificate,
    tls_error_of,
)

TLS_NAMES = TlsNames(
    ca="KAFKA_SSL_CAFILE",
    address="KAFKA_BOOTSTRAP_SERVERS, or the broker's advertised.listeners,",
    protocol="KAFKA_SECURITY_PROTOCOL",
    cert="KAFKA_SSL_CERTFILE",
    key="KAFKA_SSL_KEYFILE",
    password="KAFKA_SSL_KEY_PASSWORD",  # noqa: S106
)

TIMEOUT_MS = 10_000
"""How long a broker may take to answer a request."""
DELIVERY_TIMEOUT_MS = 30_000
"""How long a message may take to reach all in-sync replicas."""
REQUEST_MAX_BYTES = 16 * 2**20
"""Above the largest message that a broker accepts by default (1 MiB)."""
RETRY_BACKOFF_MS = 10
"""How soon a consumer repeats a request. It always repeats one, because it asks for the brokers
first and only then for the topic: kafka-python's 100 ms cost each tick 0.3 s, and each run more."""
POLL_MS = 500
"""How long a poll waits for records."""
FETCH_WAIT_MS = POLL_MS // 2
"""Shorter than a poll, so that a poll that times out has sent a request."""
POLL_MAX_RECORDS = 5_000
FETCH_MAX_BYTES = 16 * 2**20
"""Most bytes, as compressed, that a broker returns for one request."""

SILENCE = (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError, TimeoutError)
"""Errors whose names say nothing more than that there was no answer."""
REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
"""Refusals that a broker will repeat for the same client."""
NO_FRAME = kafka_errors.InvalidReceiveError
HUNG_UP = "socket disconnected"
"""kafka-python 3.0's text for a connection that the broker closed (net/transport.py)."""
NOT_ALLOWED = "AuthorizationFailedError"
"""In the text of the error that kafka-python 3.0 raises for a producer that may write to no topic
(producer/transaction_manager.py)."""
NO_COORDINATOR = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.NotCoordinatorError,
)
"""A broker's answers about consumer groups until it has created and read the topic that keeps
them."""

bound_codecs()


@dataclass(frozen=True, slots=True)
class Connection:
    """A Kafka cluster, how to reach it, and the clients that connect to it.

    Every client closes its network client in any case, and raises:

    - TransientError: Kafka is unreachable or did not answer in time.
    - UserError: Kafka refuses these credentials, or a certificate file can't be used.
    """

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    def options(self) -> dict[str, Any]:
        """Return the connection options of kafka-python's clients.

        Raises:
            UserError: a certificate file can't be used.
        """
        return {
            "bootstrap_servers": [part.strip() for part in self.bootstrap_servers.split(",")],
            "client_id": "resize-pipeline",
            "security_protocol": self.security_protocol,
            "ssl_context": self._ssl_context(),
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "request_timeout_ms": TIMEOUT_MS,
            "bootstrap_timeout_ms": TIMEOUT_MS,
            "reconnect_backoff_max_ms": 1_000,
        }

    @contextmanager
    def admin(self) -> Generator[KafkaAdminClient]:
        """Open an admin client."""
        with self._network() as network:
            client = KafkaAdminClient(**self.options(), kafka_client=network)
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def consumer(self, fetch_wait_ms: int = FETCH_WAIT_MS) -> Generator[KafkaConsumer]:
        """Open a consumer outside of any group: positions come from cursors and offset ranges.

        Args:
            fetch_wait_ms: how long a broker may hold a request back until it has a record.
        """
        with self._network() as network:
            client = KafkaConsumer(
                **self.options(),
                kafka_client=network,  # pyright: ignore[reportArgumentType]
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",  # pyright: ignore[reportArgumentType]
                allow_auto_create_topics=False,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                fetch_max_wait_ms=fetch_wait_ms,
                fetch_max_bytes=FETCH_MAX_BYTES,
                max_poll_records=POLL_MAX_RECORDS,
            )
            try:
                yield client
            finally:
                client.close(autocommit=False)

    @contextmanager
    def producer(self) -> Generator[KafkaProducer]:
        """Open a producer whose messages are acknowledged by all in-sync replicas."""
        with self._network() as network:
            client = KafkaProducer(
                **self.options(),
                kafka_client=network,
                acks="all",
                allow_auto_create_topics=False,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_block_ms=TIMEOUT_MS,
                max_request_size=REQUEST_MAX_BYTES,
            )
            try:
                yield client
            finally:
                client.close(timeout=1)

    def _ssl_context(self) -> ssl.SSLContext | None:
        # kafka-python would ask the terminal for a key's password, and would report a missing file
        # as a broker that does not answer.
        if not self.security_protocol.endswith("SSL"):
            return None
        context = client_context(self.ssl_cafile, TLS_NAMES)
        if self.ssl_certfile is not None:
            show_certificate(
                context, self.ssl_certfile, self.ssl_keyfile, self.ssl_key_password, TLS_NAMES
            )
        return context

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn the client's errors into one line that names the cluster and the remedy.

        Raises:
            TransientError: Kafka is unreachable or did not answer in time.
            UserError: Kafka refuses these credentials, or a codec's library is missing.
        """
        try:
            yield
        except kafka_errors.UnsupportedCodecError as error:
            # A broker accepts no codec that it does not know: the library is missing here.
            msg = (
                f"a message of Kafka at {self.bootstrap_servers} can't be decompressed ({error}): "
                "install `kafka-python[lz4,snappy,zstd]`"
            )
            raise UserError(msg) from error
        except (kafka_errors.AuthorizationError, *REFUSALS) as error:
            raise UserError(self._refused(error)) from error
        except kafka_errors.MessageSizeTooLargeError as error:
            msg = (
                f"Kafka at {self.bootstrap_servers} refuses a message because of its size: raise "
                "max.message.bytes of the topic, or lower DEAD_LETTER_MAX_BYTES"
            )
            raise TooLargeError(msg) from error
        except NO_COORDINATOR as error:
            msg = f"Kafka at {self.bootstrap_servers} is not ready for consumer groups yet: wait"
            raise TransientError(msg) from error
        except HungUpError as error:
            msg = (
                f"Kafka at {self.bootstrap_servers} closes the connection before it answers: set "
                f"KAFKA_SECURITY_PROTOCOL={self.security_protocol} to what its listener speaks, or "
                "look at its log"
            )
            raise TransientError(msg) from error
        except ssl.SSLError as error:
            raise explained(error, f"Kafka at {self.bootstrap_servers}", TLS_NAMES) from error
        except (kafka_errors.KafkaError, OSError) as error:
            if NOT_ALLOWED in str(error):
                raise UserError(self._refused(error)) from error
            hosts = (
                part.rpartition(":")[0].strip(" []") for part in self.bootstrap_servers.split(",")
            )
            why = "" if isinstance(error, SILENCE) else f" ({type(error).__name__})"
            msg = (
                f"Kafka at {self.bootstrap_servers} does not answer{why}: {how_to_start(hosts)}, "
                "or set KAFKA_BOOTSTRAP_SERVERS"
            )
            raise TransientError(msg) from error

    def _refused(self, error: Exception) -> str:
        kafka = f"Kafka at {self.bootstrap_servers}"
        match error:
            case kafka_errors.SaslAuthenticationFailedError():
                return (
                    f"{kafka} refuses user {self.sasl_username!r} with this password by "
                    f"{self.sasl_mechanism}: check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and "
                    "KAFKA_SASL_MECHANISM, and restart the pipeline after a change"
                )
            case kafka_errors.UnsupportedSaslMechanismError():
                return (
                    f"{kafka} does not accept KAFKA_SASL_MECHANISM={self.sasl_mechanism}: set it "
                    "to one of its listener's sasl.enabled.mechanisms"
                )
            case kafka_errors.IllegalSaslStateError():
                return (
                    f"{kafka} has no SASL at this address: set KAFKA_SECURITY_PROTOCOL="
                    f"{self.security_protocol} to what its listener speaks"
                )
            case _:
                who = f"user {self.sasl_username!r}" if self.sasl_username else "this client"
                return (
                    f"{kafka} refuses {who} access ({one_line(str(error))}): allow it Read and "
                    "Write on the topics KAFKA_TOPIC, KAFKA_TOPIC.dead-letters and, with "
                    "COMPLETION_EVENTS, KAFKA_TOPIC.renditions, and Read on the group "
                    "KAFKA_CONSUMER_GROUP, or check KAFKA_SECURITY_PROTOCOL and "
                    "KAFKA_SASL_USERNAME"
                )

    @contextmanager
    def _network(self) -> Generator[Callable[..., KafkaNetClient]]:
        """Yield the factory of a client's network client, and translate errors.

        The network client is closed in any case. kafka-python leaves it open when a client can't
        be built, with a thread that tries to connect for ever: one for each tick while Kafka is
        unreachable, until the process runs out of file descriptors.
        """
        made: list[KafkaNetClient] = []
        managers: list[ConnectionManager] = []

        def make(**options: Any) -> KafkaNetClient:
            selector = NetworkSelector(**options)
            managers.append(ConnectionManager(selector, **options))
            made.append(KafkaNetClient(net=selector, manager=managers[-1], **options))
            return made[-1]

        with self.errors():
            try:
                yield make
            except kafka_errors.KafkaError as error:
                reason = next(filter(None, (manager.reason() for manager in managers)), None)
                if reason is None or isinstance(error, kafka_errors.BrokerResponseError):
                    raise
                raise reason from error
            finally:
                for client in made:
                    client.close()


class HungUpError(kafka_errors.KafkaError):
    """The broker closed each connection before it answered."""


class ConnectionManager(KafkaConnectionManager):
    """Remembers why connections failed, and gives up when that will not change.

    kafka-python 3.0 tries to connect until its timeout, whatever the broker says about certificate
    or password, and then reports only the timeout.
    """

    def __init__(self, net: NetworkSelector, **options: Any) -> None:
        self._failed: set[object] = set()
        self._refusal: Exception | None = None
        self._hung_up = False
        super().__init__(net, **options)
        # kafka-python 3.0 does not pass it on to the metadata.
        self.cluster.config["retry_backoff_ms"] = options["retry_backoff_ms"]

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> KafkaConnection:
        """Return the connection to a node, and note why it ends."""
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, *args, **options)
        if connection is not known:
            for ended in (connection.init_future, connection.close_future):
                ended.add_errback(partial(self._note, node_id))
        return connection

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport: Any = await super()._build_transport(node, timeout_at=timeout_at)
        receive = transport._sock_recv  # noqa: SLF001

        def receive_all() -> tuple[bytes, Exception | None]:
            # kafka-python discards what it has read when the same call finds the end, as it does
            # after a broker refuses a password and hangs up. The next call finds the end again.
            data, error = receive()
            return (data, None) if data else (data, error)

        transport._sock_recv = receive_all  # noqa: SLF001
        return transport

    def maybe_raise_auth_failure(self, node_id: object) -> None:
        """Raise the refusal once all bootstrap servers refused; called before each connection."""
        cluster: Any = self.cluster
        servers = {broker.node_id for broker in cluster.bootstrap_brokers()}
        if self._refusal is not None and not self.bootstrapped and servers <= self._failed:
            raise self._refusal
        super().maybe_raise_auth_failure(node_id)

    def reason(self) -> Exception | None:
        """Return the objection of the broker or of TLS to this client; None if there is none."""
        return self._refusal or (HungUpError() if self._hung_up else None)

    def _note(self, node_id: object, error: Exception) -> None:
        tls_error = tls_error_of(error)
        if isinstance(error, REFUSALS):
            self._refusal = error
        elif tls_error is not None and not isinstance(tls_error, HANG_UPS):
            self._refusal = tls_error
        # A listener with TLS answers plaintext with an alert, which is not a frame of Kafka's.
        elif tls_error is not None or HUNG_UP in str(error) or isinstance(error, NO_FRAME):
            self._hung_up = not self.bootstrapped
        self._failed.add(node_id)
