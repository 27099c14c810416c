"""Answers the names of services, in place of CoreDNS.

Usage: names.py TOKEN ADDRESS
"""

import json
import socket
import ssl
import struct
import sys
import time
import urllib.request

SUFFIX = "svc.cluster.local"
FRESH_S = 3.0
A = 1
ANSWER, NO_SUCH_NAME = 0x8580, 0x8583
TTL_S = 5


def services(token: str, address: str) -> dict[str, str]:
    """Ask the API server for the addresses of all services, by name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(
        f"https://{address}:6443/api/v1/services", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10, context=context) as response:  # noqa: S310
        found = json.load(response)["items"]
    return {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}.{SUFFIX}": address
        for one in found
        if (address := one["spec"]["clusterIP"]) != "None"
    }


def answer(question: bytes, known: dict[str, str]) -> bytes:
    """Answer one question."""
    position, labels = 12, []
    while length := question[position]:
        labels.append(question[position + 1 : position + 1 + length].decode())
        position += 1 + length
    (kind,) = struct.unpack(">H", question[position + 1 : position + 3])
    address = known.get(".".join(labels).lower())
    record = b""
    if address and kind == A:
        # The name is that of the question, at byte 12.
        record = struct.pack(">HHHIH", 0xC00C, A, 1, TTL_S, 4) + socket.inet_aton(address)
    flags = ANSWER if address else NO_SUCH_NAME
    header = struct.pack(">HHHHH", flags, 1, 1 if record else 0, 0, 0)
    return question[:2] + header + question[12 : position + 5] + record


def serve(token: str, address: str) -> None:
    """Answer questions until the process is ended."""
    known: dict[str, str] = {}
    asked = -FRESH_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            question, sender = server.recvfrom(2000)
            if time.monotonic() - asked > FRESH_S:
                try:
                    known = services(token, address)
                except OSError as error:
                    print(error, flush=True)  # noqa: T201
                asked = time.monotonic()
            server.sendto(answer(question, known), sender)


if __name__ == "__main__":
    serve(*sys.argv[1:])
