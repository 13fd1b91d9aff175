"""Executes the IPAM plugin that the controller names: the second rare part of ovsnet_shim.py.

A template too: cni/install.py embeds this source in the executable, which compiles it only when needed. Here, and not in the
controller, a delegate has its caller's privileges, file system and CNI_PATH. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

PATIENCE = 30  # seconds for a delegate: DHCP asks again after four, and after eight more
HANDED_ON = b"CNI_OVSNET_IPAM=%b\0"  # as in cni/wire.py

Answer = tuple[int, bytes]  # exit status and output


def delegate(task: bytes, stdin: bytes, forward: Callable[[bytes, bytes], Answer], deadline: int) -> Answer:
    """Do what the controller's `task` says (JSON: `delegate`, the plugin; `again`, whether to report what it printed; `undo`,
    whether there is an interface already). `deadline` in seconds is for each call of the controller.

    SPEC 1.1.0, section 4: a delegate gets the whole configuration and environment, and when a later step of ADD fails, DEL. Whose
    outcome is unknown is not undone here: the runtime's DEL will, once the container has lost the address.
    """

    def run(**environment: str) -> Answer:
        signal.alarm(0)  # it has a deadline of its own
        answer = execute(plugin, stdin, **environment)
        signal.alarm(deadline)
        return answer

    orders = json.loads(task)
    plugin, command = orders["delegate"], os.environ["CNI_COMMAND"]
    status, output = run()
    given = not status
    if not orders["again"]:
        return status, output
    if command == "DEL":  # a plugin that cannot release its address does not keep the container attached
        answer = forward(stdin, HANDED_ON % b"")
        return (status, output) if status and not answer[0] else answer
    if given:
        status, output = forward(stdin, HANDED_ON % output.replace(b"\0", b""))
    # Also where it gave nothing but has had the interface: its daemon may still be at it.
    if status and command == "ADD" and (given or orders["undo"]):
        undone, reason = run(CNI_COMMAND="DEL")
        if undone:
            sys.stderr.write(f"ovsnet: {plugin} did not take its address back: {reason!r}\n")
    if status and orders["undo"]:
        try:
            undone, reason = forward(stdin, HANDED_ON % b"" + b"CNI_COMMAND=DEL\0")
        except (OSError, ValueError) as error:
            undone, reason = 1, str(error).encode()
        if undone:  # what to tell is what failed first
            sys.stderr.write(f"ovsnet: the interface stays until DEL: {reason!r}\n")
    return status, output


def execute(name: str, stdin: bytes, **environment: str) -> Answer:
    """Run the plugin to its end, its standard error being ours. A failure that is not in CNI's form is put into it."""
    path = os.environ.get("CNI_PATH", "")
    found = [os.path.join(directory, name) for directory in path.split(":") if directory]
    program = next((one for one in found if os.access(one, os.X_OK)), None)
    if program is None:
        return trouble(stdin, f"IPAM plugin {name} is not in CNI_PATH ({path})", "install it, or correct ipam.type")
    try:
        done = subprocess.run(
            [program],
            input=stdin,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            timeout=PATIENCE,
            check=False,
        )
    except OSError as error:
        return trouble(stdin, f"IPAM plugin {program} cannot be executed: {error}", "install it anew")
    except subprocess.TimeoutExpired:
        return trouble(stdin, f"IPAM plugin {name} did not end within {PATIENCE} s", "try again; see its log", 11)
    if not done.returncode:
        return 0, done.stdout
    try:
        told = "code" in json.loads(done.stdout)
    except (ValueError, TypeError):
        told = False
    if told:
        return 1, done.stdout
    return trouble(stdin, f"IPAM plugin {name} failed with {done.returncode}: {done.stdout[:200]!r}", "see its log")


def trouble(stdin: bytes, message: str, hint: str, code: int = 7) -> Answer:
    """A CNI error, in the version of the configuration."""
    version = json.loads(stdin).get("cniVersion", "0.1.0")
    return 1, json.dumps({"cniVersion": version, "code": code, "msg": message, "details": hint}).encode()
