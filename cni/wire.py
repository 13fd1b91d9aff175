r"""The body that the executable sends to the controller: environment and stdin in one piece.

`CNI_*` variables as `KEY=VALUE` records, each ended by NUL (which no environment can hold), an empty record, then stdin as it
came:

    CNI_COMMAND=ADD\0CNI_CONTAINERID=abc\0...\0\0{"cniVersion": ...}

ovsnet_shim.py writes the same with built-in modules alone. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ovsnet.errors import InvalidRequest

PATH: Final = "/cni"
IPAM_PATH: Final = "/cni/ipam"
DELEGATED: Final = (
    "CNI_OVSNET_IPAM"  # record in the second request of an execution: what the other IPAM plugin has printed
)
LIMIT: Final = 1 << 20  # bytes of a body


def encode(environment: Mapping[str, str], stdin: bytes) -> bytes:
    """The body for `environment` (only its CNI_* variables are sent) and `stdin`."""
    records = [f"{key}={value}\0" for key, value in environment.items() if key.startswith("CNI_")]
    return "".join(records).encode() + b"\0" + stdin


def decode(body: bytes) -> tuple[dict[str, str], bytes]:
    """Environment and stdin of a body; InvalidRequest if it is not of this format, or the environment not UTF-8."""
    environment: dict[str, str] = {}
    start = 0
    while (end := body.find(b"\0", start)) > start:
        key, separator, value = body[start:end].partition(b"=")
        if not separator or not key.startswith(b"CNI_"):
            raise InvalidRequest("the request's environment holds a record that is no CNI_* variable", hint=_HINT)
        try:
            environment[key.decode()] = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{key!r} is not UTF-8", hint="pass names and paths in UTF-8") from None
        start = end + 1
    if end < 0:
        raise InvalidRequest("the request has no end of its environment", hint=_HINT)
    return environment, body[end + 1 :]


_HINT: Final = "use the executable that `ovsnet cni install` puts in place"
