"""Brings a compose file up as it stands, by podman-compose.

Podman 4.3 can't wait for a service's health, and without systemd nothing runs the health checks.
Here services are started in the order of `depends_on`, and their own checks run until they pass.
Nor does its cleanup start a killed service again, which is done here as the restart policy says.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.containers.engine import Engine

HEALTHY_S = 240
ATTEMPTS = 4
NO_ANSWER = ("i/o timeout", "does not answer")


@dataclass
class Deployment:
    """The services of a compose file, in a network of their own.

    Attributes:
        options: what `.env` says.
    """

    engine: Engine
    network: str
    file: Path
    environment_file: Path
    described: Mapping[str, Mapping[str, Any]]
    name: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Mapping[str, Any]]:
        """The services that the options select, by name."""
        selected = {*self.options.get("COMPOSE_PROFILES", "").split(",")}
        return {
            name: one
            for name, one in self.described.items()
            if selected.issuperset(one.get("profiles", ()))
        }

    @property
    def running(self) -> list[str]:
        """The services that don't end by themselves."""
        return [name for name, one in self.services.items() if one["restart"] != "no"]

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """Run podman-compose."""
        program = shutil.which("podman-compose", path=os.environ["CONTAINERS_BIN"])
        assert program, "`make test-containers` installs podman-compose"
        lines = "".join(f"{name}={value}\n" for name, value in self.options.items())
        self.environment_file.write_text(lines)
        return self.engine.run(
            [
                *(program, "--env-file", self.environment_file, "--file", self.file),
                *("--in-pod=false", *arguments),
            ],
            network=self.network,
            cwd=self.file.parent,
            timeout=timeout,
        )

    def podman(self, *arguments: str, timeout: float = 300) -> str:
        """Run podman in the deployment's network."""
        return self.engine.podman(*arguments, network=self.network, timeout=timeout)

    def container(self, service: str, number: int = 1) -> str:
        """Return the name of a service's container."""
        return f"{self.name}_{service}_{number}"

    def containers(self, service: str) -> list[str]:
        """Return the names of all of a service's containers."""
        count = int(self.options["WORKERS"]) if "scale" in self.services[service] else 1
        return [self.container(service, number + 1) for number in range(count)]

    def order(self) -> Iterator[str]:
        """Return the services, each after those that it depends on."""
        done: list[str] = []
        while len(done) < len(self.services):
            free = [
                name
                for name, one in self.services.items()
                if name not in done and set(one.get("depends_on", {})) <= set(done)
            ]
            assert free, f"in a circle: {self.services.keys() - set(done)}"
            yield from free
            done += free

    def up(self) -> None:
        """Start everything, again if its options have changed, and wait until it is healthy."""
        for service in self.order():
            self.compose("up", "--detach", "--no-build", "--no-deps", service)
            if self.services[service].get("restart") == "no":
                self._wait_done(service)
            else:
                self.wait_healthy(service)

    def _wait_done(self, service: str) -> None:
        """Wait until a service that ends has ended well."""
        for _ in range(ATTEMPTS):
            if self.podman("wait", self.container(service)).strip() == "0":
                return
            # Podman's name server sometimes leaves a question without an answer.
            said = self.logs(service)
            assert any(words in said for words in NO_ANSWER), said
            self.podman("start", self.container(service))
        raise AssertionError(self.logs(service))

    def is_healthy(self, container: str) -> bool:
        """Run a container's own health check once."""
        command = ("podman", "healthcheck", "run", container)
        answer = self.engine.run(command, network=self.network, check=False, timeout=120)
        running = self.engine.run(
            ("podman", "inspect", "--format", "{{.State.Running}}", container),
            check=False,
        )
        return running.strip() == "true" and "unhealthy" not in answer and "rror" not in answer

    def wait_healthy(self, service: str) -> None:
        """Wait until the health checks of all of a service's containers pass."""
        deadline = time.monotonic() + HEALTHY_S
        for container in self.containers(service):
            while not self.is_healthy(container):
                assert time.monotonic() < deadline, f"{container}: {self.logs(service)}"
                time.sleep(1)

    def logs(self, service: str) -> str:
        """Return the end of what a service wrote."""
        return "".join(self.podman("logs", "--tail", "60", one) for one in self.containers(service))

    def kill(self, service: str) -> None:
        """Kill a service's main processes, as the kernel does when memory runs out."""
        for container in self.containers(service):
            [found] = json.loads(self.podman("inspect", container))
            assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
            self.engine.run(["kill", "-KILL", str(found["State"]["Pid"])])
            self.podman("wait", container)
            self.podman("start", container)

    def down(self) -> None:
        """Stop everything and delete its data."""
        self.compose("stop", timeout=600)
        self.compose("down", "--volumes", timeout=600)
