"""TLS contexts from PEM files, and the remedy for a failed handshake.

Nothing here knows the server: callers pass the names of their settings, for the messages.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.errors import ResizePipelineError, TransientError, UserError

CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = b"PRIVATE KEY-----"

# X509_V_ERR_* of OpenSSL's x509_vfy.h, which Python returns as `verify_code`.
OUT_OF_DATE = frozenset({9, 10})
OTHER_HOST = frozenset({62, 64})

HANG_UPS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Raised when the server closes the connection, as a stopping server does: TLS is not at fault."""


@dataclass(frozen=True, slots=True)
class TlsNames:
    """The names of a server's settings.

    Attributes:
        ca: the file of the server's CA.
        address: the server's address.
        protocol: turns TLS on.
        cert: the file of the client's certificate; empty if the server accepts none.
        key: the file of the client's key.
        password: the password of the key.
    """

    ca: str
    address: str
    protocol: str
    cert: str = ""
    key: str = ""
    password: str = ""


def client_context(ca_file: str | None, names: TlsNames, *, verify: bool = True) -> ssl.SSLContext:
    """Return the context of a client.

    Each certificate in `ca_file` is trusted, whether it belongs to a CA or to a server.

    Args:
        ca_file: PEM file of the certificates to trust; None for those that the system trusts.
        names: for messages.
        verify: whether the server's certificate must be trusted and match its name.

    Raises:
        UserError: the file can't be read or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca_file is None:
        context.load_default_certs()
        return context
    _read(ca_file, names.ca, CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as error:
        msg = (
            f"{names.ca} is {ca_file}, which holds a damaged certificate ({_reason(error)}): copy "
            "it anew"
        )
        raise UserError(msg) from error
    return context


def show_certificate(
    context: ssl.SSLContext,
    cert_file: str,
    key_file: str | None,
    password: str | None,
    names: TlsNames,
) -> None:
    """Load the client's certificate into a context.

    Args:
        context: the result of `client_context`.
        cert_file: PEM file of the certificate and of the intermediate ones up to its CA.
        key_file: PEM file of its key; None if `cert_file` holds the key, too.
        password: the password of the key, if it is encrypted.
        names: for messages.

    Raises:
        UserError: a file can't be read or is not PEM, or the key belongs to another certificate.
    """
    key_name, key_path = (names.cert, cert_file) if key_file is None else (names.key, key_file)
    _read(cert_file, names.cert, CERTIFICATE, "certificate")
    _read(key_path, key_name, PRIVATE_KEY, "private key", wanted=names.key)
    is_encrypted: list[bool] = []

    def key_password() -> str:
        is_encrypted.append(True)
        return password or ""

    try:
        # Without a callable OpenSSL would ask for the password on the terminal.
        context.load_cert_chain(cert_file, key_path, key_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is {key_path}, which is not the key of {names.cert}, {cert_file}: set both"
        elif is_encrypted and not password:
            problem = f"is {key_path}, which is encrypted: set {names.password}"
        elif is_encrypted:
            problem = f"is {key_path}, which {names.password} does not open: correct it"
        else:
            problem = f"is {key_path}: it or {names.cert}, {cert_file}, is damaged: copy them anew"
        msg = f"{key_name} {problem}"
        raise UserError(msg) from error


def _read(path: str, name: str, marker: bytes, what: str, *, wanted: str = "") -> None:
    """Check that the file of a setting holds what it should; `wanted` is the setting to correct."""
    remedy = f"set {wanted or name} to the PEM file of the {what}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        msg = f"{name} is {path}, which can't be read: {error.strerror}; {remedy}"
        raise UserError(msg) from error
    if marker not in content:
        msg = f"{name} is {path}, which holds no {what} in PEM form: {remedy}"
        raise UserError(msg)


def tls_error_of(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error among the causes of a client's error; None if there is none."""
    return next((one for one in _causes(error) if isinstance(one, ssl.SSLError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # Clients wrap errors in their arguments, and urllib3 in `reason`.
        wrapped = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def explained(error: ssl.SSLError, server: str, names: TlsNames) -> ResizePipelineError:
    """Return the error for a failed handshake: one line with the remedy.

    Args:
        error: the TLS error.
        server: the server's kind and address, such as "Kafka at host:9093".
        names: for the remedy.
    """
    if isinstance(error, HANG_UPS):
        return TransientError(
            f"{server} closes the connection during the TLS handshake: look at its log, or set "
            f"{names.protocol} to what it speaks"
        )
    reason = _reason(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in OUT_OF_DATE:
            return TransientError(
                f"{server} has a certificate that is not valid now ({reason}): renew it there, or "
                "set this machine's clock"
            )
        if error.verify_code in OTHER_HOST:
            return UserError(
                f"{server} has a certificate for other names ({reason}): set {names.address} to a "
                "name that it holds, or give the server a certificate for this name"
            )
        return UserError(
            f"{server} has a certificate that is not trusted ({reason}): set {names.ca} to the "
            "PEM file of its CA, or of the certificate itself if that is self-signed"
        )
    if "alert" in reason and names.cert:
        return UserError(
            f"{server} requires a client certificate that it trusts ({reason}): set "
            f"{names.cert} and {names.key} to one of a CA that it trusts"
        )
    return UserError(
        f"{server} failed the TLS handshake ({reason}): set {names.protocol} to what it speaks"
    )


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or type(error).__name__).lower().replace("_", " ")
