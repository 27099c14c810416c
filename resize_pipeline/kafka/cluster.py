"""What is asked of a Kafka cluster, and what is sent to it."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata, TopicPartition

from resize_pipeline.errors import TooLargeError, UserError
from resize_pipeline.kafka.codecs import FullPollError, UndecodableBatchError
from resize_pipeline.kafka.connection import DELIVERY_TIMEOUT_MS, Connection
from resize_pipeline.kafka.dead_letters import DeadLetter
from resize_pipeline.kafka.messages import Message, Outgoing
from resize_pipeline.kafka.offsets import OffsetRange, TopicState
from resize_pipeline.kafka.reading import poll, read

NO_TOPIC = frozenset(
    {kafka_errors.UnknownTopicOrPartitionError.errno, kafka_errors.InvalidTopicError.errno}
)
WAIT_FETCH_MS = 3_000
"""How long a broker holds the request of a consumer that only waits: each costs CPU time."""


class NoTopicError(UserError):
    """A topic does not exist."""


class Cluster:
    """A Kafka cluster: describes topics, reads and sends messages.

    Each method opens a client of its own.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """How to reach the cluster."""
        return self._connection

    def topic_state(self, topic: str) -> TopicState:
        """Return a topic's id, and the first and the next offset of each partition.

        Raises:
            TransientError: Kafka is unreachable.
            NoTopicError: the topic does not exist.
        """
        with self.connection.admin() as admin:
            description = admin.describe_topics([topic])[0]
            if description["error_code"] and description["error_code"] not in NO_TOPIC:
                # A topic without partitions would look as if nothing ever waited in it.
                raise kafka_errors.for_code(description["error_code"])
        if description["error_code"]:
            msg = (
                f"Kafka at {self.connection.bootstrap_servers} has no topic {topic!r}: "
                "run `resize-pipeline provision`, or set KAFKA_TOPIC"
            )
            raise NoTopicError(msg)
        partitions = [
            TopicPartition(topic, partition["partition_index"])
            for partition in description["partitions"]
        ]
        with self.connection.consumer() as consumer:
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
        """Read the offsets [start, end) of some partitions: see `kafka.reading.read`."""
        return read(
            self.connection, topic, start, end, position=position, stall_timeout_s=stall_timeout_s
        )

    def offsets_at(self, state: TopicState, start: str) -> dict[int, int]:
        """Return the offsets at which to start reading a topic.

        Args:
            state: the topic.
            start: `earliest`, `latest` or an ISO 8601 time, which stands for the first message at
                or after it.

        Raises:
            TransientError: Kafka is unreachable.
        """
        if start == "earliest":
            return state.starts
        ends = state.ends
        if start == "latest":
            return ends
        timestamp = int(dt.datetime.fromisoformat(start).timestamp() * 1000)
        with self.connection.consumer() as consumer:
            found = consumer.offsets_for_times(
                {TopicPartition(state.topic, partition): timestamp for partition in ends}
            )
        return ends | {tp.partition: one.offset for tp, one in found.items() if one}

    def send(self, topic: str, messages: Iterable[Outgoing]) -> None:
        """Send messages; return when all in-sync replicas have every one of them.

        Raises:
            TransientError: Kafka is unreachable, or did not acknowledge in time.
            UserError: Kafka refuses these credentials.
        """
        with self.connection.producer() as producer:
            sent = [
                producer.send(topic, key=key, value=value, headers=list(headers))
                for key, value, headers in messages
            ]
            producer.flush(timeout=DELIVERY_TIMEOUT_MS / 1000)
            for one in sent:
                one.get(timeout=0)

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Set the offsets of a consumer group, for tools that show lag; nothing reads them here.

        Raises:
            TransientError: Kafka is unreachable, or not ready for consumer groups yet.
            UserError: Kafka refuses these credentials, or consumers have joined the group.
        """
        with self.connection.admin() as admin:
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
                        f"consumers have joined the group {group!r} and commit its offsets "
                        "themselves: set KAFKA_CONSUMER_GROUP to a name that nobody else uses"
                    )
                    raise UserError(msg)
                if error is not kafka_errors.NoError:
                    raise error

    def replay(self, topic: str, dead_letter_topic: str, letters: Sequence[DeadLetter]) -> None:
        """Put the original messages of dead letters back on their topic.

        A letter whose key is a position is deleted, because the message gets a new position.

        Raises:
            TransientError: not all in-sync replicas have them.
            UserError: Kafka refuses these credentials.
        """
        if letters:
            self.send(topic, [letter.original() for letter in letters])
        positions = [one.key for one in letters if one.names_position_only]
        self.send_dead_letters(dead_letter_topic, [], taken_back=positions)

    def wait(self, topic: str, start: Mapping[int, int], timeout_s: float) -> None:
        """Wait for a message at or after the given offsets, at most for the given time.

        Args:
            topic: the topic.
            start: the next offset, by partition; must exist or be the end.
            timeout_s: longest wait in seconds.

        Raises:
            TransientError: Kafka is unreachable.
        """
        with self.connection.consumer(WAIT_FETCH_MS) as consumer:
            consumer.assign([TopicPartition(topic, partition) for partition in start])
            for partition, offset in start.items():
                consumer.seek(TopicPartition(topic, partition), offset)
            # A record that can't be decoded counts, too.
            with suppress(UndecodableBatchError, FullPollError):
                poll(consumer, timeout_ms=int(timeout_s * 1000), max_records=1)

    def read_range(self, topic: str, offsets: OffsetRange) -> Iterator[Message]:
        """Read a range of offsets.

        Raises:
            TransientError: as in `read`.
        """
        start, end = {offsets.partition: offsets.start}, {offsets.partition: offsets.end}
        return self.read(topic, start, end, position={})

    def send_dead_letters(
        self, topic: str, letters: Sequence[DeadLetter], *, taken_back: Sequence[bytes] = ()
    ) -> None:
        """Send dead letters, and tombstones for the keys whose letter is deleted.

        Raises:
            TransientError: not all in-sync replicas have them.
            TooLargeError: the topic refuses them even without the original messages.
            UserError: Kafka refuses these credentials.
        """
        if not letters and not taken_back:
            return
        tombstones: list[Outgoing] = [(key, None, ()) for key in taken_back]
        try:
            self.send(topic, [*(letter.message() for letter in letters), *tombstones])
        except TooLargeError:
            # The reason, the size and the hash still say what happened.
            bare = [letter.message(with_value=False) for letter in letters]
            self.send(topic, [*bare, *tombstones])
