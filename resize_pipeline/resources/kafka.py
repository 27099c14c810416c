"""Kafka as a Dagster resource: the state of a topic, and reading offsets from it.

Nothing here knows of pictures or of MinIO. Keys and values stay raw bytes: a deserializer that
raises would hold the consumer for ever at the message that it can't read.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import dagster as dg
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.structs import TopicPartition

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.offsets import OffsetRange, TopicState
from resize_pipeline.settings import Settings

TIMEOUT_MS = 10_000
POLL_MS = 500
POLL_MAX_RECORDS = 5_000

NO_TOPIC = frozenset(
    {kafka_errors.UnknownTopicOrPartitionError.errno, kafka_errors.InvalidTopicError.errno}
)


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
    def value(self) -> bytes | None:
        """Value as it was sent; None for a tombstone."""
        ...


class KafkaResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """A Kafka cluster and how to reach it."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, *, sasl_password: str | None = None
    ) -> "KafkaResource":
        """Build the resource.

        Args:
            settings: where the cluster is and how to talk to it.
            sasl_password: the `dg.EnvVar` that names it in definitions; by default the settings'
                own.
        """
        own_password = settings.kafka_sasl_password
        if sasl_password is None and own_password is not None:
            sasl_password = own_password.get_secret_value()
        has_sasl = settings.kafka_security_protocol.startswith("SASL")
        return cls(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            security_protocol=settings.kafka_security_protocol,
            ssl_cafile=_path(settings.kafka_ssl_cafile),
            ssl_certfile=_path(settings.kafka_ssl_certfile),
            ssl_keyfile=_path(settings.kafka_ssl_keyfile),
            sasl_mechanism=settings.kafka_sasl_mechanism if has_sasl else None,
            sasl_username=settings.kafka_sasl_username if has_sasl else None,
            sasl_password=sasl_password if has_sasl else None,
        )

    def connection(self) -> dict[str, Any]:
        """Give the connection's settings as kafka-python's clients take them."""
        return {
            "bootstrap_servers": [part.strip() for part in self.bootstrap_servers.split(",")],
            "client_id": "resize-pipeline",
            "security_protocol": self.security_protocol,
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "request_timeout_ms": TIMEOUT_MS,
            "bootstrap_timeout_ms": TIMEOUT_MS,
            "reconnect_backoff_max_ms": 1_000,
        }

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn the client's errors into one line that names the endpoint and the remedy.

        Raises:
            TransientError: Kafka can't be reached or did not answer in time.
            UserError: Kafka refuses these credentials.
        """
        try:
            yield
        except (
            kafka_errors.AuthorizationError,
            kafka_errors.SaslAuthenticationFailedError,
        ) as error:
            msg = (
                f"Kafka at {self.bootstrap_servers} refuses access ({error}): "
                "check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and the user's ACLs"
            )
            raise UserError(msg) from error
        except (kafka_errors.KafkaError, OSError) as error:
            msg = (
                f"Kafka at {self.bootstrap_servers} does not answer "
                f"({type(error).__name__}): start it, or set KAFKA_BOOTSTRAP_SERVERS"
            )
            raise TransientError(msg) from error

    @contextmanager
    def admin(self) -> Generator[KafkaAdminClient]:
        """Open an admin client.

        Raises:
            TransientError: Kafka can't be reached.
            UserError: Kafka refuses these credentials.
        """
        with self.errors():
            with _closed_on_failure() as network:
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
        with self.errors():
            with _closed_on_failure() as network:
                client = KafkaConsumer(
                    **self.connection(),
                    kafka_client=network,  # pyright: ignore[reportArgumentType]
                    group_id=None,
                    enable_auto_commit=False,
                    auto_offset_reset="none",  # pyright: ignore[reportArgumentType]
                    allow_auto_create_topics=False,
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

        Args:
            topic: the topic.
            start: first offset to read, by partition; must exist.
            end: where to stop, by partition.
            position: filled while reading: the next offset to read, by partition. At the end it
                has passed offsets without a message (transaction markers, compacted records).
            stall_timeout_s: seconds without progress after which reading is given up.

        Raises:
            TransientError: Kafka can't be reached, or gave nothing for `stall_timeout_s`.
        """
        position.update(start)
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
                for tp, records in consumer.poll(timeout_ms=POLL_MS).items():
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
            consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=1)

    def read_ranges(self, topic: str, ranges: Iterable[OffsetRange]) -> Iterator[Message]:
        """Read ranges of offsets.

        Raises:
            TransientError: as in `read`.
        """
        for offsets in ranges:
            yield from self.read(
                topic,
                {offsets.partition: offsets.start},
                {offsets.partition: offsets.end},
                position={},
            )


@contextmanager
def _closed_on_failure() -> Generator[Callable[..., KafkaNetClient]]:
    """Give what makes the network client of a Kafka client, to be closed if that can't be built.

    kafka-python leaves it open then, with a thread that tries to connect for ever: one for each
    tick while Kafka is away, until the process has no file left to open.
    """
    made: list[KafkaNetClient] = []

    def make(**options: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**options))
        return made[-1]

    try:
        yield make
    except BaseException:
        for client in made:
            client.close()
        raise


def _path(path: object) -> str | None:
    return None if path is None else str(path)
