"""A cluster whose runs execute on Celery workers of two hosts, each in a network namespace.

Kafka, MinIO, PostgreSQL, Valkey and the daemon are in a third namespace. Each host reaches it over
a link of its own, which can be cut. The network of the machine is not touched.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import yaml
from celery import Celery

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import Service, Supervisor
from resize_pipeline.local.servers.postgres import DATABASE, USER, postgres_service
from resize_pipeline.local.servers.valkey import valkey_service
from tests.faults.cluster import INSTANCE, REPOSITORY, START_TIMEOUT_S, Cluster

CENTRE = "10.77.0.1"
NETWORK = "10.77.0.0/16"
HOSTS = ("a", "b")
PASSWORD = "of-broker-and-database"
CELERY = REPOSITORY / "deploy" / "celery"
CLONE_NEWNET = 0x40000000
SLOW = """
import time
try:
    import resize_pipeline.imaging.render as imaging
except ImportError:
    imaging = None

def slow(data, renditions, **limits):
    time.sleep(0.5)
    return original(data, renditions, **limits)

if imaging:
    original, imaging.render = imaging.render, slow
"""
"""What the hosts' processes run when they start: a batch takes seconds to be rendered."""


def missing() -> str:
    """Return why there can be no namespaces here; empty if there can."""
    if os.geteuid() or not shutil.which("ip"):
        return "network namespaces take root and the program `ip`"
    probe = f"rp-{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode:
        return f"no network namespace: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


class Network:
    """Three namespaces, two of which are linked to the third.

    Args of the constructor:
        is_silent: whether packets into a cut link vanish, as behind a broken switch, so that nobody
            hears of it; otherwise a host notices that it has no route.
    """

    def __init__(self, *, is_silent: bool) -> None:
        self._id = uuid.uuid4().hex[:6]
        self._is_silent = is_silent

    def name(self, place: str) -> str:
        """Return the name of a namespace: centre, a or b."""
        return f"rp-{self._id}-{place}"

    def ip(self, place: str, *arguments: str) -> None:
        """Configure the network of a place."""
        subprocess.run(["ip", "-netns", self.name(place), *arguments], check=True)

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make the namespaces, enter the centre, and remove them at the end."""
        with contextlib.ExitStack() as stack:
            for place in ("centre", *HOSTS):
                subprocess.run(["ip", "netns", "add", self.name(place)], check=True)
                stack.callback(
                    subprocess.run, ["ip", "netns", "delete", self.name(place)], check=True
                )
                self.ip(place, "link", "set", "lo", "up")
            self.ip("centre", "address", "add", f"{CENTRE}/32", "dev", "lo")
            for number, host in enumerate(HOSTS, 1):
                self._link(number, host)
            with _entered(Path("/run/netns") / self.name("centre")):
                yield

    def _link(self, number: int, host: str) -> None:
        peer = ("peer", "name", "uplink", "netns", self.name(host))
        self.ip("centre", "link", "add", f"to-{host}", "type", "veth", *peer)
        ends = (("centre", f"to-{host}", 1), (host, "uplink", 2))
        for place, link, last in ends:
            mac = f"02:00:00:00:0{number}:0{last}"
            self.ip(place, "link", "set", "dev", link, "address", mac)
            self.ip(place, "address", "add", f"10.77.{number}.{last}/24", "dev", link)
            self.ip(place, "link", "set", "dev", link, "up")
            if self._is_silent:
                # Who knows the other end's address need not ask for it, and does not notice.
                other = (
                    f"10.77.{number}.{3 - last}",
                    "lladdr",
                    f"02:00:00:00:0{number}:0{3 - last}",
                )
                self.ip(place, "neigh", "add", *other, "dev", link, "nud", "permanent")
        self.ip(host, "route", "add", "default", "via", f"10.77.{number}.1")

    def cut(self, host: str) -> None:
        """Have no packet reach a host or leave it; its connections stay open."""
        self.ip("centre", "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        """Let packets through again."""
        self.ip("centre", "link", "set", f"to-{host}", "up")


@contextlib.contextmanager
def _entered(namespace: Path) -> Iterator[None]:
    """Put this thread, and what it starts, into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")

    with Path("/proc/self/ns/net").open("rb") as own, namespace.open("rb") as other:
        enter(other.fileno())
        try:
            yield
        finally:
            enter(own.fileno())


