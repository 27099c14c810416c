"""Kubernetes' API server, built from its Go module, in a network namespace of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.local.servers.cache import cache_dir, cached
from tests.containers.engine import network_namespace

VERSION = "1.35.4"
GO_MOD = Path(__file__).with_name("go.mod")
"""Replaces the modules that live in Kubernetes' own repository by their releases."""
ADDRESS = "10.77.0.1"
"""Only in the namespace."""
BUILD_TIMEOUT_S = 3600
READY_TIMEOUT_S = 120
PROGRAMS = ("etcd", "go", "ip", "kubectl", "nsenter", "openssl")

KUBECONFIG = f"""\
apiVersion: v1
kind: Config
clusters:
  - name: c
    cluster: {{server: "https://{ADDRESS}:6443", insecure-skip-tls-verify: true}}
users: [{{name: u, user: {{token: administrator}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


def missing() -> str:
    """Return why no API server can be run here; empty if one can."""
    if os.geteuid():
        return "only root can make network namespaces"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def build(scratch: Path) -> Path:
    """Build the program; takes minutes."""
    shutil.copy(GO_MOD, scratch)
    version = f"-X k8s.io/component-base/version.gitVersion=v{VERSION}"
    subprocess.run(
        [
            *("go", "build", "-trimpath", "-ldflags", f"-s -w {version}"),
            *("-o", "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ],
        cwd=scratch,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return scratch / "kube-apiserver"


@dataclass
class ApiServer:
    """A running API server without nodes and controllers."""

    network: str
    scratch: Path

    def kubectl(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever it exits with."""
        return subprocess.run(
            self.inside("kubectl", f"--kubeconfig={self.scratch / 'kubeconfig'}", *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def inside(self, *command: str | Path) -> list[str | Path]:
        """Return a command in the namespace."""
        return ["nsenter", f"--net=/run/netns/{self.network}", *command]


@contextmanager
def api_server(scratch: Path) -> Generator[ApiServer]:
    """Run etcd and the API server, and end both."""
    program = cached(cache_dir() / "kubernetes" / VERSION / "kube-apiserver", build)
    key = scratch / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (scratch / "tokens.csv").write_text("administrator,admin,1,system:masters\n")
    (scratch / "kubeconfig").write_text(KUBECONFIG)
    with ExitStack() as stack:
        server = ApiServer(stack.enter_context(network_namespace()), scratch)
        address = ["ip", "-n", server.network, "addr", "add", f"{ADDRESS}/32", "dev", "lo"]
        subprocess.run(address, check=True)
        etcd = [f"--data-dir={scratch / 'etcd'}", "--unsafe-no-fsync"]
        kubernetes = [
            *("--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=10.96.0.0/16"),
            *(f"--advertise-address={ADDRESS}", f"--cert-dir={scratch / 'certificates'}"),
            *(f"--token-auth-file={scratch / 'tokens.csv'}", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--service-account-issuer=https://kubernetes.default.svc",
            # Nothing here makes the account that it would give to each pod.
            "--disable-admission-plugins=ServiceAccount",
        ]
        for name, command in (("etcd", ["etcd", *etcd]), ("api", [program, *kubernetes])):
            log = stack.enter_context((scratch / f"{name}.log").open("w"))
            process = subprocess.Popen(server.inside(*command), stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.kill)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while server.kubectl("get", "--raw=/readyz").returncode:
            assert time.monotonic() < deadline, (scratch / "api.log").read_text()[-4000:]
            time.sleep(0.5)
        yield server
