"""Makes what workers on other machines install: this project as it runs here.

| the project runs from | workers get |
|---|---|
| a checkout | `setup.py`, of which Beam makes a source distribution |
| an installed wheel | that wheel, put together again from the installed files |
"""

from __future__ import annotations

import atexit
import csv
import io
import shutil
import tempfile
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from apache_beam.options.pipeline_options import SetupOptions

from model import packaged
from model.version import PROJECT

_SETUP = Path(__file__).resolve().parents[2] / "setup.py"
_OF_A_WHEEL = ("METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "licenses")
"""What a wheel has in its .dist-info; all else there was written by the installer."""


def add_to(setup: SetupOptions) -> None:
    """Adds this project to what the workers of a job install."""
    if packaged.is_installed():
        wheel = _installed_wheel()
        setup.extra_packages = [*(setup.extra_packages or ()), wheel] if wheel else setup.extra_packages
    elif _SETUP.exists():
        setup.setup_file = str(_SETUP)


def _installed_wheel() -> str | None:
    """Returns the path of a wheel of the installed project, which is there until this process ends.

    None if the environment does not know what it has installed.
    """
    try:
        found = distribution(PROJECT)
    except PackageNotFoundError:
        return None
    here = Path(__file__)
    same_name = (Path(file.locate()) for file in _files(found) if file.name == here.name)
    if here.resolve() not in {path.resolve() for path in same_name}:
        return None
    folder = tempfile.mkdtemp(prefix="packages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_wheel(found, Path(folder)))


def write_wheel(installed: Distribution, folder: Path) -> Path:
    """Writes the wheel that a distribution of pure Python was installed from; returns its path."""
    path = folder / f"{installed.name.replace('-', '_')}-{installed.version}-py3-none-any.whl"
    record = io.StringIO()
    lines = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        info = ""
        for file in _files(installed):
            wheel.writestr(zipfile.ZipInfo(file.as_posix()), file.read_binary(), zipfile.ZIP_DEFLATED)
            lines.writerow([file.as_posix(), f"{file.hash.mode}={file.hash.value}" if file.hash else "", file.size])
            info = file.parts[0] if file.parts[0].endswith(".dist-info") else info
        lines.writerow([f"{info}/RECORD", "", ""])
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record.getvalue())
    return path


def _files(installed: Distribution) -> list[PackagePath]:
    """Lists the files of a distribution that came with its wheel."""
    return [
        file
        for file in installed.files or ()
        if ".." not in file.parts
        and file.suffix != ".pyc"
        and (not file.parts[0].endswith(".dist-info") or file.parts[1] in _OF_A_WHEEL)
    ]
