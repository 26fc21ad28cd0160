"""Kills a command before and after each step of its end, and runs it again.

Run as a process of its own; it forks for each command, so that Beam is imported once. Arguments: path of a config, the
table's name without its number, and which commands to kill: from step, by step. Further arguments, if there are any,
are those of replays: they are killed, each after a batch run that ends in order.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import google.cloud.bigquery
import google.cloud.bigquery_storage_v1  # noqa: F401 - imported once, before the forks
import requests

import pipelines.engine.batch
import pipelines.flows.batch
import pipelines.formats.csv.reader
import pipelines.replay  # noqa: F401
from pipelines import storage
from pipelines.connectors.bigquery import write_api
from pipelines.connectors.files.publishing import commit, manifest


def killed_at(step: int) -> None:
    """Makes this process kill itself before or after a call, counted from the beginning of publishing."""
    left = step
    is_publishing = False

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            _tick()
            found = call(*arguments, **named)
            _tick()
            return found

        return act

    def _tick() -> None:
        nonlocal left
        if is_publishing:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def begin(call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            nonlocal is_publishing
            is_publishing = True
            return call(*arguments)

        return act

    for module, names in (
        (storage, ("write_whole", "rename")),
        (requests.Session, ("request",)),
        (write_api, ("make_pending_stream", "finalize_stream", "commit_stream")),
        (write_api.AppendStream, ("send",)),
        (manifest, ("write",)),
        (commit, ("discard",)),
    ):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    commit.publish = begin(commit.publish)


def run(module: str, arguments: list[str], prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Runs a command in a fork; returns its exit code (less than 0 for a signal), and what it printed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.dup2(write, 1)
        code = 1
        try:
            prepare()
            code = importlib.import_module(f"pipelines.{module}").main(arguments)
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as file:
        printed = file.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), printed


def main() -> None:
    """Kills at each step until the command comes to its end; prints what was seen, one JSON object a line."""
    config, table, first, by = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    of_replays = sys.argv[5:]
    module = "replay" if of_replays else "batch"
    for step in range(first, 200, by):
        arguments = ["--config", config, "--set", f"output.table={table}{step}", "--json"]
        if of_replays:
            arguments += ["--set", f"dead_letters.path={os.path.dirname(config)}/out/dead{step}"]
            assert run("batch", arguments)[0] == 0
            arguments += of_replays
        code, printed = run(module, arguments, lambda step=step: killed_at(step))
        assert code in (0, -signal.SIGKILL), (step, code)
        again = run(module, arguments) if code else (code, printed)
        # A run whose account was given is over: the next one is a run of its own.
        print(
            json.dumps(
                {
                    "step": step,
                    "killed": bool(code),
                    "reported": bool(printed),
                    "code": again[0],
                    "summary": json.loads(again[1]),
                }
            )
        )
        sys.stdout.flush()
        if not code:
            return


if __name__ == "__main__":
    main()
