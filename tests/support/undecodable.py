"""Messages that kafka-python can't decode. A broker accepts some of them."""

from collections.abc import Sequence
from typing import Literal

import pytest
from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatchBuilder


class NoUtf8(str):
    """A header key of bytes that are not UTF-8, as clients in other languages can send."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def send_undecodable(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes],
    *,
    how: Literal["trailing bytes", "header key", "unknown codec"],
    partition: int = 0,
) -> None:
    """Send one batch to a partition.

    Args:
        bootstrap_servers: Kafka's address.
        topic: the topic.
        values: the messages.
        how: bytes follow the compressed data of the batch, or each message has a bad header key, or
            the batch claims codec 5, which nobody knows.
        partition: the partition.

    Raises:
        KafkaError: the broker refuses the batch.
    """
    compress = DefaultRecordBatchBuilder._maybe_compress

    def trailing(builder: DefaultRecordBatchBuilder) -> bool:
        assert compress(builder)
        builder._buffer.extend(b"junk")
        return True

    headers = [(NoUtf8("key"), b"value")] if how == "header key" else []
    with pytest.MonkeyPatch.context() as patch:
        if how == "trailing bytes":
            patch.setattr(DefaultRecordBatchBuilder, "_maybe_compress", trailing)
        if how == "unknown codec":
            patch.setattr(DefaultRecordBatchBuilder, "_get_attributes", lambda *_: 5)
        producer = KafkaProducer(
            bootstrap_servers=bootstrap_servers,
            compression_type="gzip",
            # So that all are in one batch.
            linger_ms=1000,
            delivery_timeout_ms=10_000,
            request_timeout_ms=5_000,
        )
        try:
            sent = [
                producer.send(topic, value, headers=headers, partition=partition)
                for value in values
            ]
            producer.flush(30)
            for one in sent:
                one.get(timeout=30)
        finally:
            producer.close()
