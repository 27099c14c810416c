"""Checks for names and addresses that S3, Kafka, MinIO and the network accept. Pure functions.

Each check returns its argument, or raises a ValueError that says what is allowed; the caller adds
the value to the message.
"""

import datetime as dt
import difflib
import ipaddress
import re
import reprlib
from collections.abc import Iterable
from importlib.util import find_spec
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from resize_pipeline.addresses import parse_host_port

TOPIC_MAX = 249
"""Longest name of a topic (Kafka's `org.apache.kafka.common.internals.Topic`)."""
DEAD_LETTERS = ".dead-letters"
"""Suffix that makes a topic's name that of its dead-letter topic."""
TARGET_MAX = 255 - len("minio-kafka-")
"""Longest identifier of a target: MinIO names a folder after it (255 bytes)."""
HOST_MAX = 253
"""Longest host name (RFC 1123), with its dots."""

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_PIPELINE_NAME = re.compile(r"[a-z][a-z0-9-]{1,18}[a-z0-9]")
_TARGET = re.compile(r"[A-Za-z0-9._-]+")
# Queues of MinIO, AIStor and RustFS (`arn:minio:sqs::NAME:kafka`) and topics of Ceph
# (`arn:aws:sns:ZONEGROUP:TENANT:NAME`).
_TARGET_ARN = re.compile(r"arn:[a-z]+:(sqs|sns):[A-Za-z0-9_-]*:[A-Za-z0-9._$-]*:[A-Za-z0-9._-]+")
_SUFFIX = re.compile(r"\.[A-Za-z0-9._-]+")
# What both MinIO (internal/config/config.go, validRegionRegex) and minio-py (helpers.py,
# _REGION_REGEX) accept.
_REGION = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,61}[A-Za-z0-9]")
# What Dagster accepts as an owner (dagster/_core/utils.py, is_valid_email, and
# dagster/_core/definitions/utils.py, is_valid_owner).
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:\S.*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
# With digits only in its last part, it would be a malformed IP address.
_HOST = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?")


def nearest(name: str, names: Iterable[str], likeness: float) -> str | None:
    """Return the name most similar to another, or None if no `difflib` ratio reaches `likeness`."""
    return next(iter(difflib.get_close_matches(name, [*names], 1, likeness)), None)


def checked_bucket(value: str) -> str:
    """Check the name of a bucket."""
    if not _BUCKET.fullmatch(value):
        msg = (
            "must be an S3 bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, "
            "a letter or digit at both ends, not an IP address"
        )
        raise ValueError(msg)
    return value


def checked_catalog_bucket(value: str) -> str:
    """Check the name of the catalogue's bucket, and that the packages for it are installed."""
    if not value:
        return value
    if find_spec("deltalake") is None:
        msg = "requires the extra catalog: pip install 'resize-pipeline[catalog]'"
        raise ValueError(msg)
    return checked_bucket(value)


def checked_topic(value: str) -> str:
    """Check the name of a topic that has a dead-letter topic."""
    longest = TOPIC_MAX - len(DEAD_LETTERS)
    if not _TOPIC.fullmatch(value) or value in {".", ".."} or len(value) > longest:
        msg = (
            f"must be a Kafka topic name: 1 to {longest} letters, digits, dots, underscores and "
            f"hyphens, not '.' or '..' ({DEAD_LETTERS} is added to it)"
        )
        raise ValueError(msg)
    return value


def checked_target(value: str) -> str:
    """Check the identifier of a MinIO target, or the ARN of a target of any server.

    An identifier is part of an ARN and of a folder's name. MinIO itself uses `_` for the target
    without one.
    """
    if _TARGET_ARN.fullmatch(value):
        return value
    if not _TARGET.fullmatch(value) or value == "_" or len(value) > TARGET_MAX:
        msg = (
            f"must be an identifier of a MinIO target: 1 to {TARGET_MAX} letters, digits, dots, "
            "underscores and hyphens, not '_' alone, or an ARN such as arn:minio:sqs::NAME:kafka"
        )
        raise ValueError(msg)
    return value


def checked_pipeline_name(value: str) -> str:
    """Check a pipeline's name, which is part of names in MinIO, Kafka and Dagster.

    MinIO's access keys have 3 to 20 characters unless an administrator makes them otherwise.
    """
    if not _PIPELINE_NAME.fullmatch(value):
        msg = "must be 3 to 20 lower-case letters, digits and hyphens, beginning with a letter"
        raise ValueError(msg)
    return value


