"""Proves that nothing was lost: receipts for what was read and written, and the check that they add up.

Every step leaves receipts in the pipeline itself, so they are as exact as the runner's own data: a bundle that
is retried leaves the receipts of the attempt that counted. The check runs before anything is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines.telemetry.constant_outputs import Constant

NAMESPACE = "account"
"""Of the counters that say the same as the receipts, while a run goes on."""

OUTPUT = "output"
DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True)
class FilePlanned:
    """Tells that a file was cut into pieces.

    Attributes:
      file: the file.
      pieces: start and end of each, in the format's unit.
    """

    file: str
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PieceRead:
    """Tells that a piece was read to its end.

    Attributes:
      file: the file.
      piece: start and end.
      rows: rows found in it, good or bad.
    """

    file: str
    piece: tuple[int, int]
    rows: int


@dataclass(frozen=True)
class ShardWritten:
    """Tells that a file was written, under a temporary name.

    Attributes:
      kind: OUTPUT or DEAD_LETTERS.
      path: where it is.
      rows: rows in it.
      size: bytes of it.
      checksum: CRC-32C of it, of dead letters; 0 of outputs.
      constants: model outputs that have had one value in all rows of this file, and perhaps of earlier ones.
    """

    kind: str
    path: str
    rows: int
    size: int
    checksum: int = 0
    constants: Mapping[str, Constant] = field(default_factory=dict)


@dataclass(frozen=True)
class Misfits:
    """Tells of results that belong to no row, or to one that has another.

    Attributes:
      what: they are, in words.
      count: how many.
      example: the key of one.
    """

    what: str
    count: int
    example: str


Receipt = FilePlanned | PieceRead | ShardWritten | Misfits


@dataclass(frozen=True)
class Account:
    """Describes the sum of a run's receipts.

    Attributes:
      rows_read: rows found in the source.
      rows_written: rows in the output.
      rows_dead_lettered: rows in the dead letters.
      problems: what does not add up, one line each.
    """

    rows_read: int
    rows_written: int
    rows_dead_lettered: int
    problems: tuple[str, ...] = ()


def balance(receipts: Iterable[Receipt]) -> Account:
    """Adds up receipts.

    >>> balance([FilePlanned("a", ((0, 9),)), PieceRead("a", (0, 9), 3),
    ...          ShardWritten(OUTPUT, "x", 2, 50), ShardWritten(DEAD_LETTERS, "y", 1, 9)]).problems
    ()
    """
    planned: Counter[tuple[str, tuple[int, int]]] = Counter()
    read: Counter[tuple[str, tuple[int, int]]] = Counter()
    rows: Counter[str] = Counter()
    misfits: dict[str, list[Misfits]] = {}
    for receipt in receipts:
        if isinstance(receipt, FilePlanned):
            planned.update((receipt.file, piece) for piece in receipt.pieces)
        elif isinstance(receipt, PieceRead):
            read[receipt.file, receipt.piece] += 1
            rows["read"] += receipt.rows
        elif isinstance(receipt, Misfits):
            misfits.setdefault(receipt.what, []).append(receipt)
        else:
            rows[receipt.kind] += receipt.rows
    problems = [
        f"{sum(each.count for each in found):,} {what}, such as {found[0].example}" for what, found in misfits.items()
    ]
    problems += [f"{file}, piece {piece}: was not read" for file, piece in planned - read]
    problems += [f"{file}, piece {piece}: was read more than once" for file, piece in read - planned]
    missing = rows["read"] - rows[OUTPUT] - rows[DEAD_LETTERS]
    if missing:
        problems.append(
            f"{rows['read']:,} rows read, but {rows[OUTPUT]:,} written and {rows[DEAD_LETTERS]:,} dead-lettered: "
            f"{abs(missing):,} {'missing' if missing > 0 else 'too many'}"
        )
    return Account(rows["read"], rows[OUTPUT], rows[DEAD_LETTERS], tuple(problems))
