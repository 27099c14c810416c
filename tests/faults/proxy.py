"""A TCP proxy that misbehaves when told to."""

import contextlib
import socket
import struct
import threading
import time
from enum import StrEnum
from typing import Self

CHUNK = 16 * 1024
POLL_S = 0.2
SLOW_BYTES_PER_S = 64 * 1024


class Mode(StrEnum):
    """What happens to connections and to the bytes on them."""

    PASS = "pass"
    RESET = "reset"  # After `reset_after` bytes of a connection, in either direction.
    SLOW = "slow"
    HALF_OPEN = "half-open"  # Connections are taken, and nothing is ever answered.


class Proxy:
    """Passes TCP connections on to an address."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.mode = Mode.PASS
        self.reset_after = 0
        self.affected = 0
        """How many connections were reset, slowed or left without an answer."""

    @property
    def address(self) -> tuple[str, int]:
        return self._listener.getsockname()[:2]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # Wakes up `accept`, which closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            client.close()
            return
        passed = [0]
        threads = [
            threading.Thread(target=self._pump, args=(*pair, passed), daemon=True)
            for pair in ((client, server), (server, client))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, passed: list[int]) -> None:
        source.settimeout(POLL_S)
        is_stuck = False
        try:
            while not self._ended.is_set():
                try:
                    data = source.recv(CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    break
                passed[0] += len(data)
                if self.mode is Mode.HALF_OPEN or is_stuck:
                    # For ever: a link that is half open does not come back.
                    self.affected += not is_stuck
                    is_stuck = True
                    continue
                if self.mode is Mode.RESET and passed[0] > self.reset_after:
                    self.affected += 1
                    _reset(source)
                    _reset(sink)
                    return
                if self.mode is Mode.SLOW:
                    self.affected += 1
                    time.sleep(len(data) / SLOW_BYTES_PER_S)
                sink.sendall(data)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
