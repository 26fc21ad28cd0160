"""What is installed is what was locked, and what travels to the workers is the three packages and nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability.stager import Stager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model.version import __version__
from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "inference", "pipelines")
MAPPED = {
    "configs": (
        "natality.json",
        "natality-bigquery.json",
        "natality-job.json",
        "natality-endpoint.json",
        "natality-kafka.json",
        "natality-pubsub.json",
        "natality-stream.json",
        "prices.json",
        "schema.json",
        "article-batch.json",
        "article-stream.json",
        "compare-article-batch.json",
        "compare-article-stream.json",
        "compare-batch.json",
        "compare-schema.json",
        "compare-stream.json",
    ),
    "data": ("births-nc-2001.csv", "README.md"),
}
"""Folders of the checkout that are packages of data in a wheel, below `model/packaged`, and their files."""
SUFFIXES = (".py", ".typed", ".css", ".j2")
"""Of the files of the packages: modules, marks of types, the page of a report."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LOCKS = sorted([ROOT / "requirements.lock", *(ROOT / "tests").rglob("requirements.txt")])

NEIGHBOURS = (
    "model_private/__init__.py",
    "model_private/keys.py",
    "pipelines_old/__init__.py",
    "inference-notes/notes.py",
    "model/notes.txt",
    "model/trained/v2/saved_model.pb",
    "tests/test_something.py",
    "data/births.csv",
    "out/predictions-00000-of-00001.csv",
    "data/births-2002.csv",
    "configs/mine.json",
    "configs/natality-mine.json",
    ".venv-other/lib/secret.py",
    ".env",
)
"""Files that lie in a checkout, and are not the project's to give away."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed, with neighbours that are not to be, after an earlier build that took them along."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in (*PACKAGES, *MAPPED):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    for name in NEIGHBOURS:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("private")
    (copy / "beam_tf_predict.egg-info").mkdir()
    (copy / "beam_tf_predict.egg-info" / "SOURCES.txt").write_text("\n".join(NEIGHBOURS))
    return copy


def files_of_the_project() -> set[str]:
    """The files of the packages, the packaged model, configs and data, as they lie in this checkout."""
    found = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES}
    model = {path for path in (ROOT / "model" / "trained" / "v1").rglob("*") if path.is_file()}
    assert len(model) >= 4
    mapped = {ROOT / folder / name for folder, names in MAPPED.items() for name in names}
    assert {path for path in (ROOT / "configs").iterdir() if path.name.startswith("natality")} <= mapped
    return {str(path.relative_to(ROOT)) for path in found | model | mapped}


def in_an_installation(name: str) -> str:
    """Where a file of the checkout lies once it is installed."""
    return f"model/packaged/{name}" if name.split("/")[0] in MAPPED else name


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Beam makes for the workers, from --setup_file."""
    staged = tmp_path_factory.mktemp("staged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        return Path(Stager._build_setup_package(str(checkout / "setup.py"), str(staged)))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made of it, as `python -m build` makes it."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(unpacked)]
    processes.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_workers_get_the_packages_and_nothing_else(sdist: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as packed:
        in_sdist = {member.name.split("/", 1)[1] for member in packed.getmembers() if member.isfile()}
    made = {name for name in in_sdist if name.startswith("beam_tf_predict.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    beside = {"LICENSE", "README.md", "pyproject.toml", "setup.py"}
    assert in_sdist - made == files_of_the_project() | beside

    with zipfile.ZipFile(wheel) as packed:
        in_wheel = {name: packed.read(name) for name in packed.namelist() if ".dist-info/" not in name}
    assert in_wheel == {in_an_installation(name): (ROOT / name).read_bytes() for name in files_of_the_project()}


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (metadata,) = (packed.read(name).decode() for name in packed.namelist() if name.endswith("/METADATA"))
        marks = {name for name in packed.namelist() if name.endswith("py.typed")}
    assert f"Version: {__version__}\n" in metadata
    assert wheel.name == f"beam_tf_predict-{__version__}-py3-none-any.whl"
    assert marks == {f"{name}/py.typed" for name in PACKAGES}


@dataclass(frozen=True)
class Installed:
    """An environment with nothing in it but the wheel; what the wheel depends on comes from this one."""

    bin: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of it in a folder of its own, where the checkout is out of reach."""
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        program, *arguments = command
        return processes.run(
            [str(self.bin / program), *arguments],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    uv = str(Path(sys.executable).with_name("uv"))
    processes.run([uv, "venv", "--quiet", "--offline", "--python", sys.executable, str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(processes.run(where, check=True, capture_output=True, text=True).stdout.strip())
    # A line of a .pth file is a folder to import from; the .pth files in there, such as that of the checkout, are not
    # looked at.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    processes.run(install, check=True)
    (folder / "empty").mkdir()
    return Installed(python.parent, folder / "empty")


def test_the_wheel_predicts_its_births_from_an_empty_folder(installed: Installed) -> None:
    done = installed.run("beam-tf-predict", "batch", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (1450, 1450, 0)
    predicted = list(csv.DictReader((installed.folder / "out" / "predictions-00000-of-00001.csv").open()))
    with (ROOT / "data" / "births-nc-2001.csv").open() as births:
        assert [row["source_id"] for row in predicted] == [row["source_id"] for row in csv.DictReader(births)]
    assert all(0 < float(row["predictions"]) < 15 for row in predicted)
    assert [path.name for path in installed.folder.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [name for name in MAPPED["configs"] if name.startswith("natality")])
def test_the_wheel_checks_every_packaged_config(installed: Installed, name: str) -> None:
    check = ["beam-tf-predict", "check", "--config", f"configs/{name}"]
    if name == "natality-endpoint.json":
        # All of it is right but that nothing listens there.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        done = installed.run(*check, "--set", f"model.url=http://127.0.0.1:{port}")
        assert done.returncode == 2
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
            f"error: model.url: cannot connect to 127.0.0.1:{port} (connection refused); start the server, or check "
            "the address"
        ]
    else:
        # The table and the bucket are in the cloud.
        offline = ["--offline"] if name in ("natality-bigquery.json", "natality-job.json") else []
        done = installed.run(*check, *offline)
        assert done.returncode == 0, done.stderr
        assert f"config   {name.removesuffix('.json')}: valid" in done.stdout


def test_the_wheel_knows_its_version_and_its_files(installed: Installed) -> None:
    done = installed.run("beam-tf-predict", "--version")
    assert (done.returncode, done.stdout) == (0, f"beam-tf-predict {__version__}\n")
    assert installed.run("python", "-m", "pipelines.config", "--check").returncode == 0
    done = installed.run("beam-tf-predict", "show", "model/trained/v1", "--json")
    assert set(json.loads(done.stdout)) == {"serving_default", "serving_examples"}


def test_an_installed_wheel_goes_to_workers_as_it_came(installed: Installed, wheel: Path) -> None:
    """Put together again from the installed files: the same names, the same bytes."""
    code = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from pipelines.engine import worker_packages

setup = PipelineOptions([]).view_as(SetupOptions)
worker_packages.add_to(setup)
assert setup.setup_file is None
[path] = setup.extra_packages
print(path)
print(open(path, "rb").read().hex())
"""
    done = installed.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    path, content = done.stdout.splitlines()
    assert Path(path).name == wheel.name
    with zipfile.ZipFile(io.BytesIO(bytes.fromhex(content))) as again, zipfile.ZipFile(wheel) as first:
        assert sorted(again.namelist()) == sorted(first.namelist())
        for name in first.namelist():
            if not name.endswith("/RECORD"):
                assert again.read(name) == first.read(name), name
        (record,) = (name for name in first.namelist() if name.endswith("/RECORD"))
        assert sorted(again.read(record).splitlines()) == sorted(first.read(record).splitlines())


def locked(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a lock file, each with its hashes."""
    entries = re.sub(r"\\\n", " ", lock.read_text("utf-8"))
    found = []
    for line in entries.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=")
            found.append((Requirement(requirement.strip()), [each.strip() for each in hashes]))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_locked_package_has_hashes(lock: Path) -> None:
    entries = locked(lock)
    assert len(entries) > 15
    for requirement, hashes in entries:
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert hashes, f"{requirement} has no hash: make it again with --generate-hashes"
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), requirement


def declared() -> list[Requirement]:
    """What setup.py asks for, with what development needs."""
    import setuptools

    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        patch.chdir(ROOT)
        exec(compile((ROOT / "setup.py").read_text("utf-8"), str(ROOT / "setup.py"), "exec"), {"__file__": "setup.py"})
    return [Requirement(each) for each in [*given["install_requires"], *given["extras_require"]["dev"]]]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_within_the_ranges_of_setup(python: str) -> None:
    """For each Python that the project runs on; uv is there too, which installs the others."""
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    versions: dict[str, str] = {}
    for requirement, _ in locked(ROOT / "requirements.lock"):
        if requirement.marker is None or requirement.marker.evaluate(here):
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{name} is locked twice for Python {python}"
            versions[name] = next(iter(requirement.specifier)).version
    wanted = declared()
    assert {"apache-beam", "tensorflow", "uv"} <= {each.name for each in wanted}
    for requirement in wanted:
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: run make lock"
        assert requirement.specifier.contains(version), f"{requirement}, locked {version}: run make lock"
