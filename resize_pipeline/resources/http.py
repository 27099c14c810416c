"""The HTTP client for an S3 server: its timeouts, its retries and whom it trusts."""

import ssl

import certifi
import urllib3

from resize_pipeline.resources.bounded_http import BoundedClient
from resize_pipeline.tls import TlsNames, client_context

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
POOL_SIZE = 32

TLS_NAMES = TlsNames(ca="MINIO_CA_FILE", address="MINIO_ENDPOINT", protocol="MINIO_ENDPOINT")


def tls_context(ca_file: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """Return the TLS context for an S3 server; the arguments are those of `http_client`.

    Raises:
        UserError: the file can't be read or holds no certificate.
    """
    return client_context(ca_file or certifi.where(), TLS_NAMES, verify=verify)


def http_client(
    ca_file: str | None, *, verify: bool = True, streams: bool = True
) -> urllib3.PoolManager:
    """Build the HTTP client of a MinIO client.

    minio-py's own client waits 5 minutes for an answer and retries for longer than a tick may take.

    Args:
        ca_file: PEM file of the CA to trust; None for those of certifi.
        verify: whether to require a trusted certificate that matches the server's name.
        streams: whether answers may be objects, which callers bound themselves.

    Raises:
        UserError: the file can't be read or holds no certificate.
    """
    if not verify:
        # `Settings.warnings` warns once for each start, tick and run, instead of for each request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return BoundedClient(
        streams=streams,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        retries=urllib3.Retry(
            total=3,
            # A failed TLS handshake: the certificate would be the same.
            other=0,
            backoff_factor=0.2,
            status_forcelist=[500, 502, 503, 504],
            raise_on_status=False,
            # It could be a day.
            respect_retry_after_header=False,
        ),
        maxsize=POOL_SIZE,
        ssl_context=tls_context(ca_file, verify=verify),
    )
