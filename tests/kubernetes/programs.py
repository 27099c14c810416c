"""Kubernetes' own programs, built from its Go module."""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from resize_pipeline.local.servers.cache import cache_dir, cached

VERSION = "1.35.4"
GO_MOD = Path(__file__).with_name("go.mod")
"""Replaces the modules that live in Kubernetes' own repository by their releases."""
BUILD_TIMEOUT_S = 3600


def program(name: str) -> Path:
    """Return one of Kubernetes' programs; its first build takes minutes."""
    return cached(cache_dir() / "kubernetes" / VERSION / name, partial(build, name))


def build(name: str, scratch: Path) -> Path:
    """Build a program into a folder."""
    shutil.copy(GO_MOD, scratch)
    major, minor, _ = VERSION.split(".")
    base = "k8s.io/component-base/version"
    told = {
        f"{base}.gitVersion": f"v{VERSION}",
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": f"v{VERSION}",
    }
    flags = " ".join(["-s", "-w", *(f"-X {key}={value}" for key, value in told.items())])
    subprocess.run(
        [
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
            name,
            f"k8s.io/kubernetes/cmd/{name}",
        ],
        cwd=scratch,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return scratch / name
