"""Kafka's configuration, and the answers that count as ready."""

import socket
import struct
import threading
from pathlib import Path

import pytest

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
