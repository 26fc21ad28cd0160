"""Holds the version of this project, in one place: `setup.py` reads it here, and every command prints it."""

from __future__ import annotations

import argparse

PROJECT = "beam-tf-predict"

__version__ = "0.1.0"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds --version, which prints the version of the project and ends the command."""
    parser.add_argument("--version", action="version", version=f"{PROJECT} {__version__}", help="print the version")
