"""Tables of 20,000 columns: what is done for each name does not look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from inference.columns.binding import bind
from inference.errors import BindingError
from model.specs import Signature, TensorSpec
from pipelines.formats import reader_class
from pipelines.formats.base import ReadSpec
from pipelines.formats.csv.reader import read_header
from pipelines.formats.dialect import Dialect
from pipelines.rows.origin import Block

WIDE = 20_000
NAMES = [f"column {number}" for number in range(WIDE)]


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.fixture
def comparisons() -> Callable[[], int]:
    Counted.compared = 0
    return lambda: Counted.compared


class Columns:
    """A schema that counts how often all of its names are listed."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self.listed = 0

    @property
    def names(self) -> list[str]:
        self.listed += 1
        return list(self._schema.names)

    def __iter__(self) -> Iterator[pa.Field]:
        return iter(self._schema)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._schema, name)


@pytest.mark.parametrize("format", ["avro", "orc", "parquet"])
def test_names_are_not_listed_for_each_column(tmp_path: Path, format: str) -> None:
    names = [name.replace(" ", "_") for name in NAMES[:300]]
    row = dict.fromkeys(names, 1.5)
    path = tmp_path / f"in.{format}"
    if format == "avro":
        fields = [{"name": name, "type": "double"} for name in names]
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema({"type": "record", "name": "r", "fields": fields}), [row])
    else:
        (pq if format == "parquet" else orc).write_table(pa.Table.from_pylist([row]), path)
    columns = Columns(pa.schema([(name, pa.float64()) for name in names]))
    reader = reader_class(format)(ReadSpec(cast(pa.Schema, columns)))
    [split] = reader.splits(str(path), path.stat().st_size, 1 << 30)
    [block] = reader.read(split)
    assert isinstance(block, Block)
    assert block.batch.to_pylist() == [row]
    assert columns.listed < 10


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(",".join([*NAMES, "column 19999"]) + "\n")
    with pytest.raises(ValueError, match="column 'column 19999' appears twice in the header"):
        read_header(str(path), {})


def test_a_model_of_as_many_inputs_is_bound(comparisons: Callable[[], int]) -> None:
    schema = pa.schema([(name, pa.float32()) for name in NAMES])
    specs = tuple(TensorSpec(Counted(name), "float32", (None,)) for name in NAMES)
    signature = Signature("serving_default", specs, (), "predict")
    assert len(bind(signature, schema, {Counted(NAMES[0]): NAMES[1]}).inputs) == WIDE
    assert comparisons() < 20 * WIDE


def test_as_many_inputs_without_a_column_are_all_named(comparisons: Callable[[], int]) -> None:
    specs = tuple(TensorSpec(f"input {number}", "float32", (None,)) for number in range(2_000))
    schema = pa.schema([(name, pa.float32()) for name in NAMES[:2_000]])
    with pytest.raises(BindingError) as raised:
        bind(Signature("serving_default", specs, (), "predict"), schema)
    assert len(raised.value.problems) == 2_000
    assert all("no column" in problem for problem in raised.value.problems)
    assert sum("did you mean" in problem for problem in raised.value.problems) <= 20


def test_quotes_are_counted_once_however_many_rows_are_malformed() -> None:
    """Text behind a closing quote, in each row of a block: each was a reason to count all quotes behind it."""

    class Bytes(bytes):
        counted = 0

        def count(self, sub: Any, start: Any = 0, end: Any = None) -> int:
            end = len(self) if end is None else end
            Bytes.counted += end - start
            return bytes.count(self, sub, start, end)

    data = Bytes(b'"ab"c,1\n' * 5_000)
    ends = Dialect(quote=b'"').row_ends(data, final=False)
    assert ends.tolist() == list(range(8, len(data) + 1, 8))
    assert Bytes.counted < 10 * len(data)
