"""A host is cut off from all others in the middle of a run, and comes back."""

import random
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.faults.hosts import HostsCluster, Network, missing
from tests.faults.ledger import picture
from tests.faults.world import RESULTS, World
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

PICTURES = 120
WAIT_S = 420.0


@pytest.fixture(params=["noticed", "silent"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostsCluster]:
    """A host that notices gives its run up; one that does not goes on once it is back."""
    if reason := missing():
        pytest.skip(f"NOT TESTED: {reason}")
    is_silent = request.param == "silent"
    network = Network(is_silent=is_silent)
    with network.made():
        cluster = HostsCluster(tmp_path / "cluster", network, retry_s=900 if is_silent else 5)
        for name, value in cluster.extra.items():
            monkeypatch.setenv(name, value)
        with cluster:
            yield cluster


def rendering(cluster: HostsCluster) -> tuple[dg.DagsterRun, str] | None:
    """Find a run that has read originals and has not written their renditions, and its host."""
    for run in cluster.running():
        process = cluster.run_process(run.run_id)
        host = process and cluster.host_of(process)
        if host and cluster.step_under_way(run.run_id, "resize"):
            return run, host
    return None


def test_a_host_that_was_cut_off_comes_back(
    cluster: HostsCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    way = request.node.callspec.params["cluster"]
    world = World(cluster, tmp_path, f"a host is cut off and comes back, {way}")
    names = [f"picture-{number:03}.jpg" for number in range(PICTURES)]
    for name in names:
        world.put(name)
    lost, host = wait_until(lambda: rendering(cluster), WAIT_S, "a run to render")
    cluster.network.cut(host)
    # Nobody can tell the process, which holds some of their old versions.
    for name in names:
        world.put(name, picture(random.Random(f"again {name}")))  # noqa: S311

    def status() -> dg.DagsterRunStatus:
        again = cluster.instance.get_run_by_id(lost.run_id)
        assert again
        return again.status

    wait_until(lambda: status() is dg.DagsterRunStatus.FAILURE, WAIT_S, "the run to be given up")
    assert host not in cluster.answering()
    world.settled()
    assert not world.checker.check("ABCDG"), "before it is back"
    repeated = [run for run in world.runs() if run.root_run_id == lost.run_id]
    assert [run.status for run in repeated] == [dg.DagsterRunStatus.SUCCESS]
    before = world.checker.snapshot()

    cluster.network.mend(host)
    wait_until(lambda: cluster.answering().get(host) == 0, WAIT_S, f"{host} to be back and idle")
    world.put("after.jpg")
    world.settled()
    assert not world.checker.check("ABCDG"), "after it is back"
    after = world.checker.snapshot()
    changed = [name for name, (etag, _) in before.items() if after[name][0] != etag]
    written = [name for name, (_, when) in before.items() if after[name][1] != when]
    RESULTS[world.name] = dict.fromkeys("ABCDFG", "held") | {
        "seconds": f"once it was back, its run was a {status().value}, {len(written)} renditions "
        f"were written again, and {len(changed)} differ"
    }
    assert not changed, "nothing that was current became another"
    assert written or way == "noticed", "it still had old renditions to write"
    # Dagster takes a late event of a run that was given up, such as its success.
    assert status() in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
