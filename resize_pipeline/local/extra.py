"""The wheels of the extra `stack`: Java, Go and a Maven resolver, all large and all optional."""

import importlib.util
from pathlib import Path

from resize_pipeline.errors import UserError


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
