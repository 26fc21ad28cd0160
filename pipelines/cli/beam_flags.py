"""Reads Beam's flags before Beam is imported."""

from __future__ import annotations

from collections.abc import Sequence

from inference.stores.file_systems import use_flags
from pipelines.cli import command
from pipelines.config.errors import ConfigError


def beam_flags(flags: Sequence[str]) -> list[str]:
    """Returns the rest of a command line as Beam takes it: its --dry_run wants a value.

    What it says of stores counts from now on, also before there is a pipeline.

    Raises:
      ConfigError: a word belongs to no option.
    """
    _refuse_strays(flags)
    spelled = [f"--dry_run{flag[9:]}" if flag.startswith("--dry-run") else flag for flag in flags]
    found = [
        "--dry_run=True" if flag == "--dry_run" and (spelled[i + 1 :] or ["--"])[0].startswith("--") else flag
        for i, flag in enumerate(spelled)
    ]
    use_flags(found)
    return found


def is_set(flags: Sequence[str], name: str) -> bool:
    """Tells whether a flag of Beam's is on."""
    return any(flag in (f"--{name}", f"--{name}=True", f"--{name}=true") for flag in flags)


def has_other_processes(flags: Sequence[str]) -> bool:
    """Tells whether flags have the workers of a job server run as processes other than this one."""
    return value_of(flags, "environment_type") not in ("", "loopback")


def is_dataflow(flags: Sequence[str]) -> bool:
    """Tells whether flags name Dataflow as the runner."""
    return "dataflow" in value_of(flags, "runner")


def is_template(flags: Sequence[str]) -> bool:
    """Tells whether the job is only to be written down, for others to start it on Dataflow.

    Raises:
      ConfigError: another runner is to take it.
    """
    if not value_of(flags, "template_location"):
        return False
    if not is_dataflow(flags):
        raise ConfigError(["--template_location: only Dataflow starts templates; give --runner DataflowRunner"])
    return True


def value_of(flags: Sequence[str], wanted: str) -> str:
    """Returns the value of a flag in small letters; empty if it is not given."""
    found = ""
    for flag, after in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = flag.partition("=")
        if name == f"--{wanted}":
            found = value if equals else after
    return found.lower()


def _refuse_strays(flags: Sequence[str]) -> None:
    """Refuses words that are the value of no option."""
    for before, flag in zip(["", *flags], flags, strict=False):
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise ConfigError([command.stray(flag)])
