"""Podman with a storage of its own, and containers that reach nothing but their own network.

Everything runs below one process in mount and process namespaces of its own: when that process
ends, however it ends, the kernel ends all others and removes their mounts.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = (
    *("podman", "runc", "debootstrap", "iptables", "catatonit"),
    *("ip", "nsenter", "unshare", "mount"),
)
HELPERS = ("netavark", "aardvark-dns")
HELPERS_DIR = Path("/usr/lib/podman")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# crun does not start containers where cgroups v1 and v2 are mixed; runc does. Podman would raise
# the limit of processes, which fails without CAP_SYS_RESOURCE.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
init_path = "{init}"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{scratch}/tmp"
static_dir = "{scratch}/containers"
volume_path = "{scratch}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{scratch}/networks"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{images}"
runroot = "{scratch}/run"
"""


def missing() -> str:
    """Return why nothing can be run here; empty if it can."""
    if os.geteuid():
        return "only root can run containers without a container engine's own user namespaces"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    absent += [name for name in HELPERS if not (HELPERS_DIR / name).exists()]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def namespaces(*, is_offline: bool) -> Generator[int]:
    """Keep a process in mount and process namespaces of its own, and give its id.

    Args:
        is_offline: whether no name server is known; containers would wait for one that their
            network can't reach.
    """
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Podman keeps state in /run, such as the addresses of networks.
    script = "mount -t tmpfs tmpfs /run && echo ready && exec catatonit -P"
    if is_offline:
        script = f"mount --bind /dev/null /etc/resolv.conf && {script}"
    with subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE) as outer:
        assert outer.stdout
        assert outer.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        try:
            yield int(children)
        finally:
            outer.kill()


@dataclass
class Engine:
    """Podman, whose images lie in one folder, and all else in another.

    Attributes:
        images: where images are kept from one run to the next.
        scratch: folder for everything else; a short path, as it holds sockets.
        inside: id of a process whose namespaces everything runs in.
    """

    images: Path
    scratch: Path
    inside: int
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.images.mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "networks", "run"):
            (self.scratch / name).mkdir(parents=True, exist_ok=True)
        values = {
            "scratch": self.scratch,
            "images": self.images,
            "init": shutil.which("catatonit"),
        }
        files = {
            "CONTAINERS_CONF": CONTAINERS_CONF.format_map(values),
            "CONTAINERS_STORAGE_CONF": STORAGE_CONF.format_map(values),
            "CONTAINERS_REGISTRIES_CONF": 'unqualified-search-registries = ["docker.io"]\n',
        }
        self.environment = dict(os.environ)
        for name, text in files.items():
            path = self.scratch / f"{name.lower()}.conf"
            path.write_text(text)
            self.environment[name] = str(path)

    def podman(
        self, *arguments: str | Path, network: str | None = None, timeout: float = 600
    ) -> str:
        """Run podman, in a network namespace if one is named, and return its output."""
        return self.run(("podman", *arguments), network=network, timeout=timeout)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        network: str | None = None,
        cwd: Path | None = None,
        timeout: float = 600,
        check: bool = True,
    ) -> str:
        """Run a command with podman's configuration, and return what it printed."""
        inside = ["nsenter", f"--target={self.inside}", "--mount", "--pid"]
        inside += [f"--net=/run/netns/{network}"] if network else []
        inside += [f"--wdns={cwd}"] if cwd else []
        done = subprocess.run(
            [*inside, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            msg = f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout[-8000:]}"
            raise AssertionError(msg)
        return done.stdout

    def clear(self) -> None:
        """Remove every container, also what an interrupted run left in the storage."""
        self.podman("rm", "--all", "--force", "--depend", "--time=0")
        self.podman("volume", "prune", "--force")
        for left in self.podman("ps", "--all", "--external", "--quiet").split():
            self.podman("rm", "--force", left)

    def has_image(self, name: str) -> bool:
        """Return whether an image is there."""
        return name in self.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()

    def build(self, name: str, dockerfile: Path, context: Path, *options: str) -> None:
        """Build an image; its packages come from the registries that this machine reaches."""
        # Those registries may need the certificates of this machine, and uv to be told so.
        told = self.scratch / "uv.toml"
        told.write_text("system-certs = true\n")
        self.podman(
            *("build", "--network=host", "--pull-never", "--format=docker", "--quiet"),
            *(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--volume={told}:/etc/uv/uv.toml:ro"),
            *(*options, f"--file={dockerfile}", f"--tag={name}", context),
            timeout=1200,
        )


@contextmanager
def network_namespace() -> Generator[str]:
    """Make a network namespace that reaches only itself, and remove it."""
    name = f"rp-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
