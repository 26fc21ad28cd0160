"""Makes what the servers of tests need: programs of Go, jars by Maven, packages of npm, Python environments.

Each is made on first use, and again when what it is made from changes; test processes share it. They are in .tools and
.venv-<name>. Processes end with their guard, and the guard with the test process.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent.parent
_TOOLS = ROOT / ".tools"
_GUARD = '{ "$@"; kill -9 0; } & read _; kill -9 0'


def guarded(command: Sequence[str]) -> list[str]:
    """A command that ends when nobody holds its standard input any more. Start it in a session of its own."""
    return ["sh", "-c", _GUARD, "guard", *command]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def require_free(ports: Iterable[int]) -> None:
    """Ends the program with a line that names a port of 127.0.0.1 that is in use."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                sys.exit(f"error: port {port} of this machine is in use; end what uses it, and run this again")


def built(name: str, source: Path) -> str:
    """A program of Go, from a folder with its source."""

    def make(place: Path) -> None:
        processes.run(["go", "build", "-o", str(place), "."], cwd=source, check=True)

    made_from = b"".join((source / file).read_bytes() for file in ("main.go", "go.mod", "go.sum"))
    return str(_made(_TOOLS / name, made_from, ["go"], "a minute", make))


def installed(name: str, package: str) -> str:
    """A program of Go, from a package@version."""

    def make(place: Path) -> None:
        with tempfile.TemporaryDirectory(dir=_TOOLS) as folder:
            processes.run(["go", "install", package], env={**os.environ, "GOBIN": folder}, check=True)
            os.replace(Path(folder) / name, place)

    return str(_made(_TOOLS / name, package.encode(), ["go"], "two minutes", make))


def jars(name: str, pom: Path, size: str) -> Path:
    """The folder with the jars that a pom.xml asks for."""

    def make(place: Path) -> None:
        copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        processes.run([*copy, f"-DoutputDirectory={place}"], check=True, stdout=sys.stderr)

    return _made(_TOOLS / name, pom.read_bytes(), ["java", "mvn"], f"{size}, a minute", make)


def packed(name: str, package: str, integrity: str) -> Path:
    """The folder of an npm package@version, without what that depends on.

    Args:
      name: of the folder.
      package: name and version.
      integrity: what the registry says of it, sha512-...
    """

    def make(place: Path) -> None:
        with tempfile.TemporaryDirectory(dir=_TOOLS) as folder:
            processes.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=sys.stderr)
            (archive,) = Path(folder).glob("*.tgz")
            found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            assert found == integrity, f"{package} is {found}"
            with tarfile.open(archive) as files:
                files.extractall(folder, filter="data")
            os.replace(Path(folder) / "package", place)

    return _made(_TOOLS / name, (package + integrity).encode(), ["node", "npm"], "3 MB, some seconds", make)


def environment(name: str, requirements: Path, size: str, finish: str = "") -> Path:
    """A Python environment that has exactly what its requirements.txt asks for.

    Args:
      name: of it.
      requirements: the file.
      size: of what is installed, in words.
      finish: a program to run in it when it is made, with the environment's folder as home.
    """

    def make(place: Path) -> None:
        processes.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        python = str(place / "bin" / "python")
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--require-hashes"]
        processes.run([*uv, "--python", python, "-r", str(requirements)], check=True)
        if finish:
            processes.run([python, "-c", finish], check=True, env={**os.environ, "HOME": str(place)})

    made_from = requirements.read_bytes() + f"{finish}{sys.version}".encode()
    return _made(ROOT / f".venv-{name}", made_from, [], f"{size}, some seconds", make)


def needs(what: str, *programs: str) -> None:
    """Skips the test if a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{what} needs {program}, which is not installed")


def _made(place: Path, made_from: bytes, programs: Sequence[str], effort: str, make: Callable[[Path], None]) -> Path:
    """A file or a folder, made if it is not there or was made from something else."""
    wanted = hashlib.sha256(made_from).hexdigest()
    _TOOLS.mkdir(exist_ok=True)
    with open(_TOOLS / f"{place.name}.made", "a+") as note:
        # Tests run in several processes.
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        if note.read() != wanted or not place.exists():
            needs(place.name, *programs)
            print(f"making {place.relative_to(ROOT)} ({effort}) ...", file=sys.stderr)
            note.truncate(0)
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            make(place)
            note.write(wanted)
    return place
