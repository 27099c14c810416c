"""The Kafka resource against a real broker, and against servers that are not brokers."""

import datetime as dt
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.structs import TopicPartition

from resize_pipeline.errors import TooLargeError, TransientError, UserError
from resize_pipeline.kafka.connection import NO_COORDINATOR
from resize_pipeline.kafka.messages import Undecodable
from resize_pipeline.kafka.offsets import OffsetRange, TopicState, lag
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.letters import read_all as whole_topic
from tests.support.undecodable import send_undecodable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

# Dagster ends a tick after 60 s, and then nobody sees the error.
BOUND_S = 50.0


@pytest.fixture
def kafka(stack: Settings) -> KafkaResource:
    return KafkaResource.from_settings(stack)


@pytest.fixture
def topic(kafka: KafkaResource) -> str:
    """A topic of three empty partitions."""
    name = f"test-{uuid.uuid4()}"
    create(kafka, name)
    return name


def create(kafka: KafkaResource, name: str) -> None:
    with kafka.connection.admin() as admin:
        admin.create_topics([NewTopic(name=name, num_partitions=3, replication_factor=1)])
    wait_until(lambda: _ready(kafka, name), 30, f"topic {name}")


def _ready(kafka: KafkaResource, name: str) -> bool:
    try:
        return len(kafka.topic_state(name).watermarks) == 3
    except (TransientError, UserError):
        return False


def send(kafka: KafkaResource, topic: str, *values: bytes | None, partition: int = 0) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    try:
        sent = [producer.send(topic, value, b"key", partition=partition) for value in values]
        for one in sent:
            one.get(timeout=30)
    finally:
        producer.close()


@contextmanager
def transactions(kafka: KafkaResource) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"tests-{uuid.uuid4()}"
    )
    try:
        producer.init_transactions()
        yield producer
    finally:
        producer.close()


def delete_before(kafka: KafkaResource, topic: str, partition: int, offset: int) -> None:
    """Delete messages as retention does."""
    with kafka.connection.admin() as admin:
        admin.delete_records({TopicPartition(topic, partition): offset})


def read_all(
    kafka: KafkaResource, state: TopicState, start: dict[int, int] | None = None
) -> tuple[dict[int, list[bytes | None]], dict[int, int]]:
    position: dict[int, int] = {}
    found: dict[int, list[bytes | None]] = {partition: [] for partition in state.watermarks}
    begin = start or state.starts
    end = state.ends
    for message in kafka.read(state.topic, begin, end, position=position):
        found[message.partition].append(message.value)
    return found, position


class TestTopicState:
    def test_an_empty_topic(self, kafka: KafkaResource, topic: str) -> None:
        state = kafka.topic_state(topic)
        assert state.topic == topic
        assert state.watermarks == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
        assert lag({}, state) == 0
        assert uuid.UUID(state.topic_id) != uuid.UUID(int=0)

    def test_follows_what_is_sent_and_deleted(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, b"a", b"b", b"c", partition=1)
        assert kafka.topic_state(topic).watermarks == {0: (0, 0), 1: (0, 3), 2: (0, 0)}
        delete_before(kafka, topic, 1, 2)
        assert kafka.topic_state(topic).watermarks[1] == (2, 3)

    def test_a_recreated_topic_has_another_id(self, kafka: KafkaResource, topic: str) -> None:
        before = kafka.topic_state(topic).topic_id
        assert kafka.topic_state(topic).topic_id == before
        with kafka.connection.admin() as admin:
            admin.delete_topics([topic])
        wait_until(lambda: not _ready(kafka, topic), 30, "the end of the topic")
        create(kafka, topic)
        assert kafka.topic_state(topic).topic_id != before

    @pytest.mark.parametrize("name", ["test-no-such-topic", "no valid name"])
    def test_a_missing_topic_is_said_and_not_created(self, kafka: KafkaResource, name: str) -> None:
        for _ in range(2):
            with pytest.raises(UserError, match="has no topic") as missing:
                kafka.topic_state(name)
        said = str(missing.value)
        assert repr(name) in said
        assert kafka.bootstrap_servers in said
        assert "KAFKA_TOPIC" in said
        assert "\n" not in said
        with kafka.connection.admin() as admin:
            assert name not in admin.list_topics()


