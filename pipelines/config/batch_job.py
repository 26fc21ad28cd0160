"""Defines the part of a config that has a batch prediction job call the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import Name, Strict
from pipelines.config.model import Tensors, refuse_two_signatures
from pipelines.config.paths import AnyPath

Label = Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,63}$")]


class BatchJobConfig(Strict):
    """Has a managed service predict the rows: instances are written, a job is submitted, its results are joined."""

    type: Literal["batch_job"]
    service: Literal["vertex", "ai_platform"] = Field(
        "vertex", description="Which service runs the job. Google ended ai_platform on 31 January 2025."
    )
    resource: Name = Field(
        description="The model: projects/P/locations/L/models/M (vertex), projects/P/models/M[/versions/V] "
        "(ai_platform)."
    )
    folder: AnyPath = Field(
        description="Folder for instances, prepared rows and results, gs:// (local only for a local server); each run "
        "has a folder of its own in it, which stays after the run."
    )
    url: Name | None = Field(
        None, repr=False, description="Address of the service, such as http://127.0.0.1:8501; Google's by default."
    )
    region: Name | None = Field(
        None, description="ai_platform: where the job runs. vertex: the resource says it; leave it out."
    )
    signature: Name = "serving_default"
    signature_from: AnyPath | None = Field(
        None, description="Folder of a SavedModel to learn the inputs from; give it, or inputs."
    )
    inputs: Tensors | None = Field(
        None,
        description='Inputs of the model, {input: dtype} or {input: {"dtype": ..., "shape": [...]}}; use it instead of '
        "signature_from.",
    )
    outputs: Tensors | None = Field(
        None,
        description="Outputs of the model, as inputs are given; use it beside inputs. By default one float32 named "
        "predictions.",
    )
    instances_format: Literal["jsonl", "tf_record", "tf_record_gzip"] = Field(
        "jsonl",
        description="What the service reads: JSON lines, or TFRecords of tf.Examples, packed with gzip or not, for a "
        "model whose one input parses them.",
    )
    key_field: Name = Field(
        "key",
        description="vertex: member of an instance that carries its key; the service takes it out of the instance. Of "
        "TFRecords: a feature, which the model does not parse.",
    )
    key_input: Name | None = Field(
        None,
        description="ai_platform: input of the model, a string, that takes the key of a row. Of TFRecords: a feature "
        "that the model parses.",
    )
    key_output: Name | None = Field(None, description="ai_platform: output of the model that gives that key back.")
    machine_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")] = Field(
        "n1-standard-2", description="vertex: machine type of the nodes."
    )
    accelerator_type: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        None, description="vertex: accelerator of the nodes, such as NVIDIA_TESLA_T4; none by default."
    )
    accelerator_count: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="vertex: accelerators of a node, if it has any."
    )
    starting_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="vertex: number of nodes; the instances of a model of one's own are cut into as many parts."
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="Number of nodes at most; ai_platform: maxWorkerCount."
    )
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        64, description="Instances in a call of the model; 64 is the services' default."
    )
    runtime_version: Name | None = Field(
        None, description="ai_platform: the service's TensorFlow; by default the model version's own."
    )
    service_account: Name | None = Field(
        None, description="vertex: account that the job runs as; by default the project's own."
    )
    labels: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], Label] = Field(
        {}, description="Labels of the job."
    )
    max_instance_bytes: Annotated[int, Field(ge=1024)] = Field(
        10_000_000, description="Bytes of a row's instance; a larger row is a dead letter."
    )
    poll_s: Annotated[float, Field(gt=0)] = Field(
        30, description="Seconds between two looks at the job, at most; the first ones come faster."
    )
    deadline_s: Annotated[float, Field(gt=0)] = Field(
        86_400, description="Seconds that a run waits for the job; the job goes on, and a later run joins its results."
    )
    rows_per_node_hour: Annotated[float, Field(gt=0)] = Field(
        6_000_000, description="Rows that a node predicts in an hour, for the estimate of the costs."
    )
    startup_hours: Annotated[float, Field(ge=0)] = Field(
        0.15, description="Hours that the service bills for starting, for the estimate of the costs."
    )
    max_cost: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Most that a job may be estimated to cost, in the price file's currency; else it is not submitted.",
    )
    credentials: Literal["google", "none"] | None = Field(
        None, description="google sends a token of Google's default credentials; by default to Google's hosts only."
    )

    @property
    def sends_records(self) -> bool:
        """Tells whether instances are records of tf.Examples, and not JSON lines."""
        return self.instances_format != "jsonl"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.inputs is None and self.signature_from is None:
            raise ValueError("signature_from is missing: a job does not tell the model's inputs; give it, or inputs")
        refuse_two_signatures(self.signature_from, self.inputs, self.outputs)
        if self.sends_records and self.signature_from is None:
            raise ValueError(
                f"instances_format: {self.instances_format} is for models that parse tf.Examples, and inputs do not "
                "tell that; give signature_from in place of inputs, or jsonl"
            )
        if self.service == "ai_platform":
            if self.key_input is None or self.key_output is None:
                raise ValueError(
                    "key_input and key_output are missing: ai_platform keeps neither order nor keys, so the model must "
                    "take a key (a string input) and give it back (an output)"
                )
            if self.region is None:
                raise ValueError("region is missing: where is the job to run, such as us-central1?")
        elif self.key_input or self.key_output or self.runtime_version:
            raise ValueError("key_input, key_output and runtime_version are for ai_platform; leave them out")
        elif self.region:
            raise ValueError("region: the resource says it (projects/P/locations/L/models/M); leave it out")
        elif self.signature != "serving_default":
            raise ValueError("signature: vertex calls serving_default only; leave it out")
        if self.starting_replicas > self.max_replicas:
            raise ValueError("starting_replicas is more than max_replicas; lower one, or raise the other")
        return self
