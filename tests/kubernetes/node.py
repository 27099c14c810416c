"""A Kubernetes of one node: containerd, kubelet, and what decides what runs where."""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template

import yaml

from tests.containers.bases import ALPINE, full_name
from tests.containers.engine import Engine
from tests.kubernetes import api_server as server_module
from tests.kubernetes.api_server import ADDRESS, TOKEN, ApiServer, api_server
from tests.kubernetes.programs import program
from tests.support.deployment import REPOSITORY
from tests.support.waiting import wait_until

NAME = "node"
STAND_INS = Path(__file__).with_name("stand_ins")
PLUGINS = Path("/usr/lib/cni")
PAUSE = "registry.k8s.io/pause:3.10"
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "sysctl")
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "systemd",
)
READY_TIMEOUT_S = 180
ENDED_TIMEOUT_S = 30
PROXY = (
    *("--proxy-mode=iptables", "--cluster-cidr=10.244.0.0/24"),
    # These are the machine's, not the namespace's.
    *("--conntrack-max-per-core=0", "--conntrack-min=0"),
    *("--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"),
)


def missing() -> str:
    """Return why no node can be run here; empty if one can."""
    if reason := server_module.missing():
        return reason
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    absent += [] if (PLUGINS / "bridge").exists() else ["containernetworking-plugins"]
    if absent:
        return f"not installed: {', '.join(absent)}"
    lacking = [one for one in CONTROLLERS if not os.access(CGROUPS / one, os.W_OK)]
    return f"no cgroups of version 1 for {', '.join(lacking)}" if lacking else ""


class Node:
    """A node that is ready, and the API server that knows it."""

    def __init__(self, server: ApiServer, cgroup: str) -> None:
        self.server = server
        self.cgroup = cgroup
        self.scratch = server.scratch

    def load(self, engine: Engine, images: Iterable[str]) -> None:
        """Hand images of podman to containerd."""
        for image in images:
            archive = self.scratch / "image.tar"
            engine.podman("save", "--format=docker-archive", f"--output={archive}", image)
            self.run(
                "ctr", "-a", "/run/containerd.sock", "-n", "k8s.io", "images", "import", archive
            )
            archive.unlink()

    def run(self, *words: str | Path, timeout: float = 600) -> str:
        """Run a command in the node's namespaces, and return what it printed."""
        done = subprocess.run(
            self.server.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}"
        return done.stdout

    def python(self, module: str, *arguments: str) -> list[str | Path]:
        """Return a command that runs a module of this project in the node's namespaces."""
        path = ("env", f"PYTHONPATH={REPOSITORY}", str(REPOSITORY / ".venv/bin/python"))
        return self.server.command(*path, "-m", module, *arguments)

    def free_cpu(self) -> int:
        """Return how much CPU no pod has requested, in thousandths of a core."""
        found = json.loads(self.server.ask("get", "node", NAME, "-o", "json"))
        pods = json.loads(self.server.ask("get", "pods", "-A", "-o", "json"))["items"]
        requested = sum(
            milli(container["resources"].get("requests", {}).get("cpu", "0"))
            for pod in pods
            if pod["status"]["phase"] in {"Pending", "Running"}
            for container in pod["spec"]["containers"]
        )
        return milli(found["status"]["allocatable"]["cpu"]) - requested

    def make_volumes(self, claims: Iterable[str]) -> None:
        """Make a folder for each claim, in place of a storage class."""
        volumes = []
        for claim in claims:
            folder = self.scratch / "volumes" / claim
            folder.mkdir(parents=True)
            folder.chmod(0o777)
            reference = {"name": claim, "namespace": "resize-pipeline"}
            volumes.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": claim},
                    "spec": {
                        "capacity": {"storage": "20Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "hostPath": {"path": str(folder)},
                        "claimRef": reference,
                    },
                }
            )
        self.server.ask("apply", "-f", "-", stdin=yaml.safe_dump_all(volumes))


def milli(cpu: str) -> int:
    """Return a quantity of CPU in thousandths of a core."""
    return int(cpu[:-1]) if cpu.endswith("m") else int(float(cpu) * 1000)


def make_pause(engine: Engine) -> None:
    """Build what holds the namespaces of a pod."""
    folder = STAND_INS / "pause"
    engine.build(PAUSE, folder / "Dockerfile", folder, f"--build-arg=BASE={full_name(ALPINE)}")


