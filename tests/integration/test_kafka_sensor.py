"""`kafka_sensor` and `read_messages` on a real Kafka: the example of docs/kafka.md."""

import json
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from kafka import KafkaProducer
from kafka.admin import NewTopic
from kafka.structs import TopicPartition

import resize_pipeline
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.undecodable import send_undecodable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "kafka.md"
[CODE] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def kafka(stack: Settings) -> KafkaResource:
    return KafkaResource.from_settings(stack)


class Example:
    """The page's example in a Dagster instance of its own, on a topic of its own."""

    def __init__(self, kafka: KafkaResource, database: Path) -> None:
        self.kafka = kafka
        self.database = database
        self.topic = f"orders-{uuid.uuid4()}"
        module = ModuleType("example")
        exec(CODE.replace('topic="orders"', f'topic="{self.topic}"'), module.__dict__)  # noqa: S102
        self.definitions: dg.Definitions = module.defs
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.create()

    def create(self) -> None:
        with self.kafka.connection.admin() as admin:
            admin.create_topics([NewTopic(self.topic, num_partitions=3, replication_factor=1)])
        wait_until(lambda: self.partitions() == 3, 30, f"topic {self.topic}")

    def delete(self) -> None:
        with self.kafka.connection.admin() as admin:
            admin.delete_topics([self.topic])
        wait_until(lambda: not self.partitions(), 30, "the end of the topic")

    def partitions(self) -> int:
        try:
            return len(self.kafka.topic_state(self.topic).watermarks)
        except (TransientError, UserError):
            return 0

    def send(self, count: int) -> None:
        with closing(KafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers)) as producer:
            sent = [
                producer.send(self.topic, str(index).encode(), partition=index % 3)
                for index in range(count)
            ]
            for one in sent:
                one.get(timeout=30)

    def tick(self) -> SensorExecutionData:
        """Evaluate the sensor; whoever wants the cursor kept keeps it."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=repository,
            sensor_name="orders",
            resources={"kafka": self.kafka},
        )
        return repository.get_sensor_def("orders").evaluate_tick(context)

    def stored_tick(self) -> list[dg.RunRequest]:
        answer = self.tick()
        self.cursor = answer.cursor
        return list(answer.run_requests or ())

    def run(self, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
        job = self.definitions.get_repository_def().get_job("orders_job")
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def rows(self) -> list[tuple[int, int, bytes]]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute("SELECT * FROM orders").fetchall()


@pytest.fixture
def example(
    kafka: KafkaResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Example]:
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    one = Example(kafka, tmp_path / "orders.db")
    with one.instance:
        yield one


def gaps(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        str(event.asset_observation_data.asset_observation.metadata["gap"].value)
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]


def failure(result: dg.ExecuteInProcessResult) -> str:
    [step] = [event for event in result.all_events if event.is_step_failure]
    return str(step.step_failure_data.user_failure_data.description)


def test_the_example_is_short() -> None:
    assert len(CODE.splitlines()) <= 30


def test_a_thousand_messages_are_read_once_by_at_most_two_runs(example: Example) -> None:
    example.send(500)
    assert not example.stored_tick(), "the first tick stores where reading starts"
    example.send(500)

    killed = example.tick()
    requests = example.stored_tick()
    assert [one.run_key for one in killed.run_requests or ()] == [one.run_key for one in requests]
    assert 1 <= len(requests) <= 2
    assert not example.stored_tick(), "a second tick requests nothing"

    for request in requests:
        result = example.run(dict(request.tags))
        assert result.success
        assert not gaps(result)
    rows = example.rows()
    assert sorted(int(value) for *_, value in rows) == sorted([*range(500)] * 2)

    assert example.run(dict(requests[0].tags)).success
    assert example.rows() == rows, "a repeated run reads the same messages"

    example.cursor = None
    example.stored_tick()
    replay = example.stored_tick()
    assert {one.tags["kafka/offsets"] for one in replay} == {
        one.tags["kafka/offsets"] for one in requests
    }
    assert not {one.run_key for one in replay} & {one.run_key for one in requests}


def test_what_can_not_be_read_is_named(example: Example) -> None:
    example.stored_tick()
    example.send(30)
    [request] = example.stored_tick()
    assert request.tags["kafka/offsets"] == "0:0-10,1:0-10,2:0-10"
    with example.kafka.connection.admin() as admin:
        admin.delete_records({TopicPartition(example.topic, 1): 4})
    result = example.run(dict(request.tags))
    assert result.success
    assert gaps(result) == ["partition 1 offsets 0-4: deleted by retention"]
    assert len(example.rows()) == 26

    example.send(3)
    servers = example.kafka.bootstrap_servers
    send_undecodable(servers, example.topic, [b"1", b"2"], how="header key")
    [request] = example.stored_tick()
    result = example.run(dict(request.tags))
    assert result.success
    [gap] = gaps(result)
    assert "can't be decoded" in gap

    example.delete()
    example.create()
    example.send(6)
    answer = example.tick()
    [observed, *_] = answer.asset_events
    assert isinstance(observed, dg.AssetObservation)
    assert "was recreated" in str(observed.metadata["gap"].value)
    assert json.loads(answer.cursor or "")["next_offsets"] == {"0": 2, "1": 2, "2": 2}
    result = example.run(dict(request.tags))
    assert all("was recreated" in gap for gap in gaps(result))
    assert len(gaps(result)) == len(request.tags["kafka/offsets"].split(","))


def test_assets_read_as_well(example: Example) -> None:
    read: list[bytes | None] = []

    @dg.asset
    def orders(context: dg.AssetExecutionContext, kafka: KafkaResource) -> None:
        read.extend(one.value for one in resize_pipeline.read_messages(context, kafka))

    job = dg.define_asset_job("orders_job", selection=[orders])
    sensor = resize_pipeline.kafka_sensor(name="orders", job=job, topic=example.topic)
    resources = {"kafka": example.kafka}
    example.definitions = dg.Definitions(
        [orders], jobs=[job], sensors=[sensor], resources=resources
    )
    example.stored_tick()
    example.send(30)
    [request] = example.stored_tick()
    assert example.run(dict(request.tags)).success
    assert sorted(map(int, filter(None, read))) == list(range(30))
    result = example.run(dict(request.tags) | {"kafka/topic_id": "another"})
    assert len(gaps(result)) == 3
    assert len(read) == 30
    assert "the run has no tag kafka/topic:" in failure(example.run({}))


def test_mistakes_are_one_line(example: Example) -> None:
    assert "the run has no tag kafka/topic:" in failure(example.run({}))
    tags = {"kafka/topic": example.topic, "kafka/topic_id": "x", "kafka/offsets": "0:9-3"}
    assert "is not of the form PARTITION:START-END" in failure(example.run(tags))
    tags["kafka/topic"] = "no-such-topic"
    tags["kafka/offsets"] = "0:0-3"
    said = failure(example.run(tags))
    assert "has no topic 'no-such-topic': create it, or correct `topic` of kafka_sensor" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topic": "no topic"}, "topic 'no topic' of kafka_sensor 'one'"),
        ({"start": "yesterday"}, "start 'yesterday' of kafka_sensor 'one'"),
        ({"max_messages": 0}, "must be at least 1, not 0 and 10"),
        ({"max_unfinished_runs": 0}, "must be at least 1, not 1000 and 0"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, object], said: str) -> None:
    @dg.job
    def job() -> None:
        pass

    with pytest.raises(UserError) as error:
        resize_pipeline.kafka_sensor(**{"name": "one", "job": job, "topic": "orders"} | wrong)
    assert said in str(error.value)


def test_unfinished_runs_are_bounded(example: Example) -> None:
    example.stored_tick()
    example.send(30)
    [request] = example.stored_tick()
    job = example.definitions.get_job_def("orders_job")
    tags = dict(request.tags) | {"dagster/sensor_name": "orders"}
    for _ in range(10):
        example.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    answer = example.tick()
    assert not answer.run_requests
    assert "10 runs of this sensor are unfinished" in str(answer.skip_message)
