"""What comes in on a device, as the file format of libpcap has it, until enough time has passed or enough has come.

Reads a packet socket (packet(7)); filters are classic BPF, compiled by `tcpdump -ddd`, which opens no device, and run by the
kernel. So there is no process that could outlive who asked for it.
"""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from ctypes import addressof, create_string_buffer

from ..errors import DeadlineExceeded, InvalidRequest, LinkFailed, Unavailable

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_SO_TIMESTAMPNS = 35
_SO_ATTACH_FILTER = 26
_VLAN_VALID = 1 << 4  # TP_STATUS_VLAN_VALID: the kernel has taken the tag out of the frame
_AUXDATA = struct.Struct("=IIIHHHH")  # status, length, captured length, offsets of headers, tag, its kind
_TIMESPEC = struct.Struct("=qq")
_INSTRUCTION = struct.Struct("=HBBI")
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_LONGEST = 1 << 17  # bytes of a frame, offloads included
_LOOK = 0.2  # seconds between looks whether to end
_COMPILE = 5.0  # seconds; it may look up a name

# pcap-savefile(5), with times in nanoseconds; LINKTYPE_ETHERNET.
HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _LONGEST, 1)
_RECORD = struct.Struct("<IIII")


def compile_filter(text: str) -> bytes:
    """The program of a pcap-filter(7). InvalidRequest in tcpdump's words; Unavailable without tcpdump."""
    argv = ["tcpdump", "-ddd", "-y", "EN10MB", "--", text]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE, check=False)
    except OSError as exc:
        raise Unavailable(f"tcpdump cannot be run: {exc}", hint="install it, or leave the filter out") from None
    except ValueError:
        raise InvalidRequest("the filter holds a NUL", hint="leave it out") from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(
            f"the filter was not compiled within {_COMPILE:.0f} s", hint="use addresses in it, not names"
        ) from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidRequest(
            f"the filter cannot be used: {told[-1] if told else 'no reason given'}", hint="see pcap-filter(7)"
        )
    lines = [list(map(int, line.split())) for line in done.stdout.splitlines()[1:]]
    if not 0 < len(lines) <= _MAX_INSTRUCTIONS:
        raise InvalidRequest(f"the filter takes {len(lines)} instructions", hint=f"use {_MAX_INSTRUCTIONS} at most")
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)


def record(device: str, program: bytes, seconds: float, size: int, ended: Callable[[], bool]) -> bytes:
    """A file with what comes in on the device within `seconds`, `size` bytes at most, and no more once `ended` says so.

    `program` is from `compile_filter`, or empty for everything. LinkFailed.
    """
    found = bytearray(HEADER)
    until = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:  # hears nothing yet
            if program:
                _attach(sock, program)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            sock.bind((device, _ETH_P_ALL))
            while (left := until - time.monotonic()) > 0 and not ended():
                sock.settimeout(min(left, _LOOK))
                try:
                    data, told, _, sender = sock.recvmsg(_LONGEST, 256)
                except TimeoutError:
                    continue
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                entry = _entry(data, told)
                if len(found) + len(entry) > size:
                    break
                found += entry
    except OSError as exc:
        if exc.errno not in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):  # it has gone: so much there was
            raise LinkFailed(
                f"{device} cannot be listened on: {exc.strerror}", hint="try again", device=device
            ) from None
    return bytes(found)


def _attach(sock: socket.socket, program: bytes) -> None:
    code = create_string_buffer(program)
    count = len(program) // _INSTRUCTION.size
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", count, addressof(code))
    )  # struct sock_fprog


def _entry(data: bytes, told: list[tuple[int, int, bytes]]) -> bytes:
    """A frame as a record, with its tag where it was."""
    now = divmod(time.time_ns(), 1_000_000_000)
    for level, kind, value in told:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            now = _TIMESPEC.unpack(value)
        elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tag, tpid = _AUXDATA.unpack_from(value)
            if status & _VLAN_VALID:
                data = data[:12] + struct.pack("!HH", tpid or 0x8100, tag) + data[12:]
    return _RECORD.pack(*now, len(data), len(data)) + data
