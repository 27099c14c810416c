"""TLS contexts in handshakes without a network, and the messages of failed handshakes."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
import urllib3
from kafka.errors import KafkaConnectionError

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.tls import (
    TlsNames,
    client_context,
    explained,
    show_certificate,
    tls_error_of,
)
from tests.support.certificates import Issued, issue, key_as_pem

NAMES = TlsNames("CA", "ADDRESS", "PROTOCOL", "CERT", "KEY", "PASSWORD")
HOST = "kafka.example.com"


@pytest.fixture
def ca(tmp_path: Path) -> Issued:
    return issue(tmp_path, "ca", is_ca=True)


@pytest.fixture
def server(tmp_path: Path, ca: Issued) -> Issued:
    return issue(tmp_path, "server", ca=ca, hosts=[HOST])


def shake_hands(
    client: ssl.SSLContext, server: Issued, *, host: str = HOST, wants: Issued | None = None
) -> None:
    """Complete a handshake of client and server, or raise the error of one of them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert_file, server.key_file)
    if wants is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(wants.cert_file)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    unfinished = list(ends)
    for _ in range(10):
        for end in list(unfinished):
            try:
                end.do_handshake()
                unfinished.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not unfinished


def refused(client: ssl.SSLContext, server: Issued, *, host: str = HOST) -> ssl.SSLError:
    with pytest.raises(ssl.SSLError) as failed:
        shake_hands(client, server, host=host)
    return failed.value


def test_a_private_ca_is_trusted(ca: Issued, server: Issued) -> None:
    shake_hands(client_context(str(ca.cert_file), NAMES), server)


def test_a_certificate_is_trusted_that_is_given_itself(tmp_path: Path, server: Issued) -> None:
    """Whether it is self-signed or signed by an unknown CA."""
    own = issue(tmp_path, "own", hosts=[HOST])
    for one in (own, server):
        shake_hands(client_context(str(one.cert_file), NAMES), one)


def test_without_verification_anything_is(server: Issued) -> None:
    shake_hands(client_context(None, NAMES, verify=False), server, host="other.example.com")


def test_what_is_not_trusted_is_the_user_s(tmp_path: Path, ca: Issued, server: Issued) -> None:
    other = issue(tmp_path, "other", is_ca=True)
    own = issue(tmp_path, "own", hosts=[HOST])
    for trusted, shown in ((None, server), (other, server), (ca, own)):
        context = client_context(None if trusted is None else str(trusted.cert_file), NAMES)
        error = explained(refused(context, shown), "Kafka at x:1", NAMES)
        assert isinstance(error, UserError)
        assert str(error).startswith("Kafka at x:1 has a certificate that is not trusted (")
        assert "set CA to" in str(error)


def test_another_host_is_the_user_s(ca: Issued, server: Issued) -> None:
    for host in ("other.example.com", "127.0.0.1"):
        context = client_context(str(ca.cert_file), NAMES)
        error = explained(refused(context, server, host=host), "Kafka at x:1", NAMES)
        assert isinstance(error, UserError)
        assert f"'{host}'): set ADDRESS to" in str(error)


@pytest.mark.parametrize("age", [dt.timedelta(days=30), dt.timedelta(days=-30)])
def test_one_that_is_out_of_date_may_be_renewed(
    tmp_path: Path, ca: Issued, age: dt.timedelta
) -> None:
    shown = issue(tmp_path, "old", ca=ca, hosts=[HOST], age=age)
    error = explained(
        refused(client_context(str(ca.cert_file), NAMES), shown), "Kafka at x:1", NAMES
    )
    assert isinstance(error, TransientError)
    assert "renew it" in str(error)


def test_the_client_s_certificate_is_shown(tmp_path: Path, ca: Issued, server: Issued) -> None:
    client = issue(tmp_path, "client", ca=ca)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(key_as_pem(client.private_key, "secret"))
    for cert, key, password in (
        (client.cert_file, client.key_file, None),
        (client.both, None, None),
        (client.cert_file, encrypted, "secret"),
    ):
        context = client_context(str(ca.cert_file), NAMES)
        show_certificate(context, str(cert), key and str(key), password, NAMES)
        shake_hands(context, server, wants=ca)
    with pytest.raises(ssl.SSLError):
        shake_hands(client_context(str(ca.cert_file), NAMES), server, wants=ca)


