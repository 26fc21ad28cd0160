"""Makes Beam's file systems ready for use before and in a pipeline: options, and S3 repaired.

Beam gives its file systems the options of the last pipeline that was made. Before there is one they get those of the
command line that are about stores. Beam is imported only for a path that needs it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from inference.stores.kinds import require, scheme_of
from model.quiet import quiet_imports
from model.secrets import keep

_ABOUT_STORES = (
    "s3_", "azure_", "blob_service_endpoint", "impersonate_service_account", "no_auth", "project",
)  # fmt: skip
_SECRETS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string")

_flags: list[str] = []
_is_new = False
_ready: set[str] = set()
_lock = threading.Lock()


def use_flags(flags: Sequence[str]) -> None:
    """Has the flags of Beam's about stores respected, also before there is a pipeline; secrets in them are masked.

    Args:
      flags: of Beam, `--name=value` or `--name value`.
    """
    global _is_new
    _is_new = True
    _flags.clear()
    for flag, after in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = flag.partition("=")
        if not name.startswith("--") or not name[2:].startswith(_ABOUT_STORES):
            continue
        if not equals:
            value = "" if after.startswith("--") else after
        if name[2:] in _SECRETS:
            keep(value)
        _flags.append(f"{name}={value}" if value else name)


def file_systems(path: str) -> Any:
    """Returns Beam's FileSystems, ready for a path that has a scheme.

    Raises:
      StoreError: there is no file system for it, or its packages are not installed.
    """
    global _is_new
    scheme = scheme_of(path)
    if scheme not in _ready:
        require(path)
        with _lock:
            _make_ready(scheme)
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.value_provider import RuntimeValueProvider

    # Several threads may be the first.
    with _lock:
        has_none = FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None
        if _is_new or has_none:
            FileSystems.set_options(PipelineOptions(_flags))
            _is_new = False
    return FileSystems


def _make_ready(scheme: str) -> None:
    # Threads of a pipeline must not find the terminal swallowed.
    with nullcontext() if "apache_beam.io.filesystems" in sys.modules else quiet_imports():
        import apache_beam.io.filesystems  # noqa: F401

        if scheme == "s3":
            from inference.stores import s3

            s3.repair()
    _ready.add(scheme)
