"""MinIO, or any S3 server, as a Dagster resource: list, stat, download and upload objects."""

import datetime as dt
import io
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import urlsplit

import dagster as dg
import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error, ServerError
from minio.notificationconfig import NotificationConfig
from pydantic import PrivateAttr

from resize_pipeline.addresses import how_to_start
from resize_pipeline.errors import (
    PermanentError,
    ResizePipelineError,
    TransientError,
    UserError,
    one_line,
)
from resize_pipeline.renditions.objects import EPOCH, ObjectInfo, Original, user_metadata
from resize_pipeline.resources.bounded_http import (
    AnswerError,
    RedirectError,
    read_at_most,
)
from resize_pipeline.resources.content_encoding import without_encoding
from resize_pipeline.resources.http import TLS_NAMES, http_client
from resize_pipeline.resources.listings import checked
from resize_pipeline.resources.s3_errors import (
    UNREADABLE_FILTERS,
    Answer,
    explained_answer,
    is_malformed,
    is_missing,
)
from resize_pipeline.resources.target_status import is_target_online
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB
from resize_pipeline.tls import explained, tls_error_of

HTTPS_ONLY = "HTTP request to an HTTPS server"
"""Answer of Go's servers to a request without TLS (net/http, server.go)."""
PUT_PART_MIN = 5 * MIB
"""Smallest part size that minio-py accepts (S3's own limit)."""

REMOVED_AT_ONCE = 1000
"""Most keys in one request (Amazon S3 API, DeleteObjects)."""

