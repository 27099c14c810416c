"""Kafka as a Dagster resource: the state of a topic, and reading offsets from it.

Nothing here knows of pictures or of MinIO. Keys and values stay raw bytes: a deserializer that
raises would hold the consumer for ever at the message that it can't read.
"""

import datetime as dt
import gzip
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import dagster as dg
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.structs import OffsetAndMetadata, TopicPartition
from pydantic import SecretStr

from resize_pipeline.dead_letters import DeadLetter, newest
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.offsets import OffsetRange, TopicState
from resize_pipeline.settings import Settings, how_to_start
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
DELIVERY_TIMEOUT_MS = 30_000
REQUEST_MAX_BYTES = 16 * 2**20
"""Larger than a message can be that a broker with its defaults takes (1 MiB)."""
RETRY_BACKOFF_MS = 10
"""How soon a consumer asks again. It always does, for it asks for the brokers first and only then
for a topic: with kafka-python's 100 ms each tick slept for 0.3 s, and each run longer."""
POLL_MS = 500
POLL_MAX_RECORDS = 5_000

UNDECODABLE = (
    kafka_errors.CorruptRecordError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
)
"""What kafka-python 3.0 raises for batches that Kafka 4.3 has taken, which looks neither at what
follows the compressed data nor at header keys that are no UTF-8, and refuses all else."""

NO_TOPIC = frozenset(
    {kafka_errors.UnknownTopicOrPartitionError.errno, kafka_errors.InvalidTopicError.errno}
)
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


Outgoing = tuple[bytes | None, bytes | None, Iterable[tuple[str, bytes]]]
"""Key, value and headers of a message to send; a value of None is a tombstone."""


class Message(Protocol):
    """What this package reads of kafka-python's `ConsumerRecord`."""

    @property
    def partition(self) -> int:
        """Partition that holds the message."""
        ...

    @property
    def offset(self) -> int:
        """Offset of the message in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""
        ...

    @property
    def key(self) -> bytes | None:
        """Key as it was sent."""
        ...

    @property
    def value(self) -> bytes | None:
        """Value as it was sent; None for a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Headers as they were sent."""
        ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """What `KafkaResource.read` gives for an offset whose message this client can't decode.

    Attributes:
        partition: partition that holds the message.
        offset: its offset.
        reason: what the client says.
        timestamp: milliseconds since 1970, of now: that of the message is not known.
        key: likewise not known.
        value: likewise.
        headers: likewise.
    """

    partition: int
    offset: int
    reason: str
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))
    key: None = None
    value: None = None
    headers: tuple[()] = ()


class _UndecodableError(Exception):
    """The next message of one of the partitions that are read can't be decoded."""


class KafkaResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
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
            settings: where the cluster is and how to talk to it.
            sasl_password: the `dg.EnvVar` that names it in definitions; by default the settings'
                own.
            ssl_key_password: likewise.
        """
        sasl_password = sasl_password or _secret(settings.kafka_sasl_password)
        has_sasl = settings.kafka_security_protocol.startswith("SASL")
        # Dagster wants a variable that is named to be set.
        own_key_password = _secret(settings.kafka_ssl_key_password)
        return cls(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            security_protocol=settings.kafka_security_protocol,
            ssl_cafile=_path(settings.kafka_ssl_cafile),
            ssl_certfile=_path(settings.kafka_ssl_certfile),
            ssl_keyfile=_path(settings.kafka_ssl_keyfile),
            ssl_key_password=own_key_password and (ssl_key_password or own_key_password),
            sasl_mechanism=settings.kafka_sasl_mechanism if has_sasl else None,
            sasl_username=settings.kafka_sasl_username if has_sasl else None,
            sasl_password=sasl_password if has_sasl else None,
        )

    def connection(self) -> dict[str, Any]:
        """Give the connection's settings as kafka-python's clients take them.

        Raises:
            UserError: a certificate's file can't be used.
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

    def _ssl_context(self) -> ssl.SSLContext | None:
        # kafka-python would ask a terminal for a key's password, and for a file that is missing say
        # nothing but that the broker does not answer.
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
        """Turn the client's errors into one line that names the endpoint and the remedy.

        Raises:
            TransientError: Kafka can't be reached or did not answer in time.
            UserError: Kafka refuses these credentials, or a codec's library is missing.
        """
        try:
            yield
        except kafka_errors.UnsupportedCodecError as error:
            # A broker takes no codec that it does not know itself: it is this side that lacks it.
            msg = (
                f"a message of Kafka at {self.bootstrap_servers} can't be decompressed ({error}): "
                "install `kafka-python[lz4,snappy,zstd]`"
            )
            raise UserError(msg) from error
        except (kafka_errors.AuthorizationError, *REFUSALS) as error:
            raise UserError(self._refused(error)) from error
        except NO_COORDINATOR as error:
            msg = f"Kafka at {self.bootstrap_servers} is not ready for consumer groups yet: wait"
            raise TransientError(msg) from error
        except _HungUpError as error:
            msg = (
                f"Kafka at {self.bootstrap_servers} closes the connection before it answers: set "
                f"KAFKA_SECURITY_PROTOCOL={self.security_protocol} to what its listener speaks, or "
                "look at its log"
            )
            raise TransientError(msg) from error
        except ssl.SSLError as error:
            raise explained(error, f"Kafka at {self.bootstrap_servers}", TLS_NAMES) from error
        except (kafka_errors.KafkaError, OSError) as error:
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
                    "KAFKA_SASL_MECHANISM"
                )
            case kafka_errors.UnsupportedSaslMechanismError():
                return (
                    f"{kafka} does not take KAFKA_SASL_MECHANISM={self.sasl_mechanism}: set it to "
                    "one of its listener's sasl.enabled.mechanisms"
                )
            case kafka_errors.IllegalSaslStateError():
                return (
                    f"{kafka} has no SASL at this address: set KAFKA_SECURITY_PROTOCOL="
                    f"{self.security_protocol} to what its listener speaks"
                )
            case _:
                return (
                    f"{kafka} refuses access ({error}): check KAFKA_SECURITY_PROTOCOL, "
                    "KAFKA_SASL_* and the user's ACLs"
                )

    @contextmanager
    def _network(self) -> Generator[Callable[..., KafkaNetClient]]:
        """Give what makes the network client of a Kafka client, and translate errors.

        It is closed in any case. kafka-python leaves it open when a client can't be built, with a
        thread that tries to connect for ever: one for each tick while Kafka is away, until the
        process has no file left to open.
        """
        made: list[KafkaNetClient] = []
        managers: list[_ConnectionManager] = []

        def make(**options: Any) -> KafkaNetClient:
            selector = NetworkSelector(**options)
            managers.append(_ConnectionManager(selector, **options))
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

    @contextmanager
    def admin(self) -> Generator[KafkaAdminClient]:
        """Open an admin client.

        Raises:
            TransientError: Kafka can't be reached.
            UserError: Kafka refuses these credentials.
        """
        with self._network() as network:
            client = KafkaAdminClient(**self.connection(), kafka_client=network)
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def consumer(self) -> Generator[KafkaConsumer]:
        """Open a consumer outside of any group: positions come from cursors and ranges.

        Raises:
            TransientError: Kafka can't be reached.
            UserError: Kafka refuses these credentials.
        """
        with self._network() as network:
            client = KafkaConsumer(
                **self.connection(),
                kafka_client=network,  # pyright: ignore[reportArgumentType]
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",  # pyright: ignore[reportArgumentType]
                allow_auto_create_topics=False,
                retry_backoff_ms=RETRY_BACKOFF_MS,
                # A shorter wait than the poll's, so that a poll that times out has asked.
                fetch_max_wait_ms=POLL_MS // 2,
                max_poll_records=POLL_MAX_RECORDS,
            )
            try:
                yield client
            finally:
                client.close(autocommit=False)

    def topic_state(self, topic: str) -> TopicState:
        """Ask for a topic's id and for the first and next offset of each partition.

        Raises:
            TransientError: Kafka can't be reached.
            UserError: there is no such topic.
        """
        with self.admin() as admin:
            description = admin.describe_topics([topic])[0]
            if description["error_code"] and description["error_code"] not in NO_TOPIC:
                # Not to be taken for a topic without partitions, in which nothing ever waits.
                raise kafka_errors.for_code(description["error_code"])
        if description["error_code"]:
            msg = (
                f"Kafka at {self.bootstrap_servers} has no topic {topic!r}: "
                "run `resize-pipeline provision`, or set KAFKA_TOPIC"
            )
            raise UserError(msg)
        partitions = [
            TopicPartition(topic, partition["partition_index"])
            for partition in description["partitions"]
        ]
        with self.consumer() as consumer:
            first = consumer.beginning_offsets(partitions)
            end = consumer.end_offsets(partitions)
        return TopicState(
            topic=topic,
            topic_id=str(description["topic_id"]),
            watermarks={tp.partition: (first[tp], end[tp]) for tp in partitions},
        )

    def read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        *,
        position: dict[int, int],
        stall_timeout_s: float = 30.0,
    ) -> Iterator[Message]:
        """Read the offsets [start, end) of some partitions, each partition in order.

        An offset that can't be decoded is given as `Undecodable`, and its neighbours as they are.

        Args:
            topic: the topic.
            start: first offset to read, by partition; must exist.
            end: where to stop, by partition.
            position: filled while reading: the next offset to read, by partition. At the end it
                has passed offsets without a message (transaction markers, compacted records).
            stall_timeout_s: seconds without progress after which reading is given up.

        Raises:
            TransientError: Kafka can't be reached, or gave nothing for `stall_timeout_s`.
            UserError: Kafka refuses these credentials, or a codec's library is missing.
        """
        position.update(start)
        with suppress(_UndecodableError):
            yield from self._read(topic, start, end, position, stall_timeout_s)
            return
        # The client does not say of which partition, so each is read alone, from where it is.
        for partition in start:
            while position[partition] < end[partition]:
                one = {partition: position[partition]}
                try:
                    yield from self._read(topic, one, end, position, stall_timeout_s)
                except _UndecodableError as error:
                    offset = position[partition]
                    position[partition] = offset + 1
                    yield Undecodable(partition, offset, str(error))

    def _read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        position: dict[int, int],
        stall_timeout_s: float,
    ) -> Iterator[Message]:
        unread = {TopicPartition(topic, partition) for partition in start}
        unread = {tp for tp in unread if start[tp.partition] < end[tp.partition]}
        if not unread:
            return
        with self.consumer() as consumer:
            consumer.assign(list(unread))
            for tp in unread:
                consumer.seek(tp, start[tp.partition])
            progress = time.monotonic()
            while unread:
                for tp, records in _polled(consumer).items():
                    for record in records:
                        if record.offset >= end[tp.partition]:
                            break
                        # Before the yield: the caller may stop at this message.
                        position[tp.partition] = record.offset + 1
                        yield record
                    progress = time.monotonic()
                for tp in list(unread):
                    reached = consumer.position(tp, timeout_ms=TIMEOUT_MS) or 0
                    if reached >= end[tp.partition]:
                        position[tp.partition] = end[tp.partition]
                        consumer.pause(tp)
                        unread.remove(tp)
                if time.monotonic() - progress > stall_timeout_s:
                    msg = (
                        f"Kafka at {self.bootstrap_servers} gave nothing of {topic!r} for "
                        f"{stall_timeout_s:.0f} s: look at the broker's log"
                    )
                    raise TransientError(msg)

    def offsets_at(self, state: TopicState, start: str) -> dict[int, int]:
        """Find where to start in a topic that was never read.

        Args:
            state: the topic.
            start: `earliest`, `latest` or an ISO 8601 time, of which the first message at or
                after it counts.

        Raises:
            TransientError: Kafka can't be reached.
        """
        if start == "earliest":
            return {partition: first for partition, (first, _) in state.watermarks.items()}
        ends = {partition: end for partition, (_, end) in state.watermarks.items()}
        if start == "latest":
            return ends
        timestamp = int(dt.datetime.fromisoformat(start).timestamp() * 1000)
        with self.consumer() as consumer:
            found = consumer.offsets_for_times(
                {TopicPartition(state.topic, partition): timestamp for partition in ends}
            )
        return ends | {tp.partition: one.offset for tp, one in found.items() if one}

    def read_all(self, topic: str) -> Iterator[Message]:
        """Read a topic from its start to its end of now, each partition in order.

        Raises:
            TransientError: as in `read`.
            UserError: there is no such topic.
        """
        state = self.topic_state(topic)
        start = {partition: first for partition, (first, _) in state.watermarks.items()}
        end = {partition: end for partition, (_, end) in state.watermarks.items()}
        return self.read(topic, start, end, position={})

    def send(self, topic: str, messages: Iterable[Outgoing]) -> None:
        """Send messages and return when all in-sync replicas have every one.

        Raises:
            TransientError: Kafka can't be reached, or did not acknowledge in time.
            UserError: Kafka refuses these credentials.
        """
        with self._network() as network:
            producer = KafkaProducer(
                **self.connection(),
                kafka_client=network,
                acks="all",
                allow_auto_create_topics=False,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_block_ms=TIMEOUT_MS,
                max_request_size=REQUEST_MAX_BYTES,
            )
            try:
                sent = [
                    producer.send(topic, key=key, value=value, headers=list(headers))
                    for key, value, headers in messages
                ]
                producer.flush(timeout=DELIVERY_TIMEOUT_MS / 1000)
                for one in sent:
                    one.get(timeout=0)
            finally:
                producer.close(timeout=1)

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Set a consumer group's offsets, for tools that show lag; nothing here reads them.

        Raises:
            TransientError: Kafka can't be reached, or is not ready for groups yet.
            UserError: Kafka refuses these credentials, or consumers have joined the group.
        """
        with self.admin() as admin:
            answers = admin.alter_group_offsets(  # pyright: ignore[reportAttributeAccessIssue]
                group,
                {
                    TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
                    for partition, offset in offsets.items()
                },
            )
            for error in answers.values():
                if error is kafka_errors.UnknownMemberIdError:
                    msg = (
                        f"consumers have joined the group {group!r}, so that its offsets are "
                        "theirs: set KAFKA_CONSUMER_GROUP to a name that nobody else uses"
                    )
                    raise UserError(msg)
                if error is not kafka_errors.NoError:
                    raise error

    def replay(self, topic: str, dead_letter_topic: str, letters: Sequence[DeadLetter]) -> None:
        """Put the original messages of dead letters back on their topic.

        A letter whose key is a position is taken back: the message gets another position.

        Raises:
            TransientError: not all in-sync replicas have them.
            UserError: Kafka refuses these credentials.
        """
        if letters:
            self.send(
                topic,
                [(None if one.names_position_only else one.key, one.value, ()) for one in letters],
            )
        positions = [one.key for one in letters if one.names_position_only]
        self.send_dead_letters(dead_letter_topic, [], taken_back=positions)

    def wait(self, topic: str, start: Mapping[int, int], timeout_s: float) -> None:
        """Wait until there is a message at or after the given offsets, or the time is over.

        Args:
            topic: the topic.
            start: the next offset, by partition; must exist or be the end.
            timeout_s: longest wait in seconds.

        Raises:
            TransientError: Kafka can't be reached.
        """
        with self.consumer() as consumer:
            consumer.assign([TopicPartition(topic, partition) for partition in start])
            for partition, offset in start.items():
                consumer.seek(TopicPartition(topic, partition), offset)
            # One that can't be decoded is there, too.
            with suppress(*UNDECODABLE):
                consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=1)

    def read_range(self, topic: str, offsets: OffsetRange) -> Iterator[Message]:
        """Read a range of offsets.

        Raises:
            TransientError: as in `read`.
        """
        start, end = {offsets.partition: offsets.start}, {offsets.partition: offsets.end}
        return self.read(topic, start, end, position={})

    def dead_letters(self, topic: str) -> dict[bytes, DeadLetter]:
        """Read the dead letters that were not taken back, by key.

        Raises:
            TransientError: Kafka can't be reached.
            UserError: there is no such topic.
        """
        return newest(self.read_all(topic))

    def send_dead_letters(
        self, topic: str, letters: Sequence[DeadLetter], *, taken_back: Sequence[bytes] = ()
    ) -> None:
        """Send dead letters, and tombstones for keys whose letter is taken back.

        Raises:
            TransientError: not all in-sync replicas have them.
            UserError: Kafka refuses these credentials.
        """
        if not letters and not taken_back:
            return
        sent: list[Outgoing] = [(one.key, one.value, one.headers()) for one in letters]
        self.send(topic, [*sent, *((key, None, ()) for key in taken_back)])


def _polled(consumer: KafkaConsumer) -> Mapping[TopicPartition, Sequence[Message]]:
    try:
        return consumer.poll(timeout_ms=POLL_MS)
    except UNDECODABLE as error:
        # The consumer is of no use any more: its next poll would never return.
        msg = f"can't be decoded: {type(error).__name__}: {error}"
        raise _UndecodableError(msg) from error


class _HungUpError(kafka_errors.KafkaError):
    """The broker closed each connection before it had answered."""


class _ConnectionManager(KafkaConnectionManager):
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
        return self._refusal or (_HungUpError() if self._hung_up else None)

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


def _secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _path(path: object) -> str | None:
    return None if path is None else str(path)
