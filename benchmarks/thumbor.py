"""thumbor, the image server, to compare rendering with: in an environment of its own."""

import http.client
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from resize_pipeline.addresses import is_listening
from resize_pipeline.local.processes.ports import free_port

ENVIRONMENT = Path(".local/thumbor")
REQUIREMENT = "thumbor==7.8.0"
START_TIMEOUT_S = 60.0
CONFIGURATION = """
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = {folder!r}
STORAGE = "thumbor.storages.no_storage"
QUALITY = {quality}
WEBP_QUALITY = {quality}
AVIF_QUALITY = {quality}
"""


def install() -> Path:
    """Install thumbor if it is not there, and return its command."""
    command = ENVIRONMENT.absolute() / "bin" / "thumbor"
    if not command.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [command.with_name("python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(pip, check=True)
    return command


class Thumbor:
    """A thumbor server that renders one picture in each of some widths, whenever it is told to."""

    def __init__(
        self, data: bytes, suffix: str, folder: Path, *, sides: tuple[int, ...], quality: int
    ) -> None:
        """Start it, with a process for each processor; it stores nothing."""
        (folder / f"picture{suffix}").write_bytes(data)
        configuration = folder / "thumbor.conf"
        configuration.write_text(
            CONFIGURATION.format(folder=str(folder), quality=quality), encoding="utf-8"
        )
        self._paths = [f"/unsafe/fit-in/{side}x{side}/picture{suffix}" for side in sides]
        self._port = free_port()
        self._workers = 2
        self._process = subprocess.Popen(
            [
                *(install(), "--ip", "127.0.0.1", "--port", str(self._port)),
                *("--conf", configuration, "--processes", str(self._workers)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_listening(("127.0.0.1", self._port)):
            if time.monotonic() > deadline or self._process.poll() is not None:
                msg = "thumbor does not start"
                raise RuntimeError(msg)
            time.sleep(0.1)

    def run(self, count: int) -> None:
        """Render so many times."""
        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(lambda _: self.results(), range(count)))

    def results(self) -> list[bytes]:
        """Render the picture once, and return its renditions."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        made: list[bytes] = []
        for path in self._paths:
            connection.request("GET", path)
            response = connection.getresponse()
            made.append(response.read())
            if response.status != http.HTTPStatus.OK:
                msg = f"thumbor answered {response.status} to {path}"
                raise RuntimeError(msg)
        connection.close()
        return made

    def stop(self) -> None:
        """End the server, whose processes would outlive their parent."""
        found = psutil.Process(self._process.pid)
        processes = [*found.children(recursive=True), found]
        for one in processes:
            one.terminate()
        self._process.wait(10)
        psutil.wait_procs(processes, timeout=10)
