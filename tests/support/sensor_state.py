"""The state of the sensor in a Dagster instance, as the daemon keeps it."""

import time

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

NAME = "minio_events_sensor"


def keep_state(
    instance: dg.DagsterInstance,
    cursor: str | None,
    status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE,
    *,
    name: str = NAME,
) -> InstigatorState:
    """Let the sensor have this cursor and a tick that ended just now."""
    target = LoadableTargetOrigin(module_name="resize_pipeline.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, "resize_pipeline")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    data = SensorInstigatorData(cursor=cursor, last_tick_timestamp=time.time())
    state = InstigatorState(origin, InstigatorType.SENSOR, status, data)
    instance.add_instigator_state(state)
    return state
