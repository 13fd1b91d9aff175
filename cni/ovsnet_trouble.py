"""What the CNI executable answers when the controller does not: the rare half of ovsnet_shim.py.

A template too: cni/install.py sets VERSIONS and embeds this source in the executable, which compiles it only when needed.
Standard library only.
"""

import json
import posix

VERSIONS: list[str] = []  # cni.protocol.VERSIONS


def explain(error: Exception, stdin: bytes, socket: str, deadline: int) -> tuple[int, bytes]:
    """Exit status and output, as a CNI error (SPEC 1.1.0, section 5) or VERSION's result.

    VERSION can do without the controller; STATUS tells that it is not available (50); everything else is to be tried
    again later (11), also when the outcome is unknown: a runtime follows a failed ADD by DEL.
    """
    command = posix.environ.get(b"CNI_COMMAND")
    version = version_of(stdin)
    code = 50 if command == b"STATUS" else 11
    match error:
        case KeyError():
            answer = {"code": 4, "msg": "CNI_COMMAND is not set", "details": "container runtimes execute this plugin"}
        case OverflowError():
            answer = {"code": 7, "msg": "the network configuration is larger than 1 MiB", "details": "make it smaller"}
        case _ if command == b"VERSION" and version:
            return 0, json.dumps({"cniVersion": version, "supportedVersions": VERSIONS}).encode()
        case FileNotFoundError() | ConnectionRefusedError():
            answer = {"code": code, "msg": "ovsnetd does not run", "details": f"start ovsnetd; it listens on {socket}"}
        case PermissionError():
            hint = "run as root, or in the group that the setting socket_group names"
            answer = {"code": code, "msg": f"no permission to use {socket}", "details": hint}
        case TimeoutError():
            hint = "see ovsnetd's log; whether the call was carried out is unknown: follow an ADD by DEL"
            answer = {"code": code, "msg": f"no answer from ovsnetd within {deadline} s", "details": hint}
        case ConnectionError() | ValueError():
            hint = "see ovsnetd's log; whether the call was carried out is unknown: follow an ADD by DEL"
            answer = {"code": code, "msg": "ovsnetd broke off, or its answer is none", "details": hint}
        case _:
            answer = {"code": 5, "msg": f"input/output failure: {error}", "details": f"check stdin and {socket}"}
    return 1, json.dumps({"cniVersion": version or VERSIONS[-1], **answer}).encode()


def version_of(stdin: bytes) -> str | None:
    """The cniVersion of a network configuration, 0.1.0 if it has none; None if this is no network configuration."""
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError):
        return None
    version = config.get("cniVersion", "0.1.0") if isinstance(config, dict) else None
    return version if isinstance(version, str) else None