class TestRead:
    def test_all_of_all_partitions_in_order(self, kafka: KafkaResource, topic: str) -> None:
        values = [str(index).encode() for index in range(50)]
        send(kafka, topic, *values, partition=0)
        send(kafka, topic, *reversed(values), partition=2)
        found, position = read_all(kafka, kafka.topic_state(topic))
        assert found == {0: values, 1: [], 2: values[::-1]}
        assert position == {0: 50, 1: 0, 2: 50}

    def test_nothing(self, kafka: KafkaResource, topic: str) -> None:
        found, position = read_all(kafka, kafka.topic_state(topic))
        assert found == {0: [], 1: [], 2: []}
        assert position == {0: 0, 1: 0, 2: 0}

    def test_values_are_raw(self, kafka: KafkaResource, topic: str) -> None:
        values = [None, b"", b"\xff\xfe", bytes(900_000)]
        send(kafka, topic, *values)
        found, _ = read_all(kafka, kafka.topic_state(topic))
        assert found[0] == values

    def test_from_and_to(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, *(str(index).encode() for index in range(10)))
        position: dict[int, int] = {}
        messages = list(kafka.read(topic, {0: 3}, {0: 7}, position=position))
        assert [(message.offset, message.value) for message in messages] == [
            (offset, str(offset).encode()) for offset in (3, 4, 5, 6)
        ]
        assert position == {0: 7}

    def test_a_reader_that_stops_early_knows_where(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, *(str(index).encode() for index in range(10)))
        position: dict[int, int] = {}
        messages = kafka.read(topic, {0: 0}, {0: 10}, position=position)
        assert [next(messages).offset for _ in range(4)] == [0, 1, 2, 3]
        messages.close()
        assert position == {0: 4}

    def test_more_than_one_fetch(self, kafka: KafkaResource, topic: str) -> None:
        for partition in (0, 1):
            send(kafka, topic, *[bytes(60_000)] * 60, partition=partition)
        found, position = read_all(kafka, kafka.topic_state(topic))
        assert [len(found[0]), len(found[1])] == [60, 60]
        assert position == {0: 60, 1: 60, 2: 0}

    @pytest.mark.parametrize("how", ["trailing bytes", "header key"])
    def test_what_can_t_be_decoded_is_told_and_its_neighbours_are_read(
        self, kafka: KafkaResource, topic: str, how: str
    ) -> None:
        """A broker accepts both, and the client alone would fail at them for ever."""
        for partition in (0, 1):
            send(kafka, topic, b"before", partition=partition)
        send_undecodable(kafka.bootstrap_servers, topic, [b"x" * 300] * 3, how=how)
        for partition in (0, 1):
            send(kafka, topic, b"after", partition=partition)
        position: dict[int, int] = {}
        read = list(kafka.read(topic, {0: 0, 1: 0}, {0: 5, 1: 2}, position=position))
        assert position == {0: 5, 1: 2}
        assert [(one.offset, one.value) for one in read if one.partition == 1] == [
            (0, b"before"),
            (1, b"after"),
        ]
        told = [one for one in read if one.partition == 0]
        assert [one.offset for one in told] == [0, 1, 4]
        assert [isinstance(one, Undecodable) for one in told] == [False, True, False]
        assert told[1].end == 4
        assert "can't be decoded" in told[1].reason
        # It counts as an arrived message.
        kafka.wait(topic, {0: 1}, BOUND_S)

    def test_a_codec_whose_library_is_missing_is_not_passed_over(
        self, kafka: KafkaResource, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The messages are good, and wait until the library is installed."""
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, compression_type="zstd")
        producer.send(topic, b"x" * 500, partition=0).get(timeout=30)
        producer.close()
        monkeypatch.setattr("kafka.codec.zstd", None)
        with pytest.raises(UserError, match=r"install `kafka-python\[lz4,snappy,zstd\]`"):
            list(kafka.read(topic, {0: 0}, {0: 1}, position={}))

    @pytest.mark.parametrize("end", ["commit", "abort"])
    def test_the_markers_of_a_transaction_are_passed(
        self, kafka: KafkaResource, topic: str, end: str
    ) -> None:
        """They occupy offsets without being messages: the last offset is never read."""
        with transactions(kafka) as producer:
            for _ in range(2):
                producer.begin_transaction()
                producer.send(topic, b"a", partition=0).get(timeout=30)
                producer.commit_transaction() if end == "commit" else producer.abort_transaction()
        state = kafka.topic_state(topic)
        assert state.watermarks[0] == (0, 4)
        found, position = read_all(kafka, state)
        assert len(found[0]) == 2
        assert position[0] == 4
        # Reading that starts at a marker finds nothing, and ends.
        assert read_all(kafka, state, {0: 3, 1: 0, 2: 0}) == (
            {0: [], 1: [], 2: []},
            {0: 4, 1: 0, 2: 0},
        )

    def test_offsets_that_retention_took_fail_within_a_bounded_time(
        self, kafka: KafkaResource, topic: str
    ) -> None:
        send(kafka, topic, b"a", b"b", b"c")
        delete_before(kafka, topic, 0, 2)
        with pytest.raises(TransientError) as failed:
            list(kafka.read(topic, {0: 0}, {0: 3}, position={}))
        assert "\n" not in str(failed.value)

    def test_an_end_that_does_not_come_is_given_up(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, b"a")
        messages = kafka.read(topic, {0: 0}, {0: 5}, position={}, stall_timeout_s=1)
        assert next(messages).value == b"a"
        with pytest.raises(TransientError, match="returned nothing of") as failed:
            next(messages)
        assert kafka.bootstrap_servers in str(failed.value)

    def test_one_message_is_there_at_once(self, kafka: KafkaResource, topic: str) -> None:
        """By default the client sleeps for 0.1 s before it asks for a topic, and reads later."""
        send(kafka, topic, b"a")
        taken: list[float] = []
        for _ in range(20):
            started = time.perf_counter()
            state = kafka.topic_state(topic)
            known = time.perf_counter()
            assert len(list(kafka.read(topic, {0: 0}, {0: 1}, position={}))) == 1
            taken.append(max(known - started, (time.perf_counter() - known) / 2))
        assert state.watermarks[0] == (0, 1)
        assert min(taken) < 0.09

    def test_a_range(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, *(str(index).encode() for index in range(6)))
        send(kafka, topic, b"x", b"y", partition=1)
        for text, values in {"0:4-6": [b"4", b"5"], "1:0-1": [b"x"], "2:0-0": []}.items():
            found = kafka.read_range(topic, OffsetRange.parse(text))
            assert [message.value for message in found] == values


class TestSend:
    def test_all_of_it_is_there_when_it_returns(self, kafka: KafkaResource, topic: str) -> None:
        sent = [
            (b"k1", b"v1", [("a", b"1"), ("b", b"\xff")]),
            (None, b"", []),
            (b"k1", None, []),
            (b"large", bytes(900_000), []),
        ]
        kafka.send(topic, sent)
        found = [(one.key, one.value, list(one.headers)) for one in whole_topic(kafka, topic)]
        assert sorted(found, key=repr) == sorted(sent, key=repr)

    def test_what_the_broker_refuses_is_an_error(self, kafka: KafkaResource, topic: str) -> None:
        """Another try would be refused, too."""
        with pytest.raises(TooLargeError, match=r"raise max\.message\.bytes of the topic"):
            kafka.send(topic, [(b"k", bytes(3_000_000), [])])
        with kafka.connection.admin() as admin:
            raised = {"max.message.bytes": "4000000"}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=raised)])

        def is_taken() -> bool:
            with suppress(TooLargeError):
                kafka.send(topic, [(b"k", bytes(3_000_000), [])])
                return True
            return False

        wait_until(is_taken, 30, "a larger limit")

    def test_a_missing_topic_is_an_error_and_not_created(self, kafka: KafkaResource) -> None:
        with pytest.raises(TransientError):
            kafka.send("test-no-such-topic", [(b"k", b"v", [])])
        with kafka.connection.admin() as admin:
            assert "test-no-such-topic" not in admin.list_topics()


class TestStart:
    def test_earliest_latest_and_a_time(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, b"a", b"b", b"c")
        delete_before(kafka, topic, 0, 1)
        times = [one.timestamp for one in kafka.read(topic, {0: 1}, {0: 3}, position={})]
        state = kafka.topic_state(topic)

        def at(timestamp: int) -> dict[int, int]:
            time = dt.datetime.fromtimestamp(timestamp / 1000, dt.UTC)
            return kafka.offsets_at(state, time.isoformat())

        assert kafka.offsets_at(state, "earliest") == {0: 1, 1: 0, 2: 0}
        assert kafka.offsets_at(state, "latest") == {0: 3, 1: 0, 2: 0}
        assert at(times[0]) == {0: 1, 1: 0, 2: 0}
        assert at(times[0] - 10**9) == {0: 1, 1: 0, 2: 0}
        assert at(times[-1] + 1) == {0: 3, 1: 0, 2: 0}, "nothing is that new"


class TestGroup:
    def test_shows_what_was_committed(self, kafka: KafkaResource, topic: str) -> None:
        group = f"group-{topic}"
        for offset in (3, 5):
            commit(kafka, group, topic, {0: offset, 2: 1})
        assert committed(kafka, group) == {
            TopicPartition(topic, 0): 5,
            TopicPartition(topic, 2): 1,
        }

    def test_can_be_set_back(self, kafka: KafkaResource, topic: str) -> None:
        """The cursor can be set back, too."""
        group = f"group-{topic}"
        for offset in (5, 0):
            commit(kafka, group, topic, {0: offset})
        assert committed(kafka, group) == {TopicPartition(topic, 0): 0}

    @pytest.mark.parametrize("error", NO_COORDINATOR)
    def test_of_a_broker_that_is_new(self, kafka: KafkaResource, error: type[Exception]) -> None:
        """The broker is reachable: the first request makes it prepare for groups."""
        with (
            pytest.raises(TransientError, match="not ready for consumer groups yet"),
            kafka.connection.errors(),
        ):
            raise error

    def test_that_others_have_joined(self, kafka: KafkaResource, topic: str) -> None:
        """The group's offsets belong to them then, and Kafka reports that for each partition."""
        group = f"group-{topic}"
        consumer = KafkaConsumer(topic, **kafka.connection.options(), group_id=group)

        def has_joined() -> bool:
            consumer.poll(timeout_ms=100)
            return bool(consumer.assignment())

        try:
            wait_until(has_joined, 120, "the group")
            with pytest.raises(UserError, match="set KAFKA_CONSUMER_GROUP to a name"):
                kafka.commit(group, topic, {0: 1})
            kafka.commit(f"{group}-of-its-own", topic, {0: 1})
        finally:
            consumer.close()


def commit(kafka: KafkaResource, group: str, topic: str, offsets: dict[int, int]) -> None:
    """A broker without groups first creates the topic for them, and refuses until then."""

    def is_done() -> bool:
        try:
            kafka.commit(group, topic, offsets)
            found = committed(kafka, group)
        except TransientError:
            return False
        return found == {TopicPartition(topic, one): offset for one, offset in offsets.items()}

    wait_until(is_done, 120, "the coordinator of the group")


def committed(kafka: KafkaResource, group: str) -> dict[TopicPartition, int]:
    """Return what `kafka-consumer-groups.sh --describe` shows."""
    with kafka.connection.admin() as admin:
        found = admin.list_group_offsets(group)
    return {tp: one.offset for tp, one in found[group].items()}


class TestWait:
    def test_ends_when_a_message_comes(self, kafka: KafkaResource, topic: str) -> None:
        """Long before the timeout."""
        waiter = threading.Thread(target=kafka.wait, args=(topic, {0: 0, 1: 0, 2: 0}, 120.0))
        waiter.start()
        send(kafka, topic, b"a", partition=2)
        waiter.join(60)
        assert not waiter.is_alive()

    def test_ends_when_the_time_is_over(self, kafka: KafkaResource, topic: str) -> None:
        kafka.wait(topic, {0: 0, 1: 0, 2: 0}, 0.2)

    def test_takes_no_message_away(self, kafka: KafkaResource, topic: str) -> None:
        send(kafka, topic, b"a")
        kafka.wait(topic, {0: 0, 1: 0, 2: 0}, 60.0)
        found, _ = read_all(kafka, kafka.topic_state(topic))
        assert found[0] == [b"a"]


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never answers, like a broker that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


ASK = {
    "topic_state": lambda kafka: kafka.topic_state("t"),
    "read": lambda kafka: list(kafka.read("t", {0: 0}, {0: 1}, position={})),
    "wait": lambda kafka: kafka.wait("t", {0: 0}, 4.0),
}


class TestAway:
    @pytest.fixture(autouse=True)
    def _impatience(self, request: pytest.FixtureRequest, monkeypatch) -> None:
        if "with_real_timeouts" not in request.node.name:
            monkeypatch.setattr("resize_pipeline.kafka.connection.TIMEOUT_MS", 1_500)

    def failing(self, ask: str, port: int) -> str:
        kafka = KafkaResource(bootstrap_servers=f"127.0.0.1:{port}")
        started = time.monotonic()
        with pytest.raises(TransientError, match="does not answer") as failed:
            ASK[ask](kafka)
        assert time.monotonic() - started < BOUND_S
        said = str(failed.value)
        assert f"127.0.0.1:{port}" in said
        assert "KAFKA_BOOTSTRAP_SERVERS" in said
        assert "\n" not in said
        return said

    def test_with_real_timeouts(self) -> None:
        with silent_server() as port:
            self.failing("topic_state", port)

    @pytest.mark.parametrize("ask", ASK)
    def test_nobody_listens(self, ask: str) -> None:
        self.failing(ask, free_port())

    @pytest.mark.parametrize("ask", ["topic_state", "read"])
    def test_a_broker_that_hangs(self, ask: str) -> None:
        with silent_server() as port:
            self.failing(ask, port)

    def test_no_such_host(self) -> None:
        with pytest.raises(TransientError, match=r"kafka\.invalid:9092"):
            KafkaResource(bootstrap_servers="kafka.invalid:9092").topic_state("t")

    def test_a_port_that_is_no_broker(self, stack: Settings) -> None:
        """Such as MinIO's."""
        self.failing("topic_state", stack.minio_address[1])

    @pytest.mark.parametrize("ask", ["topic_state", "wait"])
    def test_no_thread_is_left_behind(self, ask: str) -> None:
        """Otherwise each tick of a long outage costs a thread, with its sockets."""
        threads = set(threading.enumerate())
        for _ in range(3):
            self.failing(ask, free_port())
        wait_until(lambda: set(threading.enumerate()) <= threads, 30, "the end of the threads")
