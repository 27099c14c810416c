"""What a server program of a Python package needs: the package's folder, a clean environment."""

import importlib.util
import os
from pathlib import Path

from resize_pipeline.errors import UserError

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    """Return an environment without this project's settings, for a server.

    MinIO and Kafka read every variable that begins with their name, as many settings do.
    """
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def package_dir(module: str, *, extra: str = "stack") -> Path:
    """Return the folder of a package that an extra installs, without importing it.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        msg = f"the Python module {module!r} is missing: pip install 'resize-pipeline[{extra}]'"
        raise UserError(msg)
    return Path(spec.origin).parent
