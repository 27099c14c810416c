"""Imports every private name of Dagster that the package uses, each group with its reason.

When upgrading Dagster, review its changes to these names; no others of its private code matter.
`settings/runs.py` imports one more where it needs it, because commands start without Dagster.
"""

# The type of a value that dagster.yaml takes from a variable: secrets come from files, too.
from dagster._config.source import StringSourceType

# The job of the runs that `Materialize` starts, which also belong to the pipeline.
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

# A materialization over a part of a partition keeps the code version of the rest.
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

# A run failure sensor returns a reaction. The state of a sensor is queried by instigator type.
from dagster._core.definitions.run_request import DagsterRunReaction, InstigatorType

# The return type of `dg.define_asset_job`.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# At this error the queue keeps a run whose launcher can't reach its code server or broker.
# The other one fails a run with its message.
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError

# Why a run failed whose steps did not.
from dagster._core.events import JobFailureData

# Dagster repeats no run of a backfill with one of these.
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

# What a run launcher receives, and what it answers to run monitoring.
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus

# `DagsterInstance.get_ticks` and its like return these.
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus

# The storages that custom ones extend, and the types of their configuration.
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.config import PostgresStorageConfig

# Dagster has filters by status, but no public groups of them.
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

# Dagster has no public interface to ask its tables: the event log for the latest materialization of
# each partition or for observations by their metadata, and for the deletion of what a run leaves.
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import SqliteRunStorage, SqlRunStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig

# Tags that Dagster sets and reads. Only some are documented, so all come from the same place.
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    BACKFILL_ID_TAG,
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    RETRY_NUMBER_TAG,
    RETRY_STRATEGY_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
    WILL_RETRY_TAG,
)

# The type of the configuration that a custom storage receives.
from dagster._serdes import ConfigurableClassData

# When the reconciliation's schedule was due.
from dagster._utils.schedules import cron_string_iterator

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "AUTO_RETRY_RUN_ID_TAG",
    "BACKFILL_ID_TAG",
    "BULK_ACTION_TERMINAL_STATUSES",
    "CODE_VERSION_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "FINISHED_STATUSES",
    "IMPLICIT_ASSET_JOB_NAME",
    "MAX_RETRIES_TAG",
    "NOT_FINISHED_STATUSES",
    "NULL_EVENT_POINTER",
    "PARTITION_NAME_TAG",
    "PRIORITY_TAG",
    "RETRY_NUMBER_TAG",
    "RETRY_STRATEGY_TAG",
    "SCHEDULE_NAME_TAG",
    "SENSOR_NAME_TAG",
    "WILL_RETRY_TAG",
    "AssetCheckExecutionsTable",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagsterLaunchFailedError",
    "DagsterRunReaction",
    "DagsterSqliteStorage",
    "DagsterStorage",
    "DagsterUserCodeUnreachableError",
    "InstigatorState",
    "InstigatorTick",
    "InstigatorType",
    "JobFailureData",
    "LaunchRunContext",
    "LocalComputeLogManager",
    "PostgresStorageConfig",
    "RunTagsTable",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqlRunStorage",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "SqliteScheduleStorage",
    "SqliteStorageConfig",
    "StringSourceType",
    "TickStatus",
    "UnresolvedAssetJobDefinition",
    "WorkerStatus",
    "create_db_conn_string",
    "cron_string_iterator",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
]
