"""Reads secrets from files, as container engines and Kubernetes mount them.

SECRETS_DIR is a folder with a file for each secret, named like its variable in lower case.
"""

import os
from pathlib import Path

from resize_pipeline.errors import UserError

SECRETS_DIR = "SECRETS_DIR"
SECRET_MAX_BYTES = 4096
"""Largest file of a secret: more than any password, key or address has."""


def read_secret(path: Path) -> str:
    """Return the one line that a file holds, without the newline at its end.

    Raises:
        UserError: the file is no readable text of one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_MAX_BYTES + 1)
    except IsADirectoryError as error:
        # An engine may make a folder where the file to mount is missing.
        msg = f"{path} is a folder: put the secret into a file of that name, and mount it again"
        raise UserError(msg) from error
    except OSError as error:
        msg = (
            f"{path} can't be read by user {os.geteuid()} ({error.strerror}): make it a file that "
            "this user may read"
        )
        raise UserError(msg) from error
    if len(data) > SECRET_MAX_BYTES:
        msg = f"{path} has more than {SECRET_MAX_BYTES} bytes: must be a secret of one line"
        raise UserError(msg)
    try:
        value = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        msg = f"{path} is not text ({error.reason}): must be a secret of one line in UTF-8"
        raise UserError(msg) from error
    if not value.strip():
        msg = f"{path} is empty: write the secret into it"
        raise UserError(msg)
    if not value.isprintable():
        msg = f"{path} has several lines or a control character: must be a secret of one line"
        raise UserError(msg)
    if value != value.strip():
        # Some servers drop the blanks, others take them as a part of the secret.
        msg = f"{path} begins or ends with a blank: remove it from the file and from the secret"
        raise UserError(msg)
    return value


def variable(name: str) -> str | None:
    """Return an environment variable or, if it is unset or empty, the secret of that name.

    Raises:
        UserError: there is a file for it, but not with a secret.
    """
    if value := os.environ.get(name):
        return value
    folder = os.environ.get(SECRETS_DIR)
    path = Path(folder or ".") / name.lower()
    return read_secret(path) if folder and path.exists() else None


def check_secrets(folder: Path, names: frozenset[str]) -> None:
    """Check the files that are named like one of these settings.

    Raises:
        UserError: the folder can't be read, or one of the files is not a secret.
    """
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        msg = (
            f"SECRETS_DIR: {folder} can't be read by user {os.geteuid()} ({error.strerror}): set "
            "it to the folder that holds the secrets, or unset it"
        )
        raise UserError(msg) from error
    for file in files:
        if file.name.lower() in names:
            read_secret(file)
