"""MinIO: found on this machine, or built from source with its documented `go install`."""

import http.client
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path

from resize_pipeline.addresses import host_port
from resize_pipeline.errors import UserError, one_line
from resize_pipeline.local.processes.guarded import GuardedProcess
from resize_pipeline.local.processes.supervisor import Service, tail
from resize_pipeline.local.servers.cache import cache_dir, cached
from resize_pipeline.local.servers.packages import clean_environment, package_dir
from resize_pipeline.local.servers.progress import Update, progress
from resize_pipeline.local.servers.versions import (
    MINIO_COMMIT,
    MINIO_COMMIT_TIME,
    MINIO_MODULE,
    MINIO_PACKAGES,
    MINIO_RELEASE_TAG,
    MINIO_SUM,
    MINIO_VERSION,
)
from resize_pipeline.settings import Settings

PROBE_TIMEOUT_S = 1.0
VERSION_TIMEOUT_S = 20.0
BUILD_POLL_S = 1.0


def minio_service(settings: Settings) -> Service:
    """Prepare MinIO: find its program, or build it.

    Raises:
        UserError: MINIO_BIN is not an executable file, the build failed, or the extra `stack` is
            missing.
    """
    program = minio_program(settings)
    local_dir = settings.local_dir.absolute()
    data = local_dir / "minio"
    data.mkdir(parents=True, exist_ok=True)
    user, password = settings.administrator
    environment = clean_environment() | {
        "MINIO_ROOT_USER": user,
        "MINIO_ROOT_PASSWORD": password,
        "MINIO_REGION": settings.minio_region,
        # The console would need a second port, and the update check needs the internet.
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    return Service(
        name="minio",
        argv=[
            *(str(program), "server"),
            f"--address={host_port(settings.minio_address)}",
            # Ignore the certificates of any other MinIO in the home folder.
            f"--certs-dir={local_dir / 'minio-certs'}",
            str(data),
        ],
        env=environment,
        cwd=local_dir,
        log_file=local_dir / "logs" / "minio.log",
        ready=lambda: minio_answers(settings.minio_address),
        address=settings.minio_address,
        setting="MINIO_ENDPOINT",
        version=_version_of(program),
    )


def minio_program(settings: Settings) -> Path:
    """Return MINIO_BIN, else `minio` on PATH, else the cached build, after building it if missing.

    Raises:
        UserError: MINIO_BIN is not an executable file, the build failed, or the extra `stack` is
            missing.
    """
    if settings.minio_bin:
        chosen = settings.minio_bin.absolute()
        if not chosen.is_file():
            msg = f"MINIO_BIN is {chosen}, which does not exist: correct it or unset it"
            raise UserError(msg)
        if not os.access(chosen, os.X_OK):
            msg = f"MINIO_BIN is {chosen}, which is not executable: chmod +x {chosen}"
            raise UserError(msg)
        return chosen
    installed = shutil.which("minio")
    if installed:
        return Path(installed).absolute()
    system = f"{platform.system()}-{platform.machine()}".lower()
    return cached(cache_dir() / "minio" / f"{MINIO_VERSION}-{system}", _build) / "minio"


def minio_answers(address: tuple[str, int], *, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether the server reports that it is ready; `tls` makes the request HTTPS."""
    connection = (
        http.client.HTTPConnection(*address, timeout=PROBE_TIMEOUT_S)
        if tls is None
        else http.client.HTTPSConnection(*address, timeout=PROBE_TIMEOUT_S, context=tls)
    )
    try:
        connection.request("GET", "/minio/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _version_of(program: Path) -> str:
    """Return the version that a MinIO program prints; empty if it prints none."""
    try:
        result = subprocess.run(
            [program, "--version"],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version (\S+)", result.stdout)
    return found[1] if found else ""


def _build(scratch: Path) -> Path:
    """Build MinIO in a scratch folder and return the folder that contains only `minio`.

    Raises:
        UserError: the build failed; the message names the log.
    """
    # Outside the scratch folder, which is removed.
    log_file = cache_dir() / "minio" / "build.log"
    _check_module(scratch)
    # With a guard, a failed or interrupted build leaves no compilers behind.
    with log_file.open("wb") as log, progress("building MinIO (once)") as update:
        build = GuardedProcess(
            _go_install(), env=_go_environment(scratch), cwd=scratch, output=log, grace_s=2.0
        )
        try:
            code = _watch(build, log_file, update)
        finally:
            build.stop()
        program = scratch / "bin" / "minio"
        if code != 0 or not program.is_file():
            reason = next(reversed([line for line in tail(log_file) if line.strip()]), "no output")
            msg = f"MinIO could not be built (exit code {code}): {reason.strip()}; log: {log_file}"
            raise UserError(msg)
    return program.parent


def _check_module(scratch: Path) -> None:
    """Download MinIO's source, and compare it with what is pinned.

    Raises:
        UserError: it can't be downloaded, or is not what is pinned.
    """
    with progress("downloading MinIO's source"):
        done = subprocess.run(
            [str(_go()), "mod", "download", "-json", f"{MINIO_MODULE}@{MINIO_VERSION}"],
            env=_go_environment(scratch),
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if answer.get("Sum") != MINIO_SUM:
        reason = answer.get("Error") or done.stderr or f"its checksum is {answer.get('Sum')}"
        msg = (
            f"the source of MinIO {MINIO_VERSION} is not what is pinned: {one_line(reason)}; set "
            "GOPROXY to another proxy, or MINIO_BIN to a MinIO of your own"
        )
        raise UserError(msg)


def _go() -> Path:
    return package_dir("go") / "bin" / "go"


def _go_install() -> list[str]:
    stamps = {
        "Version": MINIO_COMMIT_TIME,
        "ReleaseTag": MINIO_RELEASE_TAG,
        "CommitID": MINIO_COMMIT,
        "ShortCommitID": MINIO_COMMIT,
    }
    stamp_flags = [f"-X {MINIO_MODULE}/cmd.{name}={value}" for name, value in stamps.items()]
    return [
        *(str(_go()), "install", "-v", "-trimpath"),
        f"-ldflags=-s -w {' '.join(stamp_flags)}",
        f"{MINIO_MODULE}@{MINIO_VERSION}",
    ]


def _go_environment(scratch: Path) -> dict[str, str]:
    """Return the user's environment, for its proxies and certificates, with Go's folders."""
    return os.environ | {
        "GOROOT": str(package_dir("go")),
        "GOPATH": str(scratch / "gopath"),
        "GOCACHE": str(scratch / "gocache"),
        "GOTMPDIR": str(scratch),
        "GOBIN": str(scratch / "bin"),
        # By default modules are read-only, and the scratch folder could not be removed.
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip(),
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
    }


def _watch(build: GuardedProcess, log_file: Path, update: Update) -> int:
    """Report the progress of the build until it ends; return its exit code."""
    with log_file.open(errors="replace") as log:
        downloaded = compiled = 0
        while (code := build.wait(BUILD_POLL_S)) is None:
            downloads, packages = count_go_lines(log)
            downloaded += downloads
            compiled += packages
            if compiled:
                update(f"{compiled} of about {MINIO_PACKAGES} packages compiled")
            else:
                update(f"{downloaded} modules downloaded")
    return code


def count_go_lines(lines: Iterable[str]) -> tuple[int, int]:
    """Count the modules downloaded and the packages compiled in the output of `go install -v`."""
    downloads = packages = 0
    for line in lines:
        if line.startswith("go: downloading "):
            downloads += 1
        elif not line.startswith("go: "):
            packages += 1
    return downloads, packages
