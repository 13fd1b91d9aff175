"""Who publishes and who asks in the tests of published ports: servers, clients, and the addresses of the wire between the host
and another machine (the fixture `outside`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness import Netns, wait_until

PYTHON = "/usr/bin/python3"
OUTSIDE, HOST = "192.0.2.2", "192.0.2.1"
OUTSIDE6, HOST6 = "2001:db8::2", "2001:db8::1"

# Answers every connection, or datagram, with a name and the address that it came from.
SERVER = """
import socket, sys
name, kind, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
sock = socket.socket(socket.AF_INET6, getattr(socket, kind))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("::", port))
if kind == "SOCK_STREAM":
    sock.listen(50)
    while True:
        link, peer = sock.accept()
        link.sendall(f"{name} {peer[0].removeprefix('::ffff:')}".encode())
        link.close()
while True:
    _, peer = sock.recvfrom(100)
    sock.sendto(f"{name} {peer[0].removeprefix('::ffff:')}".encode(), peer)
"""
CLIENT = """
import socket, sys
kind, address, port, own = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, getattr(socket, kind))
sock.settimeout(2)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if own:
    sock.bind(("", own))
try:
    sock.connect((address, port))
    sock.sendall(b"?")
    print(sock.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""


@contextmanager
def serving(where: Netns, name: str, port: int, kind: str = "SOCK_STREAM") -> Iterator[None]:
    """A server there, by that name."""
    argv = where.argv(PYTHON, "-ISc", SERVER, name, kind, str(port))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as server:
        try:
            flag = "-Hltn" if kind == "SOCK_STREAM" else "-Hlun"
            wait_until(lambda: f":{port} " in where.run("ss", flag).stdout, "the server listens")
            yield
        finally:
            server.kill()


def ask(where: Netns, address: str, port: int, kind: str = "SOCK_STREAM", *, own: int = 0) -> str:
    """What answers there: name and the client's address as the server sees it, or the name of an error."""
    return where.run(PYTHON, "-ISc", CLIENT, kind, address, str(port), str(own)).stdout.strip()
