"""Remembers what provisioning made, so that it never changes what another pipeline relies on.

Two checkouts with the same names on one server would otherwise take turns at breaking each other:
each `provision` would point the target at its own Kafka and give the user a new secret.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from resize_pipeline.errors import UserError
from resize_pipeline.provisioning.credentials import replaced_file
from resize_pipeline.settings import Settings

FILE = "provisioned.json"
"""File in LOCAL_DIR with what was made on each server. It holds no secrets."""
PIPELINE_NAME = "set PIPELINE_NAME to a name of your own"
"""What leaves most things to the other pipeline."""


class Made:
    """What this pipeline made on its MinIO server.

    Args:
        settings: the server, and LOCAL_DIR with the record.
        take_over: whether to change what others made, too.
    """

    def __init__(self, settings: Settings, *, take_over: bool) -> None:
        self.endpoint = settings.minio_endpoint
        self._path = settings.local_dir / FILE
        self.takes_over = take_over
        self._servers = _read(self._path)

    def value(self, what: str) -> Any:
        """Return the recorded value of a thing; None if it was not made here."""
        return self._servers.get(self.endpoint, {}).get(what)

    def check(
        self, problem: str, *, is_ours: bool, effect: str, instead: str = PIPELINE_NAME
    ) -> None:
        """Refuse to change a thing that another pipeline may have made.

        Args:
            problem: the thing, and what is wrong with it.
            is_ours: whether the thing is as this pipeline made it.
            effect: what a change does to the other pipeline.
            instead: what to do to leave the thing to the other pipeline.

        Raises:
            UserError: it was not made here, and taking over was not asked for.
        """
        if self.takes_over or is_ours:
            return
        msg = (
            f"MinIO at {self.endpoint}: {problem}, and it may belong to another pipeline: "
            f"{instead}, or run `resize-pipeline provision --take-over`, after which {effect}"
        )
        raise UserError(msg)

    def remember(self, what: str, value: object) -> None:
        """Record a thing that was made or changed.

        Raises:
            UserError: the record can't be written.
        """
        self._servers.setdefault(self.endpoint, {})[what] = value
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replaced_file(self._path, json.dumps(self._servers, indent=2)):
                pass
        except OSError as error:
            msg = f"{self._path} can't be written ({error.strerror}): correct LOCAL_DIR"
            raise UserError(msg) from error


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        msg = f"{path} can't be read ({type(error).__name__}): remove it, and repeat the command"
        raise UserError(msg) from error
    servers = cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
    return {endpoint: made for endpoint, made in servers.items() if isinstance(made, dict)}
