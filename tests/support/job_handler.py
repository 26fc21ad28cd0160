"""Calls a model by batch prediction jobs as if it were called directly, to hold jobs to what handlers are held to."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from inference.columns.binding import ColumnMap
from inference.handler_base import VERSION_COLUMN, Columnar
from inference.job.ai_platform import AiPlatformJobs, AiPlatformJobSettings
from inference.job.keys import group_name, new_shard
from inference.job.making import InstanceMaker
from inference.job.matching import by_group, match
from inference.job.service import BatchJobService, JobOrder, JobStatus
from inference.job.vertex import VertexJobs, VertexJobSettings
from inference.marks import make_batch
from model.cloud.rest import RestApi
from model.specs import Signature
from pipelines.connectors.batch_job import results
from pipelines.formats.tfrecord.frames import frame
from tests.support.job_server import VERTEX


class JobHandler(Columnar, ModelHandler[pa.RecordBatch, pa.RecordBatch, BatchJobService]):  # type: ignore[misc]
    """Predicts record batches, all those of a call by one job.

    Args:
      url: of the server that runs jobs.
      folder: a local folder that it may use.
      service: vertex or ai_platform.
      model: its name on the server; of ai_platform, one with a key that goes through it.
      signature: what the model takes and gives, without the key.
      are_records: whether instances are TFRecords.
      columns, defaults, max_batch_size, model_version: as of other handlers.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        service: str,
        model: str,
        signature: Signature,
        *,
        are_records: bool = False,
        columns: ColumnMap | None = None,
        defaults: dict[str, Any] | None = None,
        max_batch_size: int = 64,
        model_version: bool = False,
    ) -> None:
        Columnar.__init__(
            self,
            signature,
            columns=columns,
            defaults=defaults,
            max_batch_size=max_batch_size,
            model_version=model_version,
            batching={},
        )
        self._url, self._folder, self._service, self._model = url, folder, service, model
        self._are_records, self._batch_size = are_records, max_batch_size
        self._maker = InstanceMaker(
            signature,
            columns or {},
            defaults or {},
            {},
            key_name="key" if service == "vertex" else "row_key",
            are_records=are_records,
            most_bytes=10_000_000,
        )

    def load_model(self) -> BatchJobService:
        api = RestApi(f"{self._url}/v1", None, timeout=60, tell=print)
        instances_format = "tf_record" if self._are_records else "jsonl"
        if self._service == "ai_platform":
            name = f"projects/p/models/{self._model}"
            of_ai_platform = AiPlatformJobSettings(
                name, "us-central1", "row_key_out", 1, self._batch_size, instances_format=instances_format
            )
            return AiPlatformJobs(api, of_ai_platform)
        of_vertex = VertexJobSettings(
            f"{VERTEX}/models/{self._model}", "key", "n1-standard-2", 1, 1, batch_size=self._batch_size,
            instances_format=instances_format,
        )  # fmt: skip
        return VertexJobs(api, of_vertex)

    def run_inference(
        self, batch: Sequence[pa.RecordBatch], model: BatchJobService, inference_args: dict[str, Any] | None = None
    ) -> list[pa.RecordBatch]:
        shard = new_shard()
        groups = [group_name(shard, number) for number in range(len(batch))]
        made = [self._maker.make(group, rows) for group, rows in zip(groups, batch, strict=True)]
        form = model.form(self.signature.outputs)
        found: dict[str, list[pa.Table]] = defaultdict(list)
        version, said = None, [""]
        if any(instances for instances, _ in made):
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            with (folder / "instances").open("wb") as file:
                for part in (part for instances, _ in made for part in instances):
                    file.write(frame(part) if self._are_records else "".join(part.to_pylist()).encode())
            order = JobOrder(f"job_{shard}", shard, str(folder / "instances"), f"{folder}/results/")
            status = _done(model, model.submit(order)[0])
            version = status.model_version
            files = results.find(status.output)
            said = results.what_went_wrong(files.errors)
            for piece in results.pieces(files.results):
                for block in results.line_blocks(piece):
                    sorted_results, unmatched = by_group(form.read(block))
                    assert not unmatched
                    for each in sorted_results:
                        found[each.group].append(each.results)
        predicted = []
        for name, rows, (_, refused) in zip(groups, batch, made, strict=True):
            matched = match(name, rows.num_rows, found.pop(name, []), form.schema, "; ".join(said), list(refused))
            assert not matched.unmatched
            columns = dict(zip(rows.schema.names, rows.columns, strict=True)) | matched.outputs
            if self._tells_version:
                columns[VERSION_COLUMN] = pa.repeat(pa.scalar(version, pa.string()), rows.num_rows)
            predicted.append(make_batch(columns, dict(sorted({**matched.failures, **refused}.items()))))
        assert not found
        return predicted


def _done(service: BatchJobService, status: JobStatus) -> JobStatus:
    until = time.monotonic() + 60
    while not status.state.is_final:
        assert time.monotonic() < until, status
        time.sleep(0.01)
        status = service.get(status.resource)
    assert status.state.has_results, status
    return status
