"""An interface without traffic that stands where a container's link was, for as long as somebody here refers to it.

A tap (the kernel's tuntap.rst) belongs to the file descriptor that made it: it goes when that is closed, or with the process, in
whatever namespace and under whatever name it is then.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ = struct.Struct("=16sH22x")


class StandIn:
    """A tap of the thread's namespace that is down. OSError if there can be none.

    `close` ends it; again is harmless. It takes 15 to 20 ms, nearly all of it in the kernel.
    """

    def __init__(self, name: str) -> None:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self.close = weakref.finalize(self, os.close, fd)
        self.close.atexit = False  # the kernel does it then
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
        except OSError:
            self.close()
            raise
