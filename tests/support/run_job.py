"""Runs a job as Dataflow gets it: the staged pipeline, on Beam's in-process runner. Prints its counters as JSON."""

from __future__ import annotations

import json
import sys

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


def main(path: str) -> None:
    """Runs the pipeline at a path on any file system."""
    with FileSystems.open(path) as file:
        proto = beam_runner_api_pb2.Pipeline.FromString(file.read())
    options = PipelineOptions(["--runner=FnApiRunner", "--project=test-project"])
    result = beam.Pipeline.from_runner_api(proto, FnApiRunner(), options).run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    found = [[each.key.step, each.key.metric.namespace, each.key.metric.name, each.committed] for each in counters]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
