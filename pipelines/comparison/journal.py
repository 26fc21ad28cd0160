"""Keeps the runs of a comparison in a file, so that one that was interrupted goes on."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from pipelines.comparison.results import Parity, Run

_MOST_BYTES = 64 << 20


class Journal:
    """Appends what has been measured to a file of lines; what another comparison has left is put aside.

    Args:
      path: of the file.
      identity: another text once the comparison, its data, a model or the machine is another.

    Attributes:
      runs: the runs so far.
      parity: what was found of each way.
      put_aside: name of the file that what another comparison has left is kept in now; empty if it left nothing.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self.runs: list[Run] = []
        self.parity: list[Parity] = []
        self.put_aside = ""
        if not self._read(identity):
            self.runs, self.parity = [], []
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self.put_aside = f"earlier-{path.name}"
                path.replace(path.with_name(self.put_aside))
            path.write_text(json.dumps({"identity": identity}) + "\n", "utf-8")

    @property
    def goes_on(self) -> bool:
        """Tells whether there was something before."""
        return bool(self.runs or self.parity)

    def _read(self, identity: str) -> bool:
        """Reads what is there; False if it belongs to another comparison, or is damaged at its beginning."""
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                return False
            lines = self._path.read_bytes().splitlines()
            if not lines or json.loads(lines[0]) != {"identity": identity}:
                return False
        except (OSError, ValueError):
            return False
        kept = 1
        for line in lines[1:]:
            try:
                record = json.loads(line)
                if "run" in record:
                    self.runs.append(Run.model_validate(record["run"]))
                else:
                    self.parity.append(Parity.model_validate(record["parity"]))
            except (ValueError, KeyError, TypeError, ValidationError):
                break
            kept += 1
        if kept < len(lines):
            # The last line of one that was killed: what comes is appended to whole lines.
            self._path.write_bytes(b"".join(each + b"\n" for each in lines[:kept]))
        return True

    def add_run(self, run: Run) -> None:
        """Keeps a run."""
        self.runs.append(run)
        self._append({"run": run.model_dump()})

    def add_parity(self, parity: Parity) -> None:
        """Keeps what was found of a way."""
        self.parity.append(parity)
        self._append({"parity": parity.model_dump()})

    def _append(self, record: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
