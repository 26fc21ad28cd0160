"""Makes the instances of a group of rows: binds columns, coerces values, refuses what cannot be sent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.batches import shape_groups
from inference.columns.binding import ColumnMap, bind
from inference.columns.bound import Binding
from inference.columns.inputs import prepare
from inference.errors import BindingError, Failure, RowError
from inference.examples import encode_examples
from inference.job.instances import instance_lines, rounded_rows
from inference.job.keys import keys_of
from inference.job.records import keyed_records
from model.specs import Signature, TensorSpec

Rows = npt.NDArray[np.int64]


class InstanceMaker:
    """Makes instances of rows; those that the model cannot get are refused, each alone.

    Args:
      signature: what the model takes, without the key.
      columns: model input -> column, or columns.
      defaults: model input (or column) -> value of rows that miss it.
      encodings: column -> "base64", for text that stands for bytes.
      key_name: member of an instance, or feature of a tf.Example, that holds the key.
      are_records: whether instances are records of tf.Examples, and not lines of JSON.
      most_bytes: of an instance.
    """

    def __init__(
        self,
        signature: Signature,
        columns: ColumnMap,
        defaults: Mapping[str, object],
        encodings: Mapping[str, str],
        *,
        key_name: str,
        are_records: bool,
        most_bytes: int,
    ) -> None:
        self._signature = signature
        self._columns = columns
        self._defaults = defaults
        self._encodings = encodings
        self._key_name = key_name
        self._are_records = are_records
        self._most_bytes = most_bytes
        self._bindings: dict[pa.Schema, Binding] = {}

    def make(self, group: str, batch: pa.RecordBatch) -> tuple[list[pa.Array], dict[int, Failure]]:
        """Makes the instances of the rows of a group, in any order.

        Returns:
          Lines (texts) or records (large binary), in several arrays; and why rows have none, by row.
        """
        try:
            binding = self._binding(batch.schema)
        except BindingError as error:
            failure = Failure("coerce", type(error).__name__, str(error)[:500])
            return [], dict.fromkeys(range(batch.num_rows), failure)
        arrays, failures = prepare(batch, binding)
        rounded = {} if self._are_records else rounded_rows(arrays, [bound.spec for bound in binding.inputs])
        for row, message in rounded.items():
            failures.setdefault(row, Failure("coerce", "CoercionError", message))
        good = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), np.fromiter(failures, np.int64, len(failures)))
        keys = keys_of(group, batch.num_rows)
        instances: list[pa.Array] = []
        for rows in shape_groups(arrays, good, binding):
            instances += self._instances(keys, arrays, rows, binding, failures)
        return instances, failures

    def _instances(
        self, keys: pa.Array, arrays: list[pa.Array], rows: Rows, binding: Binding, failures: dict[int, Failure]
    ) -> list[pa.Array]:
        """The instances of rows whose lists have the same lengths; rows that make none are added to `failures`."""
        specs: list[TensorSpec] = [bound.spec for bound in binding.inputs]
        is_all = len(rows) == len(keys)
        chosen = arrays if is_all else [array.take(pa.array(rows)) for array in arrays]
        try:
            if binding.encode_examples:
                chosen = [pa.array(encode_examples(chosen, binding), pa.binary())]
                specs = [spec for spec in self._signature.inputs if spec.name == self._signature.examples_input]
            own = keys if is_all else keys.take(pa.array(rows))
            if self._are_records:
                made = keyed_records(chosen[0], own, self._key_name)
            else:
                made = instance_lines(own, self._key_name, chosen, specs)
        except (RowError, pa.ArrowException, ValueError) as error:
            if len(rows) == 1:
                message = " ".join(str(error).split())[:500]
                failures[int(rows[0])] = Failure("coerce", type(error).__name__, message)
                return []
            halves = np.array_split(rows, 2)
            return [part for half in halves for part in self._instances(keys, arrays, half, binding, failures)]
        too_long = pc.greater(pc.binary_length(made), self._most_bytes)
        if not pc.any(too_long).as_py():
            return [made]
        for row in rows[too_long.to_numpy(zero_copy_only=False)].tolist():
            failures[row] = Failure("predict", "RequestTooLargeError", self._too_long())
        kept = made.filter(pc.invert(too_long))
        return [kept] if len(kept) else []

    def _too_long(self) -> str:
        return f"the instance has more than {self._most_bytes:,} bytes; leave columns out, or raise max_instance_bytes"

    def _binding(self, schema: pa.Schema) -> Binding:
        found = self._bindings.get(schema)
        if found is None:
            found = bind(self._signature, schema, self._columns, self._defaults, self._encodings)
            self._bindings[schema] = found
        return found
