"""Puts the CNI executables where runtimes look for them, and takes them away again.

Owns how the executables are made of their templates: two of ovsnet_shim.py, ovsnet_trouble.py and ovsnet_delegate.py, one of
ovsnet_docker.py. A file appears under its name only when it is whole and on disk: a runtime never executes half of one, and never
finds none during an upgrade. Called by `ovsnet cni install` and by the composition of test stacks.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ovsnet.errors import AlreadyExists, Forbidden, InvalidRequest, Unavailable

from .protocol import VERSIONS
from .wire import IPAM_PATH, PATH

PROGRAMS: Final = ("ovsnet", "ovsnet-ipam", "ovsnet-docker")
_PATHS: Final = {"ovsnet": PATH, "ovsnet-ipam": IPAM_PATH}  # at which ovsnetd answers; see wire.py
MARK: Final = b"# ovsnet CNI plugin\n"  # second line of every executable of ours

_SOCKET_MAX: Final = 107  # bytes of sun_path without its NUL, unix(7)


def install(bin_dir: Path, socket: Path) -> list[Path]:
    """Writes the executables that reach ovsnetd on `socket` (absolute) to `bin_dir`, made if missing; returns their paths.

    Each replaces its predecessor in one step, also while that runs. Raises InvalidRequest for a socket path that cannot be
    one, AlreadyExists if a file of the name is not ours, Forbidden or Unavailable if it cannot be written.
    """
    if not socket.is_absolute() or len(os.fsencode(socket)) > _SOCKET_MAX:
        raise InvalidRequest(
            f"{str(socket)!r} cannot be a socket's path", hint=f"absolute, {_SOCKET_MAX} bytes at most"
        )
    contents = {bin_dir / name: program(name, socket) for name in PROGRAMS}
    with _told(bin_dir):
        bin_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        for path, content in contents.items():
            _replace(path, content)
    return list(contents)


def uninstall(bin_dir: Path) -> list[Path]:
    """Removes our executables from `bin_dir`; returns the paths that existed. Other people's files stay."""
    with _told(bin_dir):
        paths = [path for path in (bin_dir / name for name in PROGRAMS) if _is_ours(path)]
        for path in paths:
            path.unlink(missing_ok=True)
    return paths


def troubles(bin_dir: Path, socket: Path) -> dict[str, str]:
    """What is wrong with each program of ours in `bin_dir`, by name; "" is good. `socket` is ovsnetd's."""
    found = {}
    for name in PROGRAMS:
        path = bin_dir / name
        if not path.exists():
            found[name] = "it is missing: run `ovsnet cni install`"
        elif not _is_ours(path):
            found[name] = "it is not ovsnet's: move it away, then run `ovsnet cni install`"
        elif not os.access(path, os.X_OK):
            found[name] = "it is not executable: run `ovsnet cni install`"
        elif path.read_bytes() != program(name, socket):
            found[name] = "it is another version's, or talks to another socket: run `ovsnet cni install`"
        else:
            found[name] = ""
    return found


def interpreter_trouble() -> str:
    """Why the programs' interpreter cannot run them; "" is good."""
    path = _template("ovsnet_shim.py").partition("\n")[0].removeprefix("#!").split()[0]
    check = "import sys; sys.exit(sys.version_info < (3, 8))"
    try:
        done = subprocess.run([path, "-ISE", "-c", check], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{path} cannot be run: {exc}"
    return f"{path} is older than Python 3.8" if done.returncode else ""


def program(name: str, socket: Path) -> bytes:
    """The executable of that name; `socket` is ovsnetd's."""
    return _template("ovsnet_docker.py").encode() if name == "ovsnet-docker" else executable(socket, name)


def executable(socket: Path, name: str = "ovsnet", deadline: int = 25) -> bytes:
    """The executable `ovsnet` or `ovsnet-ipam`, which waits `deadline` seconds for an answer on `socket`.

    It is its source, and the same compiled, which saves 0.6 ms of 7 where the interpreter is of the version that this runs on.
    """
    trouble = _fill(_template("ovsnet_trouble.py"), "VERSIONS: list[str] = []", f"VERSIONS = {list(VERSIONS)}")
    shim = _fill(_template("ovsnet_shim.py"), 'TROUBLE = ""', f"TROUBLE = {trouble!a}")
    shim = _fill(shim, 'DELEGATE = ""', f"DELEGATE = {_template('ovsnet_delegate.py')!a}")
    shim = _fill(shim, 'PATH = "/cni"', f"PATH = {_PATHS[name]!a}")
    shim = _fill(shim, "DEADLINE = 25", f"DEADLINE = {deadline}")
    source = _fill(shim, 'SOCKET = "/run/ovsnet/cni.sock"', f"SOCKET = {str(socket)!a}")
    shebang, mark, program = source.split("\n", 2)
    compiled = marshal.dumps(compile(program, "ovsnet", "exec", optimize=2))
    lines = (
        shebang,
        mark,
        "import marshal, sys",
        f"SOURCE = {program!a}",
        f"exec(marshal.loads({compiled!a}) if sys.hexversion >> 16 == {sys.hexversion >> 16:#x} else SOURCE)",
    )
    return "\n".join((*lines, "")).encode()


def _template(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _fill(template: str, blank: str, value: str) -> str:
    head, found, tail = template.partition(f"\n{blank}")
    if not found:
        raise AssertionError(f"no line {blank!r} in the template")
    return f"{head}\n{value}{tail}"


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().startswith(b"#!") and file.readline() == MARK
    except FileNotFoundError:
        return False


def _replace(path: Path, content: bytes) -> None:
    if os.path.lexists(path) and not _is_ours(path):
        raise AlreadyExists(f"{path} is not ovsnet's", hint="move it away, or choose another --bin-dir")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o755)  # whatever the umask
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _told(bin_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise Forbidden(f"cannot change {bin_dir}: {exc.strerror}", hint="run as root") from exc
    except OSError as exc:
        raise Unavailable(
            f"cannot change {bin_dir}: {exc.strerror}", hint="check the path and the file system"
        ) from exc
