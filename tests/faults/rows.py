"""The rows of the table of faults."""

import contextlib
import sqlite3
import time
from collections.abc import Callable

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus
from kafka.errors import KafkaError

from resize_pipeline.delivery.events import notification
from resize_pipeline.instance.daemons import two_daemons
from tests.faults.ledger import Storm
from tests.faults.proxy import Mode, Proxy
from tests.faults.world import World, first_note, row, wait_for_messages
from tests.support.names import NAMES


def last_failed_tick(world: World) -> str | None:
    """What the tick log says."""
    failed = world.failed_ticks()
    return failed[0] if failed else None


@row(
    "Kafka killed (-9) and back, under a PUT storm",
    "ACDEFGH",
    evidence=last_failed_tick,
    core=True,
)
def kafka_killed(world: World) -> None:
    with world.storm(150, pause_s=0.1).raging() as storm:
        storm.wait_for(0.2)
        world.cluster.kill("kafka")
        storm.wait_for(0.6)
        world.wait(world.failed_ticks, "a tick that says that Kafka is away")
        world.cluster.start("kafka")
    world.notes.append(f"tick: {world.failed_ticks()[0][:80]}")


def kill_run_in(world: World, step: str, *, with_code_server: bool = False) -> str:
    """Kill the run that is at a step of this name, and give its id."""

    def at_it() -> str | None:
        for run in world.cluster.running():
            if world.cluster.step_under_way(run.run_id, step):
                return run.run_id
        return None

    run_id = str(world.wait(at_it, f"a run at its step {step}"))
    process = world.cluster.run_process(run_id)
    assert process
    if with_code_server:
        for server in world.cluster.code_servers():
            server.kill()
    process.kill()
    return run_id


def run_failure(world: World) -> str | None:
    """What the UI lists as failed runs."""
    failed = [run for run in world.runs() if run.is_failure]
    return f"{len(failed)} failed runs in the list" if failed else None


@row("run process killed mid-resize", "ABCDEFGH", evidence=run_failure)
def run_killed_resizing(world: World) -> None:
    with world.storm(60, size=(1600, 1200)).raging():
        pass
    kill_run_in(world, "resize")


@row("run process killed mid-upload", "ABCDEFGH", evidence=run_failure, core=True)
def run_killed_uploading(world: World) -> None:
    with world.storm(60, size=(1600, 1200)).raging():
        pass
    kill_run_in(world, "upload")


