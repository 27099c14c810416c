"""Reads the settings: from the environment, `.env`, and files in LOCAL_DIR and SECRETS_DIR.

An exported variable overrides `.env`, which overrides the credentials that `resize-pipeline
provision` wrote to LOCAL_DIR, which override the files in SECRETS_DIR. Also warns about lines of
`.env` that have no effect. What the settings mean, and which values they allow, is in `settings/`.
"""

import functools
import logging
import os
import re
import reprlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from dotenv.parser import Binding, parse_stream
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from resize_pipeline.errors import UserError
from resize_pipeline.secret_files import check_secrets
from resize_pipeline.settings import Settings
from resize_pipeline.validators import nearest

DOTENV = Path(".env")
CREDENTIALS_FILE = "credentials.env"

OWN_PREFIXES = (
    "NOTIFY_KAFKA_",
    "RUN_MAX_",
    "RUN_MIN_",
    "RUN_RETENTION",
    "BATCH_MAX_",
    "SOURCE_MAX_",
    "SENSOR_MAX_",
    "CONTACT_SHEET",
)
"""Prefixes of names that no other software is known to use."""
FOREIGN_NAMES = frozenset(
    {"MINIO_ROOT_USER_FILE", "MINIO_ROOT_PASSWORD_FILE", "MINIO_KMS_SECRET_KEY"}
    | {"MINIO_ACCESS_KEY_FILE", "MINIO_SECRET_KEY_FILE", "KAFKA_DEFAULT_REPLICATION_FACTOR"}
)
"""Names that look like a misspelt setting, but that MinIO's server or Kafka's images use."""
KINDS = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "date": "must be a date such as 2026-01-31",
}
"""What a value must be, by the beginning of Pydantic's type of the error."""
SLIP_RATIO = 0.85
"""Lowest `difflib` ratio at which a name counts as a misspelt setting. UI_PROT has 0.86 and
MINIO_ENDPIONT 0.93; of foreign names, MINIO_SITE_REGION has 0.83 and KAFKA_HOST 0.76."""

_REPR = reprlib.Repr()
_REPR.maxstring = 100


def load_settings(*, warn: bool = True) -> Settings:
    """Read the settings.

    Args:
        warn: warn on standard error, once in a process, about lines of `.env` that have no effect
            but look as if they should.

    Raises:
        UserError: a value is wrong; the message names the variable and what is allowed.
    """
    try:
        if warn:
            _warn_of_dotenv()
        # LOCAL_DIR and SECRETS_DIR determine where the credentials are, so they are read first.
        first = Settings(_env_file=DOTENV)  # pyright: ignore[reportCallIssue]
        if first.secrets_dir:
            check_secrets(first.secrets_dir, frozenset(Settings.model_fields))
        settings = Settings(
            _env_file=(first.local_dir / CREDENTIALS_FILE, DOTENV),  # pyright: ignore[reportCallIssue]
            _secrets_dir=first.secrets_dir,  # pyright: ignore[reportCallIssue]
        )
    except ValidationError as error:
        problems = "; ".join(map(_described, error.errors(include_url=False)))
        msg = f"wrong settings, in the environment or in .env: {problems}"
        raise UserError(msg) from error
    except UnicodeDecodeError as error:
        msg = f".env or LOCAL_DIR/{CREDENTIALS_FILE} is not text ({error.reason}): save it as UTF-8"
        raise UserError(msg) from error
    except OSError as error:
        msg = f"{error.filename or DOTENV} can't be read: {error.strerror}"
        raise UserError(msg) from error
    for warning in settings.warnings:
        _warn_once(f"resize-pipeline: {warning}\n")
    return settings


def _described(problem: ErrorDetails) -> str:
    """Describe in one line what is wrong with a setting, without showing a secret."""
    if problem["type"] == "value_error":
        reason = str(problem["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
    else:
        kind = problem["type"].partition("_")[0]
        reason = KINDS.get(kind) or re.sub("^Input should be ", "is not ", problem["msg"])
    if not problem["loc"]:
        return reason
    name, value = str(problem["loc"][0]), problem["input"]
    annotation = Settings.model_fields[name].annotation
    # In any setting, the part before an @ may be a password.
    is_secret = SecretStr in {annotation, *get_args(annotation)} or "@" in str(value)
    return f"{name.upper()}: {reason if is_secret else f'{_REPR.repr(value)} {reason}'}"


def dotenv_warnings(bindings: Iterable[Binding]) -> list[str]:
    """Return warnings about lines of a `.env` that have no effect but look as if they should.

    Other software uses the file, too, so a name causes a warning only if it resembles a setting.
    The warnings show no values.
    """
    names = [name.upper() for name in Settings.model_fields]
    found: list[str] = []
    for binding in bindings:
        text = binding.original.string
        line = binding.original.line + text[: -len(text.lstrip()) or None].count("\n")
        name = (binding.key or "").upper()
        if binding.error:
            found.append(f"line {line} is ignored: must be NAME=VALUE, with quotes in pairs")
        elif name in names:
            if binding.value is None:
                found.append(f"line {line} is ignored: {name} must be followed by =VALUE")
        elif name not in FOREIGN_NAMES and (
            name.startswith(OWN_PREFIXES) or nearest(name, names, SLIP_RATIO)
        ):
            meant = nearest(name, names, 0.0)
            found.append(f"line {line} is ignored: {name} is not a setting, {meant} is")
    return found


def _warn_of_dotenv() -> None:
    # python-dotenv also warns about lines that it can't parse, without the file's name.
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)
    if DOTENV.is_file():
        with DOTENV.open(encoding="utf-8") as file:
            for warning in dotenv_warnings(parse_stream(file)):
                _warn_once(f"resize-pipeline: {DOTENV}, {warning}\n")


@functools.cache
def _warn_once(line: str) -> None:
    sys.stderr.write(line)


def export_secrets(settings: Settings) -> None:
    """Export secrets that were read from files to the environment, where `dg.EnvVar` reads them."""
    for name in (
        *("minio_access_key", "minio_secret_key"),
        *("kafka_sasl_password", "kafka_ssl_key_password", "webhook_url"),
    ):
        secret: SecretStr | None = getattr(settings, name)
        # An empty variable counts as unset, as it does in `Settings`.
        if secret is not None and not os.environ.get(name.upper()):
            os.environ[name.upper()] = secret.get_secret_value()
