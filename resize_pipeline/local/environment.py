"""The environment of the local servers."""

import os

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    """Give an environment without our settings, some of which the servers would take for theirs.

    MinIO and Kafka both read variables that begin with their own name, as ours do.
    """
    return {name: os.environ[name] for name in KEPT if name in os.environ}
