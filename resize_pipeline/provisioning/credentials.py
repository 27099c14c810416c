"""Reads and writes the file with the pipeline's MinIO credentials."""

import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from resize_pipeline.errors import UserError

ACCESS_KEY = "MINIO_ACCESS_KEY"
SECRET_KEY = "MINIO_SECRET_KEY"  # noqa: S105


def read_credentials(path: Path | None) -> tuple[str, str] | None:
    """Return access key and secret key from a file; None unless it holds both.

    Raises:
        UserError: the file exists but can't be read.
    """
    values = dict(
        line.removeprefix("export ").split("=", 1) for line in _lines(path) if "=" in line
    )
    access_key, secret_key = values.get(ACCESS_KEY), values.get(SECRET_KEY)
    return (_unquoted(access_key), _unquoted(secret_key)) if access_key and secret_key else None


@contextmanager
def written_credentials(path: Path, access_key: str, secret_key: str) -> Generator[None]:
    """Replace the file with one that holds the credentials if the body succeeds.

    The secret is on disk before the body sends it to the server, so a full disk can't lose it.
    Other lines of an existing file are kept. The file is never readable by anyone but its owner.

    Raises:
        UserError: the file can't be written.
    """
    path = path.resolve()
    text = merge_lines(_lines(path), {ACCESS_KEY: access_key, SECRET_KEY: secret_key})
    with ExitStack() as stack:
        try:
            stack.enter_context(replaced_file(path, text))
        except OSError as error:
            msg = f"{path} can't be written ({error.strerror}): choose another --credentials-file"
            raise UserError(msg) from error
        yield


@contextmanager
def replaced_file(path: Path, text: str) -> Generator[None]:
    """Replace a file if the body succeeds; nobody but its owner can ever read it.

    The text is on disk before the body begins.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp creates the file with O_EXCL and mode 0600.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def merge_lines(lines: list[str], values: Mapping[str, str]) -> str:
    """Return a file's text with these variables set and all other lines unchanged."""
    kept = [
        line
        for line in lines
        if line.removeprefix("export ").split("=", 1)[0].strip() not in values
    ]
    return "".join(f"{line}\n" for line in [*kept, *(f"{k}={v}" for k, v in values.items())])


def _lines(path: Path | None) -> list[str]:
    try:
        return [] if path is None else path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} can't be read ({error}): choose another --credentials-file"
        raise UserError(msg) from error


def _unquoted(value: str) -> str:
    return value.strip().strip("\"'")