# An XML parser reads a carriage return as a line feed, which would change the key; the other
# characters are not allowed (XML 1.0, 2.2 and 2.11).
_NOT_IN_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class MinioResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """An S3 server and the credentials to use on it."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    ca_file: str | None = None
    tls_skip_verify: bool = False
    _client: Minio | None = PrivateAttr(default=None)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, access_key: str, secret_key: str
    ) -> "MinioResource":
        """Build the resource.

        Args:
            settings: settings with the server's address.
            access_key: the key itself, or in definitions the `dg.EnvVar` that names it.
            secret_key: the secret key, or in definitions the `dg.EnvVar` that names it.
        """
        return cls(
            endpoint=settings.minio_endpoint,
            access_key=access_key,
            secret_key=secret_key,
            region=settings.minio_region,
            ca_file=None if settings.minio_ca_file is None else str(settings.minio_ca_file),
            tls_skip_verify=settings.minio_tls_skip_verify,
        )

    @property
    def client(self) -> Minio:
        """The client, which is thread-safe."""
        if self._client is None:
            url = urlsplit(self.endpoint)
            self._client = Minio(
                url.netloc,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=url.scheme == "https",
                region=self.region,
                http_client=http_client(self.ca_file, verify=not self.tls_skip_verify),
            )
        return self._client

    @contextmanager
    def errors(self, bucket: str, key: str | None = None) -> Generator[None]:
        """Turn the client's errors into one line that names the endpoint and the remedy.

        Raises:
            PermanentError: the object `key` can never be read or written.
            TransientError: the server is unreachable, asks to try again later, or the clocks
                differ.
            MissingBucketError: the bucket does not exist.
            RefusedError: the server refuses these credentials.
            UserError: the bucket name or a setting is invalid, or the server requires TLS.
        """
        try:
            yield
        except S3Error as error:
            if not error.request_id and error.code == "BadRequest":
                # Not from S3: Go's server answers a request without TLS so.
                msg = (
                    f"MinIO at {self.endpoint} rejects this kind of request (HTTP 400): set "
                    "MINIO_ENDPOINT to https:// if it requires TLS, or to an S3 server"
                )
                raise UserError(msg) from error
            raise explained_answer(self.endpoint, bucket, key, Answer.of(error)) from error
        except (ValueError, SyntaxError) as error:
            if is_malformed(error):
                raise unreachable(self.endpoint, error) from error
            # The client itself rejects some names, such as a key with a segment "..".
            if key is None or "bucket name" in str(error):
                msg = f"bucket {bucket!r} at {self.endpoint}: {error}"
                raise UserError(msg) from error
            raise PermanentError(one_line(str(error))) from error
        except (ServerError, MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.endpoint, error) from error

    def list_objects(
        self, bucket: str, prefix: str = "", *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """List a bucket, in order of keys, as a stream.

        Args:
            bucket: the bucket.
            prefix: only keys that start with it.
            start_after: only keys after this one; empty for all.
            with_metadata: request user metadata too, which only MinIO returns in a listing.

        Raises:
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        with self.errors(bucket):
            listed = self.client.list_objects(
                bucket,
                prefix=prefix,
                recursive=True,
                start_after=start_after or None,
                include_user_meta=with_metadata,
            )
            for item in checked(listed, prefix):
                yield ObjectInfo(
                    key=cast("str", item.object_name),
                    etag=item.etag or "",
                    version_id=item.version_id,
                    size=item.size or 0,
                    last_modified=cast("dt.datetime", item.last_modified),
                    # MinIO lists at least the content type, other servers nothing.
                    metadata=user_metadata(cast("Mapping[str, str]", item.metadata))
                    if item.metadata
                    else None,
                )

    def stat(self, bucket: str, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        """Stat an object; return None if it does not exist.

        Args:
            bucket: the bucket.
            key: the object's key.
            version_id: id of the version; None for the newest.

        Raises:
            PermanentError: the server does not allow this key.
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        with self.errors(bucket, key):
            try:
                found = self.client.stat_object(bucket, key, version_id=version_id)
            except S3Error as error:
                reason = error
                if not is_missing(error):
                    reason = self._reason(bucket, key, version_id) or error
                # An id that the server can't generate is the id of no version.
                if is_missing(reason) or (version_id and reason.code == "InvalidArgument"):
                    return None
                raise reason from None
        return ObjectInfo(
            key=key,
            etag=found.etag or "",
            version_id=found.version_id,
            size=found.size or 0,
            last_modified=cast("dt.datetime", found.last_modified),
            metadata=user_metadata(cast("Mapping[str, str]", found.metadata or {})),
            content_type=found.content_type or "",
        )

    def is_listed(self, bucket: str, key: str) -> bool:
        """Return whether a listing shows the object, which is another question than a stat.

        Raises:
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        # The key itself comes before all longer keys.
        first = next(self.list_objects(bucket, key), None)
        return first is not None and first.key == key

    def _reason(self, bucket: str, key: str, version_id: str | None) -> S3Error | None:
        """Return why a stat was refused, which its answer can't say without a body."""
        try:
            response = self.client.get_object(bucket, key, version_id=version_id)
        except S3Error as error:
            return error
        # Closing drops the connection instead of reading the object.
        response.close()
        response.release_conn()
        return None

    def notification(self, bucket: str) -> NotificationConfig:
        """Return the bucket's notification configuration; errors as in `list_objects`."""
        with self.errors(bucket):
            try:
                return self.client.get_bucket_notification(bucket)
            except ValueError as error:
                if "S3Key" not in str(error):
                    raise
                msg = f"bucket {bucket!r} at {self.endpoint} has {UNREADABLE_FILTERS}"
                raise UserError(msg) from error

    def is_target_online(self, name: str) -> bool | None:
        """Return whether MinIO reaches the Kafka target of this name; None if it does not say.

        Raises:
            TransientError: the server is unreachable.
            UserError: the server's certificate is not trusted.
        """
        http = http_client(self.ca_file, verify=not self.tls_skip_verify, streams=False)
        keys = self.access_key, self.secret_key
        try:
            return is_target_online(
                name, endpoint=self.endpoint, keys=keys, region=self.region, http=http
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.endpoint, error) from error

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Original | None:
        """Read an object into memory; return None if it does not exist.

        Args:
            bucket: the bucket.
            key: the object's key.
            max_bytes: most bytes to read, whatever size an event claims.

        Raises:
            PermanentError: the object is larger than `max_bytes`, or can't be read as it is.
            TransientError: the server is unreachable, or the connection broke.
            UserError: the bucket is missing, or access to it is refused.
        """
        with self.errors(bucket, key):
            try:
                response = self.client.get_object(bucket, key)
            except S3Error as error:
                if is_missing(error):
                    return None
                raise
            try:
                size = int(response.headers.get("content-length", 0))
                data = b""
                if size <= max_bytes:
                    stored = read_at_most(response, max_bytes + 1)
                    encoding = response.headers.get("content-encoding", "")
                    # Decoding can produce any size.
                    data = without_encoding(stored, encoding, max_bytes)
                if max(size, len(data)) > max_bytes:
                    # Closing drops the connection instead of reading the rest of the object.
                    response.close()
                    decoded = "" if size > max_bytes else ", but more once decoded"
                    msg = f"{size} bytes{decoded}, more than SOURCE_MAX_BYTES={max_bytes}"
                    raise PermanentError(msg)
            finally:
                response.release_conn()
        return Original(
            key=key,
            etag=response.headers.get("etag", "").strip('"'),
            version_id=response.headers.get("x-amz-version-id"),
            data=data,
            metadata=user_metadata(response.headers),
            size=size,
            last_modified=_http_date(response.headers.get("last-modified", "")),
            content_type=response.headers.get("content-type", ""),
        )

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str | None = None,
        metadata: Mapping[str, str],
    ) -> None:
        """Write an object in one request, so it is stored whole or not at all.

        Args:
            bucket: the bucket.
            key: the object's key.
            data: its content.
            content_type: its Content-Type.
            cache_control: its Cache-Control; None for none.
            metadata: its user metadata, names without prefix.

        Raises:
            PermanentError: the server does not allow this key.
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        # The client distinguishes standard headers from user metadata by their names.
        headers = {} if cache_control is None else {"Cache-Control": cache_control}
        with self.errors(bucket, key):
            self.client.put_object(
                bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type=content_type,
                metadata={**metadata, **headers},
                # One part, because an interrupted multipart upload leaves its parts behind.
                part_size=max(len(data), PUT_PART_MIN),
            )

    def copy_object(self, bucket: str, key: str, source_key: str) -> str:
        """Copy an object within a bucket, on the server, and return the copy's ETag.

        Raises:
            PermanentError: the server does not allow this key.
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        with self.errors(bucket, key):
            copied = self.client.copy_object(bucket, key, CopySource(bucket, source_key))
        return (copied.etag or "").strip('"')

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object; a missing object is no error.

        Raises:
            PermanentError: the server does not allow this key.
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        with self.errors(bucket, key):
            self.client.remove_object(bucket, key)

    def remove_all(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects, `REMOVED_AT_ONCE` with each request; missing objects are no error.

        Args:
            bucket: the bucket.
            keys: the objects' keys.

        Raises:
            TransientError: the server is unreachable, or did not remove all of them.
            UserError: the bucket is missing, or access to it is refused.
        """
        for key in filter(_NOT_IN_XML.search, keys):
            self.remove(bucket, key)
        bulk = [DeleteObject(key) for key in keys if not _NOT_IN_XML.search(key)]
        with self.errors(bucket):
            # The client sends its requests only while the result is read.
            failed = list(self.client.remove_objects(bucket, bulk))
        if failed:
            first = failed[0]
            raise explained_answer(
                self.endpoint, bucket, None, Answer(first.code, first.message or "", 200)
            )


def _http_date(text: str) -> dt.datetime:
    try:
        return parsedate_to_datetime(text).replace(tzinfo=dt.UTC)
    except ValueError:
        return EPOCH


def unreachable(endpoint: str, error: Exception) -> ResizePipelineError:
    """Return the one-line error for a server that did not answer as an S3 server.

    Args:
        endpoint: address of the server.
        error: what the client raised.
    """
    tls_error = tls_error_of(error)
    if tls_error is not None:
        return explained(tls_error, f"MinIO at {endpoint}", TLS_NAMES)
    if HTTPS_ONLY in str(error):
        return UserError(f"MinIO at {endpoint} requires https: set MINIO_ENDPOINT to https://")
    if isinstance(error, RedirectError):
        return UserError(f"MinIO at {endpoint} {error}: set MINIO_ENDPOINT to the server itself")
    if isinstance(error, AnswerError) or is_malformed(error):
        what = str(error) if isinstance(error, AnswerError) else "does not answer as S3 does"
        return TransientError(
            f"MinIO at {endpoint} {what}: look at its log, or set MINIO_ENDPOINT to an S3 server"
        )
    # The number of retries adds no information.
    is_silence = isinstance(error, urllib3.exceptions.MaxRetryError)
    why = "" if is_silence else f" ({type(error).__name__})"
    remedy = how_to_start([urlsplit(endpoint).hostname or ""])
    return TransientError(
        f"MinIO at {endpoint} does not answer{why}: {remedy}, or set MINIO_ENDPOINT"
    )
