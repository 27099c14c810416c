"""TODO."""

from functools import partial
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from resize_pipeline.tls import (
    HANG_UPS,
    TlsNames,
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


SILENCE = (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError, TimeoutError)
"""Their names say nothing more than that there was no answer."""


REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
"""What a broker says of a client that it will say again the next time."""


NO_FRAME = kafka_errors.InvalidReceiveError


HUNG_UP = "socket disconnected"
"""What kafka-python 3.0 calls it when the broker has closed the connection (net/transport.py)."""


NO_COORDINATOR = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.NotCoordinatorError,
)
"""What a broker says of consumer groups until it has made and read the topic that keeps them."""


class HungUpError(kafka_errors.KafkaError):
    """The broker closed each connection before it had answered."""


class ConnectionManager(KafkaConnectionManager):
    """Remembers why connections failed, and gives up when that will not change.

    kafka-python 3.0 tries to connect until the time is over, whatever the broker says of
    certificate or password, and then says no more than that the time is over.
    """

    def __init__(self, net: NetworkSelector, **options: Any) -> None:
        self._failed: set[object] = set()
        self._refusal: Exception | None = None
        self._hung_up = False
        super().__init__(net, **options)
        # kafka-python 3.0 does not hand it on to the metadata.
        self.cluster.config["retry_backoff_ms"] = options["retry_backoff_ms"]

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> KafkaConnection:
        """Give the connection to a node, and look after it."""
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
            # kafka-python forgets what it has read when it finds the end in the same breath, as of
            # a broker that refuses a password and hangs up. The end is found again the next time.
            data, error = receive()
            return (data, None) if data else (data, error)

        transport._sock_recv = receive_all  # noqa: SLF001
        return transport

    def maybe_raise_auth_failure(self, node_id: object) -> None:
        """Give up for want of a server that does not refuse; asked before each connection."""
        cluster: Any = self.cluster
        servers = {broker.node_id for broker in cluster.bootstrap_brokers()}
        if self._refusal is not None and not self.bootstrapped and servers <= self._failed:
            raise self._refusal
        super().maybe_raise_auth_failure(node_id)

    def reason(self) -> Exception | None:
        """Give what the broker or TLS said against this client; None when neither did."""
        return self._refusal or (HungUpError() if self._hung_up else None)

    def _note(self, node_id: object, error: Exception) -> None:
        tls_error = tls_error_of(error)
        if isinstance(error, REFUSALS):
            self._refusal = error
        elif tls_error is not None and not isinstance(tls_error, HANG_UPS):
            self._refusal = tls_error
        # A listener with TLS answers what is none with an alert, which is no frame of Kafka's.
        elif tls_error is not None or HUNG_UP in str(error) or isinstance(error, NO_FRAME):
            self._hung_up = not self.bootstrapped
        self._failed.add(node_id)
