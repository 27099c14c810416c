"""From an upload to its renditions, over real servers, in one process."""

import io
import json
import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.storage.tags import PARTITION_NAME_TAG
from pydantic import SecretStr

from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs import silence
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.names import Names
from resize_pipeline.environment import load_settings
from resize_pipeline.kafka.offsets import Cursor
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.support.pictures import decoded, detailed, encoded
from tests.support.sensor_state import keep_state
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

EVENTS_TIMEOUT_S = 60.0

PICTURES = {
    "rose.jpeg": encoded(detailed(300, 200), "JPEG"),
    "UPPER.JPG": encoded(detailed(200, 300), "JPEG"),
    "deeper/path/a b+c%2F.png": encoded(detailed(80, 40), "PNG"),
    "日本/🌹.webp": encoded(detailed(400, 400), "WEBP"),
}
# Width and height of each in the two renditions, which fit into 100 x 100 and 32 x 32.
SIZES = {
    "rose.jpeg": [(100, 67), (32, 21)],
    "UPPER.JPG": [(67, 100), (21, 32)],
    "deeper/path/a b+c%2F.png": [(80, 40), (32, 16)],
    "日本/🌹.webp": [(100, 100), (32, 32)],
}
TYPES = {".jpeg": "image/jpeg", ".JPG": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class Pipeline:
    """A provisioned pipeline with a topic, buckets and a user of its own."""

    def __init__(self, stack: Settings, folder: Path, instance: dg.DagsterInstance) -> None:
        unique = uuid.uuid4().hex[:12]
        self.large = f"large-{unique}"
        self.small = f"small-{unique}"
        specs = folder / "renditions.yaml"
        specs.write_text(
            "renditions:\n"
            f"  large: {{width: 100, height: 100, bucket: {self.large}}}\n"
            f"  small: {{width: 32, height: 32, bucket: {self.small}, prefix: thumbs/}}\n"
        )
        self.settings = stack.model_copy(
            update={
                "pipeline_name": f"p-{unique}",
                "source_bucket": f"source-{unique}",
                "kafka_topic": f"events-{unique}",
                "notify_kafka_target": f"target_{unique}",
                "renditions_file": specs,
                "minio_access_key": None,
                "minio_secret_key": None,
            }
        )
        self.names = Names(self.settings.pipeline_name)
        self.instance = instance
        self.cursor: str | None = None
        self.slow_lane_cursor: str | None = None
        self.root = MinioResource.from_settings(
            stack, access_key=ROOT_USER, secret_key=ROOT_PASSWORD
        ).client
        self.kafka = KafkaResource.from_settings(self.settings)
        self.credentials = folder / "credentials.env"
        provision(self.settings, credentials_file=self.credentials)
        self.configure()

    def configure(self, **changes: Any) -> None:
        self.settings = self.settings.model_copy(update=changes)
        self.definitions = build_definitions(
            self.settings, resources={"minio": self.minio_as_the_pipeline()}
        )

    def minio_as_the_pipeline(self) -> MinioResource:
        """With the keys of the user that provisioning made: its policy must suffice."""
        lines = dict(
            line.split("=", 1)
            for line in self.credentials.read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        keys = {name: value.strip("'\"") for name, value in lines.items()}
        return MinioResource.from_settings(
            self.settings,
            access_key=keys["MINIO_ACCESS_KEY"],
            secret_key=keys["MINIO_SECRET_KEY"],
        )

    def put(self, key: str, data: bytes) -> None:
        self.root.put_object(self.settings.source_bucket, key, io.BytesIO(data), len(data))

    def wait_for_events(self, count: int) -> None:
        def sent() -> bool:
            state = self.kafka.topic_state(self.settings.kafka_topic)
            return sum(state.ends.values()) >= count

        wait_until(sent, EVENTS_TIMEOUT_S, f"{count} events")

    def tick(self) -> SensorExecutionData:
        answer = self._evaluate(self.names.sensor, self.cursor, ("kafka", "pipeline"))
        self.cursor = answer.cursor
        return answer

    def slow_lane_tick(self) -> SensorExecutionData:
        answer = self._evaluate(self.names.of("slow_lane_sensor"), self.slow_lane_cursor, ())
        self.slow_lane_cursor = answer.cursor or self.slow_lane_cursor
        return answer

    def _evaluate(
        self, sensor: str, cursor: str | None, resources: tuple[str, ...]
    ) -> SensorExecutionData:
        repository = self.definitions.get_repository_def()
        assert self.definitions.resources
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            repository_def=repository,
            sensor_name=sensor,
            resources={
                self.names.of(name): self.definitions.resources[self.names.of(name)]
                for name in resources
            },
        )
        return repository.get_sensor_def(sensor).evaluate_tick(context)

    def reconcile(self) -> tuple[bool, str]:
        """Reconcile; return whether the run succeeded, and what the check of the source says."""
        job = self.definitions.get_job_def(self.names.job)
        assert job.partitions_def
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=job.partitions_def.get_last_partition_key(),
            run_config=run_config(self.names, reconcile=True),
            raise_on_error=False,
        )
        [*_, evaluation] = result.get_asset_check_evaluations()
        assert evaluation.check_name == "events_arrive"
        assert evaluation.passed == (not evaluation.description)
        return result.success, evaluation.description or ""

    def provision_again(self) -> None:
        keys = self.minio_as_the_pipeline()
        known = {
            "minio_access_key": SecretStr(keys.access_key),
            "minio_secret_key": SecretStr(keys.secret_key),
        }
        provision(self.settings.model_copy(update=known))

    def silence(self) -> list[str]:
        """Return what `status` says of events that do not arrive."""
        minio = self.minio_as_the_pipeline()
        return pipeline_status(self.settings, self.instance, self.kafka, minio).silence

    def run(self, request: dg.RunRequest) -> dict[str, dict]:
        """Run what the sensor asks for, and give the metadata of each asset."""
        tags = dict(request.tags)
        partition = request.partition_key or tags.pop(PARTITION_NAME_TAG)
        result = self.definitions.get_job_def(self.names.job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            run_config=request.run_config,
            tags=tags,
        )
        assert result.success
        return {
            event.asset_key.path[-1]: dict(event.step_materialization_data.materialization.metadata)
            for event in result.get_asset_materialization_events()
            if event.asset_key
        }

    def keys(self, bucket: str) -> set[str | None]:
        return {item.object_name for item in self.root.list_objects(bucket, recursive=True)}

    def get(self, bucket: str, key: str) -> tuple[bytes, str | None]:
        with self.root.get_object(bucket, key) as response:
            return response.read(), response.headers.get("content-type")


