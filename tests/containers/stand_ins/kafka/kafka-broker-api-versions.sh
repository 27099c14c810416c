#!/usr/bin/python3
"""Asks the broker which requests it takes, as Kafka's own tool does, whose jar is not among the broker's."""

import socket
import struct
import sys

[option] = sys.argv[1:]
host, port = option.removeprefix("--bootstrap-server=").split(":")
with socket.create_connection((host, int(port)), timeout=10) as connection:
    # Length, API key 18 (ApiVersions) in version 0, correlation id, no client id.
    connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
    answer = connection.makefile("rb").read(10)
    # Length, correlation id, error code.
    sys.exit(struct.unpack(">iih", answer)[2])
