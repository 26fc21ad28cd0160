"""Reads Beam's flags before Beam is imported."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.cli import command
from pipelines.config.errors import ConfigError


def beam_flags(flags: Sequence[str]) -> list[str]:
    """Returns the rest of a command line as Beam takes it: its --dry_run wants a value.

    Raises:
      ConfigError: a word belongs to no option.
    """
    _refuse_strays(flags)
    spelled = [f"--dry_run{flag[9:]}" if flag.startswith("--dry-run") else flag for flag in flags]
    return [
        "--dry_run=True" if flag == "--dry_run" and (spelled[i + 1 :] or ["--"])[0].startswith("--") else flag
        for i, flag in enumerate(spelled)
    ]


def is_set(flags: Sequence[str], name: str) -> bool:
    """Tells whether a flag of Beam's is on."""
    return any(flag in (f"--{name}", f"--{name}=True", f"--{name}=true") for flag in flags)


def _refuse_strays(flags: Sequence[str]) -> None:
    """Refuses words that are the value of no option."""
    for before, flag in zip(["", *flags], flags, strict=False):
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise ConfigError([command.stray(flag)])
