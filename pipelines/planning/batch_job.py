"""Checks a batch prediction job against its service, folder and model, before anything is written or paid."""

from __future__ import annotations

import logging
from dataclasses import replace

from inference.endpoint.remote_signature import check_inputs
from inference.errors import BindingError
from inference.job.records import key_feature_start
from inference.job.vertex import region_of
from model.errors import ModelError
from model.quiet import quiet_imports
from model.specs import Signature, TensorSpec
from pipelines import storage
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.connectors.batch_job import client
from pipelines.plan import PlannedModel
from pipelines.planning.output_places import unwritable_folder
from pipelines.planning.told_signature import told_signature

_LOG = logging.getLogger(__name__)
_LOOKS = 4
"""Attempts to reach the service before a run begins: whoever waits for it can still start a server."""


def find(config: BatchJobConfig, problems: list[str], *, offline: bool = False) -> PlannedModel | None:
    """Looks at the model and the service of a job; what is wrong is added to `problems`.

    Args:
      config: what the config says.
      problems: gets one line for each mistake.
      offline: do not connect to the service.
    """
    found = client.check_address(config)
    if not storage.is_remote(config.folder):
        found += unwritable_folder("model.folder", config.folder, config.folder)
    try:
        signature = _signature(config, found)
    except ModelError as error:
        found.append(f"model.signature_from: {error}")
        signature = None
    except BindingError as error:
        found += error.problems
        signature = None
    if not found and not offline:
        found += _refused(config)
    problems += found
    return None if found or signature is None else PlannedModel(config, config.resource, signature)


def _signature(config: BatchJobConfig, problems: list[str]) -> Signature | None:
    """Returns what the model takes and gives, without the key that goes through it."""
    signature = told_signature(config)
    if signature is None:
        return None
    check_inputs(signature)
    if config.sends_records:
        return _signature_of_records(config, signature, problems)
    names = [spec.name for spec in signature.inputs]
    if config.service == "vertex":
        if config.key_field in names:
            problems.append(
                f"model.key_field: the model has an input '{config.key_field}'; choose a name that no input has"
            )
        return signature
    declared = config.inputs is not None
    problems += _passed_through("key_input", config.key_input, signature.inputs, declared)
    problems += _passed_through("key_output", config.key_output, signature.outputs, declared)
    return replace(
        signature,
        inputs=tuple(spec for spec in signature.inputs if spec.name != config.key_input),
        outputs=tuple(spec for spec in signature.outputs if spec.name != config.key_output),
    )


def _signature_of_records(config: BatchJobConfig, signature: Signature, problems: list[str]) -> Signature:
    """Returns what a model takes of a tf.Example and gives, without the key that is in it."""
    where = "model.key_field" if config.service == "vertex" else "model.key_input"
    name = str(config.key_field if config.service == "vertex" else config.key_input)
    if signature.examples_input is None or len(signature.inputs) != 1:
        problems.append(
            f"model.instances_format: {config.instances_format} keeps the key of a row in a tf.Example, and the model "
            "has not one input that parses them; use jsonl, where the key is beside the inputs"
        )
        return signature
    try:
        key_feature_start(name)
    except ValueError as error:
        problems.append(f"{where}: {error}")
    features = signature.example_features
    found = next((feature for feature in features if feature.name == name), None)
    if config.service == "vertex":
        if found is not None:
            problems.append(f"{where}: the model parses a feature '{name}'; choose a name that no feature has")
        return signature
    if features and found is None:
        there = ", ".join(feature.name for feature in features[:20])
        problems.append(f"{where}: the model parses no feature '{name}' (it parses {there})")
    elif found is not None and found.dtype != "string":
        problems.append(f"{where}: the feature '{name}' is {found.dtype}, and keys are text; parse it as a string")
    problems += _passed_through("key_output", config.key_output, signature.outputs, False)
    return replace(
        signature,
        outputs=tuple(spec for spec in signature.outputs if spec.name != config.key_output),
        example_features=tuple(feature for feature in features if feature.name != name),
    )


def _passed_through(where: str, name: str | None, specs: tuple[TensorSpec, ...], declared: bool) -> list[str]:
    found = next((spec for spec in specs if spec.name == name), None)
    if found is None:
        what = where.removeprefix("key_")
        there = ", ".join(spec.name for spec in specs[:20])
        return [] if declared else [f"model.{where}: the model has no {what} '{name}' (it has {there})"]
    if found.dtype != "string":
        return [f"model.{where}: '{name}' is {found.dtype}, and keys are text; the model must take a string there"]
    return []


def _refused(config: BatchJobConfig) -> list[str]:
    """What the service says to a call that costs nothing, and whether the bucket is where the model is."""
    try:
        with client.explained(config):
            client.service_of(config, _LOG.warning, _LOOKS).look()
        if config.folder.startswith("gs://") and config.service == "vertex" and not client.is_local(config):
            return _far(config)
    except ConfigError as error:
        return error.problems
    except client.JobServiceError as error:
        return [f"model: {error}"]
    return []


def _far(config: BatchJobConfig) -> list[str]:
    with quiet_imports():
        from pipelines.connectors.bigquery import locations

    bucket = config.folder.removeprefix("gs://").partition("/")[0]
    region = region_of(config.resource)
    place, parts = locations.of_bucket(bucket, "model.folder")
    if not place or place.lower() == region.lower():
        return []
    if locations.serves(place, parts, region):
        return [
            f"model.folder: the bucket {bucket} is in {place}, and jobs of Vertex AI take buckets of one region only; "
            f"give one in {region}"
        ]
    return [f"model.folder: the bucket {bucket} is in {place}, and the model is in {region}; give a bucket in {region}"]