class HostsCluster(Cluster):
    """Runs execute on workers, one on each host; the instance is that of deploy/celery."""

    def __init__(self, folder: Path, network: Network, *, retry_s: int) -> None:
        super().__init__(
            folder,
            settings={
                "retry_s": retry_s,
                "minio_endpoint": f"http://{CENTRE}:{free_port(CENTRE)}",
                "kafka_bootstrap_servers": f"{CENTRE}:{free_port(CENTRE)}",
            },
        )
        self.network = network
        postgres_port, broker_port = free_port(CENTRE), free_port(CENTRE)
        self._ports = {"postgres": postgres_port, "valkey": broker_port}
        self.broker_url = f"redis://:{PASSWORD}@{CENTRE}:{broker_port}/0"
        instance = yaml.safe_load((CELERY / "dagster.yaml").read_text()) | INSTANCE
        (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
        self.extra |= {
            "DAGSTER_PG_HOST": CENTRE,
            "DAGSTER_PG_PORT": str(postgres_port),
            "DAGSTER_PG_DB": DATABASE,
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "CELERY_BROKER_URL": self.broker_url,
            "DAGSTER_MAX_CONCURRENT_RUNS": str(len(HOSTS)),
        }

    def _prepare_instance(self) -> None:
        self._serve("postgres", self._postgres())
        self._serve("valkey", self._valkey())
        super()._prepare_instance()
        for host in HOSTS:
            self._serve(host, self._worker(host))

    def close(self) -> None:
        """End everything."""
        for host in HOSTS:
            if host in self._supervisors:
                self._supervisors.pop(host).stop()
        # Before the database that they use.
        for name in ("daemon", "valkey", "postgres"):
            if name in self._supervisors:
                self._supervisors.pop(name).stop()
        super().close()
        for name in ("postgres", "valkey"):
            shutil.rmtree(self.settings.local_dir / name, ignore_errors=True)

    def _serve(self, name: str, service: Service) -> None:
        supervisor = Supervisor(self.settings.local_dir / f"{name}.json")
        self._supervisors[name] = supervisor
        supervisor.start([replace(service, start_timeout_s=START_TIMEOUT_S)])

    def _postgres(self) -> Service:
        service = postgres_service(self.settings, self._ports["postgres"], PASSWORD)
        data = self.settings.local_dir / "postgres" / "data"
        with (data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {NETWORK} scram-sha-256\n")
        argv = [f"127.0.0.1,{CENTRE}" if one == "127.0.0.1" else one for one in service.argv]
        return replace(service, argv=argv)

    def _valkey(self) -> Service:
        service = valkey_service(self.settings, self._ports["valkey"], PASSWORD)
        config = Path(service.argv[-1])
        text = config.read_text()
        assert text.count("bind 127.0.0.1") == 1
        config.write_text(text.replace("bind 127.0.0.1", f"bind 127.0.0.1 {CENTRE}"))
        return service

    def _worker(self, host: str) -> Service:
        environment = self.environment()
        slow = self.folder / "slow"
        slow.mkdir(exist_ok=True)
        (slow / "sitecustomize.py").write_text(SLOW)
        path = [str(slow), str(CELERY), environment["PYTHONPATH"]]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        home = self.settings.local_dir / f"dagster-{host}"
        home.mkdir()
        return Service(
            name=host,
            argv=[
                *("nsenter", f"--net=/run/netns/{self.network.name(host)}"),
                *(sys.executable, "-m", "celery", "-A", "dagster_celery.app", "worker"),
                *("-n", f"worker@{host}", "-Q", "dagster", "-l", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ],
            env=environment | {"DAGSTER_STORAGE_DIR": str(home)},
            cwd=home,
            log_file=self.settings.local_dir / "logs" / f"worker-{host}.log",
            ready=lambda: host in self.answering(),
            version="",
        )

    def answering(self) -> dict[str, int]:
        """Ask the workers, and give for each host that answers how many runs it executes."""
        inspect = Celery(broker=self.broker_url).control.inspect(timeout=1.0)
        found = inspect.active() or {}
        return {name.removeprefix("worker@"): len(tasks) for name, tasks in found.items()}

    def host_of(self, process: psutil.Process) -> str | None:
        """Return the host that a process runs on."""
        found = {host: self.process(host).pid for host in HOSTS}
        lineage = {one.pid for one in [process, *process.parents()]}
        return next((host for host, pid in found.items() if pid in lineage), None)
