"""Builds the image of the Dockerfile without Docker, and runs workers of it on a Flink cluster.

`python -m tests.servers.image` takes five minutes; it needs root, buildah and mmdebstrap (both packages of Debian), Go
and Java. Images of registries are not asked for; stand-ins have their names: Debian's Python 3.11, Beam's program for
workers (built from its source), and in place of Google's launcher of templates a script that runs what it would run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers import tools
from tests.servers.flink_cluster import FlinkCluster, flink_cluster
from tests.support import processes

IMAGE = "localhost/beam-tf-predict"
DOCKERFILE = tools.ROOT / "Dockerfile"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LAUNCHER = "opt/google/dataflow/python_template_launcher"
WORKERS = {"boot, as on Dataflow": "/opt/apache/beam/boot", "worker.py, as on Flink": "/usr/local/bin/worker.py"}
NEEDED = ("buildah", "mmdebstrap", "unshare", "go", "java")
BATCH = ("beam-tf-predict", "batch", "--config", "configs/natality.json", "--json")
_ENTER = """\
#!/bin/sh
# Runs a program of the image in its file system, which gets what a container is given.
exec unshare --mount sh -ec 'cd {root}
    mount -t proc proc proc; mount --rbind /dev dev; touch etc/hosts; mount --bind /etc/hosts etc/hosts
    exec chroot . "$@"' enter {program} "$@"
"""


def build() -> None:
    """Builds the image."""
    text = DOCKERFILE.read_text()
    versions = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.M))
    names = [
        re.sub(r"\$\{(\w+)\}", lambda name: versions[name[1]], each) for each in re.findall(r"^FROM (\S+)", text, re.M)
    ]
    worker, launcher, python = names[:3]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _python(root / "python")
        _commit(root / "python", python if "/" in python else f"docker.io/library/{python}")
        program = tools.installed("container", f"github.com/apache/beam/sdks/v2/python/container@v{versions['BEAM']}")
        (root / "worker/opt/apache/beam").mkdir(parents=True)
        shutil.copy(program, root / "worker/opt/apache/beam/boot")
        _commit(root / "worker", f"docker.io/{worker}")
        script = root / "launcher" / LAUNCHER
        script.parent.mkdir(parents=True)
        script.write_text('#!/bin/sh\nexec python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"\n')
        script.chmod(0o755)
        _commit(root / "launcher", launcher)
    _buildah("build", "--pull=never", "--network=host", "--tag", IMAGE, str(tools.ROOT))


def _python(place: Path) -> None:
    """Makes the file system of a Debian with Python 3.11."""
    packages = "python3,python3-pip,python3-venv,ca-certificates"
    _run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(place)])
    # As in the image that it stands for: pip installs for the whole system, and `python` is there.
    (place / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    (place / "usr/bin/python").symlink_to("python3")
    shutil.copy(CERTIFICATES, place / CERTIFICATES.relative_to("/"))


def _commit(root: Path, name: str) -> None:
    """Makes an image of a folder."""
    base = _buildah("from", "scratch").strip()
    try:
        _buildah("add", "--quiet", base, str(root), "/")
        settings = {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        _buildah("config", *(f"--env={key}={value}" for key, value in settings.items()), base)
        _buildah("commit", "--quiet", base, name)
    finally:
        _buildah("rm", base)


@contextlib.contextmanager
def container() -> Iterator[tuple[str, Path]]:
    """A container of the image, and its file system; it is removed afterwards."""
    name = _buildah("from", "--pull=never", IMAGE).strip()
    try:
        yield name, Path(_buildah("mount", name).strip())
    finally:
        _buildah("rm", name)


def _buildah(*arguments: str) -> str:
    return _run(["buildah", *arguments], {"BUILDAH_ISOLATION": "chroot"})


def _run(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    """Runs a program; returns what it prints, or ends this one with what it said."""
    done = processes.run(
        command, env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"error: {shlex.join(command[:3])} ... ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return str(done.stdout)


def check(name: str, root: Path, cluster: FlinkCluster, folder: Path) -> None:
    """Predicts the packaged births in the image: in its own process, by its launcher, and by workers on the cluster."""
    here = _predict(root, folder, "here")
    _buildah("run", name, "--", f"/{LAUNCHER}", *BATCH[2:4], *_paths("launched"))
    if _rows(root, "launched") != here:
        sys.exit("error: the launcher's command predicted other rows than the command")
    print(f"{len(here) - 1:,} rows by the launcher's command: as in the command", flush=True)
    for number, (worker, program) in enumerate(WORKERS.items()):
        script = _entering(folder / f"worker-{number}", root, program)
        flags = [
            *cluster.flags,
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps({'command': script})}",
        ]
        there = _predict(root, folder, f"there-{number}", *flags)
        if there != here:
            sys.exit(f"error: workers by {worker} predicted other rows than the command")
        print(f"{len(there) - 1:,} rows by {worker}: as in the command's own process", flush=True)


def _predict(root: Path, folder: Path, name: str, *flags: str) -> list[str]:
    """Runs a batch in the image; returns the lines of its output, sorted."""
    summary = json.loads(_run([_entering(folder / name, root, BATCH[0]), *BATCH[1:], *_paths(name), *flags]))
    if summary["rows_written"] != summary["rows_read"] or summary["runtime"] != "native":
        sys.exit(f"error: not as expected: {summary}")
    return _rows(root, name)


def _paths(name: str) -> list[str]:
    return [f"--set=output.path=/tmp/{name}/p", f"--set=dead_letters.path=/tmp/{name}/d"]


def _rows(root: Path, name: str) -> list[str]:
    files = (root / "tmp" / name).glob("p-*.csv")
    return sorted(line for file in files for line in file.read_text("utf-8").splitlines())


def _entering(script: Path, root: Path, program: str) -> str:
    """Writes a program that runs one of the image."""
    script.write_text(_ENTER.format(root=shlex.quote(str(root)), program=program))
    script.chmod(0o755)
    return str(script)


def main() -> None:
    """Builds the image and runs it."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid():
        sys.exit(f"error: run this as root, with {', '.join(missing or NEEDED)} (on Debian: apt-get install ...)")
    build()
    size = json.loads(_buildah("images", "--json", IMAGE))[0]["size"]
    print(f"built: {size} from {DOCKERFILE.name}", flush=True)
    with container() as (name, root), tempfile.TemporaryDirectory() as folder, flink_cluster() as cluster:
        packages = _run([_entering(Path(folder) / "list", root, "uv"), "pip", "list", "--system", "--format=json"])
        print(f"{len(json.loads(packages))} packages", flush=True)
        check(name, root, cluster, Path(folder))


if __name__ == "__main__":
    main()
