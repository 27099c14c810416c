"""Reads offset ranges, record by record, past records that can't be decoded.

Keys and values stay raw bytes: a deserializer that raises would stop the consumer for ever at the
record that it can't decode.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from resize_pipeline.errors import TransientError
from resize_pipeline.kafka.codecs import (
    UNWRAPPED,
    FullPollError,
    OversizedBatchError,
    UndecodableBatchError,
    poll_budget,
)
from resize_pipeline.kafka.connection import POLL_MS, TIMEOUT_MS, Connection
from resize_pipeline.kafka.messages import Message, Undecodable


def read(
    kafka: Connection,
    topic: str,
    start: Mapping[int, int],
    end: Mapping[int, int],
    *,
    position: dict[int, int],
    stall_timeout_s: float = 30.0,
) -> Iterator[Message]:
    """Read the offsets [start, end) of some partitions, each partition in order.

    Offsets that can't be decoded are yielded as `Undecodable`, and their neighbours as they are.

    Args:
        kafka: the cluster.
        topic: the topic.
        start: first offset to read, by partition; must exist.
        end: where to stop, by partition.
        position: filled while reading: the next offset to read, by partition. At the end it
            has passed offsets without a record (transaction markers, compacted records).
        stall_timeout_s: seconds without progress after which reading fails.

    Raises:
        TransientError: Kafka is unreachable, or returned nothing for `stall_timeout_s`.
        UserError: Kafka refuses these credentials, or a codec's library is missing.
    """
    position.update(start)
    partitions = list(start)
    while True:
        unread = {partition: position[partition] for partition in partitions}
        try:
            yield from _read(kafka, topic, unread, end, position, stall_timeout_s)
        except FullPollError:
            # A new consumer continues from the position, with a new budget.
            continue
        except UndecodableBatchError as error:
            if len(partitions) > 1:
                break
            (partition,) = partitions
            offset = position[partition]
            # Without the end of the batch only one offset is known to be undecodable.
            last = max(min(error.end or 0, end[partition]), offset + 1)
            position[partition] = last
            yield Undecodable(partition, offset, last, str(error))
        else:
            return
    # kafka-python does not say in which partition the batch is, so each is read alone.
    for partition in partitions:
        one = {partition: position[partition]}
        yield from read(kafka, topic, one, end, position=position, stall_timeout_s=stall_timeout_s)


def poll(
    consumer: KafkaConsumer, timeout_ms: int = POLL_MS, max_records: int | None = None
) -> Mapping[TopicPartition, Sequence[Message]]:
    """Poll for records, at most `POLL_MAX_BYTES` of them.

    Raises:
        UndecodableBatchError: a batch can't be decoded. The consumer's next poll would hang.
        FullPollError: the records are more. The consumer can't be used any more.
    """
    try:
        with poll_budget():
            return consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
    except (*UNWRAPPED, OversizedBatchError) as error:
        raise UndecodableBatchError(error) from error


def _read(
    kafka: Connection,
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
    with kafka.consumer() as consumer:
        consumer.assign(list(unread))
        for tp in unread:
            consumer.seek(tp, start[tp.partition])
        progress = time.monotonic()
        while unread:
            for tp, records in poll(consumer).items():
                for record in records:
                    if record.offset >= end[tp.partition]:
                        break
                    # Before the yield: the caller may stop at this record.
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
                    f"Kafka at {kafka.bootstrap_servers} returned nothing of {topic!r} for "
                    f"{stall_timeout_s:.0f} s: look at the broker's log"
                )
                raise TransientError(msg)
