"""TLS: contexts made from PEM files, and what to do about a handshake that failed.

Nothing here knows which server it is for: callers give the names of their settings, which messages
name.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.errors import ResizePipelineError, TransientError, UserError

CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = b"PRIVATE KEY-----"

# X509_V_ERR_* of OpenSSL's x509_vfy.h, which Python gives as `verify_code`.
OUT_OF_DATE = frozenset({9, 10})
OTHER_HOST = frozenset({62, 64})

HANG_UPS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Of a server that closed the connection, as one does that is being stopped: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class TlsNames:
    """What the settings of a server are called.

    Attributes:
        ca: the file of its CA.
        address: where it is.
        protocol: says whether TLS is spoken.
        cert: the file of the client's certificate; empty where there can be none.
        key: the file of its key.
        password: the key's password.
    """

    ca: str
    address: str
    protocol: str
    cert: str = ""
    key: str = ""
    password: str = ""


def client_context(ca_file: str | None, names: TlsNames, *, verify: bool = True) -> ssl.SSLContext:
    """Make the context of a client.

    A certificate in `ca_file` is trusted whether it is a CA's or a server's own.

    Args:
        ca_file: PEM file of the certificates to trust; None: those that the system trusts.
        names: for messages.
        verify: whether the server has to show a certificate that is trusted and is its own.

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
        msg = f"{names.ca} is {ca_file}, which holds a damaged certificate ({_reason(error)})"
        raise UserError(msg) from error
    return context


def show_certificate(
    context: ssl.SSLContext,
    cert_file: str,
    key_file: str | None,
    password: str | None,
    names: TlsNames,
) -> None:
    """Give a context the certificate that the client shows.

    Args:
        context: what `client_context` made.
        cert_file: PEM file of the certificate and of those between it and its CA.
        key_file: PEM file of its key; None: the key is in `cert_file`, too.
        password: the key's, if it is encrypted.
        names: for messages.

    Raises:
        UserError: a file can't be read, is not PEM, or the key is another certificate's.
    """
    key_name, key_path = (names.cert, cert_file) if key_file is None else (names.key, key_file)
    _read(cert_file, names.cert, CERTIFICATE, "certificate")
    _read(key_path, key_name, PRIVATE_KEY, "private key")
    is_encrypted: list[bool] = []

    def give() -> str:
        is_encrypted.append(True)
        return password or ""

    try:
        # With a callable OpenSSL does not ask for the password on the terminal.
        context.load_cert_chain(cert_file, key_path, give)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is {key_path}, which is not the key of {names.cert}, {cert_file}"
        elif is_encrypted and not password:
            problem = f"is {key_path}, which is encrypted: set {names.password}"
        elif is_encrypted:
            problem = f"is {key_path}, which {names.password} does not open"
        else:
            problem = f"is {key_path}: it or {names.cert}, {cert_file}, is damaged"
        msg = f"{key_name} {problem}"
        raise UserError(msg) from error


def _read(path: str, name: str, marker: bytes, what: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        msg = f"{name} is {path}, which can't be read: {error.strerror}"
        raise UserError(msg) from error
    if marker not in content:
        msg = f"{name} is {path}, which holds no {what} in PEM form"
        raise UserError(msg)


def tls_error_of(error: BaseException) -> ssl.SSLError | None:
    """Find what TLS said among the causes of a client's error; None when it said nothing."""
    return next((one for one in _causes(error) if isinstance(one, ssl.SSLError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # Clients wrap errors in arguments, and urllib3 in `reason`.
        wrapped = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def explained(error: ssl.SSLError, server: str, names: TlsNames) -> ResizePipelineError:
    """Give the error for a handshake that failed, in one line with the remedy.

    Args:
        error: what TLS said.
        server: what and where the server is, for the message.
        names: for the remedy.
    """
    if isinstance(error, HANG_UPS):
        return TransientError(
            f"{server} closes the connection when it is asked for TLS: look at its log, or set "
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
                "name that it holds, or give the server one for this name"
            )
        return UserError(
            f"{server} has a certificate that is not trusted ({reason}): set {names.ca} to the "
            "PEM file of its CA, or of the certificate itself if that is self-signed"
        )
    if "alert" in reason and names.cert:
        return UserError(
            f"{server} refuses us for want of a certificate that it trusts ({reason}): set "
            f"{names.cert} and {names.key} to one of a CA that it has"
        )
    return UserError(
        f"{server} does not speak this TLS ({reason}): set {names.protocol} to what it speaks"
    )


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or type(error).__name__).lower().replace("_", " ")
