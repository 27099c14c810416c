"""Kafka's configuration, and the answers that count as ready."""

import hashlib
import socket
import struct
import threading
from pathlib import Path

import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.local.servers import kafka
from resize_pipeline.local.servers.kafka import kafka_answers, server_properties


def properties(address: tuple[str, int]) -> dict[str, str]:
    lines = server_properties(Path("data"), address, 19093).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_clients_are_sent_to_the_configured_address() -> None:
    assert properties(("127.0.0.1", 9092))["advertised.listeners"] == (
        "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:19093"
    )
    assert properties(("::1", 9092))["listeners"].startswith("PLAINTEXT://[::1]:9092,")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (struct.pack(">iii", 60, 1, 1), True),
        # A broker that is not registered yet returns a list without brokers.
        (struct.pack(">iii", 60, 1, 0), False),
        (b"HTTP", False),
        (b"", False),
    ],
)
def test_only_a_list_with_a_broker_is_an_answer(answer: bytes, *, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert kafka_answers(server.getsockname()) is expected
        thread.join(5)


def test_a_closed_port_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    assert not kafka_answers(address)


def test_jars_are_compared_with_what_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = tmp_path / "pinned.sha256"
    jars = tmp_path / "jars"
    jars.mkdir()
    (jars / "a.jar").write_bytes(b"a")
    (jars / "b.jar").write_bytes(b"b")
    pinned.write_text(
        "".join(f"{hashlib.sha256(one).hexdigest()}  {one.decode()}.jar\n" for one in (b"a", b"b"))
    )
    monkeypatch.setattr(kafka, "PINNED_JARS", pinned)
    assert kafka.wrong_jars(jars) == ""
    (jars / "b.jar").write_bytes(b"B")
    assert "b.jar has another SHA-256" in kafka.wrong_jars(jars)
    (jars / "c.jar").write_bytes(b"")
    assert "such as c.jar" in kafka.wrong_jars(jars)


def test_changed_jars_in_the_cache_are_replaced_and_changed_downloads_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says why, and nothing that is not pinned is ever run."""
    monkeypatch.setattr(kafka, "cache_dir", lambda: tmp_path)
    target = tmp_path / "kafka" / kafka.KAFKA_VERSION
    target.mkdir(parents=True)
    (target / "evil.jar").write_bytes(b"")

    def download(scratch: Path, _: object) -> Path:
        folder = scratch / "jars"
        folder.mkdir()
        (folder / "evil.jar").write_bytes(b"")
        return folder

    monkeypatch.setattr(kafka, "_download", download)
    with pytest.raises(UserError, match=r"not what is pinned in kafka\.sha256"):
        kafka.kafka_jars()
    assert "because in the cache there are other files" in capsys.readouterr().err
    assert not target.exists()
