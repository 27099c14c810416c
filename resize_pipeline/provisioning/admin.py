"""MinIO's admin API, with its errors sorted: denied, other errors of MinIO, server unreachable."""

import json
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import urllib3
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, MinioException, S3Error

from resize_pipeline.errors import RefusedError, TransientError, one_line
from resize_pipeline.passwords import new_secret
from resize_pipeline.resources.http import http_client
from resize_pipeline.resources.minio import (
    HTTPS_ONLY,
    MinioResource,
    unreachable,
)
from resize_pipeline.resources.s3_errors import (
    DENIED,
    UNKNOWN_KEYS,
    Answer,
    Meaning,
    explained_answer,
)
from resize_pipeline.settings import Settings

BUSY = frozenset({500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later."""


MALFORMED = (ValueError, SyntaxError)
"""What minio-py raises for an answer that it can't parse or decrypt."""


class AdminError(Exception):
    """The admin API answered with an error.

    Attributes:
        code: MinIO's error code; empty if the answer did not come from MinIO.
        message: MinIO's error message.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.message = message


class DeniedError(AdminError):
    """The credentials do not allow the request, or the server has no MinIO admin API."""


class Server:
    """The MinIO server, accessed with the administrator's credentials."""

    def __init__(self, settings: Settings) -> None:
        self.endpoint = settings.minio_endpoint
        self._settings = settings
        url = urlsplit(settings.minio_endpoint)
        password = settings.minio_root_password
        self.has_root_password = password is not None
        # Unset is handled like wrong: no server accepts this one.
        secret = new_secret() if password is None else password.get_secret_value()
        self._root = (settings.minio_root_user.get_secret_value(), secret)
        self.admin = MinioAdmin(
            endpoint=url.netloc,
            credentials=StaticProvider(*self._root),
            region=settings.minio_region,
            secure=url.scheme == "https",
            http_client=http_client(
                _ca_file(settings), verify=not settings.minio_tls_skip_verify, streams=False
            ),
        )

    def call(self, method: Callable[..., str], *args: Any, **options: Any) -> str:
        """Call a method of `admin` and return its answer.

        Raises:
            DeniedError: the credentials do not allow the request, or the server is not MinIO.
            AdminError: MinIO answered with another error.
            TransientError: the server is unreachable or not ready.
        """
        try:
            return method(*args, **options)
        except UnboundLocalError as error:
            # In minio-py 7.2, config_get raises this instead of the error that it got.
            hidden = error.__context__
            if not isinstance(hidden, Exception):
                raise
            raise self._error(hidden) from error
        except (MinioAdminException, urllib3.exceptions.HTTPError, OSError, *MALFORMED) as error:
            raise self._error(error) from error

    def call_json(self, method: Callable[..., str], *args: Any, **options: Any) -> dict[str, Any]:
        """Call a method of `admin` and return its answer, a JSON object.

        Raises:
            DeniedError: the credentials do not allow the request, or the server is not MinIO.
            AdminError: MinIO answered with another error.
            TransientError: the server is unreachable or not ready, or the answer is not JSON.
        """
        answer = _json_object(self.call(method, *args, **options))
        if answer is None:
            msg = (
                f"MinIO at {self.endpoint} answers the admin API with what is not a JSON object: "
                "look at its log, or set MINIO_ENDPOINT to MinIO itself"
            )
            raise TransientError(msg)
        return answer

    def resource(self, access_key: str, secret_key: str) -> MinioResource:
        """Return the server's S3 API with these credentials."""
        return MinioResource.from_settings(
            self._settings, access_key=access_key, secret_key=secret_key
        )

    def authenticates(self, access_key: str, secret_key: str) -> bool:
        """Return whether the server accepts these credentials, whatever they allow.

        Raises:
            TransientError: the server is unreachable, or the clocks differ.
            UserError: the server rejects the request because of a setting.
        """
        try:
            self.resource(access_key, secret_key).client.list_buckets()
        except S3Error as error:
            answer = Answer.of(error)
            if answer.meaning in {Meaning.UNKNOWN_KEYS, Meaning.DENIED}:
                return answer.meaning is Meaning.DENIED
            # Wrong clocks must not look like a wrong secret, which provisioning would replace.
            raise explained_answer(self.endpoint, "", None, answer) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError, *MALFORMED) as error:
            raise unreachable(self.endpoint, error) from error
        return True

    def s3(self) -> MinioResource:
        """Return the server's S3 API, with the pipeline's credentials if root's do not work.

        Raises:
            TransientError: the server is unreachable.
        """
        settings = self._settings
        access_key, secret_key = settings.minio_access_key, settings.minio_secret_key
        if access_key is None or secret_key is None or self.authenticates(*self._root):
            return self.resource(*self._root)
        return self.resource(access_key.get_secret_value(), secret_key.get_secret_value())

    def _error(self, error: Exception) -> Exception:
        if not isinstance(error, MinioAdminException):
            return unreachable(self.endpoint, error)
        # minio-py exposes status and body to pickle only.
        status, body = error.__reduce__()[1]
        if HTTPS_ONLY in str(body):
            return unreachable(self.endpoint, error)
        code, message = parse_error(body)
        if int(status) in BUSY:
            return TransientError(
                f"MinIO at {self.endpoint} answered HTTP {status} ({code}): try again, or look at "
                "its log"
            )
        answer = Answer(code, message, int(status))
        if answer.meaning is Meaning.CLOCK:
            return explained_answer(self.endpoint, "", None, answer)
        if code in DENIED:
            return DeniedError(code, message)
        if not code:
            return DeniedError("", f"HTTP {status}, so it has no MinIO admin API")
        return AdminError(code, message)


def parse_error(body: str) -> tuple[str, str]:
    """Return code and message of an admin API error; both are empty if the body is not one."""
    fields = _json_object(body) or {}
    return one_line(str(fields.get("Code", ""))), one_line(str(fields.get("Message", "")))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        answer: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else None


def refusal(server: Server, error: Exception) -> str:
    """Return why the administrator's credentials are not enough, for a step.

    Args:
        server: the server that refused.
        error: the `DeniedError` of its admin API, or the `RefusedError` of its S3 API.
    """
    answer = error.__cause__ if isinstance(error, RefusedError) else error
    code = answer.code if isinstance(answer, AdminError | S3Error) else ""
    if not server.has_root_password:
        return (
            f"MINIO_ROOT_PASSWORD, the administrator's for MinIO at {server.endpoint}, is not set"
        )
    if code in UNKNOWN_KEYS:
        return f"MinIO at {server.endpoint} does not accept MINIO_ROOT_USER with this password"
    return f"MinIO at {server.endpoint} refuses to show or change it ({code or error})"


def _ca_file(settings: Settings) -> str | None:
    return None if settings.minio_ca_file is None else str(settings.minio_ca_file)
