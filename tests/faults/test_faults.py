"""Nothing is lost, whatever breaks: each row of the table of faults, on real servers."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults import rows as _rows  # noqa: F401
from tests.faults import rows_metrics as _rows_metrics  # noqa: F401
from tests.faults import rows_mistakes as _rows_mistakes  # noqa: F401
from tests.faults import rows_objects as _rows_objects  # noqa: F401
from tests.faults import rows_topic as _rows_topic  # noqa: F401
from tests.faults.conftest import Clusters
from tests.faults.world import RESULTS, ROWS, Row, World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


def can_mount(folder: Path) -> bool:
    """Whether this user may mount file systems."""
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", folder], check=True)
    return True


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[pytest.mark.faults_core] if row.core else [])
        for row in ROWS
    ],
)
def test_nothing_is_lost(row: Row, clusters: Clusters, tmp_path: Path, record_property) -> None:
    started = time.monotonic()
    if "small_disks" in row.options and not can_mount(tmp_path):
        RESULTS[row.name] = dict.fromkeys(row.holds, "skipped")
        pytest.skip("NOT TESTED: a small disk takes root and `mount -t tmpfs`")
    cluster = clusters.new(**row.options) if row.own else clusters.shared()
    world = World(cluster, tmp_path, row.name)
    cluster.most_unfinished = 0
    cluster.memory.forget_peaks()
    try:
        row.fault(world)
        violations = world.checker.settle()
        reconciled_at = None
        if row.reconcile:
            reconciled_at = time.time()
            cluster.reconcile()
        violations += world.violations + world.checker.check(
            row.holds,
            evidence=lambda: row.evidence(world) if row.evidence else None,
            reconciled_at=reconciled_at,
        )
    except pytest.skip.Exception:
        RESULTS[row.name] = dict.fromkeys(row.holds, "skipped")
        raise
    except BaseException:
        RESULTS[row.name] = dict.fromkeys(row.holds, "unknown")
        clusters.spoil()
        raise
    if "E" in row.holds:
        world.notes.append(cluster.memory.summary())
    broken = {violation.letter for violation in violations}
    RESULTS[row.name] = {
        letter: "violated" if letter in broken else "held"
        for letter in sorted(set(row.holds) | broken)
    } | {"seconds": f"{time.monotonic() - started:.0f} s {'; '.join(world.notes)}"}
    record_property("notes", world.notes)
    if violations or row.own:
        clusters.spoil()
    assert not violations, "\n".join(map(str, violations))
