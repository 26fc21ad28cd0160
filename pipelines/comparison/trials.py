"""Makes the commands of a comparison: which way, which input, and where its output goes."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.comparison.commands import MeasuredCommand, calling
from pipelines.comparison.inputs import Repeated, source_of
from pipelines.comparison.parity import Written
from pipelines.comparison.servers import RunningServer
from pipelines.comparison.ways import CompleteWay
from pipelines.config.comparison import ComparisonConfig
from pipelines.plan import Plan

_PARITY_RATE = 1_000
_PARITY_MESSAGES = 2_000


@dataclass(frozen=True)
class TrialCommand:
    """Describes a command, and where its output goes.

    Attributes:
      command: what to run.
      folder: of its output; removed once it was looked at.
      publish: the command that sends its messages, once it is ready; empty if it makes them itself.
    """

    command: MeasuredCommand
    folder: Path
    publish: tuple[str, ...] = ()

    def clear(self) -> None:
        """Removes the output."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Trials:
    """Makes the commands of a comparison.

    Args:
      config: of the comparison.
      content: the run's config, as it stands in its file.
      plan: of the run.
      work: folder for inputs and outputs.
      repeated: the rows of the source; None if it is not files.
    """

    def __init__(
        self, config: ComparisonConfig, content: dict[str, Any], plan: Plan, work: Path, repeated: Repeated | None
    ) -> None:
        self._config = config
        self._content = content
        self._plan = plan
        self._work = work
        self._repeated = repeated
        self._count = 0

    @property
    def distinct(self) -> int | None:
        """Returns how many rows there are before they are repeated; None if the source is not files."""
        return None if self._repeated is None else self._repeated.rows

    def measured(self, way: CompleteWay, load: float, server: RunningServer | None) -> TrialCommand:
        """Makes a run that is measured."""
        folder = self._folder()
        output = self._output(folder)
        if self._plan.config.is_batch:
            return self._batch(way, load, server, folder, int(load), output)
        messages = self._config.messages or max(1, math.ceil(load * self._config.seconds))
        return self._stream(way, load, server, folder, load, messages, output)

    def parity(self, way: CompleteWay, server: RunningServer | None, key: str | None) -> TrialCommand:
        """Makes a run whose outputs are compared.

        Args:
          way: the way.
          server: the local server that it calls.
          key: column that identifies a row; None: rows are named by where they stand.
        """
        folder = self._folder()
        output: dict[str, Any] = {"type": "file", "path": f"{folder}/p"}
        if not self._plan.config.is_batch:
            output |= {"format": "json"}
            return self._stream(
                way, _PARITY_RATE, server, folder, _PARITY_RATE, self._parity_messages(), {"output": output}
            )
        rows = self._config.parity_rows
        if self._config.inputs:
            rows = min(map(int, self._config.inputs))
        elif self._repeated is not None:
            rows = min(rows, self._repeated.rows)
        output |= {"format": "parquet"}
        changes: dict[str, Any] = {"output": output}
        if key is None and self._repeated is not None:
            changes["source.key"] = "path" if getattr(self._plan.config.source, "format", "") == "bytes" else None
        return self._batch(way, float(rows), server, folder, rows, changes)

    def _parity_messages(self) -> int:
        return min(_PARITY_MESSAGES, self._config.parity_rows)

    def _folder(self) -> Path:
        self._count += 1
        folder = self._work / "outputs" / f"{self._count:04}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _output(self, folder: Path) -> dict[str, Any]:
        if self._config.output == "as_configured":
            return {}
        given = self._content.get("output") or {}
        if given.get("type", "file") != "file":
            columns = {"columns": given["columns"]} if given.get("columns") else {}
            given = {"format": "csv" if self._plan.config.is_batch else "json", **columns}
        return {"output": {**given, "type": "file", "path": f"{folder}/p"}}

    def _changes(self, way: CompleteWay, server: RunningServer | None, folder: Path) -> dict[str, Any]:
        jobs = folder / "jobs"
        return {
            "name": self._config.name,
            **way.changes(None if server is None else server.address, str(jobs)),
            "dead_letters": {"path": f"{folder}/d", "max_fraction": 1.0},
        }

    def _batch(
        self,
        way: CompleteWay,
        load: float,
        server: RunningServer | None,
        folder: Path,
        rows: int,
        output: dict[str, Any],
    ) -> TrialCommand:
        source = self._config.inputs.get(str(rows), {})
        if self._repeated is not None:
            source = source_of(self._plan, self._work / "inputs", rows, self._repeated)
        changes = {**self._changes(way, server, folder), **source, **output}
        return TrialCommand(MeasuredCommand("batch", self._config.config, changes, (), way.name, load, server), folder)

    def _stream(
        self,
        way: CompleteWay,
        load: float,
        server: RunningServer | None,
        folder: Path,
        rate: float,
        messages: int,
        output: dict[str, Any],
    ) -> TrialCommand:
        source: dict[str, Any] = {}
        publish: list[str] = []
        if self._plan.config.source.type == "simulated":
            source = {"source.rate": rate, "source.messages": messages, "source.duration_s": None}
        else:
            publish = [*calling("simulate"), "--to", str(self._config.publish_to)]
            publish += ["--rate", f"{rate:g}", "--messages", str(messages)]
            publish += ["--source", self._config.publish_rows] if self._config.publish_rows else []
            servers = getattr(self._plan.config.source, "bootstrap_servers", None)
            publish += ["--bootstrap-servers", servers] if servers else []
        changes = {**self._changes(way, server, folder), **source, **output}
        arguments = ("--max-messages", str(messages))
        command = MeasuredCommand("stream", self._config.config, changes, arguments, way.name, load, server)
        return TrialCommand(command, folder, tuple(publish))


def written_by(trial: TrialCommand) -> Written:
    """Reads what a run for parity has written."""
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    tables = [parquet.read_table(path) for path in sorted(trial.folder.glob("p-*.parquet"))]
    tables += [arrow_json.read_json(path) for path in sorted(trial.folder.glob("p-*.jsonl")) if path.stat().st_size]
    table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({"key": pa.array([])})
    dead = _dead(trial.folder)
    return Written(table, tuple(key for key, _ in dead), tuple(why for _, why in dead))


def _dead(folder: Path) -> list[tuple[str, str]]:
    """Keys of dead letters, and why each failed."""
    import orjson

    found = []
    for path in sorted(folder.glob("d-*")):
        for line in path.read_bytes().splitlines():
            letter = orjson.loads(line)
            found.append((str(letter["key"]), str(letter.get("message") or letter.get("error") or "")))
    return found
