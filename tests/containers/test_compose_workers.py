"""The compose file with workers, switched to as deploy/README.md says, with its data kept."""

from pathlib import Path

import pytest

from tests.containers.compose import Deployment
from tests.containers.pictures import Outside
from tests.containers.test_compose import assert_is_confined, assert_no_secret_is_inspected

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

OPTIONS = {"COMPOSE_PROFILES": "workers", "INSTANCE": "celery", "WORKERS": "2"}
EXECUTED_BY = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    [run] = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1)
    print("executed by", "celery" if "dagster-celery/task_id" in run.tags else "its code server")
"""


@pytest.fixture(scope="module")
def outside(deployment: Deployment, secrets_folder: Path) -> Outside:
    deployment.options |= OPTIONS
    deployment.up()
    return Outside(deployment, secrets_folder)


def test_workers_execute_the_runs(outside: Outside) -> None:
    found = outside.upload()
    assert (found["lost"], found["stale"]) == (0, 0), outside.deployment.logs("worker")
    code = outside.deployment.container("code")
    answer = outside.deployment.podman("exec", code, "python", "-c", EXECUTED_BY)
    assert answer.splitlines()[-1] == "executed by celery"


def test_no_secret_is_where_containers_are_inspected(outside: Outside) -> None:
    assert_no_secret_is_inspected(outside)


@pytest.mark.parametrize("service", ["worker", "valkey"])
def test_a_killed_service_is_back_and_no_picture_is_lost(outside: Outside, service: str) -> None:
    outside.kill(service, is_executing=service == "worker")


def test_a_worker_can_not_write_its_image_and_has_no_capability(outside: Outside) -> None:
    assert_is_confined(outside.deployment, "worker")
