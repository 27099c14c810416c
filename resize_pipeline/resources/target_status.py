"""Asks MinIO by its admin API whether it reaches a Kafka target."""

import json
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException


def is_target_online(
    name: str, *, endpoint: str, keys: tuple[str, str], region: str, http: urllib3.PoolManager
) -> bool | None:
    """Return whether MinIO reaches the target of this name; None if it does not say.

    It says so only to users with the right `admin:ServerInfo`.

    Args:
        name: the target's name.
        endpoint: MinIO's address.
        keys: access key and secret key.
        region: the region to sign for.
        http: the client for the request.

    Raises:
        HTTPError: the server is unreachable.
    """
    url = urlsplit(endpoint)
    try:
        admin = MinioAdmin(
            endpoint=url.netloc,
            credentials=StaticProvider(*keys),
            region=region,
            secure=url.scheme == "https",
            http_client=http,
        )
        return _status(json.loads(admin.info()), name)
    except urllib3.exceptions.HTTPError:
        raise
    except (MinioAdminException, ValueError):
        # Denied, or a server without this API.
        return None


def _status(answer: Any, name: str) -> bool | None:
    """Return the status of a Kafka target in MinIO's answer; None if the answer has none."""
    try:
        kinds = answer["services"]["notifications"]
        [status] = [
            target[name]["status"]
            for kind in kinds
            for target in kind.get("kafka", ())
            if name in target
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return status == "online"