@contextmanager
def node(scratch: Path) -> Generator[Node]:
    """Run a cluster of one node, and end it.

    Args:
        scratch: an empty folder.
    """
    with ExitStack() as stack:
        # Removed last, for then all processes have ended.
        cgroup = stack.enter_context(_cgroups())
        server = stack.enter_context(api_server(scratch))
        _configure(server, cgroup)
        _start(server)
        try:
            wait_until(
                lambda: " Ready" in server.kubectl("get", "node", NAME).stdout,
                READY_TIMEOUT_S,
                "the node",
            )
        except AssertionError as error:
            said = "".join(server.log(one).read_text()[-3000:] for one in ("kubelet", "containerd"))
            raise AssertionError(said) from error
        yield Node(server, cgroup)


@contextmanager
def _cgroups() -> Generator[str]:
    """Make a cgroup in each hierarchy, and remove it with all below it."""
    name = f"rp-{uuid.uuid4().hex[:8]}"
    folders = [CGROUPS / controller / name for controller in CONTROLLERS]
    for folder in folders:
        folder.mkdir()
    for setting in ("cpuset.cpus", "cpuset.mems"):
        (CGROUPS / "cpuset" / name / setting).write_text((CGROUPS / "cpuset" / setting).read_text())
    try:
        yield name
    finally:
        deadline = time.monotonic() + ENDED_TIMEOUT_S
        # runc makes one in version 2's hierarchy, too.
        for folder in CGROUPS.glob(f"*/{name}"):
            below = [Path(path) for path, _, _ in os.walk(folder, topdown=False)]
            for one in below:
                _remove(one, deadline)


def _remove(cgroup: Path, deadline: float) -> None:
    while True:
        try:
            cgroup.rmdir()
        except OSError:
            # Processes that were killed are still ending.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _configure(server: ApiServer, cgroup: str) -> None:
    scratch = server.scratch
    values = {
        "scratch": scratch,
        "cgroup": cgroup,
        "address": ADDRESS,
        "pause": PAUSE,
        "plugins": PLUGINS,
    }
    for folder in ("network", "plugins", "addresses"):
        (scratch / folder).mkdir()
    for name, target in (
        ("containerd.toml", "containerd.toml"),
        ("kubelet.yaml", "kubelet.yaml"),
        ("bridge.json", "network/bridge.conflist"),
    ):
        text = Template((STAND_INS / name).read_text()).substitute(values)
        (scratch / target).write_text(text)
    (scratch / "pods.resolv.conf").write_text(f"nameserver {ADDRESS}\n")
    # What is run beside the pods finds services by the names that pods use.
    search = "search resize-pipeline.svc.cluster.local\n"
    (scratch / "resolv.conf").write_text(f"{search}nameserver {ADDRESS}\n")
    bind = ("mount", "--bind", scratch / "resolv.conf", "/etc/resolv.conf")
    subprocess.run(server.command(*bind), check=True)
    forward = ("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    subprocess.run(server.command(*forward), check=True)


def _start(server: ApiServer) -> None:
    scratch, config = server.scratch, f"--kubeconfig={server.kubeconfig}"
    server.start("containerd", "containerd", "--config", scratch / "containerd.toml")
    server.start(
        "controllers",
        *(program("kube-controller-manager"), config, "--leader-elect=false"),
        f"--service-account-private-key-file={server.key}",
        f"--root-ca-file={server.certificates / 'apiserver.crt'}",
        f"--cert-dir={scratch / 'controllers'}",
    )
    server.start(
        "scheduler",
        *(program("kube-scheduler"), config, "--leader-elect=false"),
        f"--cert-dir={scratch / 'scheduler'}",
    )
    server.start("proxy", program("kube-proxy"), config, f"--hostname-override={NAME}", *PROXY)
    python, names = REPOSITORY / ".venv/bin/python", Path(__file__).with_name("names.py")
    server.start("names", python, names, TOKEN, ADDRESS)
    wait_until(
        lambda: (
            server.kubectl("version").returncode == 0
            and subprocess.run(
                server.command("test", "-S", "/run/containerd.sock"), check=False
            ).returncode
            == 0
        ),
        READY_TIMEOUT_S,
        "containerd",
    )
    server.start(
        "kubelet",
        *(program("kubelet"), config, f"--config={scratch / 'kubelet.yaml'}"),
        *(f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"),
        *(f"--root-dir={scratch / 'kubelet'}", f"--cert-dir={scratch / 'kubelet-certificates'}"),
    )
