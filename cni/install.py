"""Puts the CNI executables where runtimes look for them, and takes them away again.

Owns how the executables are made of their templates: two of ovsnet_shim.py, ovsnet_trouble.py and ovsnet_delegate.py, with
ovsnet_launcher.c before them where there is a C compiler, and one of ovsnet_docker.py. A file appears under its name only when it
is whole and on disk: a runtime never executes half of one, and never finds none during an upgrade. Called by
`ovsnet cni install` and by the composition of test stacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import marshal
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ovsnet.errors import AlreadyExists, Forbidden, InvalidRequest, Unavailable

from .protocol import VERSIONS
from .wire import IPAM_PATH, LIMIT, PATH

LOG = logging.getLogger(__name__)

PROGRAMS: Final = ("ovsnet", "ovsnet-ipam", "ovsnet-docker")
_PATHS: Final = {"ovsnet": PATH, "ovsnet-ipam": IPAM_PATH}  # at which ovsnetd answers; see wire.py
MARK: Final = b"# ovsnet CNI plugin\n"  # second line of every executable of ours

_INTERPRETER: Final = "/usr/bin/python3"  # as in the templates' first line
_SOCKET_MAX: Final = 107  # bytes of sun_path without its NUL, unix(7)
_DEADLINE: Final = 25  # seconds in which an executable has an answer
_ELF: Final = b"\x7fELF"
# Static: it starts in half of the time, and runs on the host whatever C library the container has in which this runs.
_FLAGS: Final = ("-std=gnu11", "-O2", "-s", "-static")
_COMPILE_SECONDS: Final = 60.0


def install(bin_dir: Path, socket: Path) -> list[Path]:
    """Writes the executables that reach ovsnetd on `socket` (absolute) to `bin_dir`, made if missing; returns their paths.

    Each replaces its predecessor in one step, also while that runs. Raises InvalidRequest for a socket path that cannot be
    one, AlreadyExists if a file of the name is not ours, Forbidden or Unavailable if it cannot be written.
    """
    if not socket.is_absolute() or len(os.fsencode(socket)) > _SOCKET_MAX:
        raise InvalidRequest(
            f"{str(socket)!r} cannot be a socket's path", hint=f"absolute, {_SOCKET_MAX} bytes at most"
        )
    contents = {bin_dir / name: compiled(name, socket) or program(name, socket) for name in PROGRAMS}
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
        elif not _is_current(path.read_bytes(), name, socket):
            found[name] = "it is another version's, or talks to another socket: run `ovsnet cni install`"
        else:
            found[name] = ""
    return found


def interpreter_trouble() -> str:
    """Why the programs' interpreter cannot run them; "" is good."""
    path = _INTERPRETER
    check = "import sys; sys.exit(sys.version_info < (3, 8))"
    try:
        done = subprocess.run([path, "-ISE", "-c", check], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{path} cannot be run: {exc}"
    return f"{path} is older than Python 3.8" if done.returncode else ""


def program(name: str, socket: Path) -> bytes:
    """The executable of that name; `socket` is ovsnetd's."""
    return _template("ovsnet_docker.py").encode() if name == "ovsnet-docker" else executable(socket, name)


def executable(socket: Path, name: str = "ovsnet", deadline: int = _DEADLINE) -> bytes:
    """The executable `ovsnet` or `ovsnet-ipam` as a Python program, which waits `deadline` seconds for an answer on `socket`.

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


def compiled(name: str, socket: Path, deadline: int = _DEADLINE) -> bytes | None:
    """`executable` with a compiled first half, which needs no interpreter as long as ovsnetd answers as usual.

    None if there is no C compiler (`cc`), or it fails; `ovsnet-docker` has no such half.
    """
    compiler = shutil.which("cc")
    if compiler is None or name not in _PATHS:
        return None
    source = _launcher(name, socket, deadline)
    with tempfile.TemporaryDirectory(prefix="ovsnet-") as directory:
        output = Path(directory, name)
        argv = [compiler, *_FLAGS, "-x", "c", "-o", str(output), "-"]
        try:
            done = subprocess.run(
                argv, input=source.encode(), capture_output=True, timeout=_COMPILE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            LOG.warning("%s does not work: %s", compiler, exc)
            return None
        if done.returncode:
            LOG.warning("%s cannot compile the launcher: %s", compiler, done.stderr.decode(errors="replace").strip())
            return None
        return output.read_bytes() + _appendix(name, socket, deadline)


def _launcher(name: str, socket: Path, deadline: int) -> str:
    """The C source, with its constants."""
    strings = {"SOCKET": str(socket), "PATH": _PATHS[name], "PYTHON": _INTERPRETER}
    lines = [f"#define {key} {_c_string(value)}" for key, value in strings.items()]
    lines += [f"#define DEADLINE {deadline}", f"#define LIMIT {LIMIT}", _template("ovsnet_launcher.c")]
    return "\n".join(lines)


def _c_string(text: str) -> str:
    return '"' + "".join(f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'


def _appendix(name: str, socket: Path, deadline: int) -> bytes:
    """What follows the compiled code: the Python program, the launcher it is of, and the length of both in 16 characters."""
    source = hashlib.sha256(_launcher(name, socket, deadline).encode()).hexdigest()
    script = executable(socket, name, deadline) + f"# {source}\n".encode()
    return script + f"# {len(script):013}\n".encode()


def _is_current(content: bytes, name: str, socket: Path) -> bool:
    if content.startswith(_ELF) and name in _PATHS:
        return content.endswith(_appendix(name, socket, _DEADLINE))
    return content == program(name, socket)


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
            first = file.readline()
            return (
                file.readline() == MARK if first.startswith(b"#!") else first.startswith(_ELF) and MARK in file.read()
            )
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
