"""TODO."""

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import TopicPartition

from resize_pipeline.kafka.messages import Message

POLL_MS = 500


UNDECODABLE = (
    kafka_errors.CorruptRecordError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
)
"""What kafka-python 3.0 raises for batches that Kafka 4.3 has taken, which looks neither at what
follows the compressed data nor at header keys that are no UTF-8, and refuses all else."""


class UndecodableError(Exception):
    """The next message of one of the partitions that are read can't be decoded."""


def polled(consumer: KafkaConsumer) -> Mapping[TopicPartition, Sequence[Message]]:
    try:
        return consumer.poll(timeout_ms=POLL_MS)
    except UNDECODABLE as error:
        # The consumer is of no use any more: its next poll would never return.
        msg = f"can't be decoded: {type(error).__name__}: {error}"
        raise UndecodableError(msg) from error
