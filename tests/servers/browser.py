"""Brings a headless Chromium, and axe-core, which looks for what keeps people from reading a page.

Chromium is the machine's own where it has one. Else the system's package is installed, which needs to be root on Debian
or Ubuntu; elsewhere it is playwright's, in .tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import tools
from tests.support import processes

_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_PACKAGE = "chromium-headless-shell"
_AXE = "axe-core@4.14.1"
_AXE_INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
_WITHIN_S = 300


def chromium() -> str:
    """The program; skips the test if none can be had."""
    return (
        _installed()
        or _from_packages()
        or _from_playwright()
        or pytest.skip(f"needs one of {', '.join(_PROGRAMS)}, and neither apt-get nor playwright can install one here")
    )


def axe() -> str:
    """The script of axe-core, to run in a page."""
    script = tools.packed("axe-core", _AXE, _AXE_INTEGRITY) / "axe.min.js"
    return script.read_text("utf-8")


def _installed() -> str | None:
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


def _from_packages() -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    # Tests run in several processes.
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=240"]
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", _PACKAGE]):
        if _fails(command, {"DEBIAN_FRONTEND": "noninteractive"}):
            return None
    return _installed()


def _from_playwright() -> str | None:
    folder = tools.ROOT / ".tools" / "chromium"
    install = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    if not _playwrights(folder):
        _fails(install, {"PLAYWRIGHT_BROWSERS_PATH": str(folder)})
    return _playwrights(folder)


def _playwrights(folder: Path) -> str | None:
    names = ("chrome-headless-shell", "headless_shell")
    found = (path for name in names for path in sorted(folder.glob(f"**/{name}")) if path.is_file())
    return next(map(str, found), None)


def _fails(command: list[str], settings: dict[str, str]) -> bool:
    try:
        processes.run(command, check=True, stdout=sys.stderr, timeout=_WITHIN_S, env={**os.environ, **settings})
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return True
    return False
