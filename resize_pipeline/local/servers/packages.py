"""The environment of the local servers."""

import importlib.util
import os
from pathlib import Path

from resize_pipeline.errors import UserError

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    """Give an environment without our settings, some of which the servers would take for theirs.

    MinIO and Kafka both read variables that begin with their own name, as ours do.
    """
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def package_dir(module: str, *, extra: str = "stack") -> Path:
    """Find the folder of a package of an extra, without importing it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        msg = (
            f"this needs the Python package that brings {module!r}: "
            f"pip install 'resize-pipeline[{extra}]'"
        )
        raise UserError(msg)
    return Path(spec.origin).parent
