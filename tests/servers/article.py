"""`python -m tests.servers.article stream|batch`: the article's grid, against emulators of Pub/Sub and BigQuery.

Starts the emulators on this machine (they need Go and Python 3.11), makes topic, subscription and tables of births, and
compares the ways of configs/compare-article-stream.json or -batch.json. Other options go to `pipelines.compare`; a size
more is --set 'inputs.10000000={"source.table": "test-project.births.births_10000000"}'.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import compare
from pipelines.config.load import load_comparison
from tests.servers.bigquery_emulator import DATASET, bigquery_emulator
from tests.servers.pubsub_emulator import pubsub_emulator

SIZES = (10_000, 100_000, 1_000_000)
_CHUNK = 500_000


@contextlib.contextmanager
def emulators(kind: str, sizes: Sequence[int] = SIZES) -> Iterator[None]:
    """Runs what the grid needs, and points this process and its children to it.

    Args:
      kind: stream or batch.
      sizes: of the tables of births.
    """
    with contextlib.ExitStack() as stack:
        bigquery = stack.enter_context(bigquery_emulator())
        hosts = {"BIGQUERY_EMULATOR_HOST": bigquery.rest, "BIGQUERY_STORAGE_EMULATOR_HOST": bigquery.grpc}
        if kind == "stream":
            hosts["PUBSUB_EMULATOR_HOST"] = stack.enter_context(pubsub_emulator()).host
        else:
            for size in sizes:
                _load_births(bigquery, size)
        before = {name: os.environ.get(name) for name in hosts}
        os.environ.update(hosts)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _load_births(bigquery: Any, rows: int) -> None:
    """Makes the table births_<rows>."""
    import numpy as np
    import pyarrow.json
    import pyarrow.parquet as pq
    from google.cloud.bigquery import LoadJobConfig, SchemaField

    from pipelines.connectors.simulated.natality import births_at

    types = {"int64": "INT64", "double": "FLOAT64", "string": "STRING", "bool": "BOOL"}
    with tempfile.TemporaryFile() as content, contextlib.ExitStack() as stack:
        writer = None
        for first in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - first)
            lines = births_at(np.arange(first, first + count), 2001, np.zeros(count, np.int64)).to_pylist()
            table = pyarrow.json.read_json(io.BytesIO(b"\n".join(lines)))
            table = table.drop_columns([name for name in ("timestamp",) if name in table.column_names])
            if writer is None:
                schema = [SchemaField(field.name, types[str(field.type)]) for field in table.schema]
                writer = stack.enter_context(pq.ParquetWriter(content, table.schema))
            writer.write_table(table)
        stack.close()
        content.seek(0)
        with bigquery.client() as client:
            config = LoadJobConfig(source_format="PARQUET", schema=schema)
            client.load_table_from_file(content, f"{DATASET}.births_{rows}", job_config=config).result()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    kind, *others = sys.argv[1:] if argv is None else argv
    path = f"configs/compare-article-{kind}.json"
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--set", action="append", default=[])
    sizes = sorted(map(int, load_comparison(path, parser.parse_known_args(others)[0].set).inputs))
    with emulators(kind, sizes):
        return compare.main(["--config", path, *others])


if __name__ == "__main__":
    sys.exit(main())
