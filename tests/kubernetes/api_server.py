"""Kubernetes' API server with etcd, in network, process and mount namespaces of their own.

When the first process of these namespaces ends, however it ends, the kernel ends all others and
removes their mounts.
"""

import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.containers.engine import namespaces, network_namespace
from tests.kubernetes.programs import program
from tests.support.waiting import wait_until

ADDRESS = "10.77.0.1"
"""Only in the namespace."""
TOKEN = "administrator"
READY_TIMEOUT_S = 180
PROGRAMS = ("catatonit", "etcd", "go", "ip", "kubectl", "nsenter", "openssl", "unshare")

KUBECONFIG = f"""\
apiVersion: v1
kind: Config
clusters:
  - name: c
    cluster: {{server: "https://{ADDRESS}:6443", insecure-skip-tls-verify: true}}
users: [{{name: u, user: {{token: {TOKEN}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


def missing() -> str:
    """Return why no API server can be run here; empty if one can."""
    if os.geteuid():
        return "only root can make network namespaces"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass
class ApiServer:
    """A running API server.

    Attributes:
        network: the name of its network namespace.
        inside: id of a process in its other namespaces.
        scratch: folder for its data, its keys and all logs.
    """

    network: str
    inside: int
    scratch: Path

    @property
    def key(self) -> Path:
        """The key that signs the tokens of service accounts."""
        return self.scratch / "key.pem"

    @property
    def certificates(self) -> Path:
        """The folder of the server's own certificate."""
        return self.scratch / "certificates"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's login."""
        return self.scratch / "kubeconfig"

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return a command that runs in the namespaces."""
        return [
            *("nsenter", f"--target={self.inside}", "--mount", "--pid"),
            *(f"--net=/run/netns/{self.network}", *words),
        ]

    def start(self, name: str, *words: str | Path) -> None:
        """Start a process, which ends with the namespaces."""
        with self.log(name).open("w") as log:
            subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self, name: str) -> Path:
        """Return the file with a process's output."""
        return self.scratch / f"{name}.log"

    def kubectl(
        self, *arguments: str | Path, stdin: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever it exits with."""
        return subprocess.run(
            self.command("kubectl", f"--kubeconfig={self.kubeconfig}", *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def ask(self, *arguments: str | Path, stdin: str = "", timeout: float = 120) -> str:
        """Run kubectl, and return what it printed."""
        done = self.kubectl(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout


@contextmanager
def api_server(scratch: Path, options: Sequence[str] = ()) -> Generator[ApiServer]:
    """Run etcd and the API server, and end both.

    Args:
        scratch: an empty folder.
        options: further options of the API server.
    """
    with ExitStack() as stack:
        network = stack.enter_context(network_namespace())
        server = ApiServer(network, stack.enter_context(namespaces(is_offline=True)), scratch)
        subprocess.run(
            ["openssl", "genrsa", "-out", server.key, "2048"], check=True, capture_output=True
        )
        (scratch / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
        server.kubeconfig.write_text(KUBECONFIG)
        _link(network)
        server.start("etcd", "etcd", f"--data-dir={scratch / 'etcd'}", "--unsafe-no-fsync")
        server.start(
            "api",
            program("kube-apiserver"),
            *("--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=10.96.0.0/16"),
            *(f"--advertise-address={ADDRESS}", f"--cert-dir={server.certificates}"),
            *(f"--token-auth-file={scratch / 'tokens.csv'}", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={server.key}",),
            *(f"--service-account-signing-key-file={server.key}",),
            "--service-account-issuer=https://kubernetes.default.svc",
            # Nobody answers the names of nodes.
            "--kubelet-preferred-address-types=InternalIP",
            *options,
        )
        try:
            wait_until(
                lambda: server.kubectl("get", "--raw=/readyz").returncode == 0,
                READY_TIMEOUT_S,
                "the API server",
            )
        except AssertionError as error:
            raise AssertionError(server.log("api").read_text()[-4000:]) from error
        yield server


def _link(network: str) -> None:
    """Give the namespace an address, on a link that leads nowhere."""
    for words in (
        ("link", "add", "uplink", "type", "veth", "peer", "name", "nowhere"),
        ("addr", "add", f"{ADDRESS}/24", "dev", "uplink"),
        ("link", "set", "nowhere", "up"),
        ("link", "set", "uplink", "up"),
        ("route", "add", "default", "via", "10.77.0.254", "dev", "uplink"),
    ):
        subprocess.run(["ip", "-n", network, *words], check=True)
