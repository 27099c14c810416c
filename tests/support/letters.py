"""What is in a topic, read whole, without the index that the product keeps of dead letters."""

from collections.abc import Iterator

from resize_pipeline.kafka.dead_letters import DeadLetter, newest
from resize_pipeline.kafka.messages import Message
from resize_pipeline.resources.kafka import KafkaResource


def read_all(kafka: KafkaResource, topic: str) -> Iterator[Message]:
    """Read a topic from its start to its present end."""
    state = kafka.topic_state(topic)
    return kafka.read(topic, state.starts, state.ends, position={})


def current_letters(kafka: KafkaResource, topic: str) -> dict[bytes, DeadLetter]:
    """Give the dead letters that were not deleted, by key."""
    return newest(read_all(kafka, topic))
