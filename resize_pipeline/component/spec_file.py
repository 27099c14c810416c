"""Writes the renditions of a defs.yaml into a spec file, which all that runs reads them from."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from resize_pipeline.errors import UserError


def written_spec(document: Mapping[str, Any]) -> Path:
    """Return a file with this content in the user's cache, after writing it if it is not there.

    Its name follows its content: a run that began before a change still finds its own file.

    Args:
        document: a spec: `renditions`, and perhaps `analyses`.

    Raises:
        UserError: it holds something else than YAML has, or the cache is not writable.
    """
    try:
        text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).encode()
    except yaml.YAMLError as error:
        msg = "renditions: a template gives something else than text, numbers, lists and mappings"
        raise UserError(msg) from error
    folder = platformdirs.user_cache_path("resize-pipeline") / "components"
    path = folder / f"{hashlib.sha256(text).hexdigest()}.yaml"
    if path.exists():
        return path
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text)
        draft.replace(path)
    except OSError as error:
        msg = (
            f"{path} can't be written: {error.strerror}; set XDG_CACHE_HOME to a folder that you "
            "own, or put the renditions into a file and write its name instead"
        )
        raise UserError(msg) from error
    return path
