"""A model server asked from a Beam pipeline as its guides show it: a dict for each row, a request for each batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import apache_beam as beam
import apache_beam.runners.portability.fn_api_runner.fn_runner
import httpx
from apache_beam.options.pipeline_options import PipelineOptions

from tests.benchmarks.contestants.common import WORKERS, measure
from tests.benchmarks.contestants.naive_rest import Asking, Row, asking_from_command_line
from tests.benchmarks.contestants.stock import ParseLine


class Ask(beam.DoFn):
    """A batch of dicts -> lines of key and prediction."""

    def __init__(self, url: str) -> None:
        self._url = url

    def setup(self) -> None:
        self._client = httpx.Client(timeout=60, trust_env=False)

    def process(self, batch: list[Row]) -> Iterable[str]:
        instances = [{name: value for name, value in row.items() if name != "source_id"} for row in batch]
        answer = self._client.post(
            self._url, content=json.dumps({"instances": instances}), headers={"Content-Type": "application/json"}
        )
        answer.raise_for_status()
        for row, (prediction,) in zip(batch, json.loads(answer.text)["predictions"], strict=True):
            yield f"{row['source_id']},{prediction}"

    def teardown(self) -> None:
        self._client.close()


def run(job: Asking) -> None:
    """Builds the pipeline and waits for its end."""
    with open(job.input) as file:
        names = file.readline().strip().split(",")
    options = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={WORKERS}"]
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        _ = (
            pipeline
            | beam.io.ReadFromText(job.input, skip_header_lines=1)
            | beam.ParDo(ParseLine(names))
            | beam.BatchElements(min_batch_size=job.batch_rows, max_batch_size=job.batch_rows)
            | beam.ParDo(Ask(job.url))
            | beam.io.WriteToText(f"{job.output}/part", file_name_suffix=".csv", header="source_id,predictions")
        )


if __name__ == "__main__":
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    measure(run, asking_from_command_line())
