"""Certificates of a private CA and self-signed ones, written as PEM files."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = dt.timedelta(days=2)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, and the files that hold them.

    `both` has the key and the certificate one after the other, as Kafka's keystores of type PEM.
    """

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    cert_file: Path
    key_file: Path
    both: Path


def issue(
    folder: Path,
    name: str,
    *,
    ca: Issued | None = None,
    hosts: Sequence[str] = (),
    is_ca: bool = False,
    age: dt.timedelta = dt.timedelta(),
) -> Issued:
    """Issue a certificate.

    Args:
        folder: gets NAME.pem, NAME.key and NAME.both.pem.
        name: its common name.
        ca: who signs it; None: it signs itself.
        hosts: names and addresses that it is for.
        is_ca: it may sign others.
        age: how long ago its lifetime, LIFETIME, began.
    """
    private_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = dt.datetime.now(dt.UTC) - age - dt.timedelta(minutes=5)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.certificate.subject if ca else subject)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if hosts:
        alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(ca.private_key if ca else private_key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key_as_pem(private_key)
    issued = Issued(
        certificate,
        private_key,
        folder / f"{name}.pem",
        folder / f"{name}.key",
        folder / f"{name}.both.pem",
    )
    issued.cert_file.write_bytes(pem)
    issued.key_file.write_bytes(key_pem)
    issued.both.write_bytes(key_pem + pem)
    return issued


def key_as_pem(private_key: ec.EllipticCurvePrivateKey, password: str = "") -> bytes:
    """Return a key as PEM, encrypted if there is a password."""
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption(),
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
