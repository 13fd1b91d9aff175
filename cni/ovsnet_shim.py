#!/usr/bin/python3 -ISE
# ovsnet CNI plugin
"""Hands a CNI call to ovsnetd and prints its answer.

A template: cni/install.py makes self-contained executables of it by setting the constants below, and puts ovsnet_launcher.c
before it where it can. The interpreter's start is most of the run time, so this imports only built-in modules and `_socket`,
leaves without a teardown, and is short: another version of the interpreter has to compile it at every start; what is rarely
needed is compiled only then. Run `devstack/bench.sh cni` after a change. SOCKET is a constant because the environment is the
caller's.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, without its enums (1 ms)
import _socket
import posix
import sys

SOCKET = "/run/ovsnet/cni.sock"
PATH = "/cni"  # which of ovsnetd's plugins this is
TROUBLE = ""  # the source of cni/ovsnet_trouble.py
DELEGATE = ""  # the source of cni/ovsnet_delegate.py
LIMIT = 1 << 20  # bytes of a request's body, as in cni/wire.py
DEADLINE = 25  # seconds for everything; ovsnetd's own is 20


def forward(stdin: bytes, more: bytes = b"") -> tuple[int, bytes]:
    """Exit status and output by the controller's answer; an exception if there is none, or half of one.

    `more` are records for it beside the environment. Status 202 is none of an exit: the controller wants a delegate executed.
    """
    records = [b"%b=%b\0" % item for item in posix.environ.items() if item[0].startswith(b"CNI_")]
    body = b"".join(records) + more + b"\0" + stdin
    if len(body) > LIMIT:
        raise OverflowError
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    link.connect(SOCKET)
    head = b"POST %b HTTP/1.1\r\nHost: ovsnet\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    link.sendall(head % (PATH.encode(), len(body)) + body)
    reply = b""
    while chunk := link.recv(65536):
        reply += chunk
    head, _, body = reply.partition(b"\r\n\r\n")
    status = {b"200": 0, b"202": 202}.get(head[9:12], 1)
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    if int(length) != len(body) or (body[:1] != b"{" and (body or status)):
        raise ValueError(head)
    return status, body


def main(reason: str = "") -> int:
    """One call, from environment and stdin to stdout; returns the exit status.

    `reason` is what became of the call if it has been made already, by ovsnet_launcher.c: only to be explained.
    """
    stdin = b""
    try:
        posix.environ[b"CNI_COMMAND"]  # without it nobody is going to write to stdin
        while len(stdin) <= LIMIT and (chunk := posix.read(0, 65536)):
            stdin += chunk
        if reason:
            raise TimeoutError if reason == "late" else ValueError
        status, output = forward(stdin)
        if status == 202:
            scope: dict[str, object] = {}
            exec(DELEGATE, scope)  # noqa: S102  # as below
            status, output = scope["delegate"](output, stdin, forward, DEADLINE)  # type: ignore[operator]
    except (OSError, LookupError, OverflowError, ValueError) as error:
        scope = {}
        exec(TROUBLE, scope)  # noqa: S102  # part of this file: half of the compile time is saved when all is well
        status, output = scope["explain"](error, stdin, SOCKET, DEADLINE)  # type: ignore[operator]
    while output:
        output = output[posix.write(1, output) :]
    return status


def late(*_: object) -> None:
    """Ends whatever call is waiting when the deadline is over."""
    raise TimeoutError


if __name__ == "__main__":
    _signal.signal(_signal.SIGALRM, late)
    _signal.alarm(DEADLINE)
    posix._exit(main(*sys.argv[1:]))
