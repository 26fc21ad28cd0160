"""Runs the command that a config needs, batch or stream, as the launcher of a Flex template calls it.

The launcher gives all arguments as `--name=value`: the template's parameters, and Beam's options, among them
`--template_location`, where it looks for the job to start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines import batch, stream
from pipelines.cli import command
from pipelines.config.errors import ConfigError
from pipelines.config.load import load


def main(argv: Sequence[str]) -> int:
    """Writes the job where the launcher looks for it; returns the exit code."""
    arguments, _ = command.parser("batch", "").parse_known_args(argv)
    if arguments.config is None:
        return command.fail(["--config: missing; a template has no config of its own"])
    try:
        is_batch = load(arguments.config, arguments.set).is_batch
    except ConfigError as error:
        return command.fail(error.problems)
    return batch.main(argv) if is_batch else stream.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
