"""deploy/kubernetes on a real node: runs are pods, and none of the photographs is lost."""

import datetime as dt
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.browser.chromium import find_chromium
from tests.kubernetes.deployed import FIGURES, KILLS, UI_PASSWORD, Deployed
from tests.kubernetes.node import PAUSE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(3 * 3600)]

FEW = 6
PHOTOGRAPHS = 300
FEWER = 100
RENDITIONS = 3
POD_TIMEOUT_S = 900
REPETITION_TIMEOUT_S = 900
PENDING_TIMEOUT_S = 1200
RUN_CPU = 1000
"""What a run requests, in thousandths of a core."""


def assert_none_is_lost(deployed: Deployed, found: dict[str, Any]) -> None:
    assert (found["lost"], found["stale"], found["extra"]) == (0, 0, 0), (
        f"{found}\n{deployed.said()}"
    )


def seconds(timestamp: str) -> float:
    return dt.datetime.fromisoformat(timestamp).timestamp()


def run_id(pod: dict[str, Any]) -> str:
    return pod["metadata"]["labels"]["dagster/run-id"]


def test_a_run_is_a_pod(deployed: Deployed) -> None:
    assert_none_is_lost(deployed, deployed.judged(FEW))
    [run, *_] = deployed.runs()
    assert run["status"] == "SUCCESS"
    [pod] = [one for one in deployed.pods("run", "Succeeded") if run_id(one) == run["id"]]
    [container] = pod["status"]["containerStatuses"]
    created = seconds(pod["metadata"]["creationTimestamp"])
    FIGURES["a run's pod, from its creation to its process"] = (
        seconds(container["state"]["terminated"]["startedAt"]) - created
    )
    FIGURES["a run's pod, from its creation to the run's start"] = run["started"] - created
    FIGURES["a run of few photographs, from its start to its end"] = run["ended"] - run["started"]
    FIGURES["a run of few photographs, from its request to its end"] = run["ended"] - run["created"]


def pod_of_a_run(deployed: Deployed, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Wait for the pod of a run whose id is wanted to run."""

    def find() -> dict[str, Any] | None:
        return next((one for one in deployed.pods("run") if wanted(run_id(one))), None)

    return deployed.wait_for(find, POD_TIMEOUT_S, "a run's pod to run")


def test_a_run_that_loses_its_pod_twice_is_repeated_and_goes_on(deployed: Deployed) -> None:
    before = {one["id"] for one in deployed.runs()}
    first: list[str] = []

    def start_daemon() -> None:
        # One run gets all of them, and takes long enough to lose its pod.
        deployed.wait_for(
            lambda: deployed.status()["lag"] >= PHOTOGRAPHS, POD_TIMEOUT_S, "the events"
        )
        deployed.kubectl("scale", "deployment/daemon", "--replicas=1")

    def repetition() -> list[str]:
        return [one["id"] for one in deployed.runs() if one["parent"] == first[0]]

    def kill() -> None:
        pod = pod_of_a_run(deployed, lambda found: found not in before)
        deployed.kill(pod)
        first.append(run_id(pod))
        [second] = deployed.wait_for(repetition, REPETITION_TIMEOUT_S, "the run to be repeated")
        deployed.kill(pod_of_a_run(deployed, lambda found: found == second))

    deployed.kubectl("scale", "deployment/daemon", "--replicas=0")
    found = deployed.judged(
        PHOTOGRAPHS, begun=PHOTOGRAPHS * RENDITIONS // 5, first=start_daemon, meanwhile=kill
    )
    group = [one["status"] for one in deployed.runs() if one["root"] == first[0]]
    KILLS["a run's pod, and that of its repetition"] = found | {
        "failed runs": group.count("FAILURE")
    }
    assert_none_is_lost(deployed, found)
    assert group == ["SUCCESS", "FAILURE", "FAILURE"]
    assert found["written again"] == 0, "what was made before is not made again"


@pytest.mark.parametrize("app", ["daemon", "code", "kafka"])
def test_a_killed_pod_is_back_and_no_photograph_is_lost(deployed: Deployed, app: str) -> None:
    before = deployed.failed()

    def kill() -> None:
        [pod] = deployed.pods(app)
        deployed.kill(pod)
        deployed.wait_ready()

    found = deployed.judged(FEWER, pause_s=0.4, begun=RENDITIONS, meanwhile=kill)
    KILLS[app] = found | {"failed runs": deployed.failed() - before}
    assert_none_is_lost(deployed, found)


def filler(cpu: int) -> str:
    """Return a pod that requests so many thousandths of a core."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "filler", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "filler",
                    "image": PAUSE,
                    "imagePullPolicy": "Never",
                    "resources": {"requests": {"cpu": f"{cpu}m"}},
                }
            ],
        },
    }
    return yaml.safe_dump(pod)


def test_a_run_that_no_node_has_room_for_fails_with_that_reason(deployed: Deployed) -> None:
    """`status` says it while the run is repeated, and the photograph is rendered in the end."""
    server = deployed.node.server
    before = {one["id"] for one in deployed.runs()}
    server.ask("apply", "-f", "-", stdin=filler(deployed.node.free_cpu() - RUN_CPU + 100))
    scheduled = ("--for=condition=PodScheduled", f"--timeout={POD_TIMEOUT_S}s")
    words = ("wait", "pod/filler", "--namespace=default", *scheduled)
    server.ask(*words, timeout=POD_TIMEOUT_S + 30)
    said: list[str] = []

    def reasons() -> list[str]:
        found = deployed.status()
        runs = found["unfinished_runs"] + found["failed_runs"]
        return [one["failure"] for one in runs if one["failure"] and one["run_id"] not in before]

    def make_room() -> None:
        started = time.monotonic()
        said.extend(
            deployed.wait_for(reasons, PENDING_TIMEOUT_S, "`status` to say why a run failed")
        )
        FIGURES["a run without room, from its upload to its reason in `status`"] = (
            time.monotonic() - started
        )
        said.append(deployed.status_text())
        server.ask("delete", "pod", "filler", "--namespace=default")

    try:
        found = deployed.judged(1, begun=0, meanwhile=make_room)
    finally:
        server.ask("delete", "pod", "filler", "--namespace=default", "--ignore-not-found")
    # A terminal's lines end anywhere.
    in_one_line = [" ".join(one.split()) for one in said]
    assert "Pod status: Pending" in in_one_line[0]
    assert all("Insufficient cpu" in one for one in in_one_line), said
    assert_none_is_lost(deployed, found)


def test_a_browser_sees_what_the_launcher_did(deployed: Deployed, tmp_path: Path) -> None:
    """The page is kept in the folder SCREENSHOTS_DIR, if it is set."""
    chromium = find_chromium()
    if not chromium:
        pytest.skip("no Chromium found: install Debian's chromium or set CHROMIUM_BIN")
    [run, *_] = [one for one in deployed.runs() if one["status"] == "SUCCESS"]
    picture = Path(os.environ.get("SCREENSHOTS_DIR", tmp_path)) / "kubernetes-run.png"
    given = ("http://127.0.0.1:3000", UI_PASSWORD, run["id"], str(picture))
    with deployed.forwarded("service/webserver", 3000):
        command = deployed.node.python("tests.kubernetes.browse", chromium, *given)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert picture.stat().st_size
