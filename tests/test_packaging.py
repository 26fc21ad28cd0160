"""What is installed is what was locked, and what travels to the workers is the three packages and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability.stager import Stager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "inference", "pipelines")
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
    ".venv-other/lib/secret.py",
    ".env",
)
"""Files that lie in a checkout, and are not the project's to give away."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed, with neighbours that are not to be, after an earlier build that took them along."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
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
    """The modules, the marks of types and the packaged model, as they lie in this checkout."""
    found = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".typed")}
    model = {path for path in (ROOT / "model" / "trained" / "v1").rglob("*") if path.is_file()}
    assert len(model) >= 4
    return {str(path.relative_to(ROOT)) for path in found | model}


def test_workers_get_the_packages_and_nothing_else(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Beam makes the archive for the workers, from --setup_file; and the wheel made of it."""
    monkeypatch.chdir(checkout)
    (tmp_path / "staged").mkdir()
    archive = Stager._build_setup_package(str(checkout / "setup.py"), str(tmp_path / "staged"))
    with tarfile.open(archive) as sdist:
        in_sdist = {member.name.split("/", 1)[1] for member in sdist.getmembers() if member.isfile()}
        sdist.extractall(tmp_path / "unpacked", filter="data")
    made = {name for name in in_sdist if name.startswith("beam_tf_predict.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    beside = {"LICENSE", "README.md", "pyproject.toml", "setup.py"}
    assert in_sdist - made == files_of_the_project() | beside

    (unpacked,) = (tmp_path / "unpacked").iterdir()
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(unpacked)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        in_wheel = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert in_wheel == files_of_the_project()


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
    assert len(entries) > 40
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
