"""Runs all commands as one program: `beam-tf-predict batch ...` is `python -m pipelines.batch ...`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from model import early_interrupt, terminal
from model.version import PROJECT, add_version


class Command(NamedTuple):
    """Describes a command of the program.

    Attributes:
      module: its module, whose `main` takes the rest of the command line and returns the exit code.
      does: what it does, in one line.
    """

    module: str
    does: str


COMMANDS = {
    "batch": Command("pipelines.batch", "predict files"),
    "stream": Command("pipelines.stream", "predict a stream of messages"),
    "replay": Command("pipelines.replay", "run the dead letters of a config again"),
    "check": Command("pipelines.check", "check a config: what will it do, and what does the model predict?"),
    "init": Command("pipelines.init", "write a config for a model and data"),
    "compare": Command("pipelines.compare", "compare ways to call a model: outputs, time, latency, cost"),
    "recommend": Command("pipelines.recommend", "recommend a way to call the model, and say what it costs"),
    "simulate": Command("pipelines.simulate", "print or publish simulated messages at a rate"),
    "show": Command("model.show", "print the signatures of a SavedModel"),
    "serve": Command("model.serve", "serve SavedModels on this machine over REST and gRPC"),
    "train": Command("model.train", "train and export the packaged model"),
    "deploy": Command("model.deploy", "upload a SavedModel to AI Platform or Vertex AI"),
}
"""The commands, in the order of --help; a new one is a line here. Its module is imported when it is called."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the command line names; returns its exit code."""
    if argv is None:
        early_interrupt.begin()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        arguments = [_parser().parse_args(arguments).command]
    code: int = importlib.import_module(COMMANDS[arguments[0]].module).main(arguments[1:])
    return code


class _Parser(terminal.ArgumentParser):
    def __init__(self) -> None:
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items()]
        super().__init__(
            prog=PROJECT,
            usage=f"{PROJECT} COMMAND [OPTIONS]",
            description="TensorFlow predictions in data pipelines.\n\ncommands:\n" + "\n".join(lines),
            epilog=f"{PROJECT} COMMAND --help tells the options of a command.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}; {PROJECT} --help lists the commands")


def _known(name: str) -> str:
    """Returns the name of a command. Raises ArgumentTypeError: there is no such command."""
    if name in COMMANDS:
        return name
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    raise argparse.ArgumentTypeError(f"there is no '{name}'{f', did you mean {near[0]}?' if near else ''}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser()
    add_version(parser)
    parser.add_argument("command", metavar="COMMAND", type=_known, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