@pytest.fixture
def pipeline(stack: Settings, tmp_path: Path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(stack, tmp_path, instance)


def test_every_upload_becomes_its_renditions(pipeline: Pipeline) -> None:
    for key, data in PICTURES.items():
        pipeline.put(key, data)
    pipeline.put("rose.jpg", b"a\n")
    pipeline.put("empty.png", b"")
    pipeline.put("notes.txt", b"no picture, and no event")
    pipeline.wait_for_events(len(PICTURES) + 2)

    rejected: dict[str, str] = {}
    images = 0
    requests = pipeline.tick().run_requests
    assert requests
    for request in requests:
        made = pipeline.run(request)
        assert set(made) == {"large", "small"}
        images += made["large"]["images"].value
        assert made["large"]["missing"].value == 0
        if "rejected objects" in made["large"]:
            records = made["large"]["rejected objects"].records
            rejected |= {record.data["key"]: record.data["reason"] for record in records}

    assert images == len(PICTURES)
    assert set(rejected) == {"rose.jpg", "empty.png"}
    assert all(rejected.values())
    assert pipeline.keys(pipeline.large) == set(PICTURES)
    assert pipeline.keys(pipeline.small) == {f"thumbs/{key}" for key in PICTURES}
    for key, (large_size, small_size) in SIZES.items():
        for bucket, name, size in (
            (pipeline.large, key, large_size),
            (pipeline.small, f"thumbs/{key}", small_size),
        ):
            data, content_type = pipeline.get(bucket, name)
            assert decoded(data).size == size, name
            assert content_type == TYPES[Path(key).suffix], name
    # Renditions are no uploads: nothing comes back.
    assert pipeline.tick().run_requests == []


def test_the_cursor_moves_with_the_topic_and_a_reset_replays_it(pipeline: Pipeline) -> None:
    pipeline.put("a.png", PICTURES["deeper/path/a b+c%2F.png"])
    pipeline.wait_for_events(1)
    [first] = pipeline.tick().run_requests or []
    cursor = Cursor.parse(pipeline.cursor, pipeline.names.sensor)
    assert cursor
    assert sum(cursor.next_offsets.values()) == 1
    assert cursor.topic_id == pipeline.kafka.topic_state(pipeline.settings.kafka_topic).topic_id

    pipeline.put("b.png", PICTURES["deeper/path/a b+c%2F.png"])
    pipeline.wait_for_events(2)
    [second] = pipeline.tick().run_requests or []
    assert first.tags["resize_pipeline/offsets"] != second.tags["resize_pipeline/offsets"]
    pipeline.run(second)
    assert pipeline.keys(pipeline.large) == {"b.png"}

    pipeline.cursor = None
    for request in pipeline.tick().run_requests or []:
        pipeline.run(request)
    assert pipeline.keys(pipeline.large) == {"a.png", "b.png"}


def test_a_trickle_shares_runs(pipeline: Pipeline) -> None:
    pipeline.configure(run_min_interval_s=3600.0, run_burst=1, batch_max_objects=4)
    picture = PICTURES["deeper/path/a b+c%2F.png"]

    def upload(count: int) -> SensorExecutionData:
        for index in range(sent[0], sent[0] + count):
            pipeline.put(f"{index}.png", picture)
        sent[0] += count
        pipeline.wait_for_events(sent[0])
        return pipeline.tick()

    sent = [0]
    assert len(upload(1).run_requests or []) == 1
    for lag in (1, 2, 3):
        answer = upload(1)
        assert answer.run_requests == []
        assert f"lag {lag}: waiting " in str(answer.skip_message)
    for request in upload(1).run_requests or []:
        pipeline.run(request)
    assert pipeline.keys(pipeline.large) == {f"{index}.png" for index in range(1, 5)}
    assert "no new messages" in str(pipeline.tick().skip_message)


def test_an_object_that_is_gone_is_counted(pipeline: Pipeline) -> None:
    pipeline.put("gone.png", PICTURES["rose.jpeg"])
    pipeline.wait_for_events(1)
    [request] = pipeline.tick().run_requests or []
    pipeline.root.remove_object(pipeline.settings.source_bucket, "gone.png")
    made = pipeline.run(request)
    assert made["large"]["missing"].value == 1
    assert pipeline.keys(pipeline.large) == set()


def test_a_source_that_fell_silent_is_noticed_and_healed(
    stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LATENCY_S", 1.0)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        pipeline = Pipeline(stack, tmp_path, instance)
        bucket = pipeline.settings.source_bucket
        pipeline.tick()
        keep_state(instance, pipeline.cursor, name=pipeline.names.sensor)
        pipeline.put("announced.png", PICTURES["deeper/path/a b+c%2F.png"])
        pipeline.wait_for_events(1)
        assert pipeline.silence() == []

        pipeline.root.delete_bucket_notification(bucket)
        for name in ("a.png", "b.png", "c.png"):
            pipeline.put(name, PICTURES["deeper/path/a b+c%2F.png"])
        success, said = pipeline.reconcile()
        assert success
        assert f"bucket {bucket!r} on MinIO at {stack.minio_endpoint} has no notification" in said
        assert "3 objects had no event" in said
        assert "; ".join(pipeline.silence()) == said
        assert pipeline.keys(pipeline.large) == {"announced.png", "a.png", "b.png", "c.png"}

        for name in pipeline.keys(bucket):
            pipeline.root.remove_object(bucket, name or "")
        pipeline.root.remove_bucket(bucket)
        success, said = pipeline.reconcile()
        assert not success
        assert said.startswith(f"MinIO at {stack.minio_endpoint} has no bucket {bucket!r}: run")
        pipeline.root.make_bucket(bucket)
        assert "no notification rules" in pipeline.silence()[0], "it was recreated without them"
        pipeline.provision_again()
        assert pipeline.reconcile() == (True, "")
        assert pipeline.silence() == []


def test_messages_of_strangers_hold_up_nothing(pipeline: Pipeline) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers)
    try:
        name = {"name": pipeline.settings.source_bucket}
        record = {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": name}}
        for key in ("../../etc/passwd", "a//b.png", " ", "s" * 300 + ".png"):
            record["s3"]["object"] = {"key": key, "size": 10**18}
            message = json.dumps({"Records": [record]}).encode()
            producer.send(pipeline.settings.kafka_topic, message, partition=0).get(30)
        for junk in (b"", b"junk", b"\xff" * 1000, None):
            producer.send(pipeline.settings.kafka_topic, junk, b"k", partition=0).get(30)
    finally:
        producer.close()
    pipeline.put("good.png", PICTURES["rose.jpeg"])
    pipeline.wait_for_events(9)
    for _ in range(3):
        for request in pipeline.tick().run_requests or []:
            pipeline.run(request)
    assert pipeline.keys(pipeline.large) == {"good.png"}


def test_settings_find_the_credentials(pipeline: Pipeline, monkeypatch, tmp_path: Path) -> None:
    """What provisioning wrote is what the code location reads."""
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path))
    settings = load_settings()
    assert settings.minio_access_key
    assert settings.minio_access_key.get_secret_value() in pipeline.credentials.read_text()
