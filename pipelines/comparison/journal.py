"""Keeps the runs of a comparison in a file, so that one that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pipelines.comparison.folder import put_aside
from pipelines.comparison.results import Parity, Run

_MOST_BYTES = 64 << 20


class Journal:
    """Appends what has been measured to a file of lines; what another comparison has left is put aside.

    Args:
      path: of the file.
      identity: what a comparison is told by, such as its config and its model: a text for each, another one once that
        has changed.
      restart: begin anew, whatever is there.

    Attributes:
      runs: the runs so far.
      parity: what was found of each way.
      anew: why it begins anew, and where the earlier runs are kept; empty if it does not, or nothing was there.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], restart: bool = False) -> None:
        self._path = path
        self.runs: list[Run] = []
        self.parity: list[Parity] = []
        self.anew = ""
        why = "--restart was given" if restart else self._read(identity)
        if why:
            self.runs, self.parity = [], []
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not self._is_bare():
                self.anew = f"beginning anew, as {why}; the earlier runs are kept in {put_aside(path)}"
            path.write_text(json.dumps({"identity": identity}) + "\n", "utf-8")

    @property
    def goes_on(self) -> bool:
        """Tells whether there was something before."""
        return bool(self.runs or self.parity)

    def _read(self, identity: Mapping[str, str]) -> str:
        """Reads what is there; tells why it cannot be used, if it belongs to another comparison or is damaged."""
        unknown = f"{self._path} is not of this comparison, or is damaged"
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                return f"{self._path} has more than {_MOST_BYTES >> 20} MB"
            lines = self._path.read_bytes().splitlines()
            head = json.loads(lines[0])["identity"] if lines else None
        except (OSError, ValueError, KeyError, TypeError):
            return unknown
        if head != identity:
            known = head if isinstance(head, dict) else {}
            changed = [name for name, value in identity.items() if name in known and known[name] != value]
            return f"{' and '.join(changed)} changed" if changed else unknown
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
        return ""

    def _is_bare(self) -> bool:
        """Tells whether what is there is a journal in which nothing was written yet."""
        try:
            with self._path.open("rb") as file:
                head, more = file.readline(_MOST_BYTES), file.read(1)
            return not more and (not head or set(json.loads(head)) == {"identity"})
        except (OSError, ValueError, TypeError):
            return False

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
