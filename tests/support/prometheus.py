"""Prometheus and promtool, built from their Go module with the Go of the extra `stack`."""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.servers.cache import cache_dir, cached
from resize_pipeline.local.servers.packages import package_dir
from tests.support.waiting import wait_until

VERSION = "v0.316.0"
"""The Go module's version of Prometheus 3.16."""
MODULE = "github.com/prometheus/prometheus"
BUILD_TIMEOUT_S = 3600
READY_TIMEOUT_S = 60.0


def programs() -> Path:
    """Return the folder with `promtool` and `prometheus`, after building them once."""
    return cached(cache_dir() / "prometheus" / VERSION, _build)


def _build(scratch: Path) -> Path:
    target = scratch / "bin"
    environment = os.environ | {
        "GOROOT": str(package_dir("go")),
        "GOPATH": str(scratch / "gopath"),
        "GOCACHE": str(scratch / "gocache"),
        "GOBIN": str(target),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    # Without the clients of all clouds, which make most of the build.
    names = [f"{MODULE}/cmd/{name}@{VERSION}" for name in ("promtool", "prometheus")]
    go = package_dir("go") / "bin" / "go"
    subprocess.run(
        [go, "install", "-trimpath", "-tags", "remove_all_sd", *names],
        cwd=scratch,
        env=environment,
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return target


@contextmanager
def prometheus(folder: Path, configuration: str) -> Iterator[str]:
    """Run a Prometheus with this configuration, and give its address."""
    file = folder / "prometheus.yml"
    file.write_text(configuration)
    address = f"127.0.0.1:{free_port()}"
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                programs() / "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: _is_ready(address, process), READY_TIMEOUT_S, log.read_text())
            yield address
        finally:
            process.terminate()
            process.wait(30)


def query(address: str, text: str) -> list[dict]:
    """Run a PromQL query, and give its result."""
    parameters = urllib.parse.urlencode({"query": text})
    url = f"http://{address}/api/v1/query?{parameters}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return found["data"]["result"]


def _is_ready(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it has ended"
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
            return True
    except OSError:
        return False
