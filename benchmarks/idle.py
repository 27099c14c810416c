"""What the pipeline takes when nothing is uploaded: CPU and memory of each of its processes.

    python -m benchmarks.idle [--minutes N] [--out FOLDER]

`up` with its defaults, in a folder of its own. One picture is rendered first, because the first run
loads what later ones find loaded. Memory is the proportional set size: pages that processes share
are counted once in the sum.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks.stack import OUT, Stack, machine, photograph, write
from resize_pipeline.local.processes.state import read_state
from tests.support.project import Project
from tests.support.waiting import wait_until

SERVERS = ("kafka", "minio")
"""Services that are not Dagster's."""
SETTLE_S = 60.0
"""The daemon's threads start within a minute, and reconciliation runs once."""
TIMEOUT_S = 180.0
MIB = 2**20


def processes_of(project: Project) -> dict[str, psutil.Process]:
    """Find the processes of a running project and name each after its service."""
    state = read_state(project.folder / ".local" / "stack.json")
    assert state
    found: dict[str, psutil.Process] = {}
    for service in state.services:
        process = service.process.find() if service.process else None
        assert process, f"{service.name} does not run"
        found[service.name] = process
        for number, child in enumerate(process.children(recursive=True), 1):
            found[f"{service.name}, child {number}"] = child
    return found


def cpu_s(process: psutil.Process) -> float | None:
    """Give the CPU seconds of a process and of its ended children; None if it has ended itself."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return None


def measure(project: Project, seconds: float) -> dict[str, dict[str, float]]:
    """Watch for a while; give each process's share of a processor, and its memory."""
    processes = processes_of(project)
    before, started = {name: cpu_s(one) for name, one in processes.items()}, time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    figures: dict[str, dict[str, float]] = {}
    for name, one in processes.items():
        at_first, at_last = before[name], cpu_s(one)
        if at_first is not None and at_last is not None:
            figures[name] = {
                "cpu_percent": (at_last - at_first) / elapsed * 100,
                "pss_mib": one.memory_full_info().pss / MIB,
            }
    return figures


def total_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Sum up Dagster's processes."""
    dagsters = [one for name, one in figures.items() if not name.startswith(SERVERS)]
    return {kind: sum(one[kind] for one in dagsters) for kind in ("cpu_percent", "pss_mib")}


def main(
    *,
    minutes: Annotated[float, typer.Option(help="How long to watch.")] = 10,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-") as folder:
        stack = Stack(Path(folder))
        with stack.running("up"):
            stack.writer().put("first.jpg", photograph(None))
            wait_until(lambda: stack.last_made("first.jpg"), TIMEOUT_S, "the first renditions")
            time.sleep(SETTLE_S)
            figures = measure(stack, minutes * 60)
    total = total_of(figures)
    for name, one in (figures | {"all of Dagster's": total}).items():
        print(f"{one['cpu_percent']:6.2f} % of a processor  {one['pss_mib']:6.0f} MiB  {name}")
    write("idle", out, {}, figures | {"all of Dagster's": total}, machine=before)


if __name__ == "__main__":
    typer.run(main)
