"""Kafka as a Dagster resource: the state of a topic, and reading offsets from it.

Nothing here knows of pictures or of MinIO. Keys and values stay raw bytes: a deserializer that
raises would hold the consumer for ever at the message that it can't read.
"""

import datetime as dt
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import dagster as dg
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector
from kafka.structs import OffsetAndMetadata, TopicPartition
from pydantic import SecretStr

from resize_pipeline.addresses import how_to_start
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.kafka.connection import (
    NO_COORDINATOR,
    REFUSALS,
    SILENCE,
    TIMEOUT_MS,
    TLS_NAMES,
    ConnectionManager,
    HungUpError,
)
from resize_pipeline.kafka.dead_letters import DeadLetter, newest
from resize_pipeline.kafka.messages import Message, Outgoing, Undecodable
from resize_pipeline.kafka.offsets import OffsetRange, TopicState
from resize_pipeline.kafka.reading import POLL_MS, UNDECODABLE, UndecodableError, polled
from resize_pipeline.settings import Settings
from resize_pipeline.tls import (
    client_context,
    explained,
    show_certificate,
)

DELIVERY_TIMEOUT_MS = 30_000
REQUEST_MAX_BYTES = 16 * 2**20
"""Larger than a message can be that a broker with its defaults takes (1 MiB)."""
RETRY_BACKOFF_MS = 10
"""How soon a consumer asks again. It always does, for it asks for the brokers first and only then
for a topic: with kafka-python's 100 ms each tick slept for 0.3 s, and each run longer."""
POLL_MAX_RECORDS = 5_000


NO_TOPIC = frozenset(
    {kafka_errors.UnknownTopicOrPartitionError.errno, kafka_errors.InvalidTopicError.errno}
)


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
        with suppress(UndecodableError):
            yield from self._read(topic, start, end, position, stall_timeout_s)
            return
        # The client does not say of which partition, so each is read alone, from where it is.
        for partition in start:
            while position[partition] < end[partition]:
                one = {partition: position[partition]}
                try:
                    yield from self._read(topic, one, end, position, stall_timeout_s)
                except UndecodableError as error:
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
                for tp, records in polled(consumer).items():
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
            return state.starts
        ends = state.ends
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
        start = state.starts
        end = state.ends
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


def _secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _path(path: object) -> str | None:
    return None if path is None else str(path)
