"""Settings of the local stack and of Dagster's UI."""

import base64
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, field_validator

from resize_pipeline.addresses import PORT_MAX, host_port, is_loopback
from resize_pipeline.settings.base import BasicSettings
from resize_pipeline.validators import checked_host, of_length, parse_hosts

UI_PASSWORD_MIN = 12


class LocalSettings(BasicSettings):
    """What `up` starts, where it keeps its data, and who may open the UI."""

    local_stack: bool = True
    """Let `up` start whichever of Kafka and MinIO has an address on this machine."""
    local_dir: Path = Path(".local")
    """Folder for the data, logs and credentials of the local stack."""
    ui_host: Annotated[str, AfterValidator(checked_host)] = "127.0.0.1"
    """Host name or IP address that the Dagster UI listens on."""
    ui_port: Annotated[int, Field(ge=1, le=PORT_MAX)] = 3000
    """Port of the Dagster UI."""
    ui_allowed_hosts: str | None = None
    """Other names that the UI is opened by, such as that of a proxy, separated by commas."""
    ui_password: Annotated[SecretStr | None, of_length(UI_PASSWORD_MIN)] = None
    """Password of the UI that `up` and deploy/ start, with any user name; unset requires none."""
    metrics_host: Annotated[str, AfterValidator(checked_host)] = "127.0.0.1"
    """Host name or IP address that `resize-pipeline metrics` listens on."""
    metrics_port: Annotated[int, Field(ge=1, le=PORT_MAX)] = 9464
    """Port of `resize-pipeline metrics`; `up` serves the metrics at the UI's address."""
    minio_bin: Path | None = None
    """MinIO program to run instead of the one on PATH or in the cache."""

    @field_validator("ui_allowed_hosts")
    @classmethod
    def _is_list_of_hosts(cls, value: str | None) -> str | None:
        parse_hosts(value or "")
        return value

    @property
    def ui_warnings(self) -> list[str]:
        """Warnings to show whenever the UI starts."""
        if is_loopback(self.ui_host) or self.ui_password:
            return []
        warning = (
            f"the UI listens on UI_HOST={self.ui_host} without a password: whoever reaches "
            f"port {self.ui_port} controls the pipeline: set UI_PASSWORD, or UI_HOST=127.0.0.1"
        )
        return [warning]

    @property
    def metrics_warnings(self) -> list[str]:
        """Warnings to show when the metrics start."""
        if is_loopback(self.metrics_host) or self.ui_password:
            return []
        warning = (
            f"the metrics listen on METRICS_HOST={self.metrics_host} without a password: whoever "
            f"reaches port {self.metrics_port} can read them: set UI_PASSWORD, or "
            "METRICS_HOST=127.0.0.1"
        )
        return [warning]

    @property
    def ui_url(self) -> str:
        """Address of the Dagster UI."""
        return f"http://{host_port((self.ui_host, self.ui_port))}"

    @property
    def ui_headers(self) -> dict[str, str]:
        """Headers that requests to the UI must have: the password, if there is one."""
        if self.ui_password is None:
            return {}
        credentials = f"resize-pipeline:{self.ui_password.get_secret_value()}".encode()
        return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}

    @property
    def allowed_hosts(self) -> list[str]:
        """Other names of the UI as a list, in lower case, each HOST or HOST:PORT."""
        return parse_hosts(self.ui_allowed_hosts or "")