@pytest.mark.parametrize(
    ("cert", "key", "password", "said"),
    [
        ("none.pem", "client.key", None, r"^CERT is .*none\.pem, which can't be read: No such"),
        ("client.pem", "none.key", None, r"^KEY is .*none\.key, which can't be read: No such"),
        (
            "client.key",
            "client.key",
            None,
            "^CERT is .*, which holds no certificate in PEM form: set CERT to",
        ),
        (
            "client.pem",
            "client.pem",
            None,
            "^KEY is .*, which holds no private key in PEM form: set KEY",
        ),
        ("client.pem", None, None, "^CERT is .*, which holds no private key in PEM form: set KEY"),
        ("client.pem", "ca.key", None, r"^KEY is .*ca\.key, which is not the key of CERT, .*"),
        ("client.pem", "encrypted.key", None, "^KEY is .*, which is encrypted: set PASSWORD$"),
        (
            "client.pem",
            "encrypted.key",
            "wrong",
            "^KEY is .*, which PASSWORD does not open: correct it$",
        ),
        (
            "damaged.pem",
            "client.key",
            None,
            "^KEY is .*: it or CERT, .*, is damaged: copy them anew$",
        ),
        (".", "client.key", None, "^CERT is .*, which can't be read: Is a directory; set CERT to"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_setting(
    tmp_path: Path, ca: Issued, cert: str, key: str | None, password: str | None, said: str
) -> None:
    client = issue(tmp_path, "client", ca=ca)
    (tmp_path / "encrypted.key").write_bytes(key_as_pem(client.private_key, "secret"))
    (tmp_path / "damaged.pem").write_text(damaged(client))
    context = client_context(str(ca.cert_file), NAMES)
    with pytest.raises(UserError, match=said) as failed:
        show_certificate(
            context, str(tmp_path / cert), key and str(tmp_path / key), password, NAMES
        )
    assert "\n" not in str(failed.value)
    assert "secret" not in str(failed.value)


def test_a_ca_file_that_is_wrong_is_named_with_its_setting(tmp_path: Path, ca: Issued) -> None:
    (tmp_path / "damaged.pem").write_text(damaged(ca))
    (tmp_path / "der.pem").write_bytes(b"\x30\x82\x01")
    for file, said in (
        ("none.pem", "which can't be read: No such file"),
        ("der.pem", "which holds no certificate in PEM form"),
        ("ca.key", "which holds no certificate in PEM form"),
        ("damaged.pem", "which holds a damaged certificate"),
    ):
        with pytest.raises(UserError, match=rf"^CA is .*{file}, {said}"):
            client_context(str(tmp_path / file), NAMES)


def damaged(one: Issued) -> str:
    lines = one.cert_file.read_text().splitlines()
    return "\n".join([lines[0], "AAAA" + lines[1][4:], *lines[2:], ""])


def test_what_tls_said_is_found_behind_the_errors_of_clients() -> None:
    said = ssl.SSLCertVerificationError(1, "certificate verify failed")
    pool = urllib3.HTTPSConnectionPool("x")
    assert tls_error_of(said) is said
    assert tls_error_of(KafkaConnectionError(said)) is said
    inner = urllib3.exceptions.SSLError(said)
    assert tls_error_of(urllib3.exceptions.MaxRetryError(pool, "/", inner)) is said
    # kafka-python raises it without `from`.
    wrapped = KafkaConnectionError("Handshake failed")
    wrapped.__context__ = said
    assert tls_error_of(wrapped) is said
    assert tls_error_of(KafkaConnectionError("socket disconnected")) is None
    looped = OSError()
    looped.__cause__ = looped
    assert tls_error_of(looped) is None


def test_a_server_that_hangs_up_may_be_starting() -> None:
    error = explained(ssl.SSLEOFError(8, "EOF occurred"), "MinIO at y", NAMES)
    assert isinstance(error, TransientError)
    assert "set PROTOCOL to what it speaks" in str(error)
