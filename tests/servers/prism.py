"""Builds Beam's Prism with Go on first use, into .tools, where `--runner PrismRunner` finds it.

`python -m tests.servers.prism` builds it for a person.
"""

from __future__ import annotations

from tests.servers import tools

_PACKAGE = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"


def built_prism() -> str:
    """The program."""
    return tools.installed("prism", _PACKAGE)


if __name__ == "__main__":
    print(built_prism())