RE_EXECUTE = """
mutation ($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@row(
    "re-executed from failure in the UI",
    "ABCDEFGH",
    evidence=first_note,
)
def re_executed_from_failure(world: World) -> None:
    cluster = world.cluster
    with world.storm(60, size=(1600, 1200)).raging():
        pass
    failed = kill_run_in(world, "upload")
    cluster.start("webserver")
    try:
        world.settled()
        before = world.checker.snapshot()
        answer = cluster.graphql(RE_EXECUTE, {"run": failed})["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run_id = answer["run"]["runId"]
        world.settled()
    finally:
        cluster.stop("webserver")
    run = cluster.instance.get_run_by_id(run_id)
    words = cluster.failures_of_steps(run_id)
    if not run or not run.is_failure or not any("re-execute all steps" in word for word in words):
        world.violate("D", f"it ended as {run and run.status}, and said {words}")
    world.notes += [word[:150] for word in words[:1]]
    after = world.checker.snapshot()
    changed = [place for place, what in before.items() if after.get(place) != what]
    if changed:
        world.violate("D", f"it wrote {len(changed)} renditions again")


@row("code server and run killed together", "ABCDEFGH", evidence=run_failure)
def code_server_killed(world: World) -> None:
    with world.storm(60, size=(1600, 1200)).raging():
        pass
    kill_run_in(world, "resize", with_code_server=True)


@row(
    "code server killed while runs are queued",
    "ABCDEFGH",
    evidence=lambda world: last_failed_tick(world) or run_failure(world),
)
def code_server_killed_queued(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    # More runs than may be under way at a time.
    with world.storm(200).raging():
        pass
    cluster.start("daemon")

    def is_queued() -> bool:
        queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        return cluster.instance.get_runs_count(queued) > 0 and bool(cluster.running())

    world.wait(is_queued, "a run in the queue")
    for server in cluster.code_servers():
        server.kill()


@row("Kafka paused 90 s", "ACDEFGH", evidence=last_failed_tick)
def kafka_paused(world: World) -> None:
    with world.storm(60, pause_s=0.1).raging() as storm:
        storm.wait_for(0.2)
        world.cluster.pause("kafka")
        try:
            until = time.monotonic() + 90
            world.wait(lambda: time.monotonic() > until, "90 s")
        finally:
            world.cluster.resume("kafka")


@row("Kafka down while objects are put, queue_dir on", "ACDFGH", evidence=last_failed_tick)
def kafka_down(world: World) -> None:
    world.cluster.kill("kafka")
    with world.storm(60).raging():
        pass
    world.wait(world.failed_ticks, "a tick that says that Kafka is away")
    world.cluster.start("kafka")


def completeness_check(world: World) -> str | None:
    """What the completeness check of the hours of this row says, before reconciliation."""
    return world.notes[0] if world.notes else None


@row(
    "Kafka down while objects are put, queue_dir off",
    "ACDFGH",
    evidence=completeness_check,
    reconcile=True,
    settings={"local_stack": False},
)
def kafka_down_without_queue(world: World) -> None:
    cluster = world.cluster
    hours = {hour()}
    cluster.kill("kafka")
    with world.storm(20).raging():
        pass
    hours.add(hour())
    cluster.start("kafka")
    world.settled()
    for one in sorted(hours):
        cluster.check(one)
    failed = cluster.failed_checks()
    if failed:
        world.notes.append(f"checks failed: {failed}")


def hour() -> str:
    return time.strftime("%Y-%m-%d-%H:00", time.gmtime())


# Killed between an object and its event, MinIO forgets the event: the bucket is the truth.
@row("MinIO killed in a PUT storm", "ABCDEFG", reconcile=True)
def minio_killed(world: World) -> None:
    with world.storm(150, pause_s=0.1).raging() as storm:
        storm.wait_for(0.3)
        world.cluster.kill("minio")
        storm.wait_for_refusals(8)
        world.cluster.start("minio")
        storm.wait_for(0.7)
        world.cluster.kill("minio")
        world.cluster.start("minio")


@row(
    "MinIO away longer than all retries, then back",
    "ABCDEFGH",
    evidence=run_failure,
    reconcile=True,
)
def minio_away(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    with world.storm(20).raging():
        pass
    world.wait(lambda: not cluster.queued_events(), "MinIO's events")
    wait_for_messages(world, 20)
    cluster.kill("minio")
    cluster.start("daemon")

    def given_up() -> bool:
        last = [run for run in world.runs() if run.tags.get("dagster/retry_number") == "3"]
        return any(run.is_failure for run in last) and not cluster.unfinished()

    world.wait(given_up, "the end of all retries", 400)
    world.notes.append(f"{len(world.runs())} attempts")
    cluster.start("minio")


def tick_under_way(world: World) -> bool:
    ticks = world.cluster.ticks()
    return bool(ticks) and ticks[0].status is TickStatus.STARTED


@row("daemon killed while evaluating", "ABCDEFG")
def daemon_killed_evaluating(world: World) -> None:
    with world.storm(60, pause_s=0.2).raging() as storm:
        for share in (0.2, 0.6):
            storm.wait_for(share)
            world.wait(lambda: tick_under_way(world), "a tick under way")
            world.cluster.kill_alone("daemon")
            world.cluster.start("daemon")


def ranges_of_runs(world: World) -> list[str]:
    """The ranges of the runs of this row, repeats by Dagster left out."""
    return [
        run.tags["resize_pipeline/offsets"]
        for run in world.runs()
        if "resize_pipeline/offsets" in run.tags and not run.parent_run_id
    ]


@row("daemon killed with ids reserved, mid-submit", "ABCDEFG", core=True)
def daemon_killed_submitting(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    with world.storm(130).raging():
        pass
    wait_for_messages(world, 130)
    cluster.start("daemon", wait=False)

    def reserved() -> list[str]:
        ticks = cluster.ticks(world.baseline.time)
        ids = ticks[0].tick_data.reserved_run_ids if ticks else None
        return [one for one in ids or () if ticks[0].status is TickStatus.STARTED]

    ids = world.wait(reserved, "a tick with reserved ids")
    cluster.kill("daemon")
    made = {run.run_id for run in world.runs()}
    assert isinstance(ids, list)
    world.notes.append(f"{len(made.intersection(ids))} of {len(ids)} runs were made")
    cluster.start("daemon")
    world.settled()
    ranges = [
        run.tags.get("resize_pipeline/offsets") for run in world.runs() if not run.parent_run_id
    ]
    if len(ranges) != len(set(ranges)):
        world.violate("D", f"a range has two runs: {sorted(ranges)}")


@row("two daemons on one instance", "ABCDFGH", evidence=first_note)
def second_daemon(world: World) -> None:
    cluster = world.cluster

    def is_named() -> str | None:
        return next((one for one in world.failed_ticks() if "another Dagster daemon" in one), None)

    cluster.start("daemon-2")
    try:
        with world.storm(120, pause_s=0.2).raging():
            pass
        world.notes.append(str(world.wait(is_named, "a tick that names the other daemon"))[:120])
        said = two_daemons(cluster.instance.storage_directory(), NAMES.sensor)
        if said is None:
            world.violate("H", "status names no second daemon")
        world.settled()
    finally:
        cluster.stop("daemon-2")
    ranges = [
        run.tags.get("resize_pipeline/offsets") for run in world.runs() if not run.parent_run_id
    ]
    if len(ranges) != len(set(ranges)):
        world.violate("D", f"a range has two runs: {sorted(map(str, ranges))}")


@row("storage locked while submitting", "ACDFG")
def storage_locked(world: World) -> None:
    storage = world.cluster.settings.local_dir / "dagster"
    with world.storm(80, pause_s=0.1).raging() as storm:
        for number, name in enumerate(("schedules/schedules.db", "history/runs.db"), 1):
            storm.wait_for(number / 4)
            connection = sqlite3.connect(storage / name, timeout=60, isolation_level=None)
            try:
                connection.execute("BEGIN EXCLUSIVE")
                # Longer than SQLite's clients wait for a lock.
                until = time.monotonic() + 20
                world.wait(lambda until=until: time.monotonic() > until, "20 s")
                connection.execute("ROLLBACK")
            finally:
                connection.close()
    world.notes.append("daemon survived" if world.cluster.is_alive("daemon") else "daemon ended")
    if not world.cluster.is_alive("daemon"):
        # Whatever supervises it starts it again.
        world.cluster.stop("daemon")
        world.cluster.start("daemon")


@row("10,000 events at once", "ACDEFG")
def many_events(world: World) -> None:
    cluster = world.cluster
    bucket, topic = cluster.settings.source_bucket, cluster.settings.kafka_topic
    keys = [world.put(f"many-{one:03}.jpg") for one in range(100)]
    cluster.stop("daemon")
    with world.larger_runs():
        with cluster.producer() as producer:
            for one in range(10_000):
                key = keys[one % len(keys)]
                value = notification(bucket, key, size=1, etag=None)
                producer.send(topic, value, key=f"{bucket}/{key}".encode())
        started = time.monotonic()
        world.settled()
        world.notes.append(f"lag 0 after {time.monotonic() - started:.0f} s")
        world.notes.append(f"{len(world.runs())} runs")


@row(
    "spec changed while old runs are still queued",
    "ABCDFGH",
    evidence=first_note,
    reconcile=True,
    own=True,
)
def spec_changed(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    with world.storm(200).raging():
        pass
    wait_for_messages(world, 200)
    cluster.start("daemon")

    def queued() -> list[str]:
        queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        return [run.run_id for run in cluster.instance.get_runs(queued)]

    world.wait(queued, "a run in the queue")
    text = cluster.settings.renditions_file.read_text()
    cluster.settings.renditions_file.write_text(text.replace("width: 16, ", "width: 12, "))
    cluster.stop("daemon")
    cluster.start("daemon")
    world.settled()
    refused = [run.run_id for run in world.runs() if run.is_failure]
    words = [word for run_id in refused for word in cluster.failures_of_steps(run_id)]
    world.notes += [word[:150] for word in words[:1]]


def through_a_proxy(
    world: World, proxy: Proxy, size: tuple[int, int], act: Callable[[], None]
) -> None:
    """Have the pipeline reach MinIO through a proxy while something happens."""
    cluster = world.cluster
    direct = cluster.settings
    host, port = proxy.address
    cluster.stop("daemon")
    cluster.extra |= {"MINIO_ENDPOINT": f"http://{host}:{port}"}
    cluster.start("daemon")
    try:
        with world.storm(30, size=size).raging():
            pass
        act()
        world.settled()
    finally:
        cluster.extra.pop("MINIO_ENDPOINT")
        assert cluster.settings is direct
        cluster.stop("daemon")
        cluster.start("daemon")


@row("MinIO resets mid-GET and mid-PUT", "ABCDEFG")
def resets(world: World) -> None:
    with Proxy(world.cluster.settings.minio_address) as proxy:
        proxy.reset_after = 20_000
        proxy.mode = Mode.RESET

        def act() -> None:
            world.wait(lambda: proxy.affected > 30, "30 resets")
            proxy.mode = Mode.PASS

        through_a_proxy(world, proxy, (1600, 1200), act)
        world.notes.append(f"{proxy.affected} connections reset")


@row("MinIO over a slow link", "ABCDEFG")
def slow_link(world: World) -> None:
    with Proxy(world.cluster.settings.minio_address) as proxy:
        proxy.mode = Mode.SLOW
        through_a_proxy(world, proxy, (400, 300), lambda: None)


@row("MinIO over a half-open link", "ABCDEFG")
def half_open(world: World) -> None:
    with Proxy(world.cluster.settings.minio_address) as proxy:

        def act() -> None:
            world.wait(lambda: proxy.affected > 3, "connections that hang")
            proxy.mode = Mode.PASS

        proxy.mode = Mode.HALF_OPEN
        through_a_proxy(world, proxy, (400, 300), act)
        world.notes.append(f"{proxy.affected} connections hung")


def someone_is_told(world: World) -> str | None:
    """What the tick log says, else what the list of runs says."""
    return last_failed_tick(world) or run_failure(world)


@row(
    "disk full: MinIO",
    "ABCDFGH",
    evidence=someone_is_told,
    reconcile=True,
    small_disks={"minio": 96 * 2**20},
)
def minio_disk_full(world: World) -> None:
    cluster = world.cluster
    cluster.stop("daemon")
    with world.storm(60, pause_s=0.1).raging() as storm:
        storm.wait_for(0.5)
        with cluster.full_disk("minio"):
            storm.wait_for_refusals()
            cluster.start("daemon")
            world.wait(lambda: run_failure(world), "a run that can't write", 300)


def started_again(world: World, name: str) -> None:
    """Do what supervises a service: start it again if it has ended."""
    ended = not world.cluster.is_alive(name)
    world.notes.append(f"{name} {'ended' if ended else 'survived'}")
    if ended:
        world.cluster.stop(name)
        world.cluster.start(name)


@row(
    "disk full: Kafka",
    "ABCDFGH",
    evidence=someone_is_told,
    small_disks={"kafka": 192 * 2**20},
)
def kafka_disk_full(world: World) -> None:
    cluster = world.cluster
    with world.storm(80, pause_s=0.2).raging() as storm:
        storm.wait_for(0.3)
        with cluster.full_disk("kafka"):
            since = time.time()
            # Retention, commits and new segments all want to write; junk fills what is left.
            with contextlib.suppress(KafkaError):
                cluster.send(*[bytes(500_000)] * 20)
            world.wait(lambda: cluster.failed_ticks(since) or storm_is_over(storm), "a failed tick")
        started_again(world, "kafka")


def storm_is_over(storm: Storm) -> bool:
    return storm.acknowledged >= storm.count


@row(
    "disk full: Dagster home",
    "ABCDFGH",
    evidence=lambda world: someone_is_told(world) or daemon_log(world),
    small_disks={"daemon": 96 * 2**20},
)
def dagster_disk_full(world: World) -> None:
    cluster = world.cluster
    with world.storm(100, pause_s=0.2).raging() as storm:
        storm.wait_for(0.2)
        with cluster.full_disk("daemon"):
            world.wait(lambda: daemon_log(world), "a word of the daemon")
            storm.wait_for(0.9)
        started_again(world, "daemon")


def daemon_log(world: World) -> str | None:
    """What the daemon says of its disk."""
    log = world.cluster.settings.local_dir / "logs" / "daemon.log"
    lines = [line for line in log.read_text(errors="replace").splitlines() if "disk" in line]
    return lines[0].strip() if lines else None
