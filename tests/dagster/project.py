"""The project's definitions on top of an in-memory Kafka and MinIO."""

import gc
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData

from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.names import Names
from resize_pipeline.kafka.offsets import Cursor
from resize_pipeline.resources.scratch import ScratchIOManager
from resize_pipeline.settings import Settings
from tests.dagster.fakes import FakeKafka, FakeMinio, InProcessRenderer, fake_settings


@dataclass
class Project:
    instance: dg.DagsterInstance
    folder: Path
    settings: Settings
    kafka: FakeKafka = field(default_factory=FakeKafka)
    minio: FakeMinio = field(default_factory=FakeMinio)
    cursor: str | None = None
    has_children: bool = False
    """Whether pictures are rendered in child processes, as in production."""
    slow: set[bytes] = field(default_factory=set)
    """Pictures that take longer than any first try."""

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(
            self.settings,
            resources={"kafka": self.kafka, "minio": self.minio}
            | ({} if self.has_children else {"renderer": InProcessRenderer(slow=self.slow)}),
        )

    @property
    def names(self) -> Names:
        return Names(self.settings.pipeline_name)

    def configure(self, **changes: Any) -> None:
        self.settings = fake_settings(self.folder, **changes)

    def let_pass(self, seconds: float) -> None:
        """Move the time at which the bucket of runs is full back by that many seconds."""
        cursor = Cursor.parse(self.cursor, self.names.sensor)
        assert cursor
        assert cursor.full_at
        before = cursor.full_at - seconds
        self.cursor = cursor.model_copy(update={"full_at": before}).model_dump_json()

    def tick(self) -> SensorExecutionData:
        """Evaluate the sensor and keep the cursor, as the daemon does."""
        definitions = self.definitions
        repository = definitions.get_repository_def()
        assert definitions.resources
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=repository,
            sensor_name=self.names.sensor,
            resources={
                self.names.of(name): definitions.resources[self.names.of(name)]
                for name in ("kafka", "pipeline")
            },
        )
        answer = repository.get_sensor_def(self.names.sensor).evaluate_tick(context)
        self.cursor = answer.cursor
        return answer

    def run(  # noqa: PLR0913  As Dagster has it.
        self,
        request: dg.RunRequest | None = None,
        *,
        selection: list[str] | None = None,
        partition: str | None = None,
        config: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        job_name: str | None = None,
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        job = self.definitions.get_repository_def().get_job(job_name or self.names.job)
        configured = run_config(self.names, **(config or {}))
        return job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key if request else partition,
            run_config=request.run_config if request else configured,
            tags=dict(request.tags) if request else tags,
            asset_selection=[self.names.asset(name) for name in selection] if selection else None,
            raise_on_error=raise_on_error,
        )

    def reconstructable(self) -> Any:
        """Return the job in a form that Dagster can repeat; valid until the next call."""
        _CURRENT[:] = [self]
        return dg.reconstructable(_current_job)

    def failure(self, result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> str:
        """Return the one line that a failed run shows."""
        assert not result.success
        [step] = [event for event in result.all_events if event.is_step_failure]
        user_failure = step.step_failure_data.user_failure_data
        assert user_failure, step.step_failure_data.error
        description = user_failure.description
        assert description
        assert "\n" not in description
        return description


_CURRENT: list[Project] = []


def _current_job() -> dg.JobDefinition:
    return _CURRENT[0].definitions.get_job_def("resize_images_job")


class Large:
    """A value large enough that holding on to it matters."""


KEPT: list[weakref.ref[Large]] = []
ALIVE: list[int] = []
"""For each value, the number of earlier values that were alive when it was created."""


def large_values_job() -> dg.JobDefinition:
    @dg.op(out=dg.DynamicOut())
    def numbers():
        for index in range(3):
            yield dg.DynamicOutput(index, mapping_key=str(index))

    @dg.op(tags={"dagster/priority": "1"})
    def make(number: int) -> Large:
        del number
        gc.collect()
        ALIVE.append(sum(one() is not None for one in KEPT))
        made = Large()
        KEPT.append(weakref.ref(made))
        return made

    @dg.op(tags={"dagster/priority": "2"})
    def use(made: Large) -> None:
        del made

    @dg.job(resource_defs={"io_manager": ScratchIOManager()}, executor_def=dg.in_process_executor)
    def job():
        numbers().map(make).map(use)

    return job


def observations(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    """Return the metadata of each `raw_images` observation of a run, gaps included."""
    return [
        {
            name: value.value
            for name, value in item.asset_observation_data.asset_observation.metadata.items()
        }
        for item in result.all_events
        if item.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]


def observed(result: dg.ExecuteInProcessResult) -> dict:
    """Return the metadata of the run's observation of its objects."""
    [one] = [metadata for metadata in observations(result) if "objects" in metadata]
    return one


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Return the metadata of each materialization of a run, by asset."""
    found = {}
    for event in result.get_asset_materialization_events():
        data = event.step_materialization_data.materialization
        key = data.asset_key.to_user_string()
        assert key not in found, "materialized twice"
        found[key] = {
            name: getattr(value, "records", value.value) for name, value in data.metadata.items()
        }
    return found
