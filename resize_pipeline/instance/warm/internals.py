"""Imports every private name of Dagster that the processes of runs and code servers use.

Apart from `instance/internals.py`, because these modules are large and no other process needs them.
"""

# What `dagster api execute_run` does once it has read its arguments.
from dagster._cli.api import (
    _execute_run_command_body as execute_run,  # pyright: ignore[reportPrivateUsage]
)

# Which server a code location comes from, and what it loads.
from dagster._core.instance import InstanceRef
from dagster._core.remote_origin import (
    CodeLocationOrigin,
    GrpcServerCodeLocationOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor

# The code server, and how it loads definitions.
from dagster._grpc.__generated__ import dagster_api_pb2

# `up` waits for its code server, and the launcher asks it about a run.
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer, LoadedRepositories
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

# How Dagster words the end of a run's process, and how an interrupt reaches a run.
from dagster._utils import get_run_crash_explanation
from dagster._utils.interrupts import capture_interrupts

__all__ = [
    "CanCancelExecutionRequest",
    "CanCancelExecutionResult",
    "CodeLocationOrigin",
    "DagsterApiServer",
    "DagsterGrpcClient",
    "DagsterGrpcServer",
    "FuturesAwareThreadPoolExecutor",
    "GrpcServerCodeLocationOrigin",
    "InstanceRef",
    "LoadableTargetOrigin",
    "LoadedRepositories",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "capture_interrupts",
    "dagster_api_pb2",
    "execute_run",
    "get_run_crash_explanation",
]