def checked_endpoint(value: str) -> str:
    """Check the address of an S3 server, and return it without a slash at its end."""
    form = "http://HOST:PORT or https://HOST:PORT"
    if "@" in value:
        msg = f"must be of the form {form}; put credentials in MINIO_ACCESS_KEY and _SECRET_KEY"
        raise ValueError(msg)
    parts = urlsplit(value)
    try:
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port or rest:
        msg = f"is not of the form {form}"
        raise ValueError(msg)
    return value.rstrip("/")


def of_length(least: int, why: str = "") -> AfterValidator:
    """Return a check of a secret's length; no secret passes it."""

    def check(value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value) < least:
            msg = f"must have at least {least} characters{why}"
            raise ValueError(msg)
        return value

    return AfterValidator(check)


def checked_region(value: str) -> str:
    """Check the name of a region."""
    if not _REGION.fullmatch(value):
        msg = (
            "must be a region such as us-east-1: 2 to 63 letters, digits, hyphens and "
            "underscores, a letter first, a letter or digit last"
        )
        raise ValueError(msg)
    return value


def checked_host(value: str) -> str:
    """Check a bare host name or IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value) or len(value) > HOST_MAX:
            msg = "must be a host name or an IP address, without scheme, port or brackets"
            raise ValueError(msg) from None
    return value


def checked_webhook(value: str) -> str:
    """Check the URL of a webhook."""
    try:
        parts = urlsplit(value)
        is_address = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and not parts.fragment
        )
    except ValueError:
        is_address = False
    # No character that could end the line of an HTTP request.
    if not is_address or not value.isascii() or not value.isprintable() or " " in value:
        msg = "must be of the form https://HOST/PATH or http://HOST/PATH, without user and password"
        raise ValueError(msg)
    return value


def checked_start(value: str) -> str:
    """Check where a sensor without a cursor starts: earliest, latest, or a time with its zone."""
    if value in {"earliest", "latest"}:
        return value
    try:
        # A time without a zone would mean another time on a machine in another zone.
        has_zone = dt.datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        msg = "is not earliest, latest or a time such as 2026-11-22T10:00:00Z"
        raise ValueError(msg)
    return value


def parse_owners(text: str) -> list[str]:
    """Parse a list of owners, separated by commas.

    Raises:
        ValueError: a part is not an owner.
    """
    owners = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for owner in owners:
        if not _OWNER.fullmatch(owner) or not owner.isprintable():
            msg = f"{reprlib.repr(owner)} must be an e-mail address or team:NAME"
            raise ValueError(msg)
    return owners


def parse_hosts(text: str) -> list[str]:
    """Parse a list of HOST or HOST:PORT, separated by commas, into lower case.

    Raises:
        ValueError: a part has another form.
    """
    hosts = [part.strip().lower() for part in text.split(",") if part.strip()]
    for host in hosts:
        name, _ = parse_host_port(host) or ("", None)
        try:
            checked_host(name)
        except ValueError:
            msg = f"{reprlib.repr(host)} must be HOST or HOST:PORT, without scheme and wildcards"
            raise ValueError(msg) from None
    return hosts


def checked_paths(value: str) -> str:
    """Check that a value is a list of absolute paths, separated by colons.

    Raises:
        ValueError: a path is relative, or is the root, below which there is everything.
    """
    for path in filter(None, value.split(":")):
        if not path.startswith("/") or not path.strip("/."):
            msg = f"{path!r} must be an absolute path of a file or folder below the root"
            raise ValueError(msg)
    return value


def parse_suffixes(text: str) -> list[str]:
    """Parse a list of key suffixes, separated by commas.

    Returns:
        The suffixes in lower case, each with its dot, at least one. A suffix that ends with another
        one is left out: it selects no further keys, and S3 refuses overlapping rules.

    Raises:
        ValueError: the list is empty, or a part is not a suffix.
    """
    suffixes = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not suffixes or not all(map(_SUFFIX.fullmatch, suffixes)):
        msg = (
            "must be key suffixes separated by commas, as in .jpg,.png: each a dot and then "
            "letters, digits, dots, underscores and hyphens, without wildcards"
        )
        raise ValueError(msg)
    return [
        one
        for one in suffixes
        if not any(one != other and one.endswith(other) for other in suffixes)
    ]


def checked_brokers(value: str) -> str:
    """Return a list of Kafka brokers, separated by commas, unchanged.

    Raises:
        ValueError: One of them is not of the form HOST:PORT.
    """
    for broker in value.split(","):
        if not parse_host_port(broker.strip()):
            msg = "is not of the form HOST:PORT,HOST:PORT"
            raise ValueError(msg)
    return value
