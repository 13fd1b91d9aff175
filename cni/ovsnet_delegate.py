"""Executes the IPAM plugin that the controller names: the second rare part of ovsnet_shim.py.

A template too: cni/install.py embeds this source in the executable, which compiles it only when needed. Here, and not in the
controller, a delegate has its caller's privileges, file system and CNI_PATH. Standard library only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable

Answer = tuple[int, bytes]  # exit status and output


def delegate(task: bytes, stdin: bytes, forward: Callable[[bytes, bytes], Answer]) -> Answer:
    """Do what the controller's `task` says (JSON: `delegate`, the plugin, and `again`, whether to report what it printed).

    SPEC 1.1.0, section 4: a delegate gets the whole configuration and environment, and when a later step of ADD fails, DEL. Whose
    outcome is unknown is not undone here: the runtime's DEL will, once the container has lost the address.
    """
    orders = json.loads(task)
    status, output = execute(orders["delegate"], stdin)
    if status or not orders["again"]:
        return status, output
    status, answer = forward(stdin, b"CNI_OVSNET_IPAM=" + output.replace(b"\0", b"") + b"\0")
    if status and os.environ["CNI_COMMAND"] == "ADD":
        undone, reason = execute(orders["delegate"], stdin, CNI_COMMAND="DEL")
        if undone:
            sys.stderr.write(f"ovsnet: {orders['delegate']} did not take its address back: {reason!r}\n")
    return status, answer


def execute(name: str, stdin: bytes, **environment: str) -> Answer:
    """Run the plugin to its end, its standard error being ours. A failure that is not in CNI's form is put into it."""
    path = os.environ.get("CNI_PATH", "")
    found = [os.path.join(directory, name) for directory in path.split(":") if directory]
    program = next((one for one in found if os.access(one, os.X_OK)), None)
    if program is None:
        return trouble(stdin, f"IPAM plugin {name} is not in CNI_PATH ({path})", "install it, or correct ipam.type")
    try:
        done = subprocess.run(
            [program], input=stdin, stdout=subprocess.PIPE, env={**os.environ, **environment}, check=False
        )
    except OSError as error:
        return trouble(stdin, f"IPAM plugin {program} cannot be executed: {error}", "install it anew")
    if not done.returncode:
        return 0, done.stdout
    try:
        told = "code" in json.loads(done.stdout)
    except (ValueError, TypeError):
        told = False
    if told:
        return 1, done.stdout
    return trouble(stdin, f"IPAM plugin {name} failed with {done.returncode}: {done.stdout[:200]!r}", "see its log")


def trouble(stdin: bytes, message: str, hint: str) -> Answer:
    """A CNI error, in the version of the configuration."""
    version = json.loads(stdin).get("cniVersion", "0.1.0")
    return 1, json.dumps({"cniVersion": version, "code": 7, "msg": message, "details": hint}).encode()
